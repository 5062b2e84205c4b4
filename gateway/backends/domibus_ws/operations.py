"""The ten operations of the WS plugin; the old interface has five of them.

Each takes a `Request` and gives the octets of the answer, or an iterator of them. What
Domibus answers with a fault is raised as one.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from gateway.backends.domibus_ws import faults, writing
from gateway.backends.domibus_ws.names import OLD, PLUGIN, ROLES, STATUS
from gateway.backends.domibus_ws.reading import EnvelopeReader, Node
from gateway.backends.domibus_ws.submission import wanted
from gateway.plugin import (
    Caller,
    ClaimLost,
    Delivery,
    Held,
    MessageFilter,
    MessageView,
    Msh,
    NotFound,
    OutOfScope,
    SubmissionConflict,
    SubmissionRefused,
    TooLarge,
    Waiting,
)

#: How long a message that is being retrieved is kept from others; the answer is streamed meanwhile.
LEASE = 300.0


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[backends.domibus_ws]`; names and defaults after the properties of the plugin.

    pending_list_max, failed_list_max, repush_list_max: how many ids a list has; 0 is no limit.
    message_entity_id: submitResponse also holds `messageEntityID`, as since release 5.2.1.
    mtom: answer retrieveMessage with MTOM attachments instead of base64 in the envelope.
    """

    pending_list_max: int = 500
    failed_list_max: int = 500
    repush_list_max: int = 100
    message_entity_id: bool = True
    mtom: bool = False
    #: A body may stall for `grace` seconds in all, and earns one more with each `rate` bytes [threats H01].
    grace: float = 10.0
    rate: float = 8_000.0
    #: Requests that one client may have under way in one process [threats 1.5].
    requests: int = 16


class Request(Struct, frozen=True):
    """One request of an authenticated caller, read whole; payloads are in `held`."""

    caller: Caller
    msh: Msh
    options: Options
    envelope: EnvelopeReader
    attachments: set[str]
    held: Held

    @property
    def operation(self) -> Node:
        return self.envelope.operation

    @property
    def namespace(self) -> str:
        return self.operation.namespace


class Retrieved(Struct, frozen=True):
    """A message to be handed out; with a delivery it is taken over when the answer has been written."""

    message: MessageView
    delivery: Delivery | None


Answer = bytes | Retrieved


async def submit_message(request: Request) -> Answer:
    found = wanted(request.envelope.header, request.envelope.payloads, request.attachments)
    submission = found.submission

    def content(number: int) -> AsyncIterator[bytes]:
        return request.held.read(found.contents[number])

    if submission.message_id is not None:
        _check_length(submission.message_id)
    try:
        done = await request.msh.submit(request.caller, submission, content)
    except SubmissionConflict:
        raise faults.duplicate(submission.message_id or "") from None
    except OutOfScope:
        raise faults.Fault(faults.SUBMISSION_FAILED, "WS_PLUGIN:0002", NOT_ALLOWED) from None
    except SubmissionRefused as error:
        raise _refused(error, submission) from None
    except TooLarge as error:
        raise faults.refused("EBMS:0010", "ProcessingModeMismatch", error.detail) from None
    if done.replayed:
        # Domibus knows no repetition: an id that is known is refused, whatever comes with it.
        raise faults.duplicate(done.message_id)
    inside = writing.text("messageID", done.message_id)
    if request.options.message_entity_id and request.namespace == PLUGIN:
        inside += writing.text("messageEntityID", str(entity_id(done.id)))
    return writing.envelope(writing.element("submitResponse", inside, request.namespace))


async def retrieve_message(request: Request) -> Answer:
    id = _message_id(request)
    keep = request.namespace == PLUGIN and (request.operation.get("markAsDownloaded") or "").strip().lower() == "false"
    if keep:
        return Retrieved(await _one(request, id, "inbound"), None)
    delivery = await _take(request, id)
    return Retrieved(delivery.message, delivery)


