"""What a new certificate has in common with the one it is to replace, and what not.

For people who decide, and for rules that decide in their place. Names prove nothing by themselves: anybody
writes them into a certificate of his own. That the same CA issued both is proven only where that CA's
certificate is known and its signature right (`ca_proven`).
"""

import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.keys.vouching import ATTRIBUTES


class Trait(Struct, frozen=True):
    """One thing that was compared."""

    name: str
    same: bool
    old: str
    new: str


class Likeness(Struct, frozen=True, kw_only=True):
    """Two certificates compared. `ca_proven` None: the CA's certificate is not known here."""

    traits: tuple[Trait, ...]
    ca_proven: bool | None

    def same(self, name: str) -> bool:
        """Whether they are the same in this."""
        return any(trait.same for trait in self.traits if trait.name == name)

    @property
    def expected(self) -> bool:
        """A renewal as one expects it: same subject and organisation, same issuer, not disproven where it is known."""
        return self.ca_proven is not False and all(map(self.same, ("issuer", "subject", "organisation id")))


def compare(old: bytes, new: bytes, cas: Iterable[bytes] = ()) -> Likeness:
    """`old` and `new` are DER, `cas` the DER certificates of CAs that are known. Raises `ValueError` for what is no
    certificate."""
    try:
        before, after = x509.load_der_x509_certificate(old), x509.load_der_x509_certificate(new)
        pairs = {
            "issuer": (before.issuer.rfc4514_string(), after.issuer.rfc4514_string()),
            "issuer's key": (_authority_key(before), _authority_key(after)),
            "subject": (before.subject.rfc4514_string(), after.subject.rfc4514_string()),
            "common name": (_attribute(before, "CN"), _attribute(after, "CN")),
            "organisation": (_attribute(before, "O"), _attribute(after, "O")),
            "organisation id": (_organisation(before), _organisation(after)),
            "key": (_key(before), _key(after)),
            "kind of key": (_kind(before), _kind(after)),
            "key usage": (_usage(before), _usage(after)),
            "valid until": (f"{before.not_valid_after_utc:%Y-%m-%d}", f"{after.not_valid_after_utc:%Y-%m-%d}"),
        }
        return Likeness(
            traits=tuple(Trait(name, one == other, one, other) for name, (one, other) in pairs.items()),
            ca_proven=_proven(after, cas),
        )  # fmt: skip
    except UNREADABLE as error:
        raise ValueError(f"cannot be read: {error}") from None


def issuer_of(der: bytes, cas: Iterable[bytes]) -> bytes | None:
    """The one of `cas` that issued the certificate, by its signature."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except UNREADABLE:
        return None
    for ca in cas:
        try:
            certificate.verify_directly_issued_by(x509.load_der_x509_certificate(ca))
        except (InvalidSignature, *UNREADABLE):
            continue
        return ca
    return None


def _proven(certificate: x509.Certificate, cas: Iterable[bytes]) -> bool | None:
    named = [ca for ca in cas if x509.load_der_x509_certificate(ca).subject == certificate.issuer]
    return issuer_of(certificate.public_bytes(Encoding.DER), named) is not None if named else None


def _attribute(certificate: x509.Certificate, name: str) -> str:
    found = certificate.subject.get_attributes_for_oid(ATTRIBUTES[name])
    return ", ".join(str(attribute.value) for attribute in found)


def _organisation(certificate: x509.Certificate) -> str:
    """What names the organisation as narrowly as the subject can: its identifier, else its name and country."""
    if identifier := _attribute(certificate, "organizationIdentifier"):
        return identifier
    return " / ".join(filter(None, (_attribute(certificate, "O"), _attribute(certificate, "C"))))


def _authority_key(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return ""
    return (found.key_identifier or b"").hex()


def _key(certificate: x509.Certificate) -> str:
    octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(octets).hexdigest()


def _kind(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    size, curve = getattr(key, "key_size", ""), getattr(key, "curve", None)
    return f"{type(key).__name__.removesuffix('PublicKey').lstrip('_')} {curve.name if curve else size}".strip()


def _usage(certificate: x509.Certificate) -> str:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return "any"
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return ", ".join(name.replace("_", " ") for name in names if getattr(usage, name))
