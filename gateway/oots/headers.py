"""The OOTS rules for the ebMS header, as a table with one function per rule [oots 2.4].

Findings are advice: the access point receives, acknowledges and delivers, and the software
behind it answers with an exchange error [tdd 4.7.1]. Nothing here refuses anything.

The line of the specification is chosen before anything is judged: what 2.0 demands (four
message properties) 1.x forbids, so the wrong rule set would condemn every right message.

The numbers are the project's own (H-01 …); `official` is the published identifier where it
is attested. Values of a peer appear in messages shortened and quoted.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.units import PartInfo, Property, UserMessage
from gateway.oots import codes
from gateway.oots.edm import EdmIndex, content_id

Severity = Literal["fatal", "warning"]
Line = Literal["1.x", "2.0"]

#: Decided before a UserMessage exists: the header reader refuses what breaks these [as4 2.2].
DECIDED_BY_THE_READER = ("H-01", "H-02", "H-05", "H-06")
#: Not an assertion but the way content ids are compared; see `edm.content_id`.
CONVENTIONS = ("H-34",)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"[^@\s]+@[^@\s]+")
_KINDS = {codes.REQUEST: "Q", codes.RESPONSE: "R", codes.EXCEPTION: "E"}
_PROPERTIES: dict[Line, tuple[str, ...]] = {
    "1.x": (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT),
    "2.0": (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT, codes.EXCHANGE_ID, codes.SPECIFICATION_ID),
}


class Finding(Struct, frozen=True, omit_defaults=True):
    """One broken rule. `line` is the version of the rule set: numbers are not stable across lines."""

    rule: str
    severity: Severity
    message: str
    line: Line = "2.0"
    official: str | None = None

    def __str__(self) -> str:
        name = f"{self.rule}, {self.official}" if self.official else self.rule
        return f"oots {self.line} {name}: {self.message}"


class _Case(Struct, frozen=True):
    """What a rule may look at. `kind`: Q, R, E; L for the lifecycle manager; ? for an unknown action."""

    message: UserMessage
    index: EdmIndex | None
    request: UserMessage | None
    line: Line
    kind: str


class Rule(Struct, frozen=True):
    """`applies` lists the kinds it holds for. `broken` yields one message per breach."""

    id: str
    severity: Severity
    applies: str
    broken: Callable[[_Case], Iterator[str]]
    official: str | None = None
    line: Line | None = None


def check(
    message: UserMessage, index: EdmIndex | None = None, *, request: UserMessage | None = None
) -> tuple[Finding, ...]:
    """The broken rules, in the order of their numbers. Rules that need the document are judged
    only with `index`, those that compare with the request only with `request`. The test service
    has no rules."""
    if message.is_test:
        return ()
    line = rule_set(message, index)
    kind = "L" if message.service.value == codes.LIFECYCLE_MANAGER else _KINDS.get(message.action, "?")
    case = _Case(message, index, request, line, kind)
    return tuple(
        Finding(rule.id, rule.severity, text, line, rule.official)
        for rule in RULES
        if kind in rule.applies and rule.line in (None, line)
        for text in rule.broken(case)
    )


def rule_set(message: UserMessage, index: EdmIndex | None = None) -> Line:
    """Property and slot mean 2.0, the slot alone 1.x [tdd 4.7 2.6.2]. Where they disagree the slot
    decides: it is the older promise, and the disagreement is a finding of its own."""
    announced = message.value_of(codes.SPECIFICATION_ID)
    told = index.specification if index is not None else None
    for text in (told, announced):
        if text and text.strip().startswith("oots-edm:v"):
            return "1.x" if text.strip().startswith("oots-edm:v1.") else "2.0"
    newer = {codes.SPECIFICATION_ID, codes.EXCHANGE_ID} & {p.name for p in message.properties}
    return "2.0" if newer else "1.x"


# -- message info and parties --------------------------------------------------------------


def _timestamp(case: _Case) -> Iterator[str]:
    if case.message.timestamp.utcoffset() is None:
        yield "eb:Timestamp has no offset from UTC"


def _message_id(case: _Case) -> Iterator[str]:
    if not _MESSAGE_ID.fullmatch(case.message.message_id):
        yield f"eb:MessageId {_shown(case.message.message_id)} is not of the form left@right"


def _party_types(case: _Case) -> Iterator[str]:
    for name, party in (("eb:From", case.message.from_party), ("eb:To", case.message.to_party)):
        if not _scheme(party.type, oots=True):
            yield f"the PartyId type of {name} is {_shown(party.type)}, not an EAS or unregistered scheme"


def _roles(case: _Case) -> Iterator[str]:
    for name, role in (("eb:From", case.message.from_role), ("eb:To", case.message.to_role)):
        if role != codes.ROLE:
            yield f"the role of {name} is {_shown(role)}, not the OOTS gateway role"


# -- collaboration info ----------------------------------------------------------------------


def _service(case: _Case) -> Iterator[str]:
    if case.message.service.value != codes.QUERY_MANAGER:
        yield f"eb:Service is {_shown(case.message.service.value)}, not QueryManager"


def _service_type(case: _Case) -> Iterator[str]:
    if case.message.service.type != codes.SERVICE_TYPE:
        yield f"the type of eb:Service is {_shown(case.message.service.type)}"


def _action(case: _Case) -> Iterator[str]:
    if case.message.action not in _KINDS:
        yield f"eb:Action is {_shown(case.message.action)}"


def _action_fits(case: _Case) -> Iterator[str]:
    index = case.index
    if index is None:
        return
    if index.kind == "request":
        fitting = codes.REQUEST
    elif index.kind == "response":
        fitting = codes.EXCEPTION if index.status == "Failure" else codes.RESPONSE
    else:
        yield "the document belongs to the lifecycle manager"
        return
    if case.message.action != fitting:
        yield f"the document belongs to {fitting}, eb:Action is {_shown(case.message.action)}"


def _conversation(case: _Case) -> Iterator[str]:
    if not _UUID.fullmatch(case.message.conversation_id.strip()):
        yield f"eb:ConversationId {_shown(case.message.conversation_id)} is not a UUID"


# -- message properties -----------------------------------------------------------------------


def _property_count(case: _Case) -> Iterator[str]:
    count, wanted = len(case.message.properties), len(_PROPERTIES[case.line])
    if count != wanted:
        yield f"{count} message properties instead of exactly {wanted}"


def _property_names(case: _Case) -> Iterator[str]:
    names, wanted = {p.name for p in case.message.properties}, set(_PROPERTIES[case.line])
    if missing := sorted(wanted - names):
        yield f"missing message properties: {', '.join(missing)}"
    if surplus := sorted(names - wanted)[:5]:
        yield f"message properties outside the rule: {', '.join(map(_shown, surplus))}"


def _corner(name: str) -> Callable[[_Case], Iterator[str]]:
    def broken(case: _Case) -> Iterator[str]:
        found = _property(case.message, name)
        if found is None or not found.value.strip():
            yield f"{name} is missing or empty"
        elif not found.type:
            yield f"{name} has no type"

    return broken


def _corner_types(case: _Case) -> Iterator[str]:
    for name in (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT):
        found = _property(case.message, name)
        if found is not None and found.type and not _scheme(found.type):
            yield f"the type of {name} is {_shown(found.type)}, not an EAS or unregistered scheme"


def _exchange(case: _Case) -> Iterator[str]:
    value = case.message.value_of(codes.EXCHANGE_ID)
    if value is not None and not _UUID.fullmatch(value.strip()):
        yield f"ExchangeId {_shown(value)} is not a UUID"


def _specification(case: _Case) -> Iterator[str]:
    value = case.message.value_of(codes.SPECIFICATION_ID)
    if value is not None and value.strip() != codes.EDM_2_0:
        yield f"SpecificationId is {_shown(value)}, not {codes.EDM_2_0}"


def _one_specification(case: _Case) -> Iterator[str]:
    value = case.message.value_of(codes.SPECIFICATION_ID)
    if value is not None and case.index is not None and value.strip() != case.index.specification:
        yield f"SpecificationId is {_shown(value)}, the document says {_shown(case.index.specification)}"


# -- an answer against its request ---------------------------------------------------------------


def _repeats(case: _Case) -> Iterator[str]:
    message, request = case.message, case.request
    if request is None:
        return
    if message.conversation_id.strip() != request.conversation_id.strip():
        yield "eb:ConversationId is not that of the request"
    for name in (codes.EXCHANGE_ID, codes.SPECIFICATION_ID):
        if (message.value_of(name) or "").strip() != (request.value_of(name) or "").strip():
            yield f"{name} is not that of the request"


def _answers(case: _Case) -> Iterator[str]:
    message, request = case.message, case.request
    if request is None:
        return
    if message.to_party != request.from_party:
        yield "eb:To is not the eb:From of the request"
    for ours, theirs in ((ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT), (ns.FINAL_RECIPIENT, ns.ORIGINAL_SENDER)):
        if (message.value_of(ours) or "").strip() != (request.value_of(theirs) or "").strip():
            yield f"{ours} is not the {theirs} of the request"


# -- payloads ------------------------------------------------------------------------------------


def _one_part(case: _Case) -> Iterator[str]:
    if len(case.message.parts) != 1:
        yield f"{len(case.message.parts)} parts instead of exactly one"


def _some_part(case: _Case) -> Iterator[str]:
    if not case.message.parts:
        yield "no part"


def _first_href(case: _Case) -> Iterator[str]:
    for part in case.message.parts[:1]:
        if not (part.href or "").startswith("cid:") or "@" not in (part.href or ""):
            yield f"the first part's href {_shown(part.href)} is not of the form cid:left@right"


def _first_type(case: _Case) -> Iterator[str]:
    for part in case.message.parts[:1]:
        if _media_type(part) != codes.REGREP_MEDIA_TYPE:
            yield f"the first part is {_shown(part.mime_type)}, not {codes.REGREP_MEDIA_TYPE}"


def _mime_types(case: _Case) -> Iterator[str]:
    for number, part in enumerate(case.message.parts, 1):
        if not _media_type(part):
            yield f"part {number} has no property MimeType"


def _compression(case: _Case) -> Iterator[str]:
    for number, part in enumerate(case.message.parts, 1):
        if part.compressed and part.value_of(ns.COMPRESSION_TYPE) != ns.GZIP:
            yield f"part {number} has CompressionType {_shown(part.value_of(ns.COMPRESSION_TYPE))}"


def _evidence_types(case: _Case) -> Iterator[str]:
    declared = {content_id(a.href): a.media_type for a in case.index.attachments} if case.index else {}
    for number, part in enumerate(case.message.parts[1:], 2):
        found = _media_type(part)
        said = declared.get(content_id(part.href or ""))
        if found and found not in codes.EVIDENCE_MEDIA_TYPES:
            yield f"part {number} is {_shown(found)}, which is no media type of evidence"
        elif found and said and said.lower() != found:
            yield f"part {number} is {_shown(found)}, the document says {_shown(said)}"


def _references(case: _Case) -> Iterator[str]:
    if case.index is None or case.index.kind != "response":
        return
    named = [content_id(part.href or "") for part in case.message.parts]
    referred = [content_id(attachment.href) for attachment in case.index.attachments]
    for reference in dict.fromkeys(referred):
        if named.count(reference) != 1:
            yield f"the document refers to {_shown(reference)}, which {named.count(reference)} parts are"
    for number, name in enumerate(named[1:], 2):
        if referred.count(name) != 1:
            yield f"the document refers {referred.count(name)} times to part {number}"


def _content_ids(case: _Case) -> Iterator[str]:
    names = [content_id(part.href) for part in case.message.parts if part.href]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"several parts have the content id {_shown(name)}"


def _lifecycle(case: _Case) -> Iterator[str]:
    message = case.message
    if message.action not in (codes.SUBMIT_REQUEST, codes.SUBMIT_RESPONSE, codes.EXCEPTION):
        yield f"eb:Action of the lifecycle manager is {_shown(message.action)}"
    yield from _one_part(case)
    yield from _first_type(case)


# -- the table -------------------------------------------------------------------------------------

_ALL = "QRE?L"
_QUERY = "QRE?"

RULES: tuple[Rule, ...] = (
    Rule("H-03", "fatal", _ALL, _timestamp),
    Rule("H-04", "fatal", _ALL, _message_id),
    Rule("H-07", "fatal", _ALL, _party_types, "R-EDM-ebMS-006"),
    Rule("H-08", "fatal", _ALL, _roles),
    Rule("H-09", "fatal", _QUERY, _service),
    Rule("H-10", "fatal", _ALL, _service_type),
    Rule("H-11", "fatal", _QUERY, _action),
    Rule("H-12", "fatal", "QRE", _action_fits),
    Rule("H-13", "fatal", _ALL, _conversation, "R-EDM-ebMS-017"),
    Rule("H-14", "fatal", _QUERY, _property_count, "R-EDM-ebMS-018"),
    Rule("H-15", "fatal", _QUERY, _property_names, "R-EDM-ebMS-019"),
    Rule("H-16", "fatal", _ALL, _corner(ns.ORIGINAL_SENDER)),
    Rule("H-17", "fatal", _ALL, _corner(ns.FINAL_RECIPIENT)),
    Rule("H-18", "fatal", _ALL, _corner_types, "R-EDM-ebMS-021"),
    Rule("H-19", "fatal", _QUERY, _exchange, "R-EDM-ebMS-037", line="2.0"),
    Rule("H-20", "fatal", _QUERY, _specification, "R-EDM-ebMS-038", line="2.0"),
    Rule("H-21", "fatal", _QUERY, _one_specification),
    Rule("H-22", "fatal", "RE", _repeats),
    Rule("H-23", "fatal", "RE", _answers),
    Rule("H-24", "fatal", "QE", _one_part, "R-EDM-ebMS-023"),
    Rule("H-25", "fatal", "R", _some_part),
    Rule("H-26", "fatal", _ALL, _first_href),
    Rule("H-27", "fatal", "QE", _first_type, "R-EDM-ebMS-030"),
    Rule("H-28", "warning", "R", _first_type, "R-EDM-ebMS-032"),
    Rule("H-29", "fatal", _ALL, _mime_types),
    Rule("H-30", "fatal", _ALL, _compression),
    Rule("H-31", "warning", "R", _evidence_types),
    Rule("H-32", "fatal", "R", _references),
    Rule("H-33", "fatal", _ALL, _content_ids),
    Rule("H-35", "fatal", "L", _lifecycle),
)


# -- pieces ------------------------------------------------------------------------------------------


def _property(message: UserMessage, name: str) -> Property | None:
    return next((p for p in message.properties if p.name == name), None)


def _media_type(part: PartInfo) -> str:
    """Without parameters, in lower case."""
    return (part.mime_type or "").partition(";")[0].strip().lower()


def _scheme(type: str | None, *, oots: bool = False) -> bool:
    """An identifier scheme as [oots 2.2] has it; `oots` stands for the Commission's platforms."""
    type = type or ""
    if type.startswith(codes.EAS_SCHEME):
        return type.removeprefix(codes.EAS_SCHEME) in codes.EAS
    place = type.removeprefix(codes.UNREGISTERED) if type.startswith(codes.UNREGISTERED) else ""
    return place in codes.COUNTRIES or (oots and place == "oots")


def _shown(value: str | None) -> str:
    """A peer's value, fit for a log: quoted, escaped, at most 80 characters."""
    return "absent" if value is None else ascii(value[:80])
