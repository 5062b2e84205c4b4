"""P011 to P015, P019 to P021: what the legs say together."""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from gateway.as4 import ns
from gateway.as4.pmode import Leg, RetryPolicy
from gateway.as4.profiles import PROFILES
from gateway.config.places import dotted
from gateway.pmodes.defaults import defaults_of
from gateway.pmodes.layers import Made
from gateway.pmodes.lint.catalogue import Finding, Severity
from gateway.pmodes.lint.ground import Ground

YEAR = 365 * 86_400
#: A convention has so many names that follow it, and at most so many, as a share, that do not.
CONVENTION_LEAST, CONVENTION_SHARE = 4, 0.75


def unreachable(ground: Ground) -> Iterator[Finding | None]:
    """P011: partners we cannot send to, exchanges that go nowhere, files without a partner."""
    # Who fetches everything that is for it needs no endpoint.
    served = {made.leg.to_party.name for made in ground.made} - {
        made.leg.to_party.name for made in ground.made if not made.leg.pulled
    }
    for partner in ground.partners():
        if partner.table.endpoint is None and not partner.table.any and partner.name not in served:
            yield ground.about(partner, "P011", "warning", "has no endpoint: it can send to us, we cannot send to it")
    for document in ground.documents:
        if document.file.own in document.file.parties and len(document.file.parties) == 1:
            yield ground.finding("P011", "warning", document, "", "there is no partner in it")


def properties(ground: Ground) -> Iterator[Finding | None]:
    """P012: properties of the profile that an agreement leaves out."""
    for made in ground.made:
        leg = made.leg
        if leg.is_internal:
            continue
        if PROFILES[leg.profile].four_corner:
            declared = {rule.name for rule in leg.properties if rule.required and rule.when is None}
            for name in (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT):
                if name not in declared:
                    yield _of_leg(
                        ground, made, "P012", "error", f"profile {leg.profile} needs the required property {name}"
                    )
        known = {rule.name for rule in leg.properties} | {ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT}
        for name in (p if isinstance(p, str) else p.name for p in defaults_of(leg.profile).properties or ()):
            if name not in known:
                refused = leg.closed_properties
                yield _of_leg(
                    ground,
                    made,
                    "P012",
                    "warning" if refused else "info",
                    f"the property {name} of profile {leg.profile} is not declared: a message that has it is "
                    + ("refused" if refused else "let pass unjudged"),
                )


def retention(ground: Ground) -> Iterator[Finding | None]:
    """P013, P014: how long the node keeps what the law wants to see, and what a consumer may want again."""
    if not ground.made or not (documents := ground.documents):
        return
    node = ground.node
    oots = any(made.leg.profile.startswith("oots/") for made in ground.made)
    if oots and node.metadata is not None and node.metadata < YEAR:
        days = f"{node.metadata / 86_400:.0f} days"
        yield ground.finding("P013", "error", documents[0], "", f"the node keeps message metadata for {days} only")
    if node.delivered_payloads == 0:
        for made in _inbound(ground):
            if made.leg.backend in node.read_once:
                yield _of_leg(
                    ground,
                    made,
                    "P014",
                    "warning",
                    f"payloads are erased once backend {made.leg.backend!r} has read them",
                )


def patience(ground: Ground) -> Iterator[Finding | None]:
    """P015: partners whose maintenance lasts longer than we go on trying."""
    for made in ground.made:
        leg = made.leg
        table = made.document.file.parties.get(leg.to_party.name)
        maintenance = table.maintenance if table is not None else None
        if maintenance and leg.to_party.name != made.document.file.own and reach(leg.retry) < maintenance:
            yield _of_leg(
                ground,
                made,
                "P015",
                "warning",
                f"sending to {leg.to_party.name} is given up after {_span(reach(leg.retry))}, its maintenance may last "
                f"{_span(maintenance)}",
            )


