"""Every operation of the REST door, once: the router and `/openapi.json` are made from this table."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from gateway.backends.rest import documents as d
from gateway.backends.rest import inbox, messages, payloads, webhooks
from gateway.backends.rest.request import Request
from gateway.plugin import DryRun, MessageView, Submitted, WebhookTarget

Verb = Callable[[Request], Awaitable[Response]]


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. `problems` are the types it can answer with beside `ALWAYS`."""

    method: str
    path: str
    verb: Verb
    summary: str
    query: type = d.NoQuery
    request: type | None = None
    status: int = 200
    response: Any = None
    problems: tuple[str, ...] = ()


#: What any operation can answer with.
ALWAYS = (
    "unauthorized", "bad-request", "headers-too-large", "uri-too-long", "invalid-parameter",
    "store-unavailable", "overloaded", "internal-error",
)  # fmt: skip
_JSON = ("unsupported-media-type", "body-too-large", "body-too-slow", "malformed-json", "invalid-document")
_FORM = ("malformed-form", "meta-first", "meta-too-large", "parts-mismatch")
_REFUSED = ("submission-refused", "out-of-scope", "rules-broken", "payload-too-large", "too-many-uploads")
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
        status=201, response=WebhookTarget, problems=(*_JSON, "submission-refused"),
    ),
    Operation(
        method="GET", path="/v1/webhooks", verb=webhooks.several,
        summary="The registered webhooks", response=d.WebhookList,
    ),
    Operation(
        method="DELETE", path="/v1/webhooks/{id}", verb=webhooks.remove,
        summary="Remove a webhook", status=204, problems=("not-found",),
    ),
)  # fmt: skip