async def mark_message_as_downloaded(request: Request) -> Answer:
    id = _message_id(request, empty="Message ID is empty")
    delivery = await _take(request, id)
    await request.msh.ack(request.caller, delivery.delivery_id, delivery.claim)
    return writing.envelope(
        writing.element("markMessageAsDownloadedResponse", writing.text("messageID", delivery.message.message_id))
    )


async def list_pending_messages(request: Request) -> Answer:
    asked = Waiting() if request.namespace == OLD else _waiting(request.operation)
    limit = request.options.pending_list_max or 1_000_000
    ids = await request.msh.waiting(request.caller, _limited(asked, limit))
    return writing.listed("listPendingMessagesResponse", ids, request.namespace)


async def list_push_failed_messages(request: Request) -> Answer:
    limit = request.options.failed_list_max or 1_000_000
    ids = await request.msh.waiting(request.caller, _limited(_waiting(request.operation), limit, parked=True))
    return writing.listed("listPushFailedMessagesResponse", ids)


async def repush_failed_messages(request: Request) -> Answer:
    ids = [node.text.strip() for node in request.operation.all("messageID")]
    limit = request.options.repush_list_max
    if limit and len(ids) > limit:
        raise faults.repush_limit(limit, len(ids))
    for id in ids:
        _check_length(id)
        if not await request.msh.waiting(request.caller, Waiting(message_id=id, parked=True, limit=1)):
            raise faults.not_failed(id)
    for id in ids:
        if not await request.msh.redeliver(request.caller, id):
            raise faults.Fault("RePush has failed", "WS_PLUGIN:0009", "At least one message was not found")
    return writing.envelope("")


async def get_status(request: Request) -> Answer:
    id = _message_id(request)
    found = await _all(request, id)
    if len(found) > 1:
        raise faults.duplicate_status(id)
    return _status(found[0] if found else None, request.namespace)


async def get_status_with_role(request: Request) -> Answer:
    id = _message_id(request)
    found = await _all(request, id, _role(request))
    return _status(found[0] if found else None, request.namespace)


async def get_message_errors(request: Request) -> Answer:
    id = _message_id(request)
    found = await _all(request, id)
    if len(found) > 1:
        raise faults.duplicate_errors(id)
    return await _errors(request, id, found)


async def get_message_errors_with_role(request: Request) -> Answer:
    id = _message_id(request)
    return await _errors(request, id, await _all(request, id, _role(request)))


#: The first element of the body, and what it asks for.
OPERATIONS: dict[str, Callable[[Request], Awaitable[Answer]]] = {
    "submitRequest": submit_message,
    "retrieveMessageRequest": retrieve_message,
    "markMessageAsDownloadedRequest": mark_message_as_downloaded,
    "listPendingMessagesRequest": list_pending_messages,
    "listPushFailedMessagesRequest": list_push_failed_messages,
    "rePushFailedMessagesRequest": repush_failed_messages,
    "statusRequest": get_status,
    "statusRequestWithAccessPointRole": get_status_with_role,
    "getErrorsRequest": get_message_errors,
    "getErrorsRequestWithAccessPointRole": get_message_errors_with_role,
}
OLD_OPERATIONS: dict[str, Callable[[Request], Awaitable[Answer]]] = {
    "submitRequest": submit_message,
    "retrieveMessageRequest": retrieve_message,
    "listPendingMessagesRequest": list_pending_messages,
    "getStatusRequest": get_status,
    "statusRequest": get_status,
    "getErrorsRequest": get_message_errors,
}

NOT_ALLOWED = "You are not allowed to handle this message"


# -- the pieces -------------------------------------------------------------------


def _message_id(request: Request, *, empty: str = "MessageId is empty") -> str:
    id = (request.operation.text_of("messageID") or "").strip()
    if not id:
        raise faults.empty_id(empty)
    _check_length(id)
    return id


def _check_length(id: str) -> None:
    if len(id) > 255:
        raise faults.long_id(id[:300])


