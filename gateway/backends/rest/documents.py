"""The JSON documents of the REST door: what is read, what is written, what may be asked.

What is read is stricter than the plugin API: unknown members are refused, because a
misspelt optional member would otherwise be dropped in silence. The descriptions in
`/openapi.json` are made from these Structs.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.plugin import (
    ConversationView,
    Delivery,
    Event,
    MessageView,
    PartSubmission,
    PartView,
    PartyRef,
    PartyView,
    PropertyValue,
    Step,
    Submission,
    WebhookSignature,
    WebhookTarget,
)

# Patterns end in (?![\s\S]) because `$` would let a line feed at the end pass, and \Z is
# unknown to JSON Schema.
#: No control characters: neither PostgreSQL text (NUL) nor a log line should have to bear them.
Text = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*(?![\s\S])")]
Cursor = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[\x21-\x7e]*(?![\s\S])")]
Address = Annotated[str, Meta(min_length=1, max_length=2048, pattern=r"^https?://[\x21-\x7e]+(?![\s\S])")]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
#: A lease outlives a slow consumer, but not a working day on which somebody wonders.
Lease = Annotated[float, Meta(ge=1, le=3_600)]
Wait = Annotated[float, Meta(ge=0, le=60)]
#: The value of a property has 1024 characters at most, its type 255.
CornerName = Annotated[str, Meta(min_length=1, max_length=1300, pattern=r"^[^\x00-\x1f\x7f]*(?![\s\S])")]
#: A time with its zone [rfc3339]. A text here, because a number would otherwise be taken for one, too.
Moment = Annotated[str, Meta(
    pattern=r"^[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)(?![\s\S])",
    extra_json_schema={"format": "date-time"},
)]  # fmt: skip
State = Literal[
    "SUBMITTED", "WAITING_FOR_RETRY", "READY_TO_PULL", "WAITING_FOR_RECEIPT", "ACKNOWLEDGED", "FAILED", "CANCELLED",
    "RECEIVED", "DELIVERED", "PURGED",
]  # fmt: skip
EventType = Literal[
    "message.accepted", "message.acknowledged", "message.failed", "message.retrying",
    "message.received", "message.delivered",
    "message.cancelled", "message.resent", "message.held", "message.released", "message.redelivered",
    "certificate.returned",
]  # fmt: skip
#: What a webhook may ask for by name. Certificates are told to nobody who did not ask, or does not see everything.
Subject = Literal[EventType, "cert.due", "cert.expired"]


#: Types with commas between.
EventTypes = Annotated[str, Meta(min_length=1, max_length=400, pattern=r"^[a-z._,]+(?![\s\S])")]
EventCursor = Annotated[str, Meta(pattern=r"^[0-9]{1,18}(?![\s\S])")]


# -- submitting ---------------------------------------------------------------


class SubmissionParty(PartyRef, frozen=True, forbid_unknown_fields=True):
    """A party; `type` may be left out where the id is unique."""


class SubmissionProperty(PropertyValue, frozen=True, forbid_unknown_fields=True):
    """A message or part property."""


class SubmissionPart(PartSubmission, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One payload; its content is the next form field, or the upload with this id."""

    properties: tuple[SubmissionProperty, ...] = ()
    upload: Text | None = None


