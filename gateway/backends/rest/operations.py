"""Every operation of the REST door, once: the router and `/openapi.json` are made from this table."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from gateway.backends.rest import (
    actions,
    conversations,
    events,
    evidence,
    inbox,
    messages,
    parties,
    payloads,
    uploads,
    webhooks,
)
from gateway.backends.rest import documents as d
from gateway.backends.rest.request import Request
from gateway.plugin import (
    DryRun,
    HeaderView,
    MessageView,
    PartyView,
    ReceiptView,
    SecurityView,
    Submitted,
    UploadView,
    WebhookDelivery,
    WebhookPage,
    WebhookTarget,
)

Verb = Callable[[Request], Awaitable[Response]]


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. `problems` are the types it can answer with beside `ALWAYS`; `headers` are
    those of `openapi.HEADERS` that it reads; `octets` the media type of an answer that is no JSON, or not
    only; `consumes` that of a body that is none."""

    method: str
    path: str
    verb: Verb
    summary: str
    query: type = d.NoQuery
    request: type | None = None
    status: int = 200
    response: Any = None
    problems: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    octets: str | None = None
    consumes: str | None = None


#: What any operation can answer with.
ALWAYS = (
    "unauthorized", "bad-request", "headers-too-large", "uri-too-long", "invalid-parameter",
    "store-unavailable", "overloaded", "internal-error",
)  # fmt: skip
_JSON = ("unsupported-media-type", "body-too-large", "body-too-slow", "malformed-json", "invalid-document")
_FORM = ("malformed-form", "meta-first", "meta-too-large", "parts-mismatch")
_REFUSED = (
    "submission-refused", "out-of-scope", "rules-broken", "payload-too-large", "too-many-uploads",
    "upload-incomplete", "digest-mismatch", "receiver-not-found-now",
)  # fmt: skip
_WRITE = (
    "not-found", "unsupported-media-type", "body-too-slow", "payload-too-large", "too-many-uploads", "offset-conflict",
    "digest-mismatch", "claim-lost",
)  # fmt: skip
_SUBMIT = ("idempotency-key-missing", "idempotency-key-reused", "message-id-conflict", *_REFUSED)

