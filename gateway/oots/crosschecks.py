"""Rules that hold the header against the document it carries, and an answer against its request.

Those with a number of [oots 2.4] are H-nn; those that follow from the index of the document
[oots 3.9 V5 V6, 3.10] are E-nn. A rule that lacks what it would compare with says nothing.

Of the document nothing is repeated but what comes from a closed list: its free text may be
about a person [oots 5.4].
"""

import re
from collections.abc import Iterator

from gateway.as4 import ns
from gateway.as4.findings import shown
from gateway.oots import codes
from gateway.oots.edm import content_id
from gateway.oots.rules import Case, media_type

_SPECIFICATION = re.compile(r"oots-edm:v\d{1,3}\.\d{1,3}")
_REQUEST_ID = re.compile(
    r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE
)


# -- header and document ---------------------------------------------------------------------


def action_fits(case: Case) -> Iterator[str]:
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
        yield f"the document belongs to {fitting}, eb:Action is {shown(case.message.action)}"


def one_specification(case: Case) -> Iterator[str]:
    value = case.message.value_of(codes.SPECIFICATION_ID)
    if value is not None and case.index is not None and value.strip() != case.index.specification:
        said = case.index.specification or ""
        told = said if _SPECIFICATION.fullmatch(said) else "another value" if said else "none"
        yield f"SpecificationId is {shown(value)}, the document says {told}"


def evidence_types(case: Case) -> Iterator[str]:
    declared = {content_id(a.href): a.media_type for a in case.index.attachments} if case.index else {}
    for number, part in enumerate(case.message.parts[1:], 2):
        found = media_type(part)
        said = (declared.get(content_id(part.href or "")) or "").lower()
        if found and found not in codes.EVIDENCE_MEDIA_TYPES:
            yield f"part {number} is {shown(found)}, which is no media type of evidence"
        elif found and said and said != found:
            told = said if said in codes.EVIDENCE_MEDIA_TYPES else "something else"
            yield f"part {number} is {shown(found)}, the document says {told}"


def references(case: Case) -> Iterator[str]:
    if case.index is None or case.index.kind != "response":
        return
    named = [content_id(part.href or "") for part in case.message.parts]
    referred = [content_id(attachment.href) for attachment in case.index.attachments]
    for number, reference in enumerate(dict.fromkeys(referred), 1):
        if named.count(reference) != 1:
            yield f"reference {number} of the document is met by {named.count(reference)} parts"
    for number, name in enumerate(named[1:], 2):
        if referred.count(name) != 1:
            yield f"the document refers {referred.count(name)} times to part {number}"


def corners_fit(case: Case) -> Iterator[str]:
    """The organisations of a request are its corners [oots 2.1]; an intermediary may stand for the first."""
    index, message = case.index, case.message
    if index is None or index.kind != "request":
        return
    askers = {agent.id for agent in (index.requester, index.intermediary) if agent is not None}
    sender, recipient = (message.value_of(name) for name in (ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT))
    if askers and sender and sender.strip() not in askers:
        yield "originalSender is neither the requester nor the intermediary of the document"
    if index.provider is not None and recipient and recipient.strip() != index.provider.id:
        yield "finalRecipient is not the provider of the document"


# -- identifiers of the document ---------------------------------------------------------------


def request_id(case: Case) -> Iterator[str]:
    index = case.index
    if index is not None and index.kind == "request" and not _REQUEST_ID.fullmatch(index.request_id or ""):
        yield "the id of the request is not of the form urn:uuid:UUID"


def answered_id(case: Case) -> Iterator[str]:
    """An error may leave it out when the request could not be read [oots 3.4]."""
    index = case.index
    if index is None or index.kind != "response":
        return
    unreadable = any(e.type == "rs:InvalidRequestExceptionType" for e in index.exceptions)
    if not (index.request_id is None and unreadable) and not _REQUEST_ID.fullmatch(index.request_id or ""):
        yield "the requestId of the answer is not of the form urn:uuid:UUID"


def replayed(case: Case) -> Iterator[str]:
    """Every request has an id of its own, the second round of an exchange too [oots 2.5]."""
    if case.replayed:
        yield "a request with this id came before, in another message"


def unasked(case: Case) -> Iterator[str]:
    if case.looked and case.request is None and case.index is not None and case.index.request_id:
        yield "no request with this id is known here"


# -- an answer against its request ---------------------------------------------------------------


def repeats(case: Case) -> Iterator[str]:
    message, request = case.message, case.request
    if request is None:
        return
    if message.conversation_id.strip() != request.conversation_id.strip():
        yield "eb:ConversationId is not that of the request"
    for name in (codes.EXCHANGE_ID, codes.SPECIFICATION_ID):
        if (message.value_of(name) or "").strip() != (request.value_of(name) or "").strip():
            yield f"{name} is not that of the request"


def answers(case: Case) -> Iterator[str]:
    message, request = case.message, case.request
    if request is None:
        return
    if message.to_party != request.from_party:
        yield "eb:To is not the eb:From of the request"
    for ours, theirs in ((ns.ORIGINAL_SENDER, ns.FINAL_RECIPIENT), (ns.FINAL_RECIPIENT, ns.ORIGINAL_SENDER)):
        if (message.value_of(ours) or "").strip() != (request.value_of(theirs) or "").strip():
            yield f"{ours} is not the {theirs} of the request"
