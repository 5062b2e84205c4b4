"""P006 to P010, P016: the certificates of partners."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.as4 import ns
from gateway.as4.pmode import Party, PathTrust
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import CertificateRefused
from gateway.pmodes.lint.catalogue import Finding
from gateway.pmodes.lint.ground import Ground, Partner

RENEW_DAYS = 30
RENEW_SHARE = 0.66
#: So many parties whose certificates end within so many days are a storm: a share of all, and at least a number.
STORMS = ((30, 0.25, 4), (183, 0.5, 5))

_KEYS = {
    ns.RSA_SHA256: rsa.RSAPublicKey,
    ns.ECDSA_SHA256: ec.EllipticCurvePublicKey,
    ns.ED25519: ed25519.Ed25519PublicKey,
}


def certificates(ground: Ground) -> Iterator[Finding | None]:
    """Every partner's certificates by themselves."""
    for partner in ground.partners():
        party = partner.party
        if party is None:
            continue
        if not party.signing and party.trust is None:
            yield ground.about(partner, "P006", "error", "has no signing certificate: nothing it sends can be accepted")
        if party.trust is not None:
            yield from _anchors(ground, partner, party.trust)
        if party.encryption is None and not party.pattern:
            yield ground.about(partner, "P006", "error", "has no encryption certificate: no payload can be sent to it")
        try:
            yield from _keys(ground, partner, party)
        except UNREADABLE as error:
            yield ground.about(partner, "P009", "error", f"its certificate cannot be read to the end: {error}")


def _keys(ground: Ground, partner: Partner, party: Party) -> Iterator[Finding | None]:
    profile = partner.document.file.profile
    suite = PROFILES.get(profile)
    uses = [(der, "sign") for der in party.signing]
    uses += [(party.encryption, "encrypt")] if party.encryption else []
    uses += [(party.next_encryption, "encrypt")] if party.next_encryption else []
    for der, use in uses:
        if der == party.previous and ground.now > x509.load_der_x509_certificate(der).not_valid_after_utc:
            yield ground.about(partner, "P007", "info", "its previous certificate has expired and can be taken out")
            continue
        yield from _usable(ground, partner, der, use, coming=der in (party.next, party.next_encryption))
        if suite and not _fits(der, use, suite.send_signature):
            yield ground.about(
                partner, "P009", "error", f"the key of its certificate cannot {use} in profile {profile}"
            )
    for der in dict.fromkeys(der for der, _ in uses):
        if der != party.previous:
            yield from _time(ground, partner, der)
        yield from _subject(ground, partner, party, der)
    # In OOTS and eDelivery 1.x one RSA certificate for both is the rule [oots 1.1]; elliptic keys come in pairs.
    if suite and suite.key_protection == "key-agreement" and party.encryption in party.signing:
        yield ground.about(partner, "P010", "error", "one key for signing and key agreement")
    if party.tls_ca and _public(party.tls_ca) & {k for der in party.signing for k in _public(der)}:
        yield ground.about(partner, "P010", "warning", "the key that signs messages is its TLS key, too")


def _anchors(ground: Ground, partner: Partner, trust: PathTrust) -> Iterator[Finding | None]:
    """P007 for the CAs that paths may end at: what they have issued ends with them."""
    for der in trust.anchors:
        certificate = x509.load_der_x509_certificate(der)
        who, end = certificate.subject.rfc4514_string(), certificate.not_valid_after_utc
        if ground.now > end:
            yield ground.about(partner, "P007", "error", f"the trust anchor {who} expired on {end:%Y-%m-%d}")
        elif end < ground.now + timedelta(days=RENEW_DAYS):
            yield ground.about(partner, "P007", "warning", f"the trust anchor {who} expires on {end:%Y-%m-%d}")


def _usable(ground: Ground, partner: Partner, der: bytes, use: str, *, coming: bool) -> Iterator[Finding | None]:
    certificate = x509.load_der_x509_certificate(der)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = max(ground.now, start) if coming else ground.now
    if now > ground.now:
        yield ground.about(partner, "P007", "info", f"its next certificate becomes valid on {start:%Y-%m-%d}")
    if ground.check is None:
        if now > end:
            yield ground.about(partner, "P007", "error", f"its certificate expired on {end:%Y-%m-%d}")
        return
    try:
        ground.check(der, use=use, now=now)
    except CertificateRefused as refused:
        rule = "P007" if refused.reason in ("expired", "not-yet-valid") else "P009"
        yield ground.about(partner, rule, "error", f"its certificate cannot be used to {use}: {refused}")


