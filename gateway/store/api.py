"""The Store protocol and its row Structs: the seam between the MSH and PostgreSQL.

A store keeps bytes that are already sealed; it has no keys. Every verb that changes
something is one transaction. Times are the database's, never the node's.

Promises (a contract suite runs them against every store)
- `receive_once` and `Receiving.accept`: message, parts, chunks, receipt, delivery job and
  event become visible in one commit or not at all. Of several with one key (tenant,
  sender, message_id) exactly one is stored; the others learn what was stored, and only
  after a durable write of their own (the barrier, reliability finding 3).
- A claim has a fresh token; whoever finishes, renews or fails a job names it. A token
  that is no longer current changes nothing: `ClaimLost`.
- Only the state changes of `states.py` happen; SQL refuses any other.
- `OutcomeUnknown` means a commit was sent and its fate is not known. `StoreUnavailable`
  means nothing was written.
- An event is written in the commit of the change it tells of, and with it one `notify` job
  for each webhook of the message's backend that wants its type. The data of that job is
  the event's, with `id` (the same for all webhooks), `type`, `message_id` and
  `conversation_id` added.
- An event that says what somebody had done with a message (`AUDITED`) is in the audit, too, in the
  same commit; `by` in its data says who.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from msgspec import Struct, field

from gateway.as4.findings import Finding
from gateway.as4.units import PartInfo, Reference, UserMessage
from gateway.scope import EVERYTHING, Scope
from gateway.stages import Step
from gateway.store.agreements import Agreements
from gateway.store.alerts import Alerts
from gateway.store.chain import Link
from gateway.store.keeping import Keeping
from gateway.store.keys import Keys
from gateway.store.pair import Pair
from gateway.store.partner_certificates import PartnerCertificates
from gateway.store.rotation import Proof, Rotation
from gateway.store.seals import Seals
from gateway.store.updates import Updates
from gateway.store.webhooks import Webhooks

Direction = Literal["inbound", "outbound"]


class NewPart(Struct, frozen=True, kw_only=True):
    """One payload of a new message.

    `size` and `sha256` are of the content producers and consumers see. `wire_size` and
    `wire_digest` are of the octets that are signed (compressed, if `compressed`).
    Outbound the stored octets are the wire octets, inbound the content. `inline` is the
    sealed content of a small part; a large one is in chunk rows (`chunks` of them).
    """

    number: int
    info: PartInfo
    cid: str
    mime_type: str
    size: int
    sha256: bytes
    compressed: bool
    wire_size: int
    wire_digest: bytes
    inline: bytes | None = None
    chunks: int = 0


class NewInbound(Struct, frozen=True, kw_only=True):
    """A message that passed every check, with the receipt that answers it.

    `fingerprint` digests what the message says (header and part digests); `references`
    digests the signed references. Same fingerprint and other references: the same
    message, signed again. Other fingerprint: another message under a used id.

    `findings` and `document` (what is kept of the leading document) hold no personal data: they
    outlive the payloads. `request_id` is set where that document asks for something.
    """

    id: UUID
    tenant: str
    sender: str
    user_message: UserMessage
    fingerprint: bytes
    references: bytes
    envelope: bytes
    signer: bytes
    receipt: bytes
    parts: tuple[NewPart, ...]
    wrapped_key: bytes
    pmode_id: str
    pmode_revision: int
    backend: str | None
    findings: tuple[Finding, ...] = ()
    document: dict[str, Any] | None = None
    request_id: str | None = None
    steps: tuple[Step, ...] = ()
    #: The channel a pulled message came from: its receipt goes there in a request of its own.
    answer_to: str | None = None

    @property
    def event(self) -> "NewEvent":
        """What is told of it: of findings only how many."""
        return NewEvent("message.received", {"findings": len(self.findings)} if self.findings else {})


class Received(Struct, frozen=True):
    """What became of an inbound message.

    `stored`: the first time. `duplicate`: `receipt` is the stored one, `same_references`
    tells whether it fits the octets of this copy. `conflict`: the id is taken by another
    content; nothing was changed, and `receipt` is empty. `id` is of the stored message.
    """

    outcome: Literal["stored", "duplicate", "conflict"]
    id: UUID
    receipt: bytes
    same_references: bool = True


class Held(Struct, frozen=True):
    """A message that the partner fetches: on which channel, and for how many seconds it is kept for him."""

    queue: str
    patience: float


class NewOutbound(Struct, frozen=True, kw_only=True):
    """A submission, frozen: header, parts and their digests never change again.

    `retry` is the agreement's policy as a plain dict; `idempotency` is (client id, key,
    fingerprint of the request). `backend` and `client` say who is to be notified. With
    `held` it is not sent, it waits until it is pulled.
    """

    id: UUID
    tenant: str
    receiver: str
    user_message: UserMessage
    fingerprint: bytes
    parts: tuple[NewPart, ...]
    wrapped_key: bytes
    pmode_id: str
    pmode_revision: int
    backend: str
    client: str
    idempotency_key: str | None = None
    deadline: datetime | None = None
    findings: tuple[Finding, ...] = ()
    document: dict[str, Any] | None = None
    request_id: str | None = None
    steps: tuple[Step, ...] = ()
    held: Held | None = None
    #: For so many seconds the agreement tries to send it.
    patience: float | None = None
    #: W3C traceparent.
    trace: str | None = None

    @property
    def state(self) -> Literal["SUBMITTED", "READY_TO_PULL"]:
        """The state it is born in."""
        return "READY_TO_PULL" if self.held else "SUBMITTED"

    @property
    def event(self) -> "NewEvent":
        """What is told of it: of findings only how many."""
        return NewEvent("message.accepted", {"findings": len(self.findings)} if self.findings else {})


class Stored(Struct, frozen=True):
    """A stored submission. `replayed`: it was there already, under `id`."""

    id: UUID
    message_id: str
    conversation_id: str
    state: str
    replayed: bool = False


class Part(Struct, frozen=True, kw_only=True):
    """A stored payload. `inline` is sealed; None means chunk rows, or purged."""

    number: int
    info: PartInfo
    cid: str
    mime_type: str
    size: int
    sha256: bytes
    compressed: bool
    wire_size: int
    wire_digest: bytes
    inline: bytes | None
    chunks: int


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt to send. `references` is what was signed, for judging the receipt."""

    number: int
    started_at: datetime
    ended_at: datetime | None
    node: str
    references: tuple[Reference, ...]
    #: SHA-256 of the certificate that signed; None for attempts from before this was noted.
    signer: bytes | None = None
    outcome: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    http_status: int | None = None
    steps: tuple[Step, ...] = ()


