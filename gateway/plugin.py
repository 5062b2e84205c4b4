"""The public plugin API: everything a backend may import, and nothing else.

A *backend* is the door through which producers submit and consumers receive: REST,
signed webhooks, the Domibus SOAP door, a directory. It is constructed once with an
`Msh` and may do two things: serve HTTP on the plugin listener (`asgi`), and take
deliveries or notifications that the gateway pushes to it.

Contract
- What `Msh.submit` returned is durable. It is idempotent by `message_id` and by
  `idempotency_key`: the same submission again returns the first one, `replayed`.
- Every delivery is made at least once. A second one has `redelivered` set and the same
  `delivery_id`. A consumer that acknowledges by claim token gets it exactly once.
- Reading never destroys anything.
- A caller sees and touches only what its scope allows; everything else does not exist
  for it (`NotFound`).

Compatible additions are made to this module; nothing is removed within a major version.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from gateway.errors import (  # re-exported: a backend raises and catches these
    ClaimLost,
    DeliveryDelayed,
    DeliveryRefused,
    GatewayError,
    NotFound,
    Overloaded,
    StoreUnavailable,
    SubmissionConflict,
    SubmissionRefused,
    TooLarge,
)
from gateway.stages import Step

__all__ = [
    "Backend", "Caller", "ClaimLost", "Delivery", "DeliveryDelayed", "DeliveryRefused", "Event",
    "GatewayError", "MessageFilter", "MessageView", "Msh", "NotFound", "Overloaded", "PartSubmission",
    "PartView", "PartyRef", "PropertyValue", "Step", "StoreUnavailable", "Submission",
    "SubmissionConflict", "SubmissionRefused", "Submitted", "TooLarge", "WebhookTarget",
]  # fmt: skip


class PartyRef(Struct, frozen=True, omit_defaults=True):
    """A party as ebMS names it. On submission `type` may be left out where the id is unique."""

    id: str
    type: str | None = None
    role: str | None = None


class PropertyValue(Struct, frozen=True, omit_defaults=True):
    """A message or part property; `type` survives end to end."""

    name: str
    value: str
    type: str | None = None


class PartSubmission(Struct, frozen=True, omit_defaults=True):
    """One payload to send. `cid` is made by the gateway when it is left out.

    Order is the order of eb:PartInfo: the leading document first. `compress=None`
    leaves it to the agreement.
    """

    mime_type: str
    cid: str | None = None
    properties: tuple[PropertyValue, ...] = ()
    compress: bool | None = None


class Submission(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a producer wants to send. Everything left out comes from the agreement."""

    to_party: PartyRef
    action: str
    service: str | None = None
    service_type: str | None = None
    from_party: PartyRef | None = None
    agreement_ref: str | None = None
    agreement_type: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    ref_to_message_id: str | None = None
    properties: tuple[PropertyValue, ...] = ()
    parts: tuple[PartSubmission, ...] = ()
    #: Give up and report failure when this moment has passed without a receipt.
    deadline: datetime | None = None


class Submitted(Struct, frozen=True):
    """A submission that is durably stored. `replayed`: it had been submitted before."""

    id: str
    message_id: str
    conversation_id: str
    state: str
    replayed: bool = False


class PartView(Struct, frozen=True, omit_defaults=True):
    """One payload of a message. `size` and `sha256` (hex) are of the content a consumer sees."""

    number: int
    cid: str
    mime_type: str
    size: int
    sha256: str
    properties: tuple[PropertyValue, ...] = ()
    available: bool = True


class MessageView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message as its producer or consumer may see it.

    `state` is one of SUBMITTED, WAITING_FOR_RETRY, ACKNOWLEDGED, FAILED, CANCELLED
    (outbound), RECEIVED, DELIVERED (inbound), PURGED (both: payloads gone).
    """

    id: str
    direction: str
    state: str
    message_id: str
    conversation_id: str
    timestamp: datetime
    created_at: datetime
    from_party: PartyRef
    to_party: PartyRef
    service: str
    action: str
    service_type: str | None = None
    ref_to_message_id: str | None = None
    agreement_ref: str | None = None
    agreement_type: str | None = None
    mpc: str | None = None
    properties: tuple[PropertyValue, ...] = ()
    parts: tuple[PartView, ...] = ()
    backend: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    error_code: str | None = None
    error_detail: str | None = None
    receipt_at: datetime | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """An inbound message lent to one consumer until `lease_until`.

    `claim` is the token to acknowledge with. `delivery_id` stays the same however
    often the message is lent; `redelivered` is true from the second time on.
    """

    delivery_id: str
    claim: str
    lease_until: datetime
    redelivered: bool
    attempt: int
    message: MessageView


class Event(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something a producer or consumer is told: ids and links, never evidence.

    Types: message.accepted, message.acknowledged, message.failed, message.retrying,
    message.received, message.delivered.
    """

    id: str
    type: str
    at: datetime
    subject: str
    data: dict[str, Any] = field(default_factory=dict)


