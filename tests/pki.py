"""A certificate authority for tests, with everything a CA can do right or wrong."""

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

UTC = datetime.UTC
NOW = datetime.datetime.now(UTC).replace(microsecond=0)
_ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME, "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    "serialNumber": NameOID.SERIAL_NUMBER, "E": NameOID.EMAIL_ADDRESS,
}  # fmt: skip


@functools.cache
def key(kind: str = "ec", number: int = 0):
    """A private key, made once a run for each (kind, number)."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "x25519":
        return x25519.X25519PrivateKey.generate()
    return ec.generate_private_key(ec.BrainpoolP256R1() if kind == "brainpool" else ec.SECP256R1())


def name(text: str | dict | list) -> x509.Name:
    """`"CN"`, `{"CN": …, "C": …}`, or pairs where an attribute comes twice."""
    pairs = [("CN", text)] if isinstance(text, str) else list(text.items()) if isinstance(text, dict) else text
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[k], v) for k, v in pairs])


def usage(*what: str) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{n: n in what for n in names})


SIGN = usage("digital_signature")
BOTH = usage("digital_signature", "key_encipherment")
AGREE = usage("key_agreement")
ISSUE = usage("key_cert_sign", "crl_sign")


class Ca:
    """A CA with its certificate (DER) and key. `root` makes one; a CA makes others, and leaves."""

    def __init__(self, subject, private, certificate: bytes, issuer: "Ca | None") -> None:
        self.subject, self.key, self.certificate, self.issuer = subject, private, certificate, issuer

    @classmethod
    def root(cls, subject="Root", private=None, **more) -> "Ca":
        private = private or key("ec", hash(str(subject)) % 97 + 1000)
        subject = name(subject)
        der = build(subject, private.public_key(), subject, private, ca=True, **more)
        return cls(subject, private, der, None)

    def ca(self, subject, private=None, **more) -> "Ca":
        private = private or key("ec", hash(str(subject)) % 97 + 2000)
        subject = name(subject)
        more.setdefault("ca", True)
        return Ca(subject, private, build(subject, private.public_key(), self.subject, self.key, **more), self)

    def leaf(self, subject, public=None, *, key_usage=BOTH, **more) -> bytes:
        public = public or key("rsa", 1).public_key()
        return build(name(subject), public, self.subject, self.key, ca=False, key_usage=key_usage, **more)


def build(
    subject, public, issuer, private, *, ca: bool, start: float = -10, days: float = 400, path_length=None, key_usage="default",
    extensions=(), digest="default", constraints=True, serial=None,
) -> bytes:
    """A DER certificate. `extensions` are (extension, critical); `start` is in days from now."""
    begin = NOW + datetime.timedelta(days=start)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        .serial_number(serial or x509.random_serial_number()).not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
    )
    if constraints:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if key_usage == "default":
        key_usage = ISSUE if ca else BOTH
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    if digest == "default":
        digest = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, digest).public_bytes(Encoding.DER)


def policies(*oids: str):
    found = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids]
    return (x509.CertificatePolicies(found), False)
