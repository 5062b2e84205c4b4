"""How partners stand to a certificate of ours: asking them, and the table of what is known and what is to be done.

A signing certificate has to be trusted before it is used. So partners are asked (`readiness`), and their answers are
kept in the ledger (`store.rotation`), where it also stands what they were told and since when they use it. Which
of them a promotion moves is planned from this table (`promotion`).
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import Leg, PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.keys import SigningKey
from gateway.errors import NotFound, NotPossible
from gateway.msh.cutover import Keys, digest
from gateway.msh.rooms import Rooms, party_key
from gateway.operate.certificates import Held
from gateway.operate.readiness import Answered, Verdict, ask_all, askable
from gateway.store.api import AuditEntry, Store
from gateway.store.keys import OwnKey
from gateway.store.rotation import Standing

#: An answer older than this says nothing about today.
FRESH = timedelta(days=7)
#: What keys of a kind sign with.
_SIGNS = {"RSA": ns.RSA_SHA256, "EC": ns.ECDSA_SHA256, "Ed25519": ns.ED25519}


class Row(Struct, frozen=True, kw_only=True):
    """One partner and one certificate. `on` is the key that signs for it now. `verdict` is None for a partner that
    was never asked, `asked` False for one that cannot be. `todo` says what is to be done, and by whom."""

    partner: str
    party: str
    party_id: str
    on: str
    asked: bool = True
    verdict: Verdict | None = None
    why: str = ""
    code: str | None = None
    proof: str | None = None
    asked_at: datetime | None = None
    announced_at: datetime | None = None
    announced_by: str | None = None
    used_at: datetime | None = None
    encrypted_at: datetime | None = None
    returned_at: datetime | None = None
    todo: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be moved without a word: green, or nobody can ask it."""
        return not self.asked or self.verdict == "green"


# -- who is there ------------------------------------------------------------------------


async def matrix(
    store: Store, have: Held, pmodes: PModeSet, key: OwnKey, *, now: datetime, files: Collection[str] = ()
) -> tuple[Row, ...]:
    """Every partner that the key would sign for, the ones that are not ready first.

    `files` are fingerprints of the certificates that sign where the ring has no key: a key of the database with the
    same certificate is nothing new to anybody.
    """
    known = {standing.partner: standing for standing in await store.ledger(digest(key))}
    keys, asked = arithmetic(have), _asked(pmodes, key)
    rows = [
        _row(keys, key, partner, leg, partner in asked, known.get(partner), now, files)
        for partner, leg in _partners(pmodes, key).items()
    ]
    order = ("amber", "unknown", None, "green")
    return tuple(sorted(rows, key=lambda row: (not row.asked, order.index(row.verdict), row.party)))


def arithmetic(have: Held) -> Keys:
    """The same keys, for working on choices."""
    return Keys.of(have.keys, have.ring)


def next_key(have: Held, name: str | None = None) -> OwnKey:
    """The key of that name; without one the only signing key that waits for its turn.

    Raises `NotFound`, `NotPossible`.
    """
    if name is not None:
        return have.find(name)
    found = [key for key in have.keys if key.states.get("sign") in ("STAGED", "ANNOUNCED")]
    if not found:
        raise NotFound("no signing key waits for its turn; `gateway certs import` and `gateway certs stage` one")
    if len(found) > 1:
        raise NotPossible("several signing keys wait: say which with --key: " + ", ".join(key.id for key in found))
    return found[0]


def _partners(pmodes: PModeSet, key: OwnKey) -> dict[str, Leg]:
    """Partners that the key would sign for, each with one leg."""
    found: dict[str, Leg] = {}
    for leg in pmodes.legs:
        ours, theirs = leg.from_party.party_id, leg.to_party
        if (
            pmodes.is_self(ours) and not pmodes.is_self(theirs.party_id) and not theirs.pattern
            and key.party in (None, ours.value) and ("sign" not in key.states or signs_for(key, leg))
        ):  # fmt: skip
            found.setdefault(party_key(theirs.party_id), leg)
    return found


def signs_for(key: OwnKey, leg: Leg) -> bool:
    """Whether keys of this kind sign under the profile of a leg."""
    return PROFILES[leg.profile].send_signature == _SIGNS.get(key.kind)


def _asked(pmodes: PModeSet, key: OwnKey) -> set[str]:
    return {partner for partner, legs in askable(pmodes, key.party).items() if any(signs_for(key, leg) for leg in legs)}


