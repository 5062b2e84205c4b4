"""What an operator does with our own certificates: stage, promote, roll back, retire, and see what there is.

A change is planned (`Plan`) on the ring that is active, and applied as a revision of the topic `keys`: every
process opens and tests the new ring before it takes effect, everywhere at one moment. Plans are pure functions of what
`held` read; applying one that was made on something else is refused. Reading keys from files and requests for
certificates are in `key_import`.

`promote` here is for all partners at once. Partner by partner it is a matter of the choices in a ring
(`Ring.with_choices`, `plan_ring`, `apply`).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from msgspec import Struct

from gateway.errors import NotFound, NotPossible
from gateway.operate.proposals import Look, check_texts, followed, settled
from gateway.stages import point
from gateway.store.agreements import SAME_MOMENT, Acknowledgement, NewRevision, Process, Revision
from gateway.store.api import Store
from gateway.store.keys import HELD, Choice, Chosen, KeyState, KeyUse, Move, OwnKey, Ring, moves

#: How long a proposal may wait for its acknowledgements.
PATIENCE = 60.0
#: A key that signed or was encrypted to drains for so long: retries and what partners cache [oots 1.4].
DRAIN = timedelta(days=30)


class Held(Struct, frozen=True, kw_only=True):
    """Our keys as they are. `number` is that of the active ring, 0 before there is one."""

    keys: tuple[OwnKey, ...]
    ring: Ring
    number: int
    chosen: tuple[Chosen, ...] = ()

    def key(self, id: str) -> OwnKey:
        return next(key for key in self.keys if key.id == id)

    def find(self, name: str) -> OwnKey:
        """The key with that id or fingerprint, or the beginning of one. Raises `NotFound`, `NotPossible`."""
        wanted = name.lower().removeprefix("sha256:").replace(":", "")
        found = [key for key in self.keys if key.id == wanted or key.fingerprint == wanted]
        if not found and len(wanted) >= 4:
            found = [key for key in self.keys if key.id.startswith(wanted) or key.fingerprint.startswith(wanted)]
        if not found:
            raise NotFound(f"there is no key {name}; `gateway certs list` shows those there are")
        if len(found) > 1:
            raise NotPossible(f"{name} could be any of " + ", ".join(key.id for key in found))
        return found[0]

    def active(self, like: OwnKey, use: KeyUse) -> OwnKey | None:
        """The key that is ACTIVE where `like` would be."""
        return next((key for key in self.rivals(like, use) if key.states[use] == "ACTIVE"), None)

    def rivals(self, like: OwnKey, use: KeyUse) -> list[OwnKey]:
        """The other keys for the same party and use, of the same kind."""
        return [
            key for key in self.keys
            if key.id != like.id and use in key.states and key.party == like.party
            and (use.startswith("tls") or key.kind == like.kind)
        ]  # fmt: skip


class Plan(Struct, frozen=True, kw_only=True):
    """What a change would do. `id` names what it was made on and what it makes. `obstacles` are refused
    unless somebody insists; `notes` are worth knowing."""

    id: str
    verb: str
    base: int
    ring: Ring
    moves: tuple[Move, ...]
    choices: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.moves and not self.choices


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of it. `behind` are living processes that do not serve it yet."""

    revision: Revision
    words: tuple[Acknowledgement, ...]
    behind: tuple[Process, ...] = ()


async def held(store: Store) -> Held:
    """Our keys and the active ring, as they are now."""
    active = await store.active_ring()
    return Held(
        keys=tuple(await store.own_keys()), ring=Ring.decode(active.content) if active else Ring(),
        number=active.number if active else 0, chosen=tuple(await store.chosen()),
    )  # fmt: skip


# -- plans ------------------------------------------------------------------------------


def plan_ring(
    verb: str, have: Held, ring: Ring, *, obstacles: Iterable[str] = (), notes: Iterable[str] = ()
) -> Plan:
    """The plan that makes `ring` of what there is. Raises `NotPossible` for a ring that is none."""
    before = {(c.party, c.partner, c.key): c for c in have.ring.choices}
    after = {(c.party, c.partner, c.key): c for c in ring.choices}
    told = [f"{place[1]}: {place[2]} no longer chosen" for place in sorted(before.keys() - after.keys())]
    told += [f"{place[1]}: signed for with {place[2]}" for place in sorted(after.keys() - before.keys())]
    return Plan(
        id=f"{have.number}-{hashlib.sha256(ring.encode()).hexdigest()[:12]}", verb=verb, base=have.number, ring=ring,
        moves=tuple(moves(have.keys, ring)), choices=tuple(told), obstacles=tuple(obstacles), notes=tuple(notes),
    )  # fmt: skip


def plan_stage(have: Held, names: Collection[str], uses: Collection[KeyUse] = ()) -> Plan:
    """Keys enter the ring: every process opens them, decryption keys open from now on. Nothing signs with them yet."""
    wanted: dict[tuple[str, KeyUse], KeyState] = {}
    for key in map(have.find, names):
        for use in _uses(key, uses, ("PLANNED",), "stage"):
            wanted[key.id, use] = "STAGED"
    return plan_ring("stage", have, have.ring.with_states(wanted))