class Message(Struct, frozen=True, kw_only=True):
    """A stored message of either direction. `wrapped_key` is None once it is purged.

    `attempts` counts the attempts that were begun. `next_attempt_at` is set while a send job
    waits for its time.
    """

    id: UUID
    direction: Direction
    state: str
    tenant: str
    partner: str
    user_message: UserMessage
    parts: tuple[Part, ...]
    wrapped_key: bytes | None
    pmode_id: str
    pmode_revision: int
    backend: str | None
    client: str | None
    created_at: datetime
    changed_at: datetime
    deadline: datetime | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    #: Kept back by `suspend`.
    held: bool = False
    error_code: str | None = None
    error_detail: str | None = None
    receipt: bytes | None = None
    receipt_at: datetime | None = None
    envelope: bytes | None = None
    signer: bytes | None = None
    findings: tuple[Finding, ...] = ()
    document: dict[str, Any] | None = None
    steps: tuple[Step, ...] = ()
    trace: str | None = None


class MessageFilter(Struct, frozen=True, kw_only=True):
    """What to list, newest first or with `upwards` oldest first. `after` is the last (created_at, id)
    of the page before. `partner` is the key or the id of the other party; a corner is its value, or
    `type:value`. Messages stored from `since` on and before `until`."""

    backend: str | None = None
    direction: Direction | None = None
    state: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    service: str | None = None
    action: str | None = None
    partner: str | None = None
    original_sender: str | None = None
    final_recipient: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    upwards: bool = False
    after: tuple[datetime, UUID] | None = None
    limit: int = 50


class WaitingFilter(Struct, frozen=True, kw_only=True):
    """Which waiting inbound messages to list, oldest first; every bound is exact, times are included.
    `parked`: those whose delivery was given up, instead of those that wait for it."""

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


class Conversation(Struct, frozen=True, kw_only=True):
    """A conversation as its viewer sees it: the newest message, how many there are (no more than
    `COUNTED` are counted) and when the oldest of these was stored."""

    conversation_id: str
    newest: UUID
    changed_at: datetime
    began_at: datetime
    messages: int


