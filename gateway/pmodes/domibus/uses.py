"""The legs of a P-Mode file as one party sees them: what it sends to whom, and receives from whom.

What Domibus matches is what counts: legs of the processes whose initiators or responders the party is
among. What can never be right on the wire, or would weaken what every other agreement has, is told and
left out.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from gateway.as4 import ns
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Agreement, Exchange
from gateway.pmodes.domibus import retry as retries
from gateway.pmodes.domibus.parties import Parties
from gateway.pmodes.domibus.read import Node, shown
from gateway.pmodes.domibus.report import Report
from gateway.pmodes.domibus.security import Security, meaning
from gateway.pmodes.domibus.tables import Tables
from gateway.pmodes.parties import ABSOLUTE_URI

#: One exchange for each leg of each process; a person reads the result.
MAX_USES = 2000
#: Legs times partners: the whole network has some thousand.
MAX_PAIRS = 100_000


class Use(Struct, frozen=True):
    """A leg of a process as we see it: whom we send to on it, and whom we receive from."""

    process: Node
    leg: Node
    exchange: Exchange
    profile: str
    sends: tuple[str, ...]
    receives: tuple[str, ...]

    @property
    def is_test(self) -> bool:
        return self.exchange.service == ns.TEST_SERVICE and self.exchange.action == ns.TEST_ACTION


def uses_of(processes: Sequence[Node], tables: Tables, us: Node, parties: Parties, report: Report) -> Iterator[Use]:
    """Every leg of these processes that is ours. Errors go into the report."""
    count, pairs, channels = 0, 0, {}
    for process in processes:
        for use in _process(process, tables, us, parties, channels, report):
            count += 1
            pairs += len(use.sends) + len(use.receives)
            if count > MAX_USES or pairs > MAX_PAIRS:
                raise ConfigError(f"has more than {MAX_USES} legs that are ours, or {MAX_PAIRS} with partners",
                                  file=report.file)  # fmt: skip
            yield use


def _process(
    process: Node, tables: Tables, us: Node, parties: Parties, channels: dict[str, str], report: Report
) -> Iterator[Use]:
    what = process.title
    mep, binding = tables.refer(process, "mep"), tables.refer(process, "binding")
    roles = [tables.refer(process, name, "role") for name in ("initiatorRole", "responderRole")]
    agreement = tables.refer(process, "agreement", optional=True)
    initiators = tables.members(process, "initiatorParties", "initiatorParty")
    responders = tables.members(process, "responderParties", "responderParty")
    legs = [leg for node in process.all("legs") for entry in node.all("leg")
            if (leg := tables.refer(entry, "name", "legConfiguration"))]  # fmt: skip
    if None in (mep, binding, *roles):
        return
    if roles[0] is roles[1] or roles[0].get("value") == roles[1].get("value"):
        report.warn(process.line, what, "both roles are the same: only the parties tell the sides apart")
    sending, receiving = initiators is None or us in initiators, responders is None or us in responders
    if not sending and not receiving:
        report.warn(process.line, what, f"{us.name} is not in it; it is not imported (Domibus 5.2: DOM_003)")
        return
    dynamic = [side for side, found in (("initiatorParties", initiators), ("responderParties", responders))
               if found is None]  # fmt: skip
    for side in dynamic:
        kind = "unknown senders may come" if side == "initiatorParties" else "receivers are looked up over SML and SMP"
        report.warn(process.line, what, f"no {side}: {kind}; this needs trust anchors and a table of its own "
                    "(pmodes/README.md), only parties of the file are imported")  # fmt: skip
    shape = _shape(mep, binding, process, report)
    if shape is None:
        return
    everybody = tuple(tables.all("party"))
    sends = parties.partners(everybody if responders is None else responders) if sending else ()
    receives = parties.partners(everybody if initiators is None else initiators) if receiving else ()
    if shape == "pull":
        # The initiator is who pulls: messages go the other way, and yet with the roles as they stand (5.0.8).
        sends, receives = receives, _reachable(sends, parties, process, report)
    if not sends and not receives and not parties.lone:
        report.warn(process.line, what, "no partner in it can be used")
        return
    ref = _agreement(agreement, report)
    if ref is False:
        return
    for leg in legs:
        exchange, security = _leg(leg, tables, report)
        if exchange is None:
            continue
        pullers = (*sends, us.name) if receives else sends
        if shape == "pull" and not _own_channel(exchange, pullers, channels, leg, report):
            continue
        exchange = msgspec.structs.replace(
            exchange, from_role=roles[0].get("value"), to_role=roles[1].get("value"), agreement=ref,
            mep="one-way-pull" if shape == "pull" else "one-way",
        )  # fmt: skip
        yield Use(process, leg, exchange, security.profile, sends, receives)


def _reachable(names: tuple[str, ...], parties: Parties, process: Node, report: Report) -> tuple[str, ...]:
    """Whom we can pull from."""
    silent = [name for name in names if parties.tables[name].endpoint is None]
    if silent:
        report.warn(process.line, process.title, f"nothing can be pulled from {', '.join(silent[:5])}: no endpoint")
    return tuple(name for name in names if name not in silent)


def _own_channel(
    exchange: Exchange, pullers: tuple[str, ...], channels: dict[str, str], leg: Node, report: Report
) -> bool:
    """Whether the MPC of a pulled leg is one that a single party pulls [as4 4.6]."""
    mpc, what = exchange.mpc, leg.title
    if mpc is None or not ABSOLUTE_URI.fullmatch(mpc):
        report.warn(leg.line, what, "is pulled on the default MPC or one that is no URI: not imported, a pulled "
                    "channel has a name of its own")  # fmt: skip
        return False
    for owner in pullers:
        if channels.setdefault(mpc, owner) != owner:
            report.warn(leg.line, what, f"MPC {shown(mpc)} is pulled by {channels[mpc]} and {owner}: not imported, "
                        "a channel belongs to one party")  # fmt: skip
            return False
    return True


def _shape(mep: Node, binding: Node, process: Node, report: Report) -> str | None:
    """What the MEP and its binding are here; None when nothing."""
    kind, how = _last(mep.get("value")), _last(binding.get("value"))
    what = process.title
    if kind not in ("oneway", "twoway"):
        report.warn(process.line, what, f"the MEP {shown(mep.get('value') or '')} is not known; not imported")
        return None
    if kind == "twoway":
        report.warn(process.line, what, "two-way: no product ties the two legs together; imported as one-way legs")
    if how == "push":
        return "push"
    if how == "pushandpush":
        report.warn(process.line, what, "binding pushAndPush: imported as one-way pushes, as Domibus treats it")
        return "push"
    if how == "pull" and kind == "oneway":
        return "pull"
    if how in ("pull", "sync", "pushandpull", "pullandpush"):
        report.warn(process.line, what, f"binding {how}: not imported")
        return None
    report.warn(process.line, what, f"the binding {shown(binding.get('value') or '')} is not known; not imported")
    return None


def _last(value: str | None) -> str:
    """`…/push-and-push`, `…/pushAndPush` and `PushAndPush` as one word."""
    return re.sub(r"[^a-z]", "", re.split(r"[/#:]", (value or "").rstrip("/"))[-1].lower())


def _agreement(node: Node | None, report: Report) -> Agreement | str | bool | None:
    """eb:AgreementRef; None for no or an empty one, False where it cannot stand in a message."""
    if node is None or not (value := node.get("value")):
        return None
    if kind := node.get("type"):
        return Agreement(value, kind)
    if not ABSOLUTE_URI.fullmatch(value):
        report.warn(node.line, node.title, f"{shown(value)} has no type and is no URI, which ebMS3 demands; "
                    "its processes are not imported")  # fmt: skip
        return False
    return value


def _leg(leg: Node, tables: Tables, report: Report) -> tuple[Exchange | None, Security]:
    """The exchange of a leg, still without roles and agreement; None where it cannot be used."""
    service, action = tables.refer(leg, "service"), tables.refer(leg, "action")
    mpc, security = tables.refer(leg, "defaultMpc", "mpc"), tables.refer(leg, "security")
    awareness = tables.refer(leg, "receptionAwareness", optional=True)
    if None in (service, action, mpc, security):
        return None, Security()
    means = meaning(security)
    if means.unknown:
        report.error(security.line, f"{leg.title}: {security.title}", means.fault)
        return None, means
    if means.fault:
        report.warn(leg.line, leg.title, f"{security.title} is never usable: {means.fault}; the leg is not imported",
                    "P009")  # fmt: skip
        return None, means
    service_type = service.get("type") or None
    if service_type is None and not ABSOLUTE_URI.fullmatch(service.get("value")):
        report.warn(service.line, service.title, "has no type and is no URI, which ebMS3 demands; not imported")
        return None, means
    properties, closed = tables.properties(leg)
    sizes = tables.sizes(leg)
    retry = tables.retry(awareness) if awareness else retries.ONCE
    channel = mpc.get("qualifiedName")
    return Exchange(
        action=action.get("value"), service=service.get("value"), service_type=service_type,
        mpc=None if channel == ns.DEFAULT_MPC else channel,
        compress=leg.flag("compressPayloads"), retry=retry, signature_token=means.token,
        properties=properties, closed_properties=closed, **sizes,
    ), means  # fmt: skip