class InlinePart(SubmissionPart, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One payload with its content in base64, or with the id of an upload."""

    content: bytes | None = None


class SubmissionMeta(Submission, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The form field `meta`: what is to be sent. What is left out comes from the agreement."""

    to_party: SubmissionParty | None = None
    from_party: SubmissionParty | None = None
    properties: tuple[SubmissionProperty, ...] = ()
    parts: tuple[SubmissionPart, ...] = ()
    deadline: Annotated[datetime, Meta(tz=True)] | None = None


class InlineSubmission(SubmissionMeta, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole submission in JSON, for payloads of 1 MB in all."""

    parts: tuple[InlinePart, ...] = ()


class SubmitQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    #: Seconds to wait for the final state.
    wait: Wait = 0.0


# -- reading ------------------------------------------------------------------


class MessageQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    #: Seconds to wait for the final state of an outbound message.
    wait: Wait = 0.0


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    direction: Literal["inbound", "outbound"] | None = None
    state: State | None = None
    conversation_id: Text | None = None
    message_id: Text | None = None
    service: Text | None = None
    action: Text | None = None
    #: The id of the other party.
    party: Text | None = None
    #: A corner: its value, or `type:value`.
    original_sender: CornerName | None = None
    final_recipient: CornerName | None = None
    #: Stored from this moment on, and before that one.
    since: Moment | None = None
    until: Moment | None = None
    after: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class MessagePage(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Messages, newest first. `next` is the `after` of the page that follows, if there is one."""

    messages: list[MessageView]
    next: str | None = None


class Timeline(Struct, frozen=True):
    """The stages a message went through, oldest first. `started` is in Unix seconds."""

    events: list[Step]


class PayloadList(Struct, frozen=True):
    payloads: tuple[PartView, ...]


class BundleQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    #: Whether the payloads are to be in it, too.
    payloads: bool = False


# -- conversations, events, parties -------------------------------------------


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    after: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class ConversationQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ConversationPage(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Conversations, the one with the newest message first. `next` as in a page of messages."""

    conversations: list[ConversationView]
    next: str | None = None


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    #: Types of events with commas between; all without.
    types: EventTypes | None = None
    #: Where to go on, for who cannot send Last-Event-ID.
    after: EventCursor | None = None


class EventLogQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    types: EventTypes | None = None
    after: EventCursor | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class EventLog(Struct, frozen=True, kw_only=True):
    """Events, oldest first. `after` is where to go on; `more`: there are more right now."""

    events: list[Event]
    after: str
    more: bool


class PartyList(Struct, frozen=True):
    """The partners of the agreements, as far as the caller may deal with them."""

    parties: list[PartyView]


# -- uploads ------------------------------------------------------------------


class UploadRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How large the content will be, and its SHA-256 in hex if it is to be checked when it is submitted."""

    size: Annotated[int, Meta(ge=1, le=1 << 40)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")] | None = None


# -- the inbox ----------------------------------------------------------------


class PeekQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    message_id: Text | None = None
    conversation_id: Text | None = None
    from_party: Text | None = None
    original_sender: CornerName | None = None
    final_recipient: CornerName | None = None
    received_from: Moment | None = None
    received_to: Moment | None = None
    #: Those whose delivery was given up, instead of those that wait.
    parked: bool = False
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class Peeked(Struct, frozen=True):
    """What waits, oldest first; nobody has claimed it by looking."""

    messages: list[MessageView]


class ClaimRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Borrow up to `limit` waiting messages for `lease` seconds."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 1
    lease: Lease = 60.0


class Claimed(Struct, frozen=True):
    deliveries: list[Delivery]


class AckRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`claim` is the token that came with the delivery."""

    claim: Text


class NackRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Give a message back, to be lent again after `retry_in` seconds."""

    claim: Text
    retry_in: Seconds = 0.0


class ExtendRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keep a message for `lease` seconds from now."""

    claim: Text
    lease: Lease = 60.0


class Extended(Struct, frozen=True):
    lease_until: datetime


# -- webhooks and the door itself ---------------------------------------------


class WebhookRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where events go. No `events` means all of them. `signature`: hmac, with a secret that both sides hold, or
    ed25519, with a public key for the consumer."""

    url: Address
    events: tuple[Subject, ...] = ()
    signature: WebhookSignature = "hmac"


class WebhookPatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be changed; what is left out stays as it is."""

    url: Address | None = None
    events: tuple[Subject, ...] | None = None
    enabled: bool | None = None


class WebhookReplacement(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that can be changed of a webhook. No `events` means all of them."""

    url: Address
    events: tuple[Subject, ...] = ()
    enabled: bool = True


class RotateRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The secret that is replaced signs as well for `overlap` seconds."""

    overlap: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 86_400.0


class TestQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    #: Seconds to wait for the outcome.
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0


class DeliveryQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    state: Literal["waiting", "delivered", "parked"] | None = None
    after: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class WebhookList(Struct, frozen=True):
    """The registered webhooks; their secrets are not shown again."""

    webhooks: list[WebhookTarget]


class Version(Struct, frozen=True):
    product: str
    version: str
    api: str