def plan_promote(
    have: Held, names: Collection[str], uses: Collection[KeyUse] = (), *, now: datetime, chosen: bool = False
) -> Plan:
    """Keys become the active ones, for all partners at once; those they replace drain.

    Choices for partners end where they were about the same party and kind of key, unless `chosen`.
    """
    wanted: dict[tuple[str, KeyUse], KeyState] = {}
    obstacles, notes, replaced = [], [], set()
    for key in map(have.find, names):
        obstacles += _out_of_time(key, now)
        for use in _uses(key, uses, ("STAGED", "ANNOUNCED"), "promote"):
            wanted[key.id, use] = "ACTIVE"
            before = have.active(key, use)
            if before is not None:
                wanted[before.id, use] = "DRAINING"
                notes.append(f"{use}: {before.id} drains, {key.id} takes its place")
            if use in ("sign", "decrypt") and key.states[use] == "STAGED":
                notes.append(f"{use}: {key.id} was never announced; do the partners have its certificate?")
            if use == "sign":
                replaced.add((key.party, key.kind))
    ring = have.ring.with_states(wanted)
    if not chosen:
        ring = ring.with_choices(c for c in ring.choices if _place(have, c) not in replaced)
    return plan_ring("promote", have, ring, obstacles=obstacles, notes=notes)


def plan_rollback(have: Held, names: Collection[str], uses: Collection[KeyUse] = (), *, now: datetime) -> Plan:
    """Active keys are staged again, and the ones they replaced are active again, where they still drain."""
    wanted: dict[tuple[str, KeyUse], KeyState] = {}
    obstacles, notes = [], []
    for key in map(have.find, names):
        for use in _uses(key, uses, ("ACTIVE",), "roll back"):
            wanted[key.id, use] = "STAGED"
            draining = [rival for rival in have.rivals(key, use) if rival.states[use] == "DRAINING"]
            if draining:
                back = max(draining, key=lambda rival: rival.since[use])
                wanted[back.id, use] = "ACTIVE"
                obstacles += _out_of_time(back, now)
            else:
                notes.append(f"{use}: no key drains that could take over; a configured file does, if there is one")
    withdrawn = {id for (id, use), state in wanted.items() if (use, state) == ("sign", "STAGED")}
    ring = have.ring.with_states(wanted).with_choices(c for c in have.ring.choices if c.key not in withdrawn)
    return plan_ring("rollback", have, ring, obstacles=obstacles, notes=notes)


def plan_retire(have: Held, names: Collection[str], uses: Collection[KeyUse] = (), *, now: datetime) -> Plan:
    """Keys leave the ring for good; the private part is destroyed once no use is left, the certificate is kept."""
    wanted: dict[tuple[str, KeyUse], KeyState] = {}
    obstacles = []
    for key in map(have.find, names):
        for use in _uses(key, uses, ("STAGED", "ANNOUNCED", "DRAINING"), "retire"):
            wanted[key.id, use] = "RETIRED"
            drained = max(now - key.since[use], timedelta(0))
            if key.states[use] == "DRAINING" and use == "decrypt" and drained < DRAIN:
                obstacles.append(
                    f"{key.id} has drained for {drained.days} of {DRAIN.days} days: what partners still encrypt to it "
                    "cannot be read any more"
                )
            if key.states[use] == "ANNOUNCED" and use == "decrypt":
                obstacles.append(f"{key.id} was announced: what partners encrypt to it cannot be read any more")
    return plan_ring("retire", have, have.ring.with_states(wanted), obstacles=obstacles)


def _uses(key: OwnKey, uses: Collection[KeyUse], states: Collection[KeyState], verb: str) -> list[KeyUse]:
    """The uses of a key that a verb is about: those wanted, or all that are in a state for it."""
    for use in uses:
        if use not in key.states:
            raise NotPossible(f"key {key.id} is not for {use}")
    found = [use for use in (uses or key.states) if key.states[use] in states]
    if not found or (uses and len(found) < len(set(uses))):
        stand = ", ".join(f"{use} {state}" for use, state in key.states.items())
        raise NotPossible(f"cannot {verb} key {key.id}: it is {stand}, expected {' or '.join(states)}")
    if key.certificate is None:
        raise NotPossible(f"key {key.id} waits for its certificate: `gateway certs import` it")
    return found


def _out_of_time(key: OwnKey, now: datetime) -> list[str]:
    certificate = x509.load_der_x509_certificate(key.certificate)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        return [f"the certificate of {key.id} is not valid now, but from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"]
    return []


def _place(have: Held, choice: Choice) -> tuple[str | None, str]:
    return choice.party or None, have.key(choice.key).kind


# -- doing it ---------------------------------------------------------------------------


