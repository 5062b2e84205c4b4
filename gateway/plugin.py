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
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from gateway.as4.findings import Finding
from gateway.errors import (  # re-exported: a backend raises and catches these
    ClaimLost,
    DeliveryDelayed,
    DeliveryRefused,
    DiscoveryFailed,
    GatewayError,
    NotFound,
    OutOfScope,
    Overloaded,
    RulesBroken,
    StoreUnavailable,
    SubmissionConflict,
    SubmissionRefused,
    TooLarge,
)
from gateway.scope import Scope
from gateway.stages import Step

__all__ = [
    "AttemptView", "Backend", "Caller", "CheckedPart", "ClaimLost", "Delivery", "DeliveryDelayed", "DeliveryRefused",
    "DiscoveryFailed", "DocumentException", "DocumentView", "DryRun", "Event", "Finding", "GatewayError", "Held",
    "MessageFilter", "MessageView", "Msh", "NotFound", "OutOfScope", "Overloaded", "PartSubmission", "PartView",
    "PartyRef", "PropertyValue", "RulesBroken", "Scope", "Step", "StoreUnavailable", "Submission",
    "SubmissionConflict", "SubmissionRefused", "Submitted", "TooLarge", "Waiting", "WebhookTarget",
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
    """What a producer wants to send. Everything left out comes from the agreement.

    Without `to_party` the receiver is discovered, where an agreement says how.
    """

    to_party: PartyRef | None = None
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
    """A submission that is durably stored. `replayed`: it had been submitted before. `findings` is what the
    rules of its community say about it; it is sent all the same."""

    id: str
    message_id: str
    conversation_id: str
    state: str
    replayed: bool = False
    findings: tuple[Finding, ...] = ()


class DocumentException(Struct, frozen=True, omit_defaults=True):
    """An error that an exchange document tells of. `detail` only where it is the number of a rule."""

    code: str | None = None
    type: str | None = None
    severity: str | None = None
    detail: str | None = None


class DocumentView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the leading document of a message is, where it is an exchange document of OOTS.

    Nothing in it is about a person. `kind`: request, response, lcm-request, lcm-response; `outcome` of
    a response: evidence, empty, deferred, preview, error. `round` is 2 after a preview.
    """

    kind: str
    outcome: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    specification: str | None = None
    procedure: str | None = None
    evidence_type: str | None = None
    round: int | None = None
    issued_at: datetime | None = None
    available_at: datetime | None = None
    exceptions: tuple[DocumentException, ...] = ()


class CheckedPart(Struct, frozen=True, kw_only=True):
    """A payload as it would be sent. `size` and `sha256` (hex) are of the content, `wire_size` is of the
    octets that are signed and encrypted (compressed, if `compressed`)."""

    cid: str
    mime_type: str
    size: int
    sha256: str
    compressed: bool
    wire_size: int


class DryRun(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a submission would become. `valid`: no fatal finding. `header` is eb:Messaging; ids and time that were
    left out of the submission are made anew when it is submitted. `line` is the version line of the
    specification the message speaks, where its profile knows any."""

    valid: bool
    pmode: str
    profile: str
    rules: Literal["advise", "refuse"]
    header: str
    line: str | None = None
    findings: tuple[Finding, ...] = ()
    document: DocumentView | None = None
    parts: tuple[CheckedPart, ...] = ()


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

    `state` is one of SUBMITTED, WAITING_FOR_RETRY, READY_TO_PULL, WAITING_FOR_RECEIPT, ACKNOWLEDGED, FAILED, CANCELLED
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
    findings: tuple[Finding, ...] = ()
    document: DocumentView | None = None


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
    """An authenticated API client. `backend` and `scope` bound what it may see and do."""

    id: str
    name: str
    backend: str
    scope: Scope = Scope()


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


class Waiting(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Which waiting messages to list, oldest first. Every bound is exact, times are included. `parked`:
    those whose delivery was given up, instead of those that wait for it."""

    message_id: str | None = None
    conversation_id: str | None = None
    ref_to_message_id: str | None = None
    from_party: str | None = None
    original_sender: str | None = None
    final_recipient: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    parked: bool = False
    limit: int = 500


class AttemptView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One attempt to send a message, and how it ended."""

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    http_status: int | None = None


class Held(Protocol):
    """Content that comes in another order than it is needed, kept encrypted until then."""

    async def write(self, name: str, block: bytes) -> None:
        """Add to the content of this name. Names come one after the other. Raises `TooLarge`, `Overloaded`."""
        ...

    def read(self, name: str) -> AsyncIterator[bytes]:
        """The content of a name; nothing for one that was never written."""
        ...


#: Opens the content of part n (0-based) of a submission; called once per part, in order.
Content = Callable[[int], AsyncIterator[bytes]]


class Msh(Protocol):
    """What the gateway offers to a backend."""

    async def authenticate(self, token: str) -> Caller:
        """The client this bearer token belongs to. Raises `NotFound`."""
        ...

    async def authenticate_password(self, login: str, password: str) -> Caller:
        """The client of a login name. Raises `NotFound`, and `Overloaded` when too many are tried at once."""
        ...

    async def authenticate_certificate(self, der: bytes) -> Caller:
        """The client whose TLS certificate this is. The handshake has proven that the peer holds the key;
        its certificate must be in its time. Raises `NotFound`."""
        ...

    async def submit(
        self, caller: Caller, submission: Submission, content: Content, *, idempotency_key: str | None = None
    ) -> Submitted:
        """Store a message for sending. Raises `SubmissionRefused` (`OutOfScope`; `RulesBroken` where the
        agreement refuses fatal findings), `SubmissionConflict`, `StoreUnavailable`, `TooLarge`."""
        ...

    async def validate(self, caller: Caller, submission: Submission, content: Content) -> DryRun:
        """What `submit` would make of it; nothing is stored. Raises what `submit` raises about the
        submission itself. Whether a MessageId is taken only storing can tell."""
        ...

    async def message(self, caller: Caller, id: str) -> MessageView:
        """One message, by our id or by its MessageId. Raises `NotFound`."""
        ...

    async def messages(self, caller: Caller, wanted: MessageFilter) -> tuple[list[MessageView], str | None]:
        """A page of messages, and the cursor of the next page if there is one."""
        ...

    async def attempts(self, caller: Caller, id: str) -> list[AttemptView]:
        """The attempts to send a message, oldest first. Raises `NotFound`."""
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

    async def waiting(self, caller: Caller, wanted: Waiting) -> list[str]:
        """MessageIds of the inbound messages that wait for this consumer."""
        ...

    async def claim_message(self, caller: Caller, id: str, *, lease: float = 60.0) -> Delivery:
        """Borrow this very message, by our id or its MessageId. Raises `NotFound` when it is not waiting,
        `ClaimLost` when somebody else has it."""
        ...

    async def redeliver(self, caller: Caller, id: str) -> bool:
        """Make a parked delivery due at once. False when it was not parked. Raises `NotFound`."""
        ...

    def hold(self, caller: Caller) -> AbstractAsyncContextManager[Held]:
        """Room for content, given back on leaving."""
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

    async def subscribe(self, caller: Caller, events: tuple[str, ...]) -> None:
        """Have the backend's own `notify` called for these events of its messages, from now on; the same
        again changes nothing. The target it is called with has no URL."""
        ...

    async def push(
        self, url: str, body: AsyncIterator[bytes], *, length: int, headers: dict[str, str], timeout: float = 240.0
    ) -> tuple[int, dict[str, str], bytes]:
        """The same for a body of `length` bytes that is streamed, to an address the operator configured."""
        ...

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

    async def run(self) -> None:
        """Work of its own, for as long as the process lives; it is cancelled at the end. A backend without
        any returns at once."""
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