OPERATIONS = (
    Operation(
        method="POST", path="/v1/messages", verb=messages.submit,
        summary="Submit a message", query=d.SubmitQuery, request=d.InlineSubmission,
        status=202, response=Submitted, problems=_JSON + _FORM + _SUBMIT,
    ),
    Operation(
        method="POST", path="/v1/messages:validate", verb=messages.validate,
        summary="Say what would be sent, and store nothing", request=d.InlineSubmission,
        response=DryRun, problems=_JSON + _FORM + _REFUSED,
    ),
    Operation(
        method="GET", path="/v1/messages", verb=messages.several,
        summary="List messages, newest first", query=d.ListQuery, response=d.MessagePage,
        problems=("submission-refused",),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}", verb=messages.one,
        summary="One message, by our id or its MessageId", query=d.MessageQuery, response=MessageView,
        problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/events", verb=messages.events,
        summary="The timeline of a message", response=d.Timeline, problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/payloads", verb=payloads.listing,
        summary="The payloads of a message", response=d.PayloadList, problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/payloads/{cid:path}", verb=payloads.content,
        summary="The content of one payload, whole or one range", response=bytes,
        problems=("not-found", "payload-purged", "range-not-satisfiable"),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/header", verb=evidence.header,
        summary="The header of a message as it is on the wire", response=HeaderView, problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/receipt", verb=evidence.receipt,
        summary="The receipt; as JSON what it says and whether it holds", response=ReceiptView,
        octets=evidence.SOAP, problems=("not-found", "not-kept"),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/security", verb=evidence.security,
        summary="What the signature covers, who made it, and whether it holds", response=SecurityView,
        problems=("not-found", "not-kept"),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/wire/{which}", verb=evidence.wire,
        summary="The signed envelope (request) or the receipt (response), octet for octet",
        octets=evidence.SOAP, problems=("not-found", "not-kept"),
    ),
    Operation(
        method="GET", path="/v1/messages/{id}/bundle", verb=evidence.bundle,
        summary="All evidence of a message as a zip", query=d.BundleQuery, octets="application/zip",
        problems=("not-found",),
    ),
    Operation(
        method="POST", path="/v1/messages/{id}/resend", verb=actions.resend,
        summary="Send a failed or waiting message at once, with the same MessageId", response=MessageView,
        problems=("not-found", "state-conflict"),
    ),
    Operation(
        method="POST", path="/v1/messages/{id}/cancel", verb=actions.cancel,
        summary="Stop trying to send a message", response=MessageView, problems=("not-found", "state-conflict"),
    ),
    Operation(
        method="POST", path="/v1/messages/{id}/hold", verb=actions.hold,
        summary="Keep a waiting message from being sent or delivered", response=MessageView,
        problems=("not-found", "state-conflict"),
    ),
    Operation(
        method="POST", path="/v1/messages/{id}/release", verb=actions.release,
        summary="Let a held message go", response=MessageView, problems=("not-found", "state-conflict"),
    ),
    Operation(
        method="POST", path="/v1/messages/{id}/redeliver", verb=actions.redeliver,
        summary="Deliver an inbound message once more, marked redelivered", response=MessageView,
        problems=("not-found", "state-conflict"),
    ),
    Operation(
        method="POST", path="/v1/uploads", verb=uploads.begin,
        summary="Begin an upload of large content", request=d.UploadRequest, status=201, response=UploadView,
        headers=("Idempotency-Key",),
        problems=(*_JSON, "payload-too-large", "upload-quota", "idempotency-key-reused"),
    ),
    Operation(
        method="GET", path="/v1/uploads/{id}", verb=uploads.one,
        summary="How far an upload is", response=UploadView, problems=("not-found",),
    ),
    Operation(
        method="PATCH", path="/v1/uploads/{id}", verb=uploads.append,
        summary="Go on with an upload", consumes=uploads.CONTENT_TYPES[0], response=UploadView,
        headers=("Upload-Offset", "Content-Digest"), problems=_WRITE,
    ),
    Operation(
        method="PUT", path="/v1/uploads/{id}", verb=uploads.replace,
        summary="Send the whole content of an upload, whatever was there", consumes=uploads.CONTENT_TYPES[0],
        response=UploadView, headers=("Content-Digest",), problems=_WRITE,
    ),
    Operation(
        method="DELETE", path="/v1/uploads/{id}", verb=uploads.remove,
        summary="Drop an upload", status=204, problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/conversations", verb=conversations.several,
        summary="List conversations, the one with the newest message first", query=d.PageQuery,
        response=d.ConversationPage, problems=("submission-refused",),
    ),
    Operation(
        method="GET", path="/v1/conversations/{id:path}", verb=conversations.one,
        summary="The messages of a conversation, oldest first", query=d.ConversationQuery, response=d.MessagePage,
        problems=("not-found", "submission-refused"),
    ),
    Operation(
        method="GET", path="/v1/events", verb=events.stream,
        summary="Events as they happen, as server-sent events", query=d.EventsQuery, octets="text/event-stream",
        headers=("Last-Event-ID",), problems=("too-many-streams",),
    ),
    Operation(
        method="GET", path="/v1/event-log", verb=events.page,
        summary="Events from the beginning or after a cursor", query=d.EventLogQuery, response=d.EventLog,
    ),
    Operation(
        method="GET", path="/v1/parties", verb=parties.several,
        summary="The partners, and what may be sent to them", response=d.PartyList,
    ),
    Operation(
        method="GET", path="/v1/parties/{id:path}", verb=parties.one,
        summary="One partner", response=PartyView, problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/inbox/peek", verb=inbox.peek,
        summary="What waits, without claiming it", query=d.PeekQuery, response=d.Peeked,
    ),
    Operation(
        method="POST", path="/v1/inbox/claim", verb=inbox.claim,
        summary="Borrow waiting messages", request=d.ClaimRequest, response=d.Claimed, problems=_JSON,
    ),
    Operation(
        method="POST", path="/v1/inbox/{delivery_id}/ack", verb=inbox.ack,
        summary="Say that a message has been taken over", request=d.AckRequest, status=204,
        problems=(*_JSON, "not-found", "claim-lost"),
    ),
    Operation(
        method="POST", path="/v1/inbox/{delivery_id}/nack", verb=inbox.nack,
        summary="Give a message back", request=d.NackRequest, status=204,
        problems=(*_JSON, "not-found", "claim-lost"),
    ),
    Operation(
        method="POST", path="/v1/inbox/{delivery_id}/extend", verb=inbox.extend,
        summary="Keep a message longer", request=d.ExtendRequest, response=d.Extended,
        problems=(*_JSON, "not-found", "claim-lost"),
    ),
    Operation(
        method="POST", path="/v1/webhooks", verb=webhooks.add,
        summary="Register where events go; the answer holds the secret, once", request=d.WebhookRequest,
        status=201, response=WebhookTarget, headers=("Idempotency-Key",),
        problems=(*_JSON, "submission-refused", "too-many-webhooks", "idempotency-key-reused"),
    ),
    Operation(
        method="GET", path="/v1/webhooks", verb=webhooks.several,
        summary="The registered webhooks", response=d.WebhookList,
    ),
    Operation(
        method="GET", path="/v1/webhooks/{id}", verb=webhooks.one,
        summary="One webhook", response=WebhookTarget, problems=("not-found",),
    ),
    Operation(
        method="PUT", path="/v1/webhooks/{id}", verb=webhooks.replace,
        summary="Change a webhook: address, events and whether it is enabled", request=d.WebhookReplacement,
        response=WebhookTarget, problems=(*_JSON, "not-found", "submission-refused"),
    ),
    Operation(
        method="PATCH", path="/v1/webhooks/{id}", verb=webhooks.change,
        summary="Change some of a webhook", request=d.WebhookPatch,
        response=WebhookTarget, problems=(*_JSON, "not-found", "submission-refused"),
    ),
    Operation(
        method="POST", path="/v1/webhooks/{id}/rotate", verb=webhooks.rotate,
        summary="Make a new secret; the old one signs as well for a while", request=d.RotateRequest,
        response=WebhookTarget, problems=(*_JSON, "not-found"),
    ),
    Operation(
        method="POST", path="/v1/webhooks/{id}/test", verb=webhooks.test,
        summary="Have a test event sent", query=d.TestQuery, status=202, response=WebhookDelivery,
        problems=("not-found",),
    ),
    Operation(
        method="GET", path="/v1/webhooks/{id}/deliveries", verb=webhooks.deliveries,
        summary="What a webhook was told, newest first, with every attempt", query=d.DeliveryQuery,
        response=WebhookPage, problems=("not-found", "submission-refused"),
    ),
    Operation(
        method="GET", path="/v1/webhooks/{id}/deliveries/{delivery_id}", verb=webhooks.delivery,
        summary="One event for one webhook", response=WebhookDelivery, problems=("not-found",),
    ),
    Operation(
        method="POST", path="/v1/webhooks/{id}/deliveries/{delivery_id}/replay", verb=webhooks.replay,
        summary="Send an event once more, with the same id", status=202, response=WebhookDelivery,
        problems=("not-found", "delivery-running"),
    ),
    Operation(
        method="DELETE", path="/v1/webhooks/{id}", verb=webhooks.remove,
        summary="Remove a webhook", status=204, problems=("not-found",),
    ),
)  # fmt: skip
