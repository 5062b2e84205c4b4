"""The primitives behind the algorithm URIs, as rows of small tables.

A row says how to compute, never whether it is allowed: that is the profile's word, asked
before anything here runs [threats C01-C12]. The algorithm must fit the key and the key the
algorithm; neither chooses the other. No HMAC, no SHA-1 signature, no PKCS#1 v1.5
encryption and no CBC is reachable from this file, so none can be negotiated.
"""

import hashlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm

from gateway.as4 import ns

# -- base64 -------------------------------------------------------------------

_XML_SPACE = str.maketrans("", "", " \t\r\n")


def decode_base64(text: str | None) -> bytes:
    """Octets of xs:base64Binary. White space of XML is legal in it, any second spelling is not.

    Raises `ValueError`: foreign characters, wrong padding, bits that the octets do not need
    [threats C07].
    """
    text = text or ""
    if "\n" in text or " " in text or "\t" in text or "\r" in text:
        text = text.translate(_XML_SPACE)  # slow, and most senders write one line
    octets = a2b_base64(text, strict_mode=True) if text else b""
    if b2a_base64(octets, newline=False) != text.encode("ascii"):
        raise ValueError("base64: not the one spelling of these octets")
    return octets


def encode_base64(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


# -- digests and OAEP ---------------------------------------------------------

#: Reference digests we can compute.
DIGESTS: dict[str, Callable[..., "hashlib._Hash"]] = {ns.SHA256: hashlib.sha256}

#: AES-GCM content encryption: URI to key size in octets.
CONTENT_KEY_SIZES = {ns.AES128_GCM: 16, ns.AES256_GCM: 32}

SHA1_DIGEST = ns.DS + "sha1"
SHA384_DIGEST = "http://www.w3.org/2001/04/xmldsig-more#sha384"
SHA512_DIGEST = ns.XENC + "sha512"
#: Hashes of RSA-OAEP, by digest URI and by MGF URI; the two are independent [as4 3.8].
OAEP_DIGESTS: dict[str, type[HashAlgorithm]] = {
    SHA1_DIGEST: SHA1, ns.SHA256: SHA256, SHA384_DIGEST: SHA384, SHA512_DIGEST: SHA512,
}  # fmt: skip
OAEP_MGFS: dict[str, type[HashAlgorithm]] = {
    ns.MGF1_SHA1: SHA1, ns.MGF1_SHA256: SHA256, ns.XENC11 + "mgf1sha384": SHA384, ns.XENC11 + "mgf1sha512": SHA512,
}  # fmt: skip


def oaep(digest: str, mgf: str) -> padding.OAEP:
    """RSA-OAEP with an empty label. `KeyError` for a URI without a row."""
    return padding.OAEP(padding.MGF1(OAEP_MGFS[mgf]()), OAEP_DIGESTS[digest](), None)


# -- curves -------------------------------------------------------------------

#: Curves of the Alternative Elliptic Curve option [as4 3.10]; SECT curves have no row [threats C08].
P256, P384, P521 = "urn:oid:1.2.840.10045.3.1.7", "urn:oid:1.3.132.0.34", "urn:oid:1.3.132.0.35"
BRAINPOOL_P256 = "urn:oid:1.3.36.3.3.2.8.1.1.7"
CURVES: dict[str, type[ec.EllipticCurve]] = {
    P256: ec.SECP256R1,
    P384: ec.SECP384R1,
    P521: ec.SECP521R1,
    BRAINPOOL_P256: ec.BrainpoolP256R1,
}
_CURVE_URIS = {curve.name: uri for uri, curve in CURVES.items()}


def curve_uri(curve: ec.EllipticCurve) -> str | None:
    """The URN of a curve we know, else None."""
    return _CURVE_URIS.get(curve.name)


# -- public keys --------------------------------------------------------------

RSA_BITS = range(2048, 8193)
RSA_EXPONENTS = range(3, 2**32 + 1, 2)

#: The y coordinates of Edwards25519 points of small order, canonical or not, sign bit cleared.
#: With such a key OpenSSL calls an all-zero signature valid [threats C09].
_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",  # p - 1
        "ed" + "ff" * 30 + "7f",  # p: a second spelling of 0
        "ee" + "ff" * 30 + "7f",  # p + 1: a second spelling of 1
    )
)


