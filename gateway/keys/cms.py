"""Detached CMS signatures (RFC 5652), made with one of our signing keys wherever it is kept.

The `cryptography` library signs PKCS#7 with private keys it holds itself; ours may be rows of a
database or handles of a token, and Ed25519 it does not do at all. What is needed is one fixed shape:
one signer, no signed attributes, so that the signature is over the octets of the content and a
`SigningKey` is all it takes. Partners check it with `openssl cms -verify`.

Ed25519 in CMS (RFC 8419) is beyond OpenSSL 3.0, which most partners have: there the signature stands
by itself, for `openssl pkeyutl -verify`.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway.as4 import ns
from gateway.as4.wss.keys import SigningKey
from gateway.keys.der import INTEGER, OCTET_STRING, OID, SEQUENCE, SET, read

_CONTEXT_0 = 0xA0
_NULL = b"\x05\x00"


def _value(tag: int, *contents: bytes) -> bytes:
    """One DER value."""
    content = b"".join(contents)
    size = len(content)
    length = bytes([size]) if size < 0x80 else (
        bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8)
    )  # fmt: skip
    return bytes([tag]) + length + content


def _oid(hexadecimal: str) -> bytes:
    return _value(OID, bytes.fromhex(hexadecimal))


_SIGNED_DATA = _oid("2a864886f70d010702")
_DATA = _oid("2a864886f70d010701")
_SHA256 = _value(SEQUENCE, _oid("608648016503040201"))
_RSA = _value(SEQUENCE, _oid("2a864886f70d010101"), _NULL)
_ECDSA_SHA256 = _value(SEQUENCE, _oid("2a8648ce3d040302"))


def detached(key: SigningKey, content: bytes) -> bytes:
    """A CMS SignedData over `content`, without it, as DER; certificate and chain of the signer are inside.

    For RSA and elliptic curves. Raises `ValueError` for Ed25519, see `raw`.
    """
    if key.algorithm not in (ns.RSA_SHA256, ns.ECDSA_SHA256):
        raise ValueError("OpenSSL 3.0 checks no CMS with this kind of key")
    certificate = read(key.certificate).items()[0].items()
    # TBSCertificate: the version is [0] where there is one, then the serial number, the algorithm, the issuer.
    serial, _, issuer = certificate[certificate[0].tag == _CONTEXT_0 :][:3]
    algorithm = _RSA if key.algorithm == ns.RSA_SHA256 else _ECDSA_SHA256
    version = _value(INTEGER, b"\x01")
    signer = _value(
        SEQUENCE, version, _value(SEQUENCE, issuer.whole, serial.whole), _SHA256, algorithm,
        _value(OCTET_STRING, raw(key, content)),
    )  # fmt: skip
    signed = _value(
        SEQUENCE, version, _value(SET, _SHA256), _value(SEQUENCE, _DATA),
        # A SET OF in DER is sorted by its octets.
        _value(_CONTEXT_0, *sorted({key.certificate, *key.chain})), _value(SET, signer),
    )  # fmt: skip
    return _value(SEQUENCE, _SIGNED_DATA, _value(_CONTEXT_0, signed))


def raw(key: SigningKey, content: bytes) -> bytes:
    """The signature alone, as OpenSSL has it: RSA with PKCS#1 v1.5 and SHA-256, ECDSA as DER, Ed25519 as it is."""
    signature = key.sign(content)
    public = x509.load_der_x509_certificate(key.certificate).public_key()
    if key.algorithm != ns.ECDSA_SHA256 or isinstance(public, rsa.RSAPublicKey):
        return signature
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