def _row(
    keys: Keys, key: OwnKey, partner: str, leg: Leg, asked: bool, known: Standing | None, now: datetime,
    files: Collection[str],
) -> Row:  # fmt: skip
    party, known = leg.to_party, known or Standing(partner=partner, certificate=digest(key))
    signer = keys.signer(key, party.party_id.value) or (key if key.fingerprint in files else None)
    verdict, why = known.verdict, known.why or ""
    if known.asked_at is not None and now - known.asked_at > FRESH:
        verdict, why = "unknown", f"was {verdict} on {known.asked_at:%Y-%m-%d}, which is too long ago"
    row = Row(
        partner=partner, party=party.name, party_id=party.party_id.value, on=signer.id if signer else "a file",
        asked=asked, verdict=verdict if asked else None, why=why, code=known.code, proof=known.proof,
        asked_at=known.asked_at, announced_at=known.announced_at, announced_by=known.announced_by,
        used_at=known.used_at, encrypted_at=known.encrypted_at, returned_at=known.returned_at,
    )  # fmt: skip
    return Row(**{**{f: getattr(row, f) for f in Row.__struct_fields__}, "todo": _todo(row, key)})


def _todo(row: Row, key: OwnKey) -> str:
    """The one next step for a partner."""
    if "sign" not in key.states:
        return "" if row.encrypted_at else "the partner: encrypt to it; we: keep the old one until then"
    if row.on == key.id and row.returned_at is None:
        return "" if row.used_at else "we: wait for the first receipt"
    if not row.asked:
        return "nobody can ask it: tell it, and watch after the promotion"
    match row.verdict:
        case "green":
            return "" if row.on == key.id else "we: promote"
        case "amber" if row.announced_at is None:
            return "we: `gateway certs announce`; then the partner trusts the certificate"
        case "amber":
            return f"{row.party}: trust the certificate announced on {row.announced_at:%Y-%m-%d}; we: ask again"
        case "unknown":
            return "we: `gateway parties test`, mend the way, ask again"
    return "we: `gateway certs ping`"


def those(rows: Collection[Row], names: Collection[str]) -> list[Row]:
    """The rows of these partners (names or ids); all without names. Raises `NotFound`."""
    by_name = {name: row for row in rows for name in (row.party, row.party_id)}
    for name in names:
        if name not in by_name:
            known = ", ".join(sorted({row.party for row in rows})) or "none"
            raise NotFound(f"there is no partner {name!r} that this key would sign for; known: {known}")
    return list({by_name[name].partner: by_name[name] for name in names}.values()) if names else list(rows)


# -- asking ------------------------------------------------------------------------------


async def ask(
    store: Store, rooms: Rooms, pmodes: PModeSet, key: OwnKey, signer: SigningKey, *, actor: str,
    parties: Collection[str] = (), parallel: int = 16, told: Callable[[Answered], object] = lambda _: None,
) -> list[Answered]:  # fmt: skip
    """Ask partners (all, or those of these names or ids) whether they take what `key` signs, and keep the answers as
    they come; how many were what stands in the audit. Raises `NotFound`, `StoreUnavailable`."""
    if "sign" not in key.states:
        raise NotPossible(f"key {key.id} does not sign: nobody can be asked about it; --show says who encrypts to it")
    meant = _asked(pmodes, key)
    wanted = {partner: legs for partner, legs in askable(pmodes, key.party).items() if partner in meant}
    if parties:
        named = {name: partner for partner, legs in wanted.items()
                 for name in (legs[0].to_party.name, legs[0].to_party.party_id.value)}  # fmt: skip
        if missing := [name for name in parties if name not in named]:
            known = ", ".join(sorted({legs[0].to_party.name for legs in wanted.values()})) or "none"
            raise NotFound(f"{missing[0]} cannot be asked about {key.id}; known: {known}")
        wanted = {named[name]: wanted[named[name]] for name in parties}
    if not wanted:
        raise NotFound(f"there is no partner to ask about {key.id}")
    found = []
    async for answered in ask_all(rooms, wanted, signer, parallel=parallel):
        await store.note_asked(answered.partner, digest(key), answered.verdict, why=answered.why, code=answered.code,
                               proof=answered.proof)  # fmt: skip
        told(answered)
        found.append(answered)
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("green", "amber", "unknown")}
    await store.audit(AuditEntry(
        kind="certificates.asked", actor=actor, subject=key.fingerprint,
        detail={"key": key.id, **counts, "not_green": sorted(o.party for o in found if o.verdict != "green")[:100]},
    ))  # fmt: skip
    return sorted(found, key=lambda one: list(wanted).index(one.partner))