class WebhookTarget(Struct, frozen=True, kw_only=True):
    """Where events of a backend go. `secret` signs them (HMAC-SHA256, `whsec_…`)."""

    id: str
    backend: str
    url: str
    secret: str
    events: tuple[str, ...] = ()


class Caller(Struct, frozen=True):
    """An authenticated API client. `backend` bounds what it may see and do."""

    id: str
    name: str
    backend: str


class MessageFilter(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What to list; newest first. `after` is the opaque cursor of the page before."""

    direction: str | None = None
    state: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    action: str | None = None
    party: str | None = None
    after: str | None = None
    limit: int = 50


#: Opens the content of part n (0-based) of a submission; called once per part, in order.
Content = Callable[[int], AsyncIterator[bytes]]


class Msh(Protocol):
    """What the gateway offers to a backend."""

    async def authenticate(self, token: str) -> Caller:
        """The client this bearer token belongs to. Raises `NotFound`."""
        ...

    async def submit(
        self, caller: Caller, submission: Submission, content: Content, *, idempotency_key: str | None = None
    ) -> Submitted:
        """Store a message for sending. Raises `SubmissionRefused`, `SubmissionConflict`,
        `StoreUnavailable`, `TooLarge`."""
        ...

    async def message(self, caller: Caller, id: str) -> MessageView:
        """One message, by our id or by its MessageId. Raises `NotFound`."""
        ...

    async def messages(self, caller: Caller, wanted: MessageFilter) -> tuple[list[MessageView], str | None]:
        """A page of messages, and the cursor of the next page if there is one."""
        ...

    async def trace(self, caller: Caller, id: str) -> list[Step]:
        """The stages a message went through, oldest first. Raises `NotFound`."""
        ...

    async def payload(
        self, caller: Caller, id: str, cid: str, *, start: int = 0
    ) -> tuple[PartView, AsyncIterator[bytes]]:
        """The content of one part from byte `start`, streamed. Raises `NotFound`."""
        ...

    async def claim(self, caller: Caller, *, limit: int = 1, lease: float = 60.0) -> list[Delivery]:
        """Borrow waiting inbound messages for `lease` seconds."""
        ...

    async def ack(self, caller: Caller, delivery_id: str, claim: str) -> None:
        """The consumer has taken the message over. Idempotent. Raises `ClaimLost`, `NotFound`."""
        ...

    async def nack(self, caller: Caller, delivery_id: str, claim: str, *, retry_in: float = 0.0) -> None:
        """Give a message back. Raises `ClaimLost`, `NotFound`."""
        ...

    async def extend(self, caller: Caller, delivery_id: str, claim: str, *, lease: float) -> datetime:
        """Keep a message longer; the new end of the lease. Raises `ClaimLost`, `NotFound`."""
        ...

    async def add_webhook(self, caller: Caller, url: str, events: tuple[str, ...]) -> WebhookTarget:
        """Register where events of this caller's backend go; the answer holds the new secret.
        Raises `SubmissionRefused` when the egress policy forbids the address."""
        ...

    async def webhooks(self, caller: Caller) -> list[WebhookTarget]:
        """The registered webhooks, secrets left empty."""
        ...

    async def remove_webhook(self, caller: Caller, id: str) -> None: ...

    async def post(
        self, url: str, body: bytes, headers: dict[str, str], *, timeout: float = 20.0
    ) -> tuple[int, dict[str, str], bytes]:
        """POST under the egress policy: no redirects, address pinned, answer capped at 64 KiB.
        Returns status, headers (lower case) and body. Raises `DeliveryDelayed` or `DeliveryRefused`."""
        ...


class Backend(Protocol):
    """A door for producers and consumers. Any of the three may do nothing."""

    name: str
    #: Whether the gateway calls `deliver`; otherwise consumers claim from the inbox.
    pushes: bool

    @property
    def asgi(self) -> Callable[..., Awaitable[None]] | None:
        """An ASGI application for the plugin listener, or None."""
        ...

    async def deliver(self, delivery: Delivery) -> None:
        """Take a message that is pushed. Return when the consumer has it. Only called for
        backends whose `pushes` is true. Raises `DeliveryDelayed` or `DeliveryRefused`."""
        ...

    async def notify(self, target: WebhookTarget, event: Event) -> None:
        """Tell a target about an event. Raises `DeliveryDelayed` or `DeliveryRefused`."""
        ...

    def retry_in(self, attempt: int) -> float | None:
        """Seconds until attempt `attempt` (the first is 1) of a delivery or notification is followed
        by another; None when it is to be parked."""
        ...