def reach(retry: RetryPolicy) -> float:
    """Seconds from the first attempt to the last one, without jitter."""
    total, wait = 0.0, retry.first
    for _ in range(retry.count):
        total += min(wait, retry.max)
        wait = min(wait * retry.factor, retry.max)
    return min(total, retry.window)


def alike(ground: Ground) -> Iterator[Finding | None]:
    """P019: one P-Mode id for different legs. Legs that match the same messages are refused by reading."""
    seen: dict[tuple[str, int], Leg] = {}
    for made in ground.made:
        leg = made.leg
        other = seen.setdefault((leg.pmode_id, leg.number), leg)
        if (other.service, other.action, other.profile) != (leg.service, leg.action, leg.profile):
            yield _of_leg(
                ground,
                made,
                "P019",
                "warning",
                f"{leg.pmode_id} is the id of two legs: {_exchange(other)} and {_exchange(leg)}",
                "give one of the exchanges an id of its own",
            )


def names(ground: Ground) -> Iterator[Finding | None]:
    """P020: party ids that differ in case only, and names unlike those of the other partners."""
    folded: dict[str, str] = {}
    for document in ground.documents:
        for name, table in document.file.parties.items():
            id = table.id or name
            if (twin := folded.setdefault(id.lower(), id)) != id:
                yield ground.finding(
                    "P020", "warning", document, dotted("parties", name), f"{id!r} and {twin!r} differ in case only"
                )
    partners = list(ground.partners())
    shapes = Counter(_shape(partner.table.id or partner.name) for partner in partners)
    if not shapes:
        return
    usual, times = shapes.most_common(1)[0]
    if times < CONVENTION_LEAST or times < CONVENTION_SHARE * len(partners):
        return
    model = next(p for p in partners if _shape(p.table.id or p.name) == usual)
    for partner in partners:
        id = partner.table.id or partner.name
        if _shape(id) != usual:
            message = f"{id!r} is not named as {times} of {len(partners)} partners are, such as {model.name!r}"
            yield ground.about(partner, "P020", "info", message)


def backends(ground: Ground) -> Iterator[Finding | None]:
    """P021: inbound actions with no backend, or with more than one."""
    known = ground.node.backends
    several: dict[tuple, dict[str, Made]] = defaultdict(dict)
    for made in _inbound(ground):
        leg = made.leg
        if known is not None and leg.backend not in known:
            near = difflib.get_close_matches(leg.backend, sorted(known), 1, 0.6)
            hint = f"did you mean {near[0]!r}?" if near else "the backends are " + ", ".join(sorted(known))
            message = f"{leg.action} has no backend: there is none named {leg.backend!r}"
            yield _of_leg(ground, made, "P021", "error", message, hint)
        several[leg.to_party.party_id, leg.service, leg.action].setdefault(leg.backend, made)
    for routes in several.values():
        if len(routes) > 1:
            made = next(reversed(routes.values()))
            said = ", ".join(f"{name!r} (from {made.leg.from_party.name})" for name, made in sorted(routes.items()))
            yield _of_leg(ground, made, "P021", "warning", f"{made.leg.action} goes to more than one backend: {said}")


def _inbound(ground: Ground) -> Iterator[Made]:
    """The legs on which something arrives for a consumer."""
    for made in ground.made:
        if made.leg.to_party.name == made.document.file.own and not made.leg.is_internal:
            yield made


def _of_leg(ground: Ground, made: Made, rule: str, severity: Severity, message: str, hint: str = "") -> Finding | None:
    """A finding at the most specific layer of a leg that stands in its file."""
    inside = [layer.key for layer in made.layers if layer.file == made.document.name]
    return ground.finding(rule, severity, made.document, inside[-1] if inside else "", message, hint)


def _shape(name: str) -> str:
    """A name without what differs among peers: AP_EE_01 and AP_MT_02 have one shape, ap_mt_prod has another."""
    return re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", re.sub(r"\d+", "9", name)))


def _exchange(leg: Leg) -> str:
    return f"{leg.service.value} {leg.action}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
