"""Which leg a message matches, and which it nearly does.

The question may leave things out; what is left out is taken to be as each leg has it, so that a few words
are enough on the command line and a whole header from a capture is judged to the letter. The
answer is the matcher's own: every message that could be meant is given to `Matcher.find_leg`, the very
call that decides when one arrives or is sent.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import SequenceMatcher

import msgspec
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.matching import PARAMETERS, Matcher
from gateway.as4.pmode import Leg, PModeSet
from gateway.as4.policy import check_properties
from gateway.as4.profiles import PROFILES
from gateway.as4.units import AgreementRef, PartyId, Property, Service, UserMessage
from gateway.errors import EbmsError, ProcessingModeMismatch

#: Legs whose names are compared letter by letter, for the order of near misses.
MAX_COMPARED = 200
_EPOCH = datetime.fromtimestamp(0, UTC)


class Question(Struct, frozen=True, kw_only=True):
    """What is known of a message. None: as each leg has it. A party is an id, or its name in the agreements.

    `agreement=""` asks for a message without eb:AgreementRef. `properties=None`: they are not judged.
    """

    from_party: str | None = None
    from_type: str | None = None
    from_role: str | None = None
    to_party: str | None = None
    to_type: str | None = None
    to_role: str | None = None
    service: str | None = None
    service_type: str | None = None
    action: str | None = None
    agreement: str | None = None
    agreement_type: str | None = None
    mpc: str | None = None
    properties: tuple[Property, ...] | None = None


class Difference(Struct, frozen=True):
    """One parameter in which a message is not as a leg has it. `parameter` is of `matching.PARAMETERS`."""

    parameter: str
    message: str
    agreement: str
    hint: str = ""


class Near(Struct, frozen=True):
    """A leg that does not match, with everything that differs."""

    leg: Leg
    differs: tuple[Difference, ...]


class Match(Struct, frozen=True):
    """A leg that matches. `refusal` is what its rules for properties would say, None: they are met or not judged."""

    leg: Leg
    message: UserMessage
    refusal: str | None = None


class Answer(Struct, frozen=True):
    """Matches (several where the question leaves open which), near misses, best first, and why there is no match."""

    matches: tuple[Match, ...]
    nearly: tuple[Near, ...]
    refusal: str | None = None
    #: What the question should say, too, where there are several matches.
    ask: tuple[str, ...] = ()


def why(
    pmodes: PModeSet, question: Question | UserMessage, *, matcher: Matcher | None = None, limit: int = 5
) -> Answer:
    """Ask the agreements. `limit` bounds the near misses."""
    matcher = matcher or Matcher(pmodes)
    resolved = question if isinstance(question, UserMessage) else _by_name(question, pmodes)
    asked = {leg_id(leg): (leg, _message(resolved, leg)) for leg in pmodes.legs}
    matches: dict[tuple, Match] = {}
    refusal = None
    for _, message in asked.values():
        try:
            leg = matcher.find_leg(message)
        except ProcessingModeMismatch as mismatch:
            refusal = refusal or _refusal(mismatch)
        else:
            matches.setdefault(leg_id(leg), Match(leg, message, _judged(leg, message, resolved)))
    if not pmodes.legs:
        refusal = "there is no agreement"
    found = sorted(matches.values(), key=lambda match: leg_id(match.leg))
    others = [(leg, message) for key, (leg, message) in asked.items() if key not in matches]
    nearly = tuple(_nearest(matcher, others, limit))
    ask = _open(found) if len(found) > 1 else ()
    return Answer(tuple(found), nearly, None if found else refusal, ask)


def leg_id(leg: Leg) -> tuple:
    """What tells two legs apart, and their order."""
    agreement = leg.agreement
    return (
        leg.pmode_id, leg.number, leg.service.value, leg.service.type or "", leg.action,
        (agreement.value, agreement.type or "") if agreement else ("", ""), leg.mpc,
        leg.from_role, leg.to_role,
    )  # fmt: skip


def _by_name(question: Question, pmodes: PModeSet) -> Question:
    """The question with party names replaced by what they stand for."""
    ids = {party.party_id.value for party in pmodes.parties}
    names = {party.name: party.party_id for party in pmodes.parties if not party.pattern}
    said = {}
    for side in ("from", "to"):
        name = getattr(question, f"{side}_party")
        if name is not None and name not in ids and name in names:
            said[f"{side}_party"] = names[name].value
            said[f"{side}_type"] = getattr(question, f"{side}_type") or names[name].type
    return msgspec.structs.replace(question, **said)


def _message(question: Question | UserMessage, leg: Leg) -> UserMessage:
    """The message that is meant, what is left open as `leg` has it."""
    if isinstance(question, UserMessage):
        return question
    q, sender, receiver = question, leg.from_party.party_id, leg.to_party.party_id
    if q.agreement is None:
        agreement = leg.agreement
    else:
        kind = q.agreement_type if q.agreement_type is not None or leg.agreement is None else leg.agreement.type
        agreement = AgreementRef(q.agreement, kind) if q.agreement else None
    return UserMessage(
        message_id="why@gateway", timestamp=_EPOCH, conversation_id="why",
        from_party=PartyId(*_typed(q.from_party, q.from_type, sender.value, sender.type)),
        from_role=leg.from_role if q.from_role is None else q.from_role,
        to_party=PartyId(*_typed(q.to_party, q.to_type, receiver.value, receiver.type)),
        to_role=leg.to_role if q.to_role is None else q.to_role,
        service=Service(*_typed(q.service, q.service_type, leg.service.value, leg.service.type)),
        action=leg.action if q.action is None else q.action,
        agreement_ref=agreement, mpc=leg.mpc if q.mpc is None else q.mpc, properties=q.properties or (),
    )  # fmt: skip


def _typed(value: str | None, kind: str | None, known: str, known_kind: str | None) -> tuple[str, str | None]:
    # An empty type is how a question says that there is none.
    return (known if value is None else value), (known_kind if kind is None else kind or None)


def _judged(leg: Leg, message: UserMessage, question: Question | UserMessage) -> str | None:
    if isinstance(question, Question) and question.properties is None:
        return None
    try:
        check_properties(message, leg, PROFILES[leg.profile])
    except EbmsError as error:
        return _refusal(error)
    return None


def _refusal(error: EbmsError) -> str:
    return f"{error.code} {error.short_description}: {error.detail}"


# -- what nearly matches ---------------------------------------------------------------


def _nearest(matcher: Matcher, asked: Sequence[tuple[Leg, UserMessage]], limit: int) -> Iterator[Near]:
    """Fewest differences first; among equals the more alike; then by P-Mode id."""
    missed = [(leg, message, matcher.differs(leg, message)) for leg, message in asked]
    # A leg without differences can only lose to a more specific one; it is no near miss.
    missed = sorted((m for m in missed if m[2]), key=lambda m: (len(m[2]), leg_id(m[0])))[:MAX_COMPARED]
    near = [(Near(leg, tuple(_difference(name, leg, message) for name in names))) for leg, message, names in missed]
    yield from sorted(near, key=lambda n: (len(n.differs), _distance(n), leg_id(n.leg)))[:limit]


def _distance(near: Near) -> float:
    """How unlike the differing values are: 0 for equal texts, 1 for texts with nothing in common, summed up."""
    return sum(
        0.0 if d.message.lower() == d.agreement.lower()
        else 1 - SequenceMatcher(None, d.message[:200], d.agreement[:200], autojunk=False).ratio()
        for d in near.differs
    )  # fmt: skip


def _difference(parameter: str, leg: Leg, message: UserMessage) -> Difference:
    place = PARAMETERS.index(parameter)
    said, agreed = _of_message(message)[place], _of_leg(leg)[place]
    return Difference(parameter, text_of(said), text_of(agreed), _hint(said, agreed))


def _hint(said: object, agreed: object) -> str:
    value, wanted = getattr(said, "value", said) or "", getattr(agreed, "value", agreed) or ""
    if value == wanted:
        return "the type differs"
    if value.strip() == wanted.strip():
        return "a blank at an end"
    if value.lower() == wanted.lower():
        return "upper and lower case differ"
    return ""


def _of_message(message: UserMessage) -> tuple:
    return (
        message.from_party, message.to_party, message.from_role, message.to_role, message.service, message.action,
        message.mpc or ns.DEFAULT_MPC, message.agreement_ref,
    )  # fmt: skip


def _of_leg(leg: Leg) -> tuple:
    return (
        leg.from_party.party_id, leg.to_party.party_id, leg.from_role, leg.to_role, leg.service, leg.action,
        leg.mpc, leg.agreement,
    )  # fmt: skip


def text_of(value: object) -> str:
    """A parameter as a person reads it."""
    if value is None:
        return "(none)"
    kind = getattr(value, "type", None)
    text = value if isinstance(value, str) else value.value  # type: ignore[attr-defined]
    return f"{text} (type {kind})" if kind else text


#: How a question names what `PARAMETERS` names.
OPTIONS = dict(
    zip(PARAMETERS, ("--from", "--to", "--from-role", "--to-role", "--service", "--action", "--mpc", "--agreement"),
        strict=True)
)  # fmt: skip


def _open(matches: Sequence[Match]) -> tuple[str, ...]:
    """The options that would leave one of several matches."""
    values = [_of_leg(match.leg) for match in matches]
    return tuple(
        OPTIONS[name] for place, name in enumerate(PARAMETERS) if len({text_of(value[place]) for value in values}) > 1
    )