COUNTED = 1000


class Told(Struct, frozen=True, kw_only=True):
    """An event as its viewer sees it. `number` is its place in the log; `id` never changes."""

    number: int
    id: UUID
    at: datetime
    type: str
    message: UUID
    message_id: str
    conversation_id: str
    data: dict[str, Any]


class Numbers(Struct, frozen=True):
    """Numbers of the event log beyond `after` that can be seen, in order. Transactions below `oldest` have
    ended, and those that took a number below the highest of these are below `next`."""

    after: int
    numbers: tuple[int, ...]
    oldest: int
    next: int


class Upload(Struct, frozen=True, kw_only=True):
    """Content that a client brings before the submission that refers to it. `received` octets of `size`
    are kept; `sha256` is what the client promised of the whole."""

    id: UUID
    client: str
    size: int
    received: int = 0
    sha256: bytes | None = None
    wrapped_key: bytes
    created_at: datetime | None = None
    expires_at: datetime | None = None


class UploadChunk(Struct, frozen=True):
    """A sealed piece of an upload. `place` is unique among all that were ever sealed for this upload."""

    position: int
    place: tuple[int, int]
    content: bytes


JobKind = Literal["send", "deliver", "notify", "hold", "pull", "receipt"]


class Job(Struct, frozen=True, kw_only=True):
    """A claimed job. `attempt` counts claims, this one included; for `send` those since the
    last attempt that was finished. `lost` counts those before it that nobody gave back, in a row:
    whoever had them died, or was cut off. So a message that kills its worker stands out.

    `queue` separates those who may claim: the partner for `send`, the backend for
    `deliver`, the webhook id for `notify`, the channel for `hold`, `pull` and `receipt`.
    `data` is the event of a `notify` job; of a claimed `hold` job, under `left`, the seconds
    the message will still be kept; of a `receipt` job, under `receipt`, the text of one that is
    not the message's stored receipt.
    `claim` is None and `lease_until` the due time for a job that nobody holds; only
    `delivery` returns such.
    """

    id: UUID
    kind: JobKind
    queue: str
    message: UUID | None
    claim: UUID | None
    attempt: int
    lost: int = 0
    created_at: datetime
    lease_until: datetime
    data: dict[str, Any] = field(default_factory=dict)
    #: What time it was in the database when it was claimed.
    at: datetime | None = None
    #: Claimed although its partner is shut, because its time is over.
    shut: bool = False


#: What somebody has done with a message, and not the gateway by itself.
AUDITED = frozenset(
    {"message.cancelled", "message.resent", "message.held", "message.released", "message.redelivered"}
)  # fmt: skip


