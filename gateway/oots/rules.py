"""The OOTS rules for the ebMS header by itself, one function a rule [oots 2.4].

A function yields one text for each breach. Rules that compare the header with the document, or an
answer with its request, are in `crosschecks`; the table of all of them is in `headers`.

Values of a peer appear only where they are identifiers of the header (`findings.shown`): never who
the corners are, because behind a corner there may be a person [oots 5.4].
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.findings import Severity, shown
from gateway.as4.units import PartInfo, Property, UserMessage
from gateway.oots import codes
from gateway.oots.edm import EdmIndex, content_id

Line = Literal["1.x", "2.0"]

#: What an action makes of a message: a question, a response, an exception.
KINDS = {codes.REQUEST: "Q", codes.RESPONSE: "R", codes.EXCEPTION: "E"}

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"[^@\s]+@[^@\s]+")
_PROPERTIES: dict[Line, tuple[str, ...]] = {
    "1.x": (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT),
    "2.0": (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT, codes.EXCHANGE_ID, codes.SPECIFICATION_ID),
}


class Case(Struct, frozen=True):
    """What a rule may look at; the words are those of `headers.check`."""

    message: UserMessage
    index: EdmIndex | None
    request: UserMessage | None
    line: Line
    kind: str
    looked: bool = False
    replayed: bool = False


Broken = Callable[[Case], Iterator[str]]


class Rule(Struct, frozen=True):
    """One row of the table. `applies` lists the kinds it holds for, `line` the only line it is of."""

    id: str
    severity: Severity
    applies: str
    broken: Broken
    where: str
    official: str | None = None
    line: Line | None = None


# -- message info and parties --------------------------------------------------------------


def timestamp(case: Case) -> Iterator[str]:
    if case.message.timestamp.utcoffset() is None:
        yield "eb:Timestamp has no offset from UTC"


def message_id(case: Case) -> Iterator[str]:
    if not _MESSAGE_ID.fullmatch(case.message.message_id):
        yield f"eb:MessageId {shown(case.message.message_id)} is not of the form left@right"


def party_types(case: Case) -> Iterator[str]:
    for name, party in (("eb:From", case.message.from_party), ("eb:To", case.message.to_party)):
        if not _scheme(party.type, oots=True):
            yield f"the PartyId type of {name} is {shown(party.type)}, not an EAS or unregistered scheme"


def roles(case: Case) -> Iterator[str]:
    for name, role in (("eb:From", case.message.from_role), ("eb:To", case.message.to_role)):
        if role != codes.ROLE:
            yield f"the role of {name} is {shown(role)}, not the OOTS gateway role"


# -- collaboration info ----------------------------------------------------------------------


def service(case: Case) -> Iterator[str]:
    if case.message.service.value != codes.QUERY_MANAGER:
        yield f"eb:Service is {shown(case.message.service.value)}, not QueryManager"


def service_type(case: Case) -> Iterator[str]:
    if case.message.service.type != codes.SERVICE_TYPE:
        yield f"the type of eb:Service is {shown(case.message.service.type)}"


def action(case: Case) -> Iterator[str]:
    if case.message.action not in KINDS:
        yield f"eb:Action is {shown(case.message.action)}"


def conversation(case: Case) -> Iterator[str]:
    if not _UUID.fullmatch(case.message.conversation_id.strip()):
        yield f"eb:ConversationId {shown(case.message.conversation_id)} is not a UUID"


# -- message properties -----------------------------------------------------------------------


def property_count(case: Case) -> Iterator[str]:
    count, wanted = len(case.message.properties), len(_PROPERTIES[case.line])
    if count != wanted:
        yield f"{count} message properties instead of exactly {wanted}"


def property_names(case: Case) -> Iterator[str]:
    names, wanted = {p.name for p in case.message.properties}, set(_PROPERTIES[case.line])
    if missing := sorted(wanted - names):
        yield f"missing message properties: {', '.join(missing)}"
    if surplus := sorted(names - wanted)[:5]:
        yield f"message properties outside the rule: {', '.join(map(shown, surplus))}"


def corner(name: str) -> Broken:
    """The rule that this corner is named, with a type."""

    def broken(case: Case) -> Iterator[str]:
        found = _property(case.message, name)
        if found is None or not found.value.strip():
            yield f"{name} is missing or empty"
        elif not found.type:
            yield f"{name} has no type"

    return broken


def corner_types(case: Case) -> Iterator[str]:
    for name in (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT):
        found = _property(case.message, name)
        if found is not None and found.type and not _scheme(found.type):
            yield f"the type of {name} is {shown(found.type)}, not an EAS or unregistered scheme"


def exchange(case: Case) -> Iterator[str]:
    value = case.message.value_of(codes.EXCHANGE_ID)
    if value is not None and not _UUID.fullmatch(value.strip()):
        yield f"ExchangeId {shown(value)} is not a UUID"


def specification(case: Case) -> Iterator[str]:
    value = case.message.value_of(codes.SPECIFICATION_ID)
    if value is not None and value.strip() != codes.EDM_2_0:
        yield f"SpecificationId is {shown(value)}, not {codes.EDM_2_0}"


# -- payloads ------------------------------------------------------------------------------------


def one_part(case: Case) -> Iterator[str]:
    if len(case.message.parts) != 1:
        yield f"{len(case.message.parts)} parts instead of exactly one"


def some_part(case: Case) -> Iterator[str]:
    if not case.message.parts:
        yield "no part"


def first_href(case: Case) -> Iterator[str]:
    for part in case.message.parts[:1]:
        if not (part.href or "").startswith("cid:") or "@" not in (part.href or ""):
            yield f"the first part's href {shown(part.href)} is not of the form cid:left@right"


def first_type(case: Case) -> Iterator[str]:
    for part in case.message.parts[:1]:
        if media_type(part) != codes.REGREP_MEDIA_TYPE:
            yield f"the first part is {shown(part.mime_type)}, not {codes.REGREP_MEDIA_TYPE}"


def mime_types(case: Case) -> Iterator[str]:
    for number, part in enumerate(case.message.parts, 1):
        if not media_type(part):
            yield f"part {number} has no property MimeType"


def compression(case: Case) -> Iterator[str]:
    for number, part in enumerate(case.message.parts, 1):
        if part.compressed and part.value_of(ns.COMPRESSION_TYPE) != ns.GZIP:
            yield f"part {number} has CompressionType {shown(part.value_of(ns.COMPRESSION_TYPE))}"


def content_ids(case: Case) -> Iterator[str]:
    names = [content_id(part.href) for part in case.message.parts if part.href]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"several parts have the content id {shown(name)}"


def lifecycle(case: Case) -> Iterator[str]:
    message = case.message
    if message.action not in (codes.SUBMIT_REQUEST, codes.SUBMIT_RESPONSE, codes.EXCEPTION):
        yield f"eb:Action of the lifecycle manager is {shown(message.action)}"
    yield from one_part(case)
    yield from first_type(case)


# -- pieces ------------------------------------------------------------------------------------------


def media_type(part: PartInfo) -> str:
    """Without parameters, in lower case."""
    return (part.mime_type or "").partition(";")[0].strip().lower()


def _property(message: UserMessage, name: str) -> Property | None:
    return next((p for p in message.properties if p.name == name), None)


def _scheme(type: str | None, *, oots: bool = False) -> bool:
    """An identifier scheme as [oots 2.2] has it; `oots` stands for the Commission's platforms."""
    type = type or ""
    if type.startswith(codes.EAS_SCHEME):
        return type.removeprefix(codes.EAS_SCHEME) in codes.EAS
    place = type.removeprefix(codes.UNREGISTERED) if type.startswith(codes.UNREGISTERED) else ""
    return place in codes.COUNTRIES or (oots and place == "oots")
