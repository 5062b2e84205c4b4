"""Whose certificate it is, where nobody has pinned it: path, rule for the subject, party id [as4 4.9].

The agreement says where a certificate names its party: an attribute of the subject (`CN`,
`organizationIdentifier`, `serialNumber`) or a subject alternative name (`SAN-URI`, `SAN-DNS`). That
name must be equal to the party id octet by octet: no case folding, no normalisation, no part of
it [threats A09]. A subject that has the attribute twice says nothing; of alternative names any may
be the one. Names are compared only after the path is right, so they are the words of a CA.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.as4.pmode import PartyField, PathTrust
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.path import Revocation, check_path, not_checked
from gateway.keys.trust import STRICT, Use

#: Attributes of a subject that agreements may speak of.
ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME,
    "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    "serialNumber": NameOID.SERIAL_NUMBER,
}
#: Longer values are looked at by no expression: the time those take may grow with the length.
MAX_VALUE = 256


def vouch(
    certificate: bytes,
    carried: Sequence[bytes],
    trust: PathTrust,
    *,
    use: Use,
    now: datetime,
    party_id: str | None = None,
    allow: Trust = STRICT,
    revocation: Revocation = not_checked,
) -> tuple[bytes, ...]:
    """The path of a certificate that `trust` accepts, and as the certificate of `party_id` if one is given.

    Raises what `check_path` raises, and `CertificateRefused` with the reason subject or party-id.
    """
    path = check_path(
        certificate, use=use, now=now, anchors=trust.anchors, intermediates=trust.intermediates, carried=carried,
        policies=trust.policies, allow=allow, revocation=revocation,
    )  # fmt: skip
    leaf = x509.load_der_x509_certificate(certificate)
    for attribute, demand in trust.subject:
        if not _meets(_attribute(leaf, attribute), demand):
            raise CertificateRefused("subject", f"the subject does not have the {attribute} that the agreement demands")
    if party_id is not None:
        check_party(certificate, trust, party_id)
    return path


def check_party(certificate: bytes, trust: PathTrust, party_id: str) -> None:
    """A certificate, whose path is right, is that of the party. Raises `CertificateRefused`."""
    if trust.party_id != "none" and party_id not in names(certificate, trust.party_id):
        raise CertificateRefused("party-id", f"the {trust.party_id} of the certificate is not the party id")


def names(certificate: bytes, field: PartyField) -> tuple[str, ...]:
    """What a certificate has at `field`: of a subject attribute at most one, or nothing."""
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        if field in ("SAN-URI", "SAN-DNS"):
            try:
                extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            except x509.ExtensionNotFound:
                return ()
            kind = x509.UniformResourceIdentifier if field == "SAN-URI" else x509.DNSName
            return tuple(extension.get_values_for_type(kind))
        value = _attribute(leaf, field)
    except UNREADABLE:
        return ()
    return () if value is None else (value,)


def party_of(certificate: bytes, trust: PathTrust) -> str:
    """The one party id in a certificate. Raises `CertificateRefused`."""
    found = names(certificate, trust.party_id)
    if len(found) != 1 or not found[0].strip():
        raise CertificateRefused("party-id", f"the certificate has not exactly one {trust.party_id}")
    return found[0]


def _attribute(certificate: x509.Certificate, name: str) -> str | None:
    """The attribute of the subject; None where there is none, or more than one."""
    oid = ATTRIBUTES.get(name)
    found = certificate.subject.get_attributes_for_oid(oid) if oid else []
    return found[0].value if len(found) == 1 and isinstance(found[0].value, str) else None


def _meets(value: str | None, demand: str) -> bool:
    if value is None:
        return False
    if len(demand) > 2 and demand[0] == demand[-1] == "/":
        return len(value) <= MAX_VALUE and re.fullmatch(demand[1:-1], value) is not None
    return value == demand
