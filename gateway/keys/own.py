"""Our own keys outside files: how they are kept, opened, and proven before they are used.

A private key lies in the database as PKCS#8, sealed under a name of its own. Before a process says that it
can serve a ring it signs, verifies and unwraps with every key in it: a key that does not fit its
certificate, or a token that has gone, is found before anything depends on it.
"""

import os
import secrets

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from gateway.as4 import ns
from gateway.as4.wss.keys import DecryptionKey, SigningKey
from gateway.errors import KeyUnavailable

_PROBE = b"oots-as4-gateway self-test"
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def seal_name(id: str) -> str:
    """The name that the private part of key `id` is sealed under."""
    return f"own key {id}"


def private_octets(key: object) -> bytes:
    """A private key as PKCS#8 (DER), to be sealed at once."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def private_key(octets: bytes) -> object:
    """The private key of `private_octets`. Raises `KeyUnavailable`."""
    try:
        return load_der_private_key(octets, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnavailable("what was sealed is no private key") from None


def public_octets(key: object) -> bytes:
    """SubjectPublicKeyInfo (DER) of a public key."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def algorithm_of(public: object) -> str:
    """What people call a key: `RSA 3072`, `EC P-256`, `Ed25519`, `X25519`. The first word is its kind."""
    match public:
        case rsa.RSAPublicKey():
            return f"RSA {public.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {_CURVES.get(public.curve.name, public.curve.name)}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case x25519.X25519PublicKey():
            return "X25519"
    return type(public).__name__.removesuffix("PublicKey")


class TlsKey:
    """A certificate for TLS with its chain and private key."""

    __slots__ = ("_key", "certificate", "chain")

    def __init__(self, key: object, certificate: bytes, chain: tuple[bytes, ...] = ()) -> None:
        self._key, self.certificate, self.chain = key, certificate, chain

    def __repr__(self) -> str:
        return f"TlsKey({x509.load_der_x509_certificate(self.certificate).subject.rfc4514_string()!r})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")

    def load_into(self, context: object) -> None:
        """Make this the certificate of an `ssl.SSLContext`. Raises `ssl.SSLError`."""
        password = secrets.token_bytes(32).hex().encode()
        pem = b"".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (self.certificate, *self.chain)
        ) + self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        # The ssl module reads files only. This one is in memory, nameless, and sealed for this one reading.
        handle = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{handle}", password=password)
        finally:
            os.close(handle)


def prove_signing(key: SigningKey) -> None:
    """Sign, and verify with the certificate. Raises `KeyUnavailable`."""
    public = x509.load_der_x509_certificate(key.certificate).public_key()
    try:
        signature = key.sign(_PROBE)
        match public, key.algorithm:
            case rsa.RSAPublicKey(), ns.RSA_SHA256:
                public.verify(signature, _PROBE, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePublicKey(), ns.ECDSA_SHA256:
                half = len(signature) // 2
                der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
                public.verify(der, _PROBE, ec.ECDSA(hashes.SHA256()))
            case ed25519.Ed25519PublicKey(), ns.ED25519:
                public.verify(signature, _PROBE)
            case _:
                raise KeyUnavailable("the key does not sign what its certificate is for")
    except (InvalidSignature, ValueError):
        raise KeyUnavailable("what the key signs does not verify with its certificate") from None


def prove_decryption(key: DecryptionKey) -> None:
    """Wrap for the certificate, and unwrap. Raises `KeyUnavailable`."""
    public = x509.load_der_x509_certificate(key.certificate).public_key()
    try:
        if isinstance(public, rsa.RSAPublicKey):
            secret = secrets.token_bytes(16)
            wrapped = public.encrypt(secret, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
            same = secret == key.unwrap_oaep(wrapped, digest=ns.SHA256, mgf=ns.MGF1_SHA256)
        else:
            elliptic = isinstance(public, ec.EllipticCurvePublicKey)
            ours = ec.generate_private_key(public.curve) if elliptic else x25519.X25519PrivateKey.generate()
            secret = ours.exchange(ec.ECDH(), public) if elliptic else ours.exchange(public)
            same = secret == key.agree(public_octets(ours.public_key()))
    except ValueError:
        same = False
    if not same:
        raise KeyUnavailable("the key does not open what its certificate protects")


def same_key(certificate: bytes, public: bytes) -> bool:
    """Whether a certificate (DER) is for the public key with this SubjectPublicKeyInfo."""
    found = x509.load_der_x509_certificate(certificate).public_key()
    return public_octets(found) == public_octets(load_der_public_key(public))
