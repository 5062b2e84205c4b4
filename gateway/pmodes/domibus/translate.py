"""From the nodes of a P-Mode file to one agreement file, for the party that is us.

    process × leg × direction → exchange      everything said in full
    exchanges → file (`shorten`)               what all have in common at the top, what the profile says not at all

Domibus resolves names without regard to case, and so do we. What cannot work on the wire is left
out with a warning that says why; what would make the agreements other than the file means is an
error. Nothing becomes usable because it stands in the file: only what a leg of a process of
ours names is looked at.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import msgspec
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import PropertyRule
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Exchange, File
from gateway.pmodes.domibus.parties import parties_of
from gateway.pmodes.domibus.read import Node, refuse, shown
from gateway.pmodes.domibus.report import Report
from gateway.pmodes.domibus.tables import Tables
from gateway.pmodes.domibus.uses import MAX_USES, Use, uses_of

_CORNERS = (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT)


class Translation(Struct, frozen=True):
    """An agreement file with everything said in full, and where its pieces come from.

    `names` are the names of parties in the P-Mode file by those in ours (they differ for a party
    with several identifiers); `processes` the exchanges of each process; `without` the processes
    that were left out as asked.
    """

    file: File
    names: dict[str, str]
    processes: dict[str, tuple[str, ...]]
    without: tuple[str, ...] = ()


def translate(root: Node, report: Report, own: str | None = None, without: Sequence[str] = ()) -> Translation:
    """The agreement file for party `own`, by default the one the file was made for.

    Processes named in `without` are left out; other names there are for the caller to look at.

    Raises `ConfigError`: no such party, an error of the file, or nothing in it that is for us.
    """
    tables = Tables(root, report)
    us = _ourselves(root, tables, own, report)
    tables.check()
    parties = parties_of(tables, us, report)
    processes = [process for process in tables.all("process") if process.name not in without]
    gone = tuple(process.name for process in tables.all("process") if process.name in without)
    uses = list(uses_of(processes, tables, us, parties, report))
    refuse(report)
    uses = _one_profile(uses, report)
    if parties.lone:
        report.warn(us.line, us.title, "is the only party: there is nobody to exchange messages with", "P011")
    else:
        uses = _without_repetition(uses, report)
    tables.tell_unused(us)
    if not uses:
        raise ConfigError(
            f"holds nothing that {us.name} can use", file=report.file,
            hint="; ".join(f"{n.where}: {n.message}" for n in report.warnings[:3]) or "no process names it",
        )  # fmt: skip
    partners = {name for use in uses for name in (*use.sends, *use.receives)}
    for name in [name for name in parties.tables if name != us.name and name not in partners]:
        report.ignore(parties.lines[name], f"party {shown(name)}", f"has no leg with {us.name}")
        del parties.tables[name]
    others = tuple(name for name in parties.tables if name != us.name)
    exchanges, by_process = _exchanges([use for use in uses if not use.is_test], others)
    uses = [use for use in uses if not (use.is_test and exchanges and _is_given(use, exchanges))]
    if any(use.is_test for use in uses):
        exchanges, by_process = _exchanges(uses, others)
    profile = uses[0].profile if _four_corner(exchanges) else f"{uses[0].profile}-two-corner"
    file = File(profile=profile, own=us.name, parties=parties.tables, exchanges=exchanges)
    return Translation(file, {name: parties.sources[name] for name in parties.tables}, by_process, gone)


def _ourselves(root: Node, tables: Tables, own: str | None, report: Report) -> Node:
    """The party that is us: by its name, or by a party id of it."""
    wanted = own or root.get("party")
    if not wanted:
        raise ConfigError("names no party of its own", file=report.file, key="configuration@party",
                          hint="say which party you are: --self PARTY")  # fmt: skip
    found = tables.find("party", wanted)
    if found is None:
        ids = [p for p in tables.all("party") for i in p.all("identifier") if (i.get("partyId") or "") == wanted]
        found = ids[0] if len(ids) == 1 else None
    if found is None:
        near = get_close_matches(wanted, _some(p.name for p in tables.all("party")), 3, 0.6)
        made_for = f"; the file was made for {named!r}" if (named := root.get("party")) and own else ""
        known = _some(p.name for p in tables.all("party"))[:20]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"its parties are {', '.join(known)}"
        raise ConfigError(f"there is no party {shown(wanted)}", file=report.file,
                          key="--self" if own else "configuration@party", hint=hint + made_for)  # fmt: skip
    if own and own != found.name:
        report.repair(found.line, f"party {shown(found.name)}", f"is the party meant by {shown(own)}")
    named = root.get("party")
    if own and named and tables.find("party", named) is None:
        report.warn(root.line, "configuration party", f"{shown(named)} is none of the parties")
    return found


def _some(names: Iterable[str]) -> list[str]:
    """Enough names to suggest one of."""
    return sorted(names)[:60]


# -- from uses to exchanges -----------------------------------------------------------


def _one_profile(uses: list[Use], report: Report) -> list[Use]:
    """The uses of the profile most legs have. An agreement file has one profile."""
    counts: dict[str, int] = {}
    for use in uses:
        counts[use.profile] = counts.get(use.profile, 0) + 1
    if len(counts) < 2:
        return uses
    chosen = max(counts, key=lambda name: counts[name])
    for use in uses:
        if use.profile != chosen:
            report.warn(use.leg.line, use.leg.title, f"is {use.profile}, the other legs are {chosen}; not imported: "
                        "an agreement file has one profile")  # fmt: skip
    return [use for use in uses if use.profile == chosen]


def _without_repetition(uses: list[Use], report: Report) -> list[Use]:
    """Each message has one leg. Domibus takes the first that matches, and so do we."""
    taken: dict[tuple, str] = {}
    kept = []
    for use in uses:
        e = use.exchange
        reference = e.agreement if isinstance(e.agreement, str | None) else (e.agreement.value, e.agreement.type)
        terms = (e.service, e.service_type, e.action, e.from_role, e.to_role, reference, e.mpc)
        sides = []
        for side, names in (("sends", use.sends), ("receives", use.receives)):
            free = tuple(name for name in names if (terms, side, name) not in taken)
            for name in free:
                taken[terms, side, name] = f"{use.process.title}, {use.leg.title}"
            if len(free) < len(names):
                first = next(taken[terms, side, name] for name in names if name not in free)
                report.warn(use.leg.line, f"{use.process.title}, {use.leg.title}",
                            f"matches the same messages as {first}, which comes first", "P019")  # fmt: skip
            sides.append(free)
        if any(sides):
            kept.append(msgspec.structs.replace(use, sends=sides[0], receives=sides[1]))
    return kept


def _is_given(test: Use, exchanges: Iterable[Exchange]) -> bool:
    """Whether every agreement of these exchanges has this very test leg anyway [as4 6.2 (26)]: see `expand`."""
    def facts(exchange: Exchange) -> tuple:
        pulled = exchange.mep == "one-way-pull"
        mpc = exchange.mpc if pulled or exchange is test.exchange else None
        return (exchange.from_role, exchange.to_role, exchange.signature_token, pulled, mpc)

    def first(direction: str, partner: str) -> Exchange | None:
        with_it = (
            e for e in exchanges
            if e.direction in ("both", direction) and (e.parties is None or partner in e.parties)
            and repr(e.agreement) == repr(test.exchange.agreement)
        )  # fmt: skip
        return min(with_it, key=lambda e: (e.mep == "one-way-pull", e.name), default=None)

    wanted = [("send", name) for name in test.sends] + [("receive", name) for name in test.receives]
    likes = [first(*place) for place in wanted]
    return all(like and facts(like) == facts(test.exchange) for like in likes)


def _exchanges(
    uses: Sequence[Use], partners: tuple[str, ...]
) -> tuple[tuple[Exchange, ...], dict[str, tuple[str, ...]]]:
    """The exchanges under names of their own, and those of each process."""
    made: list[Exchange] = []
    names: set[str] = set()
    processes: dict[str, list[str]] = {}
    actions = [use.exchange.name for use in uses]
    for use in uses:
        both = use.sends == use.receives
        sides: list[tuple[str, tuple[str, ...]]] = [("both", use.sends)] if both else [
            (direction, who) for direction, who in (("send", use.sends), ("receive", use.receives)) if who
        ]  # fmt: skip
        for direction, who in sides:
            wanted = use.exchange.name if actions.count(use.exchange.name) == 1 else use.leg.name
            name = _free(wanted, names, use.process.name if len(sides) == 1 else direction)
            names.add(name)
            processes.setdefault(use.process.name, []).append(name)
            exchange = msgspec.structs.replace(
                use.exchange, direction=direction, parties=None if who == partners else who
            )
            if exchange.name != name:
                exchange = msgspec.structs.replace(exchange, id=name)
            made.append(exchange)
    return tuple(made), {process: tuple(found) for process, found in processes.items()}


def _free(wanted: str, taken: set[str], more: str) -> str:
    """A name for an exchange that no other has."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", wanted)[:40] or "exchange"
    candidates = [base, f"{base}-{re.sub(r'[^A-Za-z0-9._-]+', '_', more)[:16]}"]
    candidates += (f"{candidates[1]}-{n}" for n in range(2, MAX_USES + 2))
    return next(name for name in candidates if name not in taken)


def _four_corner(exchanges: Iterable[Exchange]) -> bool:
    """Whether every exchange demands the two corners."""
    return all(
        set(_CORNERS) <= {r.name for r in e.properties if isinstance(r, PropertyRule) and r.required}
        for e in exchanges
        if e.service != ns.TEST_SERVICE
    )