async def apply(
    store: Store, plan: Plan, *, author: str, reason: str, patience: float = PATIENCE, look: Look | None = None,
    told: Callable[[Any], None] | None = None, test: Callable[[Ring], Awaitable[None]] | None = None,
    lead: float = SAME_MOMENT,
) -> Outcome:  # fmt: skip
    """Propose the ring of a plan and wait until it is in force everywhere, or refused.

    What other keys sign or identify with takes effect `lead` seconds after the last acknowledgement, everywhere at one
    moment. `test` stands for the processes where none lives. `look` and `told` as in `agreements.apply`.
    Raises `StalePlan`, `NotPossible`, `ConfigError` for a reason that is none, `StoreUnavailable`.
    """
    check_texts(reason=reason, author=author)
    if test is not None and not any(p.alive for p in await store.processes()):
        await test(plan.ring)
    switches = plan.choices or any("ACTIVE" in (move.before, move.after) for move in plan.moves)
    new = NewRevision(
        topic="keys", base=plan.base, content=plan.ring.encode(), author=author, reason=reason, patience=patience,
        notes={"verb": plan.verb} | ({"insisted": "; ".join(plan.obstacles)} if plan.obstacles else {}),
        lead=lead if switches else 0.0,
    )  # fmt: skip
    revision = await store.propose_revision(new)
    point("AG01")
    if told:
        told(revision)
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * patience + 10
    revision, behind = await settled(store, revision, end, look, told), ()
    if revision.state == "ACTIVE":
        behind = await followed(store, revision, min(end, loop.time() + patience + new.lead), look)
    words = tuple(await store.acknowledgements(revision.number, topic="keys"))
    return Outcome(revision=revision, words=words, behind=behind)


# -- what there is ----------------------------------------------------------------------


class OwnCertificate(Struct, frozen=True, kw_only=True):
    """One use of one certificate of ours. `key` is its id, or the file it is configured as (`place`: file). A key
    that waits for its certificate has no dates. `chosen`: partners that are signed for with it whatever is active."""

    key: str
    use: KeyUse
    state: KeyState
    party: str | None
    algorithm: str
    fingerprint: str
    place: str
    since: datetime | None = None
    subject: str | None = None
    issuer: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    chosen: tuple[str, ...] = ()


def own_certificates(have: Held) -> list[OwnCertificate]:
    """Every use of every key in the database, what is in use first. Files: `key_files.configured`."""
    found = []
    for key in have.keys:
        facts = facts_of(key.certificate) if key.certificate else {}
        chosen = tuple(c.partner for c in have.chosen if c.key == key.id)
        place = "token" if key.token else "database" if key.sealed else "destroyed"
        found += [
            OwnCertificate(
                key=key.id, use=use, state=state, party=key.party, algorithm=key.algorithm, place=place,
                fingerprint=key.fingerprint, since=key.since[use], chosen=chosen if use == "sign" else (), **facts,
            ) for use, state in key.states.items()
        ]  # fmt: skip
    order = ("ACTIVE", "ANNOUNCED", "STAGED", "PLANNED", "DRAINING", "RETIRED")
    return sorted(found, key=lambda c: (order.index(c.state), c.party or "", c.use, c.not_after is None, c.key))


def facts_of(certificate: bytes) -> dict[str, Any]:
    """Names and dates of a certificate (DER)."""
    found = x509.load_der_x509_certificate(certificate)
    return {
        "subject": found.subject.rfc4514_string(), "issuer": found.issuer.rfc4514_string(),
        "not_before": found.not_valid_before_utc, "not_after": found.not_valid_after_utc,
    }  # fmt: skip


class Due(Struct, frozen=True, kw_only=True):
    """A certificate in use that ends soon. `successor` is the key that waits to take its place, if any."""

    certificate: OwnCertificate
    days: int
    successor: str | None = None


def needs_renewal(certificates: Iterable[OwnCertificate], *, now: datetime, days: int) -> list[Due]:
    """What is in use and ends within `days`, the most urgent first. One that has a successor in the ring, valid for
    longer, is due for promotion and not listed."""
    certificates, found = list(certificates), []
    for one in certificates:
        if one.state != "ACTIVE" or one.not_after is None or one.not_after - now > timedelta(days=days):
            continue
        successors = [
            other for other in certificates
            if (other.use, other.party) == (one.use, one.party) and other.state in (*HELD, "PLANNED")
            and other.key != one.key and other.algorithm.split()[0] == one.algorithm.split()[0]
            and (other.not_after is None or other.not_after > one.not_after)
        ]  # fmt: skip
        ready = [other for other in successors if other.state in ("STAGED", "ANNOUNCED", "ACTIVE")]
        if not ready or one.not_after - now < timedelta(days=7):
            found.append(Due(
                certificate=one, days=(one.not_after - now).days, successor=next((o.key for o in successors), None)
            ))  # fmt: skip
    return sorted(found, key=lambda due: due.certificate.not_after)
