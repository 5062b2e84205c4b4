"""Partners as an operator sees them: what is agreed, how long their certificates last, when they were last heard of.

What is agreed comes from the agreement files, the traffic from the store where one can be reached. What we
hand to a partner about ourselves, or to a third one about a partner, is a `Package`.
"""

import base64
import hashlib
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Struct

from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.config import Config
from gateway.config.strict import suggestion
from gateway.errors import CertificateRefused, KeyUnavailable, NotFound
from gateway.keys.keyring import Keyring
from gateway.keys.trust import check_certificate
from gateway.msh.rooms import party_key
from gateway.store.api import Direction, Message, MessageFilter, Store

Use = Literal["sign", "encrypt"]


class Certificate(Struct, frozen=True, kw_only=True):
    """A certificate of a party. `days_left` is negative once it has expired. `refused`: why it cannot be used."""

    uses: tuple[Use, ...]
    sha256: str
    subject: str
    valid_from: datetime | None
    valid_until: datetime | None
    days_left: int | None
    refused: str | None = None
    pem: str = ""


class Traffic(Struct, frozen=True, kw_only=True):
    """What the store knows of a party. `waiting` are messages to it that are not settled."""

    last_received: datetime | None = None
    last_sent: datetime | None = None
    last_acknowledged: datetime | None = None
    last_failed: datetime | None = None
    last_error: str | None = None
    waiting: int = 0


class Row(Struct, frozen=True, kw_only=True):
    """A party. `traffic` is None where no store was asked."""

    name: str
    ours: bool
    id: str
    type: str | None
    endpoint: str | None
    profiles: tuple[str, ...]
    certificates: tuple[Certificate, ...]
    traffic: Traffic | None = None

    @property
    def days_left(self) -> int | None:
        """Until the first certificate it needs ends; with a next one signing lasts as long as the longer."""
        by_use: dict[Use, list[int]] = {"sign": [], "encrypt": []}
        for certificate in self.certificates:
            for use in certificate.uses:
                if certificate.days_left is not None:
                    by_use[use].append(certificate.days_left)
        return min((max(days) for days in by_use.values() if days), default=None)


def rows(pmodes: PModeSet, *, now: datetime, config: Config | None = None) -> list[Row]:
    """Every party, ours first, then by name."""
    own = {party.party_id for party in pmodes.selves}
    # A party of ours that no leg mentions is there all the same.
    parties = {party.name: party for party in (*pmodes.parties, *pmodes.selves)}
    made = [_row(party, pmodes, party.party_id in own, now, config) for party in parties.values()]
    return sorted(made, key=lambda row: (not row.ours, row.name))


def one(found: Sequence[Row], name: str) -> Row:
    """The party of that name or id. Raises `NotFound`."""
    for row in found:
        if name in (row.name, row.id):
            return row
    raise NotFound(f"there is no party {name!r}; {suggestion(name, [row.name for row in found][:1000])}")


def _row(party: Party, pmodes: PModeSet, ours: bool, now: datetime, config: Config | None) -> Row:
    uses: dict[bytes, list[Use]] = {der: ["sign"] for der in party.signing}
    if party.encryption is not None:
        uses.setdefault(party.encryption, []).append("encrypt")
    legs = [leg for leg in pmodes.legs if party.name in (leg.from_party.name, leg.to_party.name)]
    return Row(
        name=party.name, ours=ours, id=party.party_id.value, type=party.party_id.type, endpoint=party.endpoint,
        profiles=tuple(sorted({leg.profile for leg in legs})),
        certificates=tuple(certificate(der, tuple(use), now, config) for der, use in uses.items()),
    )  # fmt: skip


def certificate(der: bytes, uses: tuple[Use, ...], now: datetime, config: Config | None = None) -> Certificate:
    """What is worth knowing of a certificate. Never raises."""
    refused = None
    for use in uses:
        try:
            check_certificate(der, use=use, now=now, **({"allow": config.trust} if config else {}))
        except CertificateRefused as error:
            refused = refused or str(error)
    try:
        read = x509.load_der_x509_certificate(der)
        subject, start, end = read.subject.rfc4514_string(), read.not_valid_before_utc, read.not_valid_after_utc
    except UNREADABLE:
        subject, start, end = "", None, None
    return Certificate(
        uses=uses, sha256=hashlib.sha256(der).hexdigest(), subject=subject, valid_from=start, valid_until=end,
        days_left=(end - now).days if end else None, refused=refused, pem=pem(der),
    )  # fmt: skip


