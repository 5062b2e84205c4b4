"""What is wrong or unwise in agreement files, each finding with a stable id.

Loading refuses what cannot work and stops at the first mistake; lint goes on and also says
what will only hurt later. Each rule comes from a defect that was seen in the field. Rules
about retention, maintenance windows and Domibus files join when there is something to judge.

    P000 cannot be read      P001 blank in a URL         P002 plain http         P003 raw IP address
    P004 unusual path        P005 duplicates             P006 no certificate     P007 expiry
    P008 odd subject         P009 weak or unfit key      P010 one key for all    P011 unreachable
    P012 undeclared property P017 unknown key            P019 ambiguous match    P020 names that differ in case only
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import CertificateRefused, ConfigError
from gateway.pmodes.agreements import Document
from gateway.pmodes.expand import expand
from gateway.pmodes.parties import endpoint_fault
from gateway.pmodes.parties import party as made_party
from gateway.pmodes.toml import files, read

Severity = Literal["error", "warning", "info"]
#: `gateway.keys.trust.check_certificate`, handed down: this room does not know that one.
Check = Callable[..., None]

RENEW_DAYS = 30
RENEW_SHARE = 0.66
_PATHS = re.compile(r".*/(as4|msh)/?", re.IGNORECASE)
_KEYS = {
    ns.RSA_SHA256: rsa.RSAPublicKey,
    ns.ECDSA_SHA256: ec.EllipticCurvePublicKey,
    ns.ED25519: ed25519.Ed25519PublicKey,
}


class Finding(Struct, frozen=True):
    """One finding. `where` is file and key."""

    rule: str
    severity: Severity
    where: str
    message: str


def lint(
    path: Path | str,
    *,
    certs: Path | None = None,
    check_certificate: Check | None = None,
    now: datetime | None = None,
) -> list[Finding]:
    """All findings about a file or folder, errors first. Never raises for what the files say."""
    now = now or datetime.now(UTC)
    found: list[Finding] = []
    documents: list[Document] = []
    try:
        for file in files(Path(path)):
            try:
                documents.append(read(file))
            except ConfigError as error:
                found.append(_of_error(error))
        for document in documents:
            found += _document(document, certs, check_certificate, now)
        found += _overlaps(documents)
        pmodes = expand(documents, certs=certs)
        found += _legs(pmodes)
        if not pmodes.legs and not found:
            found.append(Finding("P011", "warning", str(path), "there is no partner in it"))
    except ConfigError as error:
        # The rules have told most of what stops loading already, and by a better name.
        last = _of_error(error)
        if not any((finding.where, finding.severity) == (last.where, "error") for finding in found):
            found.append(last)
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(dict.fromkeys(found), key=lambda finding: order[finding.severity])


def _of_error(error: ConfigError) -> Finding:
    """A mistake that stops loading, as a finding."""
    rule = "P000"
    if error.detail == "unknown key":
        rule = "P017"
    elif "match the same messages" in error.detail:
        rule = "P019"
    elif "meets no exchange" in error.detail:
        rule = "P011"
    elif "the same id as" in error.detail:
        rule = "P005"
    message = f"{error.detail} ({error.hint})" if error.hint else error.detail
    return Finding(rule, "error", ": ".join(p for p in (error.file, error.key) if p), message)


# -- one file -----------------------------------------------------------------------


def _document(document: Document, certs: Path | None, check: Check | None, now: datetime) -> Iterator[Finding]:
    file = document.file
    if file.own not in file.parties:
        return  # who is a partner is not known then; loading says it
    for name, table in file.parties.items():
        where = f"{document.name}: parties.{name}"
        if table.endpoint is not None:
            yield from _endpoint(table.endpoint, where, file.allow_http)
        if name == file.own:
            continue
        try:
            party = made_party(name, table, document, certs)
        except ConfigError as error:
            if not error.key.endswith(".endpoint"):
                yield _of_error(error)
            continue
        yield from _certificates(party, file.profile, where, check, now)
        if table.endpoint is None:
            yield Finding("P011", "warning", where, "has no endpoint: it can send to us, we cannot send to it")


def _endpoint(url: str, where: str, allow_http: bool) -> Iterator[Finding]:
    where = f"{where}.endpoint"
    if re.search(r"\s", url):
        yield Finding("P001", "error", where, f"there is a blank in {url!r}")
        return
    if fault := endpoint_fault(url, allow_http):
        yield Finding("P002" if url.startswith("http://") else "P000", "error", where, fault)
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not _is_loopback(host):
        yield Finding("P002", "warning", where, "plain http: the message is protected, the traffic is not")
    if _address(host) and not _is_loopback(host):
        yield Finding("P003", "warning", where, f"{host} is an address, not a name; certificates are made for names")
    if not _PATHS.fullmatch(parts.path):
        yield Finding("P004", "info", where, f"the path {parts.path or '/'!r} is not one that AS4 products use")


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_address(host) and ipaddress.ip_address(host).is_loopback)


def _certificates(
    party: Party, profile: str, where: str, check: Check | None, now: datetime
) -> Iterator[Finding]:
    if not party.signing:
        yield Finding("P006", "error", where, "has no signing certificate: nothing it sends can be accepted")
    if party.encryption is None:
        yield Finding("P006", "error", where, "has no encryption certificate: no payload can be sent to it")
    suite = PROFILES.get(profile)
    uses = [(der, "sign") for der in party.signing]
    uses += [(party.encryption, "encrypt")] if party.encryption else []
    for der, use in uses:
        yield from _certificate(der, use, where, party, check, now)
        if suite and not _fits(der, use, suite.send_signature):
            yield Finding("P009", "error", where, f"the key of its certificate cannot {use} in profile {profile}")
    # In OOTS and eDelivery 1.x one RSA certificate for both is the rule [oots 1.1]; elliptic keys come in pairs.
    if suite and suite.key_protection == "key-agreement" and party.encryption in party.signing:
        yield Finding("P010", "error", where, "one key for signing and key agreement")
    if party.tls_ca and _public(party.tls_ca) & {k for der in party.signing for k in _public(der)}:
        yield Finding("P010", "warning", where, "the key that signs messages is its TLS key, too")


def _certificate(
    der: bytes, use: str, where: str, party: Party, check: Check | None, now: datetime
) -> Iterator[Finding]:
    certificate = x509.load_der_x509_certificate(der)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if check is not None:
        try:
            check(der, use=use, now=now)
        except CertificateRefused as refused:
            rule = "P007" if refused.reason in ("expired", "not-yet-valid") else "P009"
            yield Finding(rule, "error", where, f"its certificate cannot be used to {use}: {refused}")
    elif now > end:
        yield Finding("P007", "error", where, f"its certificate expired on {end:%Y-%m-%d}")
    if now <= end < now + timedelta(days=RENEW_DAYS):
        yield Finding("P007", "warning", where, f"its certificate expires on {end:%Y-%m-%d}")
    elif start < now <= end and (now - start) / (end - start) > RENEW_SHARE:
        yield Finding("P007", "info", where, f"two thirds of its certificate's time are over (until {end:%Y-%m-%d})")
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    common = str(names[0].value) if names else ""
    if party.party_id.value.lower() not in common.lower() and common.lower() not in party.party_id.value.lower():
        yield Finding("P008", "info", where, f"its certificate is for {common or 'nobody'!r}")
    countries = certificate.subject.get_attributes_for_oid(x509.NameOID.COUNTRY_NAME)
    expected = re.search(r"unregistered:([A-Z]{2})$", party.party_id.type or "")
    if expected and countries and (country := str(countries[0].value).upper()) != expected[1]:
        yield Finding("P008", "info", where, f"its certificate is from {country}, its type says {expected[1]}")


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


# -- all files together ---------------------------------------------------------------


def _overlaps(documents: Sequence[Document]) -> Iterator[Finding]:
    """What two parties share and should not."""
    endpoints: dict[str, str] = {}
    folded: dict[str, str] = {}
    for document in documents:
        for name, table in document.file.parties.items():
            where = f"{document.name}: parties.{name}"
            endpoint = table.endpoint if name != document.file.own else None
            if endpoint and (twin := endpoints.setdefault(endpoint, name)) != name:
                yield Finding("P005", "warning", where, f"has the same endpoint as {twin}")
            id = table.id or name
            if (twin := folded.setdefault(id.lower(), id)) != id:
                yield Finding("P020", "warning", where, f"{id!r} and {twin!r} differ in upper and lower case only")


def _legs(pmodes: PModeSet) -> Iterator[Finding]:
    """What is seen when everything is in place."""
    pins: dict[bytes, str] = {}
    for party in pmodes.parties:
        for der in party.signing:
            if (twin := pins.setdefault(der, party.name)) != party.name:
                yield Finding("P005", "warning", f"parties.{party.name}",
                              f"has the same signing certificate as {twin}: each can sign for the other")  # fmt: skip
    for leg in pmodes.legs:
        yield from _properties(leg)


def _properties(leg: Leg) -> Iterator[Finding]:
    if not PROFILES[leg.profile].four_corner:
        return
    declared = {rule.name for rule in leg.properties if rule.required}
    for name in (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT):
        if name not in declared:
            yield Finding("P012", "error", leg.pmode_id, f"profile {leg.profile} needs the required property {name}")
