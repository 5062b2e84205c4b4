"""What a change of agreements would do: to parties, certificates and exchanges, and to messages in flight.

A plan is made on the revision that is active and says so in its id: applied later, it is refused when
either base or content is another. It changes nothing.
"""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from gateway.as4.pmode import Leg, PModeSet
from gateway.errors import ConfigError
from gateway.msh.rooms import party_key
from gateway.operate.changes import Changes, compare
from gateway.pmodes.bundle import Bundle, Files
from gateway.pmodes.lint import Finding
from gateway.pmodes.toml import expanded
from gateway.store.agreements import Revision, Waiting
from gateway.store.api import Store

Lint = Callable[[Files], list[Finding]]


class InFlight(Struct, frozen=True, kw_only=True):
    """Messages to one partner that are not settled. `why` says what of the change concerns them; empty: nothing.

    They finish on the `revisions` they began with. `movable` of them fit the new agreements, too.
    """

    partner: str
    count: int
    movable: int
    oldest: datetime
    revisions: tuple[int, ...]
    why: tuple[str, ...]


class Plan(Struct, frozen=True, kw_only=True):
    """What would change. `id` names base and content: applying it later is refused when either is another.

    `errors` are lint errors that the active revision does not have; `known_errors` it has already.
    """

    id: str
    base: int
    sha256: str
    changes: Changes
    in_flight: tuple[InFlight, ...]
    errors: tuple[Finding, ...] = ()
    known_errors: tuple[Finding, ...] = ()
    same_files: bool = False
    notes: tuple[str, ...] = ()


async def plan(store: Store, bundle: Bundle, *, lint: Lint | None = None, now: datetime | None = None) -> Plan:
    """What applying `bundle` would change. Raises `ConfigError` when it cannot be loaded at all."""
    after = expanded(bundle)
    active = await store.active_agreements()
    before, old, notes = PModeSet(), None, []
    if active is not None:
        try:
            old = bundle_of(active, bundle.base, label=str(bundle.path("")))
            before = expanded(old)
        except ConfigError as error:
            # A newer release's, or its secrets are not here: that must not keep anybody from changing it.
            notes.append(f"revision {active.number} cannot be read here, everything counts as new: {error}")
    changes = compare(before, after, now=now)
    errors, known = new_errors(lint, bundle, old) if lint else ((), ())
    return Plan(
        id=f"{active.number if active else 0}-{bundle.digest[:12]}",
        base=active.number if active else 0,
        sha256=bundle.digest,
        changes=changes,
        in_flight=_in_flight(
            await store.in_flight(), await sets_of(store, before, active, bundle.base), after, changes
        ),
        errors=errors,
        known_errors=known,
        same_files=active is not None and active.sha256.hex() == bundle.digest,
        notes=tuple(notes),
    )


def bundle_of(revision: Revision, base: Path, *, label: str | None = None) -> Bundle:
    """The files of a revision, called `label` in messages; references to secrets start from `base`."""
    return Bundle.decode(revision.content, base=base, label=label or f"revision {revision.number}")


def new_errors(lint: Lint, bundle: Bundle, old: Bundle | None) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Errors of the new files that the old ones do not have, and those they have, too.

    A partner's certificate that expired must not keep another partner's from being renewed.
    """
    had = {_trait(f) for f in lint(old) if f.severity == "error"} if old is not None else set()
    found = [f for f in lint(bundle) if f.severity == "error"]
    return (
        tuple(f for f in found if _trait(f) not in had),
        tuple(f for f in found if _trait(f) in had),
    )


def _trait(finding: Finding) -> tuple[str, str, str]:
    return finding.rule, re.sub(r":\d+(?=:|$)", "", finding.where), finding.message


async def sets_of(store: Store, before: PModeSet, active: Revision | None, base: Path) -> dict[int, PModeSet]:
    """The agreements of every revision that messages in flight are under, as far as they can be read."""
    found = {active.number: before} if active is not None else {}
    for number in {w.revision for w in await store.in_flight()} - found.keys():
        revision = await store.revision(number)
        if revision is not None:
            try:
                found[number] = expanded(bundle_of(revision, base))
            except ConfigError:
                continue
    return found


def _in_flight(
    waiting: list[Waiting], sets: dict[int, PModeSet], after: PModeSet, changes: Changes
) -> tuple[InFlight, ...]:
    """Partner by partner, those the change concerns first."""
    legs = {leg.pmode_id: leg for leg in after.legs}
    names = {party_key(p.party_id): p.name for pmodes in (*sets.values(), after) for p in pmodes.parties}
    reasons = _reasons(changes)
    groups: dict[str, list[Waiting]] = {}
    for one in waiting:
        groups.setdefault(one.partner, []).append(one)
    found = []
    for partner, group in groups.items():
        name = names.get(partner, partner)
        why = dict.fromkeys(reasons.get(name, ()))
        for one in group:
            why |= dict.fromkeys(reasons.get(one.pmode_id, ()))
        movable = sum(one.count for one in group if fits(one, sets, legs))
        found.append(InFlight(
            partner=name, count=sum(one.count for one in group), movable=movable,
            oldest=min(one.oldest for one in group), revisions=tuple(sorted({one.revision for one in group})),
            why=tuple(why),
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda f: (not f.why, f.partner)))


def _reasons(changes: Changes) -> dict[str, list[str]]:
    """What changes, by the name of a party and by P-Mode id."""
    found: dict[str, list[str]] = {}
    for party in changes.parties:
        words = [f.field for f in party.fields] if party.change == "changed" else [f"party {party.change}"]
        found.setdefault(party.name, []).extend(words)
    for leg in changes.legs:
        if leg.change != "added":
            found.setdefault(leg.pmode_id, []).append("exchange " + leg.change)
    return found


def fits(waiting: Waiting, sets: dict[int, PModeSet], legs: dict[str, Leg]) -> bool:
    """Whether the frozen header of these messages is one of the leg that has their P-Mode id now."""
    there = legs.get(waiting.pmode_id)
    here = sets.get(waiting.revision)
    if there is None or here is None:
        return False
    was = next((leg for leg in here.legs if leg.pmode_id == waiting.pmode_id), None)
    return was is not None and _terms(was) == _terms(there)


def _terms(leg: Leg) -> tuple:
    return (leg.from_party.party_id, leg.to_party.party_id, leg.from_role, leg.to_role, leg.service, leg.action,
            leg.mpc, leg.agreement, leg.number)  # fmt: skip