def _role(request: Request) -> str:
    role = ROLES.get((request.operation.text_of("accessPointRole") or "").strip())
    if role is None:
        raise faults.bad_role()
    return role


async def _all(request: Request, id: str, direction: str | None = None) -> list[MessageView]:
    """The messages of this very id; two when we sent it to ourselves."""
    found, _ = await request.msh.messages(
        request.caller, MessageFilter(message_id=id, direction=direction, limit=2)
    )
    return found


async def _one(request: Request, id: str, direction: str) -> MessageView:
    found = await _all(request, id, direction)
    if not found:
        raise faults.not_found(id)
    return found[0]


async def _take(request: Request, id: str) -> Delivery:
    """The delivery of a message that is still to be downloaded; nobody else gets it meanwhile."""
    message = await _one(request, id, "inbound")
    try:
        return await request.msh.claim_message(request.caller, message.id, lease=LEASE)
    except ClaimLost:
        raise faults.twice(id) from None
    except NotFound:
        raise faults.not_found(id) from None


def _waiting(operation: Node) -> Waiting:
    def given(name: str) -> str | None:
        return (operation.text_of(name) or "").strip() or None

    return Waiting(
        message_id=given("messageId"),
        conversation_id=given("conversationId"),
        ref_to_message_id=given("refToMessageId"),
        from_party=given("fromPartyId"),
        final_recipient=given("finalRecipient"),
        original_sender=given("originalSender"),
        received_from=_moment(given("receivedFrom")),
        received_to=_moment(given("receivedTo")),
    )


def _limited(asked: Waiting, limit: int, *, parked: bool = False) -> Waiting:
    return replace(asked, limit=limit, parked=parked)


def _moment(text: str | None) -> datetime | None:
    """An xs:dateTime; without a zone it is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise faults.Undeclared(f"not a dateTime: {text[:64]}", sender=True) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _status(message: MessageView | None, namespace: str) -> bytes:
    name = STATUS.get(message.state, "NOT_FOUND") if message is not None else "NOT_FOUND"
    return writing.envelope(writing.element("getStatusResponse", name, namespace))


async def _errors(request: Request, id: str, found: list[MessageView]) -> bytes:
    if not found:
        raise faults.not_found(id)
    attempts = await request.msh.attempts(request.caller, found[0].id) if found[0].direction == "outbound" else []
    return writing.errors(attempts, id, request.namespace)


def entity_id(id: str) -> int:
    """A number of 63 bits that stands for our id, as `messageEntityID` does for a row of Domibus."""
    return uuid.UUID(id).int >> 65


def _refused(error: SubmissionRefused, submission) -> faults.Fault:
    """What Domibus says when its own matching fails at the same place."""
    party = {"from_party": submission.from_party, "to_party": submission.to_party}.get(error.field)
    match error.field:
        case "from_party":
            return faults.refused(
                "EBMS:0003", "ValueInconsistent",
                f"Sender party could not be found for the value  {party.id}. No matching party found",
            )  # fmt: skip
        case "to_party":
            return faults.refused(
                "EBMS:0003", "ValueInconsistent",
                f"Receiver party could not be found for the value {party.id}. No matching party found",
            )  # fmt: skip
        case "service":
            return faults.refused(
                "EBMS:0001", "ValueNotRecognized",
                f"No matching service found for type [{submission.service_type or ''}] "
                f"and value [{submission.service}]",
            )  # fmt: skip
        case "action":
            return faults.refused("EBMS:0001", "ValueNotRecognized", f"No matching action found [{submission.action}]")
        case "agreement_ref":
            return faults.refused(
                "EBMS:0001", "ValueNotRecognized",
                f"No matching agreement found for type [{submission.agreement_type or ''}] "
                f"and value [{submission.agreement_ref}]",
            )  # fmt: skip
    return faults.refused("EBMS:0010", "ProcessingModeMismatch", error.detail)