def _time(ground: Ground, partner: Partner, der: bytes) -> Iterator[Finding | None]:
    certificate, now = x509.load_der_x509_certificate(der), ground.now
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now <= end < now + timedelta(days=RENEW_DAYS):
        yield ground.about(partner, "P007", "warning", f"its certificate expires on {end:%Y-%m-%d}")
    elif start < now <= end and (now - start) / (end - start) > RENEW_SHARE:
        yield ground.about(
            partner, "P007", "info", f"two thirds of its certificate's time are over (until {end:%Y-%m-%d})"
        )


def _subject(ground: Ground, partner: Partner, party: Party, der: bytes) -> Iterator[Finding | None]:
    """Names decide nothing: what is pinned is the certificate [product finding 3]. So this is for information."""
    subject = x509.load_der_x509_certificate(der).subject
    names = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    common = str(names[0].value) if names else ""
    known = (party.party_id.value.lower(), party.name.lower())
    if not common or not any(name in common.lower() or common.lower() in name for name in known):
        yield ground.about(partner, "P008", "info", f"its certificate is for {common or 'nobody'!r}")
    countries = subject.get_attributes_for_oid(x509.NameOID.COUNTRY_NAME)
    expected = re.search(r"unregistered:([A-Z]{2})$", party.party_id.type or "")
    if expected and countries and (country := str(countries[0].value).upper()) != expected[1]:
        yield ground.about(partner, "P008", "info", f"its certificate is from {country}, its type says {expected[1]}")


def storm(ground: Ground) -> Iterator[Finding | None]:
    """P016: so many partners' certificates end at one time that renewing them cannot be done one by one."""
    ends = [(_last_end(partner.party), partner) for partner in ground.partners()]
    partners = [(end, partner) for end, partner in ends if end is not None and end > ground.now]
    partners.sort(key=lambda pair: (pair[0], pair[1].name))
    for days, share, least in STORMS:
        first, last = _densest([end for end, _ in partners], timedelta(days=days))
        many = last - first
        if many < least or many <= share * len(partners):
            continue
        start, end = partners[first][0], partners[last - 1][0]
        _, partner = partners[first]
        yield ground.finding(
            "P016",
            "warning" if days == RENEW_DAYS else "info",
            partner.document,
            "parties",
            f"the certificates of {many} of {len(partners)} parties expire from {start:%Y-%m-%d} to {end:%Y-%m-%d}: "
            + ", ".join(partner.name for _, partner in partners[first : min(last, first + 5)])
            + (", …" if many > 5 else ""),
        )
        return


def _densest(times: Sequence[datetime], width: timedelta) -> tuple[int, int]:
    """The slice of sorted times that has the most of them within `width`."""
    best, first = (0, 0), 0
    for last in range(len(times)):
        while times[last] - times[first] > width:
            first += 1
        if last + 1 - first > best[1] - best[0]:
            best = (first, last + 1)
    return best


def _last_end(party: Party | None) -> datetime | None:
    """When the last certificate a party signs with ends: `next` counts."""
    ends = [x509.load_der_x509_certificate(der).not_valid_after_utc for der in party.signing] if party else []
    return max(ends, default=None)


def _fits(der: bytes, use: str, signature: str) -> bool:
    """Whether a certificate's key is of the kind the suite uses."""
    wanted = _KEYS[signature]
    if use == "encrypt" and wanted is ed25519.Ed25519PublicKey:
        wanted = x25519.X25519PublicKey
    try:
        return isinstance(x509.load_der_x509_certificate(der).public_key(), wanted)
    except UNREADABLE:
        return False


def _public(certificates: bytes) -> set[bytes]:
    """The public keys in PEM or DER certificates."""
    pem = b"-----BEGIN" in certificates
    found = x509.load_pem_x509_certificates(certificates) if pem else [x509.load_der_x509_certificate(certificates)]
    return {_key_octets(c) for c in found}


def _key_octets(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE:
        return certificate.tbs_certificate_bytes
