"""The JSON documents of the REST door: what is read, what is written, what may be asked.

What is read is stricter than the plugin API: unknown members are refused, because a
misspelt optional member would otherwise be dropped in silence. The descriptions in
`/openapi.json` are made from these Structs.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.plugin import (
    Delivery,
    MessageView,
    PartSubmission,
    PartView,
    PartyRef,
    PropertyValue,
    Step,
    Submission,
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
State = Literal[
    "SUBMITTED", "WAITING_FOR_RETRY", "READY_TO_PULL", "WAITING_FOR_RECEIPT", "ACKNOWLEDGED", "FAILED", "CANCELLED",
    "RECEIVED", "DELIVERED", "PURGED",
]  # fmt: skip
EventType = Literal[
    "message.accepted", "message.acknowledged", "message.failed", "message.retrying",
    "message.received", "message.delivered",
]  # fmt: skip


# -- submitting ---------------------------------------------------------------


class SubmissionParty(PartyRef, frozen=True, forbid_unknown_fields=True):
    """A party; `type` may be left out where the id is unique."""


class SubmissionProperty(PropertyValue, frozen=True, forbid_unknown_fields=True):
    """A message or part property."""


class SubmissionPart(PartSubmission, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One payload; its content is the form field at the same place."""

    properties: tuple[SubmissionProperty, ...] = ()


class InlinePart(SubmissionPart, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One payload with its content in base64."""

    content: bytes


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
    action: Text | None = None
    party: Text | None = None
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


# -- the inbox ----------------------------------------------------------------


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
    """Where events go. No `events` means all of them."""

    url: Address
    events: tuple[EventType, ...] = ()


class WebhookList(Struct, frozen=True):
    """The registered webhooks; their secrets are not shown again."""

    webhooks: list[WebhookTarget]


class Version(Struct, frozen=True):
    product: str
    version: str
    api: str