def check_public_key(key: PublicKeyTypes) -> None:
    """Refuse keys that make verification meaningless or expensive. Raises `ValueError`.

    RSA of 2048-8192 bits with an odd exponent of 3..2^32: a 3072-bit exponent costs 200 times
    the work [threats C11]. Ed25519 keys of small order sign everything [threats C09].
    """
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS:
            raise ValueError(f"RSA modulus of {key.key_size} bits")
        if key.public_numbers().e not in RSA_EXPONENTS:
            raise ValueError("RSA exponent out of range")
    elif isinstance(key, ed25519.Ed25519PublicKey):
        encoded = bytearray(key.public_bytes_raw())
        encoded[31] &= 0x7F
        if bytes(encoded) in _SMALL_ORDER:
            raise ValueError("Ed25519 key of small order")


#: What reading a certificate, its extensions or its key may raise, instead of one kind of error.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@lru_cache(512)
def public_key_of(certificate: bytes) -> PublicKeyTypes:
    """The checked public key of a DER certificate. Raises `ValueError`.

    Kept by all octets of the certificate: OpenSSL prepares a key at its first use, and the
    certificates that come here are the pinned ones of agreements, or have a path to their anchors.
    """
    return stranger_key(certificate)


def stranger_key(certificate: bytes) -> PublicKeyTypes:
    """The same for a certificate that nobody knows: nothing of it is kept, where it would drive others out."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UNREADABLE as error:
        raise ValueError(f"certificate: {error}") from None
    check_public_key(key)
    return key


# -- signatures ---------------------------------------------------------------


def _rsa_sha256(key: rsa.RSAPublicKey, value: bytes, octets: bytes) -> None:
    key.verify(value, octets, padding.PKCS1v15(), SHA256())


def _ecdsa_sha256(key: ec.EllipticCurvePublicKey, value: bytes, octets: bytes) -> None:
    """r || s, each as long as the order of the curve; DER is not accepted [threats C12]."""
    size = (key.curve.group_order.bit_length() + 7) // 8
    r, s = int.from_bytes(value[:size], "big"), int.from_bytes(value[size:], "big")
    if len(value) != 2 * size or not (0 < r < key.curve.group_order and 0 < s < key.curve.group_order):
        raise InvalidSignature
    key.verify(encode_dss_signature(r, s), octets, ec.ECDSA(SHA256()))


def _ed25519(key: ed25519.Ed25519PublicKey, value: bytes, octets: bytes) -> None:
    if len(value) != 64:
        raise InvalidSignature
    key.verify(value, octets)


_SIGNATURES: dict[str, tuple[type, Callable[..., None]]] = {
    ns.RSA_SHA256: (rsa.RSAPublicKey, _rsa_sha256),
    ns.ECDSA_SHA256: (ec.EllipticCurvePublicKey, _ecdsa_sha256),
    ns.ED25519: (ed25519.Ed25519PublicKey, _ed25519),
}


def fits(algorithm: str, key: PublicKeyTypes, curves: frozenset[str] | None = None) -> bool:
    """Whether a signature algorithm and a public key belong together [threats C08]."""
    row = _SIGNATURES.get(algorithm)
    if row is None or not isinstance(key, row[0]):
        return False
    if isinstance(key, ec.EllipticCurvePublicKey):
        return curve_uri(key.curve) in (CURVES if curves is None else curves)
    return True


def check_signature(algorithm: str, key: PublicKeyTypes, value: bytes, octets: bytes) -> None:
    """Verify `value` over `octets`. Raises `InvalidSignature`, also when key and algorithm do not fit."""
    if not fits(algorithm, key):
        raise InvalidSignature
    try:
        _SIGNATURES[algorithm][1](key, value, octets)
    except ValueError:  # some lengths are refused by the library before it computes
        raise InvalidSignature from None


def algorithm_for(key: PublicKeyTypes) -> str | None:
    """The one signature algorithm a public key is used with, None for keys that do not sign."""
    return next((uri for uri, (kind, _) in _SIGNATURES.items() if isinstance(key, kind)), None)