def pem(der: bytes, label: str = "CERTIFICATE") -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


# -- from the store ----------------------------------------------------------------------


async def traffic(store: Store, pmodes: PModeSet, names: Sequence[str]) -> dict[str, Traffic]:
    """What the store knows of these parties. Raises `StoreUnavailable`."""
    waiting: dict[str, int] = {}
    for row in await store.in_flight():
        waiting[row.partner] = waiting.get(row.partner, 0) + row.count
    keys = {party.name: party_key(party.party_id) for party in pmodes.parties if not party.pattern}
    return {name: await _of(store, keys[name], waiting.get(keys[name], 0)) for name in names if name in keys}


async def _of(store: Store, partner: str, waiting: int) -> Traffic:
    async def newest(direction: Direction, state: str | None = None) -> Message | None:
        found = await store.messages(MessageFilter(partner=partner, direction=direction, state=state, limit=1))
        return found[0] if found else None

    received, sent = await newest("inbound"), await newest("outbound")
    acknowledged, failed = await newest("outbound", "ACKNOWLEDGED"), await newest("outbound", "FAILED")
    return Traffic(
        last_received=received and received.created_at,
        last_sent=sent and sent.created_at,
        last_acknowledged=acknowledged and (acknowledged.receipt_at or acknowledged.changed_at),
        last_failed=failed and failed.changed_at,
        last_error=failed and (failed.error_code or None),
        waiting=waiting,
    )


# -- for partners ------------------------------------------------------------------------


class Exchange(Struct, frozen=True):
    """What a party sends or takes."""

    service: str
    service_type: str | None
    action: str
    sends: bool
    takes: bool


class Package(Struct, frozen=True, kw_only=True):
    """What a partner has to know of a party to make an agreement with it."""

    name: str
    id: str
    type: str | None
    endpoint: str | None
    profiles: tuple[str, ...]
    roles: tuple[str, ...]
    certificates: tuple[Certificate, ...]
    exchanges: tuple[Exchange, ...] = ()


def package(
    pmodes: PModeSet, name: str, *, now: datetime, config: Config, keyring: Keyring | None = None
) -> Package:
    """The package of a party: ours with the certificates of our keys. Raises `NotFound`, `KeyUnavailable`."""
    row = one(rows(pmodes, now=now, config=config), name)
    certificates, endpoint = row.certificates, row.endpoint
    if row.ours:
        if keyring is None:
            raise KeyUnavailable("the keys of this node are needed to say which certificates are ours")
        certificates = _ours(row, keyring, now, config)
        endpoint = config.as4.public_url or row.endpoint
    legs = [leg for leg in pmodes.legs if row.name in (leg.from_party.name, leg.to_party.name) and not leg.is_internal]
    roles = dict.fromkeys(leg.from_role if leg.from_party.name == row.name else leg.to_role for leg in legs)
    return Package(
        name=row.name, id=row.id, type=row.type, endpoint=endpoint, profiles=row.profiles, roles=tuple(sorted(roles)),
        certificates=certificates, exchanges=_exchanges(row.name, legs),
    )  # fmt: skip


def _ours(row: Row, keyring: Keyring, now: datetime, config: Config) -> tuple[Certificate, ...]:
    uses: dict[bytes, list[Use]] = {}
    for profile in row.profiles:
        suite = PROFILES[profile]
        uses.setdefault(keyring.signing_key(row.id, suite).certificate, ["sign"])
        # The first key that can open what the suite sends is the one partners should encrypt to.
        for key in keyring.decryption_keys(row.id):
            if _opens(key.certificate, suite.key_protection == "key-agreement"):
                use = uses.setdefault(key.certificate, [])
                if "encrypt" not in use:
                    use.append("encrypt")
                break
        else:
            raise KeyUnavailable(f"no key of {row.name} decrypts in profile {profile}")
    return tuple(certificate(der, tuple(use), now, config) for der, use in uses.items())


def _opens(der: bytes, agreement: bool) -> bool:
    return isinstance(x509.load_der_x509_certificate(der).public_key(), rsa.RSAPublicKey) is not agreement


def _exchanges(name: str, legs: Sequence[Leg]) -> tuple[Exchange, ...]:
    found: dict[tuple, list[bool]] = {}
    for leg in legs:
        said = found.setdefault((leg.service.value, leg.service.type, leg.action), [False, False])
        said[0] |= leg.from_party.name == name
        said[1] |= leg.to_party.name == name
    return tuple(Exchange(*what, *said) for what, said in found.items())
