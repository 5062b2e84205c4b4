"""What changes from one set of agreements to another: parties, certificates, exchanges. Pure comparison.

Parties are known by their id, legs by P-Mode id and number. What a party or a leg says is compared
field by field, whatever fields there are, so that a new parameter is never overlooked.
Certificates are told by fingerprint, with what people ask of one.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any, Literal

from cryptography import x509
from msgspec import Struct

from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.units import PartyId
from gateway.as4.wss.algorithms import UNREADABLE

Change = Literal["added", "removed", "changed"]
#: A certificate that ends sooner is worth a word.
SOON_DAYS = 30


class Difference(Struct, frozen=True):
    """One field, before and after. Octets are shown as their SHA-256."""

    field: str
    before: Any
    after: Any


class PartyChange(Struct, frozen=True, kw_only=True):
    """A party. `ours`: it is our own; `key` is how messages name it."""

    name: str
    party_id: str
    ours: bool
    change: Change
    fields: tuple[Difference, ...] = ()


class CertificateChange(Struct, frozen=True, kw_only=True):
    """A certificate of a partner: `new`, `gone`, or one that stays and ends soon (`expiring`)."""

    party: str
    use: str
    change: Literal["new", "gone", "expiring"]
    sha256: str
    subject: str
    not_after: datetime | None
    days: int | None


class LegChange(Struct, frozen=True, kw_only=True):
    """A leg: one direction of one exchange."""

    pmode_id: str
    number: int
    change: Change
    fields: tuple[Difference, ...] = ()


class Changes(Struct, frozen=True):
    """Everything that changes. Empty when two sets say the same."""

    parties: tuple[PartyChange, ...] = ()
    certificates: tuple[CertificateChange, ...] = ()
    legs: tuple[LegChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parties or self.legs or any(c.change != "expiring" for c in self.certificates))


def compare(before: PModeSet, after: PModeSet, *, now: datetime | None = None) -> Changes:
    """From `before` to `after`. Of equal sets only certificates that end soon are told."""
    now = now or datetime.now(UTC)
    return Changes(
        tuple(_parties(before, after)), tuple(_certificates(before, after, now)), tuple(_legs(before, after))
    )


def party_text(party: PartyId) -> str:
    """A party id as people read it."""
    return f"{party.value} ({party.type})" if party.type else party.value


def _parties(before: PModeSet, after: PModeSet) -> list[PartyChange]:
    old, new = ({p.party_id: p for p in pmodes.parties} for pmodes in (before, after))
    changes = []
    for id in sorted(old.keys() | new.keys(), key=party_text):
        was, is_ = old.get(id), new.get(id)
        fields = _differences(was, is_, without=("party_id",)) if was and is_ else ()
        # A party of our own that became a partner, or the other way round, is another party.
        if was and is_ and before.is_self(id) != after.is_self(id):
            fields = (Difference("self", before.is_self(id), after.is_self(id)), *fields)
        if was is None or is_ is None or fields:
            changes.append(PartyChange(
                name=(is_ or was).name, party_id=party_text(id), ours=(after if is_ else before).is_self(id),
                change="added" if was is None else "removed" if is_ is None else "changed", fields=fields,
            ))  # fmt: skip
    return changes


def _legs(before: PModeSet, after: PModeSet) -> list[LegChange]:
    old, new = ({(leg.pmode_id, leg.number): leg for leg in pmodes.legs} for pmodes in (before, after))
    changes = []
    for key in sorted(old.keys() | new.keys()):
        was, is_ = old.get(key), new.get(key)
        fields = _leg_differences(was, is_) if was and is_ else ()
        if was is None or is_ is None or fields:
            change: Change = "added" if was is None else "removed" if is_ is None else "changed"
            changes.append(LegChange(pmode_id=key[0], number=key[1], change=change, fields=fields))
    return changes


def _leg_differences(was: Leg, is_: Leg) -> tuple[Difference, ...]:
    """Of its own fields; of its parties only who they are: what they say is told once, with the party."""
    who = [
        Difference(name, party_text(old), party_text(new))
        for name in ("from_party", "to_party")
        if (old := getattr(was, name).party_id) != (new := getattr(is_, name).party_id)
    ]
    return (*who, *_differences(was, is_, without=("pmode_id", "number", "from_party", "to_party")))


def _differences(was: Struct, is_: Struct, *, without: tuple[str, ...]) -> tuple[Difference, ...]:
    found = []
    for name in was.__struct_fields__:
        if name not in without and (old := getattr(was, name)) != (new := getattr(is_, name)):
            found += _spread(name, plain(old), plain(new))
    return tuple(found)


def _spread(name: str, old: Any, new: Any) -> list[Difference]:
    """A nested table field by field."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [Difference(name, old, new)]
    keys = list(dict.fromkeys((*old, *new)))
    return [d for key in keys if old.get(key) != new.get(key)
            for d in _spread(f"{name}.{key}", old.get(key), new.get(key))]  # fmt: skip


def plain(value: Any) -> Any:
    """A value as JSON has it; octets as `sha256:…`."""
    if isinstance(value, bytes):
        return f"sha256:{hashlib.sha256(value).hexdigest()}"
    if isinstance(value, Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [plain(item) for item in value]
    return value


def _certificates(before: PModeSet, after: PModeSet, now: datetime) -> list[CertificateChange]:
    old, new = _pins(before), _pins(after)
    changes = [_certificate(pin, "gone", now) for pin in old if pin not in new]
    for pin in new:
        told = _certificate(pin, "new" if pin not in old else "expiring", now)
        if told.change == "new" or (told.days is not None and told.days < SOON_DAYS):
            changes.append(told)
    return sorted(changes, key=lambda c: (c.party, c.use, c.change, c.sha256))


def _pins(pmodes: PModeSet) -> dict[tuple[str, str, bytes], None]:
    """(party, use, DER) of every certificate of a partner."""
    found: dict[tuple[str, str, bytes], None] = {}
    for party in pmodes.parties:
        for use, der in _uses(party):
            found[party.name, use, der] = None
    return found


def _uses(party: Party) -> list[tuple[str, bytes]]:
    uses = [("sign", der) for der in party.signing]
    if party.encryption is not None:
        uses.append(("encrypt", party.encryption))
    if party.next_encryption is not None:
        uses.append(("encrypt next", party.next_encryption))
    if party.trust is not None:
        uses += [("anchor", der) for der in party.trust.anchors]
    return uses


def _certificate(pin: tuple[str, str, bytes], change: Any, now: datetime) -> CertificateChange:
    party, use, der = pin
    subject, end = "", None
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject, end = certificate.subject.rfc4514_string(), certificate.not_valid_after_utc
    except UNREADABLE:
        subject = "unreadable"
    return CertificateChange(
        party=party, use=use, change=change, sha256=hashlib.sha256(der).hexdigest(), subject=subject, not_after=end,
        days=None if end is None else (end - now).days,
    )  # fmt: skip