class NewEvent(Struct, frozen=True):
    """An event to be written with a change; the store fans it out to the webhooks of the
    message's backend as `notify` jobs."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)


class Shutting(Struct, frozen=True):
    """After how many failures in a row a partner is shut; for how many seconds, twice as long after every further one,
    and at most; each a quarter more or less."""

    failures: int = 5
    first: float = 5.0
    longest: float = 300.0


class Circuit(Struct, frozen=True, kw_only=True):
    """A partner that did not answer the last time: how often in a row, since when. With `shut_until` its messages wait;
    after that one of them is sent to see whether it answers."""

    partner: str
    failures: int
    since: datetime
    shut_until: datetime | None = None


class AttemptResult(Struct, frozen=True, kw_only=True):
    """How an attempt ended, and what becomes of the message. `retry_in` is in seconds.

    The error is the message's from then on; an acknowledged one has none, a failed one at
    least EBMS:0004. With `refusal` the error may mean that the partner does not trust the certificate
    of this attempt (see `store.rotation`).
    """

    state: Literal["ACKNOWLEDGED", "WAITING_FOR_RETRY", "FAILED"]
    outcome: str
    retry_in: float | None = None
    error_code: str | None = None
    error_detail: str | None = None
    http_status: int | None = None
    receipt: bytes | None = None
    refusal: Proof | None = None
    steps: tuple[Step, ...] = ()
    events: tuple[NewEvent, ...] = ()
    #: Whether the partner answered, whatever it said. None: it was not asked.
    answered: bool | None = None
    shutting: Shutting = Shutting()


class LapseResult(Struct, frozen=True, kw_only=True):
    """What becomes of a held message whose time is over. `due_in` is in seconds: how long it is
    kept now. A failed one has an error."""

    state: Literal["READY_TO_PULL", "FAILED"]
    due_in: float = 0.0
    error_code: str | None = None
    error_detail: str | None = None
    events: tuple[NewEvent, ...] = ()


class Client(Struct, frozen=True, kw_only=True):
    """An API client: who may use the plugin API, for which backend, and within which scope."""

    id: str
    name: str
    backend: str
    scope: Scope = Scope()
    created_at: datetime | None = None
    revoked: bool = False


CredentialKind = Literal["token", "password", "certificate", "subject"]


class Credential(Struct, frozen=True, kw_only=True):
    """How a client shows who it is. No secret is kept.

    `key` is what it is found by: `token` its SHA-256 in hex, `password` the login name,
    `certificate` the SHA-256 of the DER in hex, `subject` issuer and subject of a signed
    token, a blank between them. `verifier` is the bcrypt hash of a password.
    """

    id: str
    client: str
    kind: CredentialKind
    key: str
    verifier: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked: bool = False


class Viewer(Struct, frozen=True):
    """On whose behalf something is read: only what this backend and scope see is there."""

    backend: str
    scope: Scope = Scope()


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One row of the hash-chained audit: who did what, or what was refused.

    `detail` holds no payload, no key and no personal data; values a peer sent are
    bounded before they get here.
    """

    kind: str
    actor: str
    subject: str
    detail: dict[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    number: int | None = None


class AuditFilter(Struct, frozen=True, kw_only=True):
    """Which audit rows to list, newest first. `kind` and what begins with it and a dot; `before` is a number;
    rows from `since` on and before `until`."""

    kind: str | None = None
    actor: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    limit: int = 100


class Health(Struct, frozen=True, kw_only=True):
    """What `/readyz` and `doctor` want to know."""

    writable: bool
    version: str
    migrations_pending: int
    synchronous_commit: str
    in_recovery: bool


class Receiving(Protocol):
    """An open transaction that takes the chunks of one inbound message as they are proven.

    Leaving the context without `accept` rolls everything back.
    """

    async def chunk(self, part: int, number: int, sealed: bytes) -> None: ...

    async def accept(self, message: NewInbound) -> Received:
        """Store the message with the chunks written so far, and commit. If it is a
        duplicate or a conflict the chunks are dropped."""
        ...


class Submitting(Protocol):
    """The same for a submission with large parts."""

    async def chunk(self, part: int, number: int, sealed: bytes) -> None: ...

    async def accept(self, message: NewOutbound) -> Stored:
        """Raises `SubmissionConflict` when MessageId or key is taken by something else."""
        ...


class Store(
    Agreements, Keys, Seals, Webhooks, Rotation, PartnerCertificates, Updates, Alerts, Pair, Keeping, Protocol
):
    """Everything the gateway keeps. All verbs raise `StoreUnavailable`."""

    # inbound
    async def receive_once(self, message: NewInbound) -> Received:
        """Store a message whose parts are all inline, in one statement. Writes the event
        `message.received`, and a `deliver` job unless the backend is None."""
        ...

    def receiving(self, id: UUID) -> AbstractAsyncContextManager[Receiving]:
        """For messages with large parts. How many are open at once is bounded."""
        ...

    # outbound
    async def submit_once(self, message: NewOutbound) -> Stored:
        """Store a submission whose parts are all inline, with its `send` job and the event
        `message.accepted`. The same again, by MessageId or by idempotency key, returns the
        first one, `replayed`. Raises `SubmissionConflict` when either is taken by something
        else, or the MessageId by another backend."""
        ...

    def submitting(self, id: UUID) -> AbstractAsyncContextManager[Submitting]: ...

    async def begin_attempt(
        self, job: Job, *, node: str, references: tuple[Reference, ...], envelope: bytes | None = None,
        signer: bytes | None = None,
    ) -> int:  # fmt: skip
        """Write the attempt row; its number. Committed before the socket opens. An attempt that
        a lost worker left open ends as `lost`. The `envelope` replaces that of an earlier attempt; `signer` is the
        SHA-256 of the certificate that signed it. `ClaimLost`."""
        ...

    async def finish_attempt(self, job: Job, attempt: int, result: AttemptResult) -> Literal["shut", "open"] | None:
        """Attempt, message state, next due time, events and what it says of the partner, in one commit: `shut` when it
        was one failure too many, `open` when a partner that was shut answers. `ClaimLost`."""
        ...

    async def settle_late(self, message: UUID, receipt: bytes, events: tuple[NewEvent, ...]) -> bool:
        """An authentic receipt came outside an attempt: SUBMITTED, WAITING_FOR_RETRY, READY_TO_PULL,
        WAITING_FOR_RECEIPT or FAILED becomes ACKNOWLEDGED and its job ends; whoever holds it loses the claim. From
        FAILED there is an audit entry. False when there was nothing to change."""
        ...

    async def fail_late(
        self, message: UUID, error_code: str, error_detail: str, events: tuple[NewEvent, ...]
    ) -> bool:
        """An authentic, final error came outside an attempt. False when nothing changed. One that may be about the
        signer of the last attempt is a refusal of it (`store.rotation`)."""
        ...

    async def cancel(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        """Stop trying to send. False when it is settled, or an attempt is running at this moment;
        one that was pulled runs until its receipt is overdue."""
        ...

    async def requeue(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        """Make a FAILED or waiting outbound message due at once, same MessageId (one that is pulled:
        ready, and kept as long as at first); or an inbound one whose delivery is parked. False: not
        possible, or somebody is at it."""
        ...

    # kept back, and delivered once more
    async def suspend(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        """Keep a message that waits from being sent, pulled or delivered until `resume`. True also when it
        is kept back already (no events then). False: there is nothing to keep back, or somebody is at it."""
        ...

    async def resume(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        """End a `suspend`: due as if there had been none. False when there was none."""
        ...

    async def redeliver(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        """Deliver an inbound message once more whose delivery is parked, or which is DELIVERED and not
        erased: due at once, marked redelivered. False: not possible."""
        ...

    # held until pulled
    async def note_pull_request(self, requester: str, message_id: str) -> bool:
        """Remember a PullRequest for a day at least. False when it was here before."""
        ...

    async def claim_held(self, queue: str, *, worker: str, lease: float) -> Job | None:
        """The oldest message on a channel that is ready to be pulled, claimed; those that others
        have claimed are passed over."""
        ...

    async def hand_out(
        self, job: Job, *, node: str, references: tuple[Reference, ...], receipt_within: float,
        envelope: bytes | None = None, signer: bytes | None = None,
    ) -> int:  # fmt: skip
        """Write the attempt row; its number. The message waits for its receipt from now on, and is due
        for `lapse` in so many seconds (`renew` prolongs that). Committed before the first octet
        goes out. `ClaimLost`."""
        ...

    async def lapse(self, job: Job, result: LapseResult) -> None:
        """A held message was given up, or its receipt did not come in time: attempt, message state,
        next due time and events, in one commit. `ClaimLost`."""
        ...

    # pulling
    async def open_channels(self, queues: tuple[str, ...]) -> None:
        """See that each of these channels has its one `pull` job, due at once where it is new."""
        ...

    async def rest(self, job_id: UUID, claim: UUID, *, due_in: float, error: str | None = None) -> None:
        """End a round of a `pull` job. Without an error its count begins anew. `ClaimLost`."""
        ...

    async def pull_now(self, queues: tuple[str, ...] | None = None) -> list[str]:
        """Make `pull` jobs that rest due at once; their channels."""
        ...

    async def answer_again(self, message: UUID, queue: str, receipt: bytes | None) -> None:
        """A pulled message came again: its receipt is to be sent once more, or this one in its place."""
        ...

    async def finish_receipt(self, job_id: UUID, claim: UUID) -> None:
        """The partner has the receipt. `ClaimLost`."""
        ...

    # jobs
    async def claim(
        self, kind: JobKind, *, queues: tuple[str, ...] | None = None, worker: str, limit: int, lease: float,
        scope: Scope = EVERYTHING, each: int | None = None, without: tuple[str, ...] = (), losses: int | None = None,
    ) -> list[Job]:  # fmt: skip
        """Up to `limit` due jobs, oldest first. An expired lease makes a job due again. `scope` bounds
        deliveries. Of what is sent, delivered or notified there are `each` of one queue at most, and none of
        the queues `without`; and nothing is sent to a partner that is shut (`Circuit`), but for one that tries. With
        `losses` only what was lost less often than that; without it a delivery that is lost is not counted, either."""
        ...

    async def claim_suspect(self, *, pushed: tuple[str, ...], worker: str, lease: float, losses: int) -> Job | None:
        """One due job, of any kind, that was lost `losses` times or more; deliveries only of the backends `pushed`,
        nothing for a partner that is shut."""
        ...

    async def claim_overdue(self, *, worker: str, limit: int, lease: float) -> list[Job]:
        """Messages for partners that are shut whose time is over; marked `shut`."""
        ...

    async def circuits(self) -> list[Circuit]:
        """Partners that did not answer the last time."""
        ...

    async def renew(self, job_id: UUID, claim: UUID, lease: float) -> datetime:
        """Prolong the lease; its new end. `ClaimLost`."""
        ...

    async def release(self, job_id: UUID, claim: UUID, *, due_in: float = 0.0, error: str | None = None) -> None:
        """Give a job back, due again in `due_in` seconds. `ClaimLost`."""
        ...

    async def park(self, job_id: UUID, claim: UUID, *, error: str) -> None:
        """Stop trying; the job stays visible. `ClaimLost`."""
        ...

    async def finish_delivery(
        self, job_id: UUID, claim: UUID, events: tuple[NewEvent, ...], steps: tuple[Step, ...] = ()
    ) -> None:
        """The consumer has the message: job done, message DELIVERED. Idempotent for the claim that
        did it; `ClaimLost` for any other."""
        ...

    async def delivery(self, job_id: UUID, viewer: Viewer) -> Job | None:
        """The `deliver` job as it stands, claimed or not; None if the viewer does not see it."""
        ...

    async def claim_delivery(self, message: UUID, viewer: Viewer, *, worker: str, lease: float) -> Job | None:
        """Claim the delivery of this very message. None when it is not waiting for one; `ClaimLost` when
        somebody has it, or it was given back and is not due yet."""
        ...

    async def undelivered(self, wanted: WaitingFilter, viewer: Viewer) -> list[str]:
        """MessageIds of the messages that wait for their consumer."""
        ...

    async def wait_for_work(self, timeout: float) -> None:
        """Return when a job may have become due (NOTIFY), or after `timeout` seconds."""
        ...

    async def backlog(self) -> dict[str, int]:
        """Number of jobs by `kind.state`, for metrics and doctor."""
        ...

    # reading; without a viewer everything is there (the operator, and the gateway itself)
    async def message(self, id: UUID, *, viewer: Viewer | None = None) -> Message | None: ...

    async def find(
        self, message_id: str, *, direction: Direction | None = None, viewer: Viewer | None = None
    ) -> list[Message]:
        """Messages by MessageId, or by a prefix (8 characters or more) of id or MessageId. Exact
        matches first, then the newest; 20 at most."""
        ...

    async def messages(self, wanted: MessageFilter, *, viewer: Viewer | None = None) -> list[Message]:
        """Without envelope, receipt and inline content."""
        ...

    async def asked(
        self, request_id: str, *, direction: Direction, tenant: str, partner: str
    ) -> list[UserMessage]:
        """The headers of up to two messages that brought the request document `request_id`."""
        ...

    async def attempts(self, message: UUID, *, viewer: Viewer | None = None) -> list[Attempt]: ...

    async def sent_envelope(self, message: UUID, *, viewer: Viewer | None = None) -> bytes | None:
        """The envelope that the last attempt signed; None before there is one."""
        ...

    async def conversations(
        self, *, viewer: Viewer, after: tuple[datetime, UUID] | None = None, limit: int = 50
    ) -> list[Conversation]:
        """Those the viewer sees a message of, the one with the newest message first. `after` is
        (changed_at, newest) of the last of the page before."""
        ...

    def chunks(
        self, message: UUID, part: int, *, first: int = 0, viewer: Viewer | None = None
    ) -> AsyncIterator[bytes]:
        """The sealed chunks of a part, in order, starting at chunk `first`."""
        ...

    async def events(
        self, *, viewer: Viewer | None = None, message: UUID | None = None, after: int = 0, limit: int = 100
    ) -> list[tuple[int, datetime, str, UUID | None, dict[str, Any]]]:
        """(number, time, type, message, data), oldest first. Whoever follows the numbers misses none,
        so without `message` the newest may appear a little late."""
        ...

    async def event_numbers(self, after: int | None, *, limit: int = 10_000) -> Numbers:
        """The log beyond `after`; None: beyond what is older than ten minutes."""
        ...

    async def told(
        self, *, viewer: Viewer, after: int, upto: int, types: tuple[str, ...] = (), limit: int = 100
    ) -> list[Told]:
        """The events after one number, up to another, as far as they can be seen now. No types: all."""
        ...

    # uploads
    async def add_upload(
        self, upload: Upload, *, idempotency_key: str | None, lasts: float, most: int, most_octets: int
    ) -> Upload | None:
        """Begin an upload that is kept for `lasts` seconds after the last octet came. The same client and
        key again returns the first one (`SubmissionConflict` if it promised something else). None when the
        client has `most` of them, or they would be larger than `most_octets` together."""
        ...

    async def upload(self, id: UUID, client: str) -> Upload | None:
        """None when that client has none such, or its time is over."""
        ...

    async def begin_write(self, id: UUID, client: str, *, offset: int) -> int | None:
        """Take an upload for writing at `offset`, and whoever wrote before loses it. Returns the first half
        of the places of what is written now; what lies beyond the offset is dropped. None when `received`
        is less than `offset`, or there is no such upload."""
        ...

    async def write_upload(
        self, id: UUID, client: str, chunk: UploadChunk, *, received: int | None, lasts: float
    ) -> None:
        """Keep one piece; `received` says from where on the upload is resumed if this was the last, None
        leaves that as it was. `ClaimLost` when another writer took it."""
        ...

    async def end_write(self, id: UUID, client: str, *, generation: int, received: int, lasts: float) -> None:
        """What was written stands. `ClaimLost`."""
        ...

    def upload_chunks(self, id: UUID, client: str) -> AsyncIterator[UploadChunk]:
        """All pieces, in order."""
        ...

    async def drop_upload(self, id: UUID, client: str) -> bool: ...

    async def erase_uploads(self, *, limit: int = 100) -> int:
        """Drop uploads whose time is over; how many."""
        ...

    # retention
    async def purge(self, *, delivered_before: float, settled_before: float, limit: int = 100) -> int:
        """Erase wrapped keys, inline content and chunks of inbound messages DELIVERED (of the test
        service: RECEIVED) for longer than `delivered_before` seconds and outbound ones ACKNOWLEDGED,
        FAILED or CANCELLED for longer than `settled_before`; they become PURGED (FAILED stays
        FAILED). Header, envelope, receipt and digests stay, and the ids stay known. What is held
        legally is left alone. The audit gets their ids in the same commit. At most `limit`; the number
        erased."""
        ...

    # registry
    async def add_client(self, client: Client, *credentials: Credential, note: AuditEntry | None = None) -> None:
        """In one commit, as is the audit entry of everything below that is given one."""
        ...

    async def client_by(self, kind: CredentialKind, key: str) -> tuple[Client, Credential] | None:
        """Who shows this credential; None when there is none in force: the credential or its client is
        revoked, or its time is over."""
        ...

    async def clients(self) -> list[Client]: ...

    async def revoke_client(self, id: str, *, note: AuditEntry | None = None) -> bool:
        """False when there is none, or it was revoked before."""
        ...

    async def set_scope(self, client: str, scope: Scope, *, note: AuditEntry | None = None) -> bool:
        """False when there is no such client."""
        ...

    async def add_credential(self, credential: Credential, *, note: AuditEntry | None = None) -> None: ...

    async def credentials(self, *, client: str | None = None) -> list[Credential]: ...

    async def revoke_credential(self, id: str, *, note: AuditEntry | None = None) -> bool:
        """False when there is none, or it was revoked before."""
        ...

    # audit
    async def audit(self, entry: AuditEntry) -> None: ...

    async def audit_next(self, entry: AuditEntry, *, number: int, hash: bytes) -> bool:
        """Append `entry` if the last row is still the one with this number and hash. False: it is not."""
        ...

    async def audit_entries(self, *, after: int = 0, limit: int = 100) -> list[AuditEntry]: ...

    async def audit_search(self, wanted: AuditFilter) -> list[AuditEntry]:
        """Newest first."""
        ...

    async def audit_head(self) -> tuple[int, bytes]:
        """Number and hash of the last row, as whoever appended it left them."""
        ...

    async def audit_links(self, *, after: int = 0, limit: int = 1000) -> list[Link]:
        """Rows as they are hashed, oldest first."""
        ...

    async def verify_audit(self) -> int | None:
        """None when the chain holds, else the number of the first row that does not fit."""
        ...

    # life
    async def health(self) -> Health:
        """Makes one durable no-op commit."""
        ...

    async def close(self) -> None: ...
