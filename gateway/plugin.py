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
    DigestMismatch,
    DiscoveryFailed,
    GatewayError,
    NotFound,
    NotPossible,
    OffsetConflict,
    OutOfScope,
    Overloaded,
    QuotaReached,
    RulesBroken,
    StoreUnavailable,
    SubmissionConflict,
    SubmissionRefused,
    TooLarge,
)
from gateway.scope import Scope
from gateway.stages import Step

__all__ = [
    "AttemptView", "Backend", "Caller", "CertificateView", "CheckedPart", "ClaimLost", "ConversationView", "Delivery",
    "DeliveryDelayed", "DeliveryRefused", "DigestMismatch", "DiscoveryFailed", "DocumentException", "DocumentView",
    "DryRun", "Event", "Finding", "GatewayError", "HeaderPart", "HeaderView", "Held", "MessageFilter", "MessageView",
    "Msh", "NotFound", "NotPossible", "Offer", "OffsetConflict", "OutOfScope", "Overloaded", "PartSubmission",
    "PartView", "PartyRef", "PartyView", "PropertyValue", "QuotaReached", "ReceiptView", "ReferenceView",
    "RulesBroken", "Scope", "SecurityView", "Step", "StoreUnavailable", "Submission", "SubmissionConflict",
    "SubmissionRefused", "Submitted", "TooLarge", "UploadView", "Waiting", "WebhookAttempt",
    "WebhookDelivery", "WebhookPage", "WebhookSignature", "WebhookTarget",
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
    #: Kept from being sent or delivered, until it is released.
    held: bool = False
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
    message.received, message.delivered; and what backends ask for: message.cancelled,
    message.resent, message.held, message.released, message.redelivered. In the data of these last `by` says
    who asked. Without a message: certificate.returned (a partner refuses our new certificate and is signed for
    with the one before). A webhook that asks for cert.due or cert.expired by name hears of certificates, if its
    client sees everything.
    """

    id: str
    type: str
    at: datetime
    subject: str
    data: dict[str, Any] = field(default_factory=dict)


WebhookSignature = Literal["hmac", "ed25519"]


class WebhookTarget(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where events of a backend go.

    `secret` signs them: one or, while it is changed, several with blanks between; `whsec_…` HMAC-SHA256,
    `whsk_…` ed25519. It is empty where nobody is to be told. `public_keys` (`whpk_…`) verify what ed25519
    signs, the newest first. The secret before the newest is valid until `previous_until`.
    """

    id: str
    backend: str
    url: str
    secret: str
    events: tuple[str, ...] = ()
    enabled: bool = True
    signature: WebhookSignature = "hmac"
    public_keys: tuple[str, ...] = ()
    previous_until: datetime | None = None


class WebhookAttempt(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One attempt to tell a webhook: when it ended, how, and the HTTP status of the answer where there was one."""

    at: datetime
    outcome: Literal["delivered", "failed", "refused"]
    seconds: float = 0.0
    status: int | None = None
    detail: str = ""


class WebhookDelivery(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event for one webhook, with the newest attempts. `state` parked: given up until it is replayed.
    `message` is the id of the message it tells of."""

    id: str
    event_id: str
    type: str
    state: Literal["waiting", "delivered", "parked"]
    created_at: datetime
    message: str | None = None
    next_attempt_at: datetime | None = None
    attempts: tuple[WebhookAttempt, ...] = ()


class WebhookPage(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Deliveries of a webhook, newest first. `next` is the `after` of the page that follows, if there is one."""

    deliveries: list[WebhookDelivery]
    next: str | None = None


class Caller(Struct, frozen=True):
    """An authenticated API client. `backend` and `scope` bound what it may see and do."""

    id: str
    name: str
    backend: str
    scope: Scope = Scope()


class MessageFilter(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What to list; newest first, or with `upwards` oldest first. `after` is the opaque cursor of the page
    before. Stored from `since` on and before `until`; `party` is the id of the other one."""

    direction: str | None = None
    state: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    service: str | None = None
    action: str | None = None
    party: str | None = None
    original_sender: str | None = None
    final_recipient: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    upwards: bool = False
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


class HeaderPart(Struct, frozen=True, omit_defaults=True):
    """eb:PartInfo as it stands in the header, with the properties that are the gateways' business."""

    href: str | None
    properties: tuple[PropertyValue, ...] = ()


class HeaderView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """eb:UserMessage as it is on the wire."""

    message_id: str
    timestamp: datetime
    ref_to_message_id: str | None = None
    mpc: str | None = None
    from_party: PartyRef
    to_party: PartyRef
    agreement_ref: str | None = None
    agreement_type: str | None = None
    service: str
    service_type: str | None = None
    action: str
    conversation_id: str
    properties: tuple[PropertyValue, ...] = ()
    parts: tuple[HeaderPart, ...] = ()


class CertificateView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Facts of a certificate. `sha256` (hex) is of `der`; `ours`: it is one of this access point."""

    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    key: str
    sha256: str
    ours: bool
    der: bytes


class ReferenceView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a signature says about one node or part. `digest` is in base64; `met`: what is kept has this
    digest, or had it when it came; None where nothing can be said."""

    uri: str
    digest_method: str
    digest: str
    transforms: tuple[str, ...] = ()
    met: bool | None = None


class SecurityView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The security of a message, judged anew from the envelope that is kept. `reason` says why it is not `valid`."""

    valid: bool
    reason: str | None = None
    profile: str | None = None
    signature_algorithm: str | None = None
    encryption_algorithms: tuple[str, ...] = ()
    signer: CertificateView | None = None
    references: tuple[ReferenceView, ...] = ()


class ReceiptView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A receipt and what it proves, judged anew. `valid`: its signature is right, and it repeats what the
    message's signature says."""

    valid: bool
    reason: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    ref_to_message_id: str | None = None
    at: datetime | None = None
    signature_algorithm: str | None = None
    signer: CertificateView | None = None
    references: tuple[ReferenceView, ...] = ()


class ConversationView(Struct, frozen=True, kw_only=True):
    """A conversation. No more than 1000 messages are counted, the newest."""

    conversation_id: str
    messages: int
    began_at: datetime
    changed_at: datetime
    newest: str


class UploadView(Struct, frozen=True, kw_only=True):
    """Content on its way, to be referred to by `id`. It is resumed at `received`."""

    id: str
    size: int
    received: int
    complete: bool
    expires_at: datetime
    sha256: str | None = None


class Offer(Struct, frozen=True, omit_defaults=True):
    """An action of a service that an agreement allows."""

    service: str
    action: str
    service_type: str | None = None


class PartyView(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A partner, and what may be sent to it and comes from it."""

    id: str
    type: str | None = None
    name: str
    sends: tuple[Offer, ...] = ()
    receives: tuple[Offer, ...] = ()


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

    async def authenticate(self, token: str, *, certificate: bytes | None = None) -> Caller:
        """The client this bearer token belongs to: one of ours, or a signed one of a configured issuer. `certificate`
        is that of the TLS connection (DER), for tokens that are bound to one. Raises `NotFound`, and
        `StoreUnavailable` or `Overloaded` for what may be better in a moment."""
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
        """Deliver an inbound message once more, at once: one whose delivery is parked, or that is delivered
        and still has its payloads. False when it is neither. Raises `NotFound`."""
        ...

    # The next four answer with the message as it is then. They raise `NotFound`, and `NotPossible`.

    async def resend(self, caller: Caller, id: str) -> MessageView:
        """Send a FAILED or waiting message at once, with the same MessageId."""
        ...

    async def cancel(self, caller: Caller, id: str) -> MessageView:
        """Stop trying to send. Not possible while an attempt is running."""
        ...

    async def suspend(self, caller: Caller, id: str) -> MessageView:
        """Keep a message that waits from being sent, or an inbound one from being delivered."""
        ...

    async def resume(self, caller: Caller, id: str) -> MessageView:
        """End a `suspend`."""
        ...

    # Evidence. All raise `NotFound`.

    async def header(self, caller: Caller, id: str) -> HeaderView:
        """The header as it is on the wire."""
        ...

    async def wire(self, caller: Caller, id: str, which: Literal["request", "response"]) -> bytes | None:
        """The envelope that came or that the last attempt signed; the receipt that answered it. None: there
        is none, or not yet."""
        ...

    async def security(self, caller: Caller, id: str) -> SecurityView | None:
        """What the signed envelope says, and whether it holds. None before anything is signed."""
        ...

    async def receipt(self, caller: Caller, id: str) -> ReceiptView | None:
        """What the receipt says, and whether it holds. None before there is one."""
        ...

    # Conversations, events, partners.

    async def conversations(
        self, caller: Caller, *, after: str | None = None, limit: int = 50
    ) -> tuple[list[ConversationView], str | None]:
        """Those with the newest message first, and the cursor of the next page."""
        ...

    def follow(
        self, caller: Caller, *, after: str | None = None, types: tuple[str, ...] = ()
    ) -> AsyncIterator[tuple[str, Event | None]]:
        """Events as they happen: a cursor to go on from, and the event, or None every few seconds in which
        there was none. Without `after`, from now on. After an interruption an event may come a second time,
        with the same id. Ends when the gateway is about to stop. Raises `SubmissionRefused` for a cursor
        that is none of ours."""
        ...

    async def event_log(
        self, caller: Caller, *, after: str | None = None, types: tuple[str, ...] = (), limit: int = 100
    ) -> tuple[list[Event], str, bool]:
        """Events from the beginning or after a cursor, the cursor to go on from, and whether there are more now."""
        ...

    async def parties(self, caller: Caller) -> list[PartyView]:
        """The partners this caller may deal with."""
        ...

    # Uploads. They belong to the client that began them.

    async def begin_upload(
        self, caller: Caller, *, size: int, sha256: str | None = None, idempotency_key: str | None = None
    ) -> UploadView:
        """Room for `size` octets. Raises `TooLarge`, `QuotaReached`, `SubmissionConflict`."""
        ...

    async def upload(self, caller: Caller, id: str) -> UploadView:
        """Raises `NotFound`, also when its time is over."""
        ...

    async def write_upload(
        self, caller: Caller, id: str, blocks: AsyncIterator[bytes], *, offset: int,
        digest: tuple[Literal["sha-256", "sha-512"], bytes] | None = None,
    ) -> UploadView:  # fmt: skip
        """Write from `offset` on: where the upload goes on, or 0 to begin anew. With a digest of these
        octets they are taken as a whole or not at all; without, what came before an interruption is
        kept. Raises `NotFound`, `OffsetConflict`, `DigestMismatch`, `TooLarge`, `ClaimLost` when somebody
        else writes, and what `blocks` raises."""
        ...

    async def upload_content(self, caller: Caller, id: str) -> AsyncIterator[bytes]:
        """The content of a complete upload. Raises `NotFound`, `NotPossible`; and while it is read `DigestMismatch`
        when it is not what the client promised."""
        ...

    async def drop_upload(self, caller: Caller, id: str) -> None:
        """Raises `NotFound`."""
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

    async def add_webhook(
        self, caller: Caller, url: str, events: tuple[str, ...], *, signature: WebhookSignature = "hmac",
        idempotency_key: str | None = None,
    ) -> WebhookTarget:  # fmt: skip
        """Register where events of this caller's backend go; the answer holds the new secret. The same
        again under one key is the same webhook. Raises `SubmissionRefused` when the egress policy forbids
        the address, `SubmissionConflict` when the key was used for another one, `QuotaReached`."""
        ...

    async def webhooks(self, caller: Caller) -> list[WebhookTarget]:
        """The registered webhooks, secrets left empty."""
        ...

    async def webhook(self, caller: Caller, id: str) -> WebhookTarget:
        """One of them. This and the verbs below raise `NotFound`."""
        ...

    async def change_webhook(
        self, caller: Caller, id: str, *, url: str | None = None, events: tuple[str, ...] | None = None,
        enabled: bool | None = None,
    ) -> WebhookTarget:  # fmt: skip
        """Change what is not None. Raises `SubmissionRefused`."""
        ...

    async def rotate_webhook(self, caller: Caller, id: str, *, overlap: float = 86_400.0) -> WebhookTarget:
        """Make a new secret; the answer holds it. The one it replaces signs as well for `overlap` seconds."""
        ...

    async def remove_webhook(self, caller: Caller, id: str) -> None: ...

    async def test_webhook(self, caller: Caller, id: str) -> WebhookDelivery:
        """Have an event of type webhook.test sent, once, also where the webhook is not enabled."""
        ...

    async def webhook_deliveries(
        self, caller: Caller, id: str, *, state: Literal["waiting", "delivered", "parked"] | None = None,
        after: str | None = None, limit: int = 50,
    ) -> WebhookPage:  # fmt: skip
        """What it was told and is to be told."""
        ...

    async def webhook_delivery(self, caller: Caller, id: str, delivery_id: str) -> WebhookDelivery: ...

    async def replay_webhook(self, caller: Caller, id: str, delivery_id: str) -> WebhookDelivery:
        """Send an event once more, at once, with the same id. Raises `NotPossible` while an attempt is running."""
        ...

    async def subscribe(self, caller: Caller, events: tuple[str, ...]) -> None:
        """Have the backend's own `notify` called for these events of its messages, from now on; the same
        again changes nothing. The target it is called with has no URL."""
        ...

    async def push(
        self, url: str, body: AsyncIterator[bytes], *, length: int, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """The same for a body of `length` bytes that is streamed, to an address the operator configured. It takes
        as long as whoever asks for the delivery lets it."""
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

    async def notify(self, target: WebhookTarget, event: Event) -> int | None:
        """Tell a target about an event; the HTTP status of its answer, where there is one. Raises
        `DeliveryDelayed` or `DeliveryRefused`."""
        ...

    def retry_in(self, attempt: int) -> float | None:
        """Seconds until attempt `attempt` (the first is 1) of a delivery or notification is followed
        by another; None when it is to be parked."""
        ...
