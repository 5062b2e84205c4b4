"""The store in the memory of one process, for unit tests. It runs the same contract suite.

Every verb runs without waiting in between, so each is one commit by itself. State changes
go through the tables of `states`, like those of SQL.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import msgspec

from gateway.as4.findings import Finding
from gateway.as4.units import Reference, UserMessage
from gateway.clock import Clock
from gateway.errors import ClaimLost, StoreUnavailable, SubmissionConflict
from gateway.scope import EVERYTHING, FINAL_RECIPIENT, ORIGINAL_SENDER, Scope, names
from gateway.stages import Step
from gateway.store.api import (
    AUDITED,
    COUNTED,
    Attempt,
    AttemptResult,
    AuditEntry,
    AuditFilter,
    Client,
    Conversation,
    Credential,
    CredentialKind,
    Direction,
    Health,
    Job,
    JobKind,
    LapseResult,
    Message,
    MessageFilter,
    NewEvent,
    NewInbound,
    NewOutbound,
    NewPart,
    Numbers,
    Part,
    Received,
    Stored,
    Told,
    Viewer,
    WaitingFilter,
)
from gateway.store.chain import BEGINNING, Link, first_misfit, hash_of, row_texts
from gateway.store.memory_agreements import MemoryAgreements
from gateway.store.memory_alerts import MemoryAlerts
from gateway.store.memory_circuits import MemoryCircuits
from gateway.store.memory_keeping import MemoryKeeping
from gateway.store.memory_pair import MemoryPair
from gateway.store.memory_partner_certificates import MemoryPartnerCertificates
from gateway.store.memory_rotation import MemoryRotation
from gateway.store.memory_seals import MemorySeals
from gateway.store.memory_updates import MemoryUpdates
from gateway.store.memory_uploads import MemoryUploads
from gateway.store.memory_webhooks import MemoryWebhooks
from gateway.store.states import INBOUND, JOB, LAPSES, OUTBOUND, RESULTS, SUSPENDABLE, after
from gateway.store.webhooks import NoticeAttempt

PREFIX = 8
#: Job states in which somebody may claim, or holds a claim.
OPEN = ("READY", "CLAIMED", "ATTEMPT_OPEN")


@dataclass
class _Message:
    id: UUID
    direction: Direction
    state: str
    tenant: str
    partner: str
    unit: UserMessage
    parts: tuple[NewPart, ...]
    fingerprint: bytes
    wrapped_key: bytes | None
    pmode_id: str
    pmode_revision: int
    backend: str | None
    created_at: datetime
    changed_at: datetime
    client: str | None = None
    deadline: datetime | None = None
    references: bytes | None = None
    envelope: bytes | None = None
    sent: bytes | None = None
    signer: bytes | None = None
    receipt: bytes | None = None
    receipt_at: datetime | None = None
    error_code: str | None = None
    error_detail: str | None = None
    findings: tuple[Finding, ...] = ()
    document: dict[str, Any] | None = None
    request_id: str | None = None
    steps: tuple[Step, ...] = ()
    trace: str | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass
class _Job:
    id: UUID
    kind: JobKind
    queue: str
    message: UUID | None
    due_at: datetime
    created_at: datetime
    data: dict[str, Any] = field(default_factory=dict)
    state: str = "READY"
    claim: UUID | None = None
    attempt: int = 0
    lost: int = 0
    error: str | None = None
    gives_up_at: datetime | None = None
    noted: tuple[NoticeAttempt, ...] = ()


class MemoryStore(
    MemoryCircuits, MemoryUploads, MemoryWebhooks, MemoryRotation, MemoryPartnerCertificates, MemoryUpdates,
    MemoryPair, MemoryKeeping, MemoryAgreements, MemorySeals, MemoryAlerts,
):
    """`api.Store` in one process. The clock's `now` stands for the database's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._messages: dict[UUID, _Message] = {}
        self._jobs: dict[UUID, _Job] = {}
        self._chunks: dict[tuple[UUID, int, int], bytes] = {}
        self._events: list[tuple[int, datetime, str, UUID | None, str | None, dict[str, Any]]] = []
        self._event_number = 0
        self._keys: dict[tuple[str, str], tuple[UUID, bytes]] = {}
        self._clients: dict[str, Client] = {}
        self._credentials: dict[str, Credential] = {}
        self._links: list[Link] = []
        self._pull_requests: set[tuple[str, str]] = set()
        #: How many barrier writes duplicates made.
        self.duplicates_seen = 0
        self._work = asyncio.Event()

    # -- inbound ----------------------------------------------------------------------

    async def receive_once(self, message: NewInbound) -> Received:
        _check_chunks(message.parts, Counter())
        return self._receive(message, {})

    @asynccontextmanager
    async def receiving(self, id: UUID) -> AsyncIterator["_Receiving"]:
        yield _Receiving(id, self._receive)

    def _receive(self, message: NewInbound, chunks: dict[tuple[int, int], bytes]) -> Received:
        unit = message.user_message
        known = self._known("inbound", message.tenant, unit.message_id, message.sender)
        if known is not None:
            if known.fingerprint != message.fingerprint:
                return Received("conflict", known.id, b"", False)
            self.duplicates_seen += 1
            return Received("duplicate", known.id, known.receipt or b"", known.references == message.references)
        self._not_taken(message.id)
        now = self._clock.now()
        self._messages[message.id] = _Message(
            id=message.id, direction="inbound", state="RECEIVED", tenant=message.tenant, partner=message.sender,
            unit=unit, parts=message.parts, fingerprint=message.fingerprint, wrapped_key=message.wrapped_key,
            pmode_id=message.pmode_id, pmode_revision=message.pmode_revision, backend=message.backend,
            created_at=now, changed_at=now, references=message.references, envelope=message.envelope,
            signer=message.signer, receipt=message.receipt, receipt_at=now, findings=message.findings,
            document=message.document, request_id=message.request_id, steps=message.steps,
        )  # fmt: skip
        self._keep(message.id, chunks)
        if message.backend is not None:
            self._queue("deliver", message.backend, message.id)
        if message.answer_to is not None:
            self._queue("receipt", message.answer_to, message.id)
        self._tell(self._messages[message.id], (message.event,))
        return Received("stored", message.id, message.receipt)

    # -- outbound ---------------------------------------------------------------------

    async def submit_once(self, message: NewOutbound) -> Stored:
        _check_chunks(message.parts, Counter())
        return self._submit(message, {})

    @asynccontextmanager
    async def submitting(self, id: UUID) -> AsyncIterator["_Submitting"]:
        yield _Submitting(id, self._submit)

    def _submit(self, message: NewOutbound, chunks: dict[tuple[int, int], bytes]) -> Stored:
        unit = message.user_message
        key = None if message.idempotency_key is None else (message.client, message.idempotency_key)
        if key in self._keys:
            id, fingerprint = self._keys[key]
            return self._replay(message, self._messages[id], fingerprint)
        known = self._known("outbound", message.tenant, unit.message_id)
        if known is not None:
            stored = self._replay(message, known, known.fingerprint)
            if key is not None:
                self._keys[key] = (known.id, message.fingerprint)
            return stored
        self._not_taken(message.id)
        now = self._clock.now()
        self._messages[message.id] = _Message(
            id=message.id, direction="outbound", state=message.state, tenant=message.tenant, partner=message.receiver,
            unit=unit, parts=message.parts, fingerprint=message.fingerprint, wrapped_key=message.wrapped_key,
            pmode_id=message.pmode_id, pmode_revision=message.pmode_revision, backend=message.backend,
            created_at=now, changed_at=now, client=message.client, deadline=message.deadline,
            findings=message.findings, document=message.document, request_id=message.request_id, steps=message.steps,
            trace=message.trace,
        )  # fmt: skip
        if key is not None:
            self._keys[key] = (message.id, message.fingerprint)
        self._keep(message.id, chunks)
        if message.held is None:
            job = self._queue("send", message.receiver, message.id)
            if message.patience is not None:
                job.gives_up_at = now + timedelta(seconds=message.patience)
        else:
            self._hold(self._queue("hold", message.held.queue, message.id), message.held.patience)
        self._tell(self._messages[message.id], (message.event,))
        return Stored(message.id, unit.message_id, unit.conversation_id, message.state)

    def _replay(self, message: NewOutbound, known: _Message, fingerprint: bytes) -> Stored:
        if fingerprint != message.fingerprint or known.backend != message.backend:
            raise SubmissionConflict("the MessageId or Idempotency-Key was used for another submission")
        self.duplicates_seen += 1
        return Stored(known.id, known.unit.message_id, known.unit.conversation_id, known.state, replayed=True)

    async def begin_attempt(
        self, job: Job, *, node: str, references: tuple[Reference, ...], envelope: bytes | None = None,
        signer: bytes | None = None,
    ) -> int:  # fmt: skip
        held = self._held(job.id, job.claim, "begin", kind="send")
        message = self._messages[held.message]
        self._close_attempts(message, "lost")
        message.sent = envelope or message.sent
        held.state = "ATTEMPT_OPEN"
        number = len(message.attempts) + 1
        message.attempts.append(Attempt(
            number=number, started_at=self._clock.now(), ended_at=None, node=node, references=references, signer=signer
        ))  # fmt: skip
        return number

    async def finish_attempt(self, job: Job, attempt: int, result: AttemptResult) -> Literal["shut", "open"] | None:
        message_event, job_event = RESULTS[result.state]
        held = self._held(job.id, job.claim, job_event, kind="send")
        message = self._messages[held.message]
        if after(OUTBOUND, message.state, message_event) is None or not 0 < attempt <= len(message.attempts):
            raise ClaimLost
        now = self._clock.now()
        self._change(message, message_event)
        message.error_code, message.error_detail = result.error_code, result.error_detail
        if message.state == "FAILED" and message.error_code is None:
            message.error_code = "EBMS:0004"
        if result.receipt is not None:
            message.receipt, message.receipt_at = result.receipt, now
        self._end(message, attempt, result)
        if result.refusal is not None:
            self._refused(message, message.error_code, result.refusal)
        if result.state == "ACKNOWLEDGED":
            self._taken(message)
        changed = self._heard_of(held.queue, held.claim, result.answered, result.shutting)
        held.state, held.claim, held.attempt, held.lost = after(JOB, held.state, job_event), None, 0, 0
        held.due_at = now + timedelta(seconds=result.retry_in or 0.0)
        self._tell(message, result.events)
        return changed

    async def settle_late(self, message: UUID, receipt: bytes, events: tuple[NewEvent, ...]) -> bool:
        found = self._messages.get(message)
        if found is None or found.direction != "outbound":
            return False
        was = found.state
        if not (self._change(found, "acknowledge") or self._change(found, "acknowledge_late")):
            return False
        found.receipt, found.receipt_at = receipt, self._clock.now()
        found.error_code = found.error_detail = None
        self._settle_job(message)
        self._close_attempts(found, "acknowledged" if was == "WAITING_FOR_RECEIPT" else "settled")
        self._taken(found)
        self._tell(found, events)
        if was == "FAILED":
            detail = {"from": "FAILED", "to": "ACKNOWLEDGED"}
            self._append("receipt.late", found.partner, found.unit.message_id, detail)
        return True

    async def fail_late(self, message: UUID, error_code: str, error_detail: str, events: tuple[NewEvent, ...]) -> bool:
        found = self._messages.get(message)
        if found is None or found.direction != "outbound" or not self._change(found, "fail"):
            return False
        found.error_code, found.error_detail = error_code, error_detail
        self._settle_job(message)
        self._close_attempts(found, "failed")
        self._refused_late(found, error_code)
        self._tell(found, events)
        return True

    async def cancel(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        found, job = self._messages.get(message), self._sending_job(message)
        if found is None or job is None or (job.state == "ATTEMPT_OPEN" and self._busy(job)):
            return False
        if not self._change(found, "cancel"):
            return False
        found.error_code = found.error_detail = None
        self._settle_job(message)
        self._close_attempts(found, "lost")
        self._tell(found, events)
        return True

    async def requeue(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        found = self._messages.get(message)
        job = self._sending_job(message) or self._job_of(message, "deliver")
        if found is None or job is None or self._busy(job) or after(JOB, job.state, "requeue") is None:
            return False
        if found.direction == "inbound":
            if job.state != "PARKED":
                return False
        else:
            event = "hold_again" if job.kind == "hold" and found.state == "FAILED" else "requeue"
            if found.wrapped_key is None or not self._change(found, event):
                return False
            found.error_code = found.error_detail = None
            job.attempt = 0
            self._take_active(found)
            self._try_partner(job.queue)
        job.state, job.claim, job.due_at, job.error = after(JOB, job.state, "requeue"), None, self._clock.now(), None
        job.lost = 0
        if job.kind == "hold":
            self._hold(job, job.data["patience"])
            self._close_attempts(found, "lost")
        self._tell(found, events)
        self._work.set()
        return True

    # -- kept back, and delivered once more ---------------------------------------------

    async def suspend(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        found, job = self._messages.get(message), self._own_job(message)
        if found is None or job is None or job.state == "HELD":
            return job is not None
        state = after(JOB, job.state, "suspend")
        if state is None or found.state not in SUSPENDABLE or self._busy(job):
            return False
        job.state, job.claim = state, None
        self._close_attempts(found, "lost")
        self._tell(found, events)
        return True

    async def resume(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        job = self._own_job(message)
        if job is None or (state := after(JOB, job.state, "resume")) is None:
            return False
        job.state, job.lost = state, 0
        self._tell(self._messages[message], events)
        self._work.set()
        return True

    async def redeliver(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        found, job = self._messages.get(message), self._job_of(message, "deliver")
        if found is None or job is None or job.state not in ("PARKED", "DONE") or found.wrapped_key is None:
            return False
        if job.state == "DONE" and not self._change(found, "redeliver"):
            return False
        job.state, job.claim, job.error = after(JOB, job.state, "requeue"), None, None
        job.due_at, job.attempt, job.lost = self._clock.now(), min(job.attempt, 1), 0
        self._tell(found, events)
        self._work.set()
        return True

    def _own_job(self, message: UUID) -> "_Job | None":
        return self._sending_job(message) or self._job_of(message, "deliver")

    # -- held until pulled ------------------------------------------------------------

    async def note_pull_request(self, requester: str, message_id: str) -> bool:
        new = (requester, message_id) not in self._pull_requests
        self._pull_requests.add((requester, message_id))
        return new

    async def claim_held(self, queue: str, *, worker: str, lease: float) -> Job | None:
        ready = [
            job for job in self._jobs.values() if job.kind == "hold" and job.queue == queue and job.state == "READY"
        ]
        if not ready:
            return None
        return self._claim(min(ready, key=lambda job: job.created_at), lease)

    async def hand_out(
        self, job: Job, *, node: str, references: tuple[Reference, ...], receipt_within: float,
        envelope: bytes | None = None, signer: bytes | None = None,
    ) -> int:  # fmt: skip
        held = self._held(job.id, job.claim, "begin", kind="hold")
        message = self._messages[held.message]
        if not self._change(message, "hand_out"):
            raise ClaimLost
        message.sent = envelope or message.sent
        held.state, held.attempt, held.lost = "ATTEMPT_OPEN", 0, 0
        held.due_at = self._clock.now() + timedelta(seconds=receipt_within)
        number = len(message.attempts) + 1
        message.attempts.append(Attempt(
            number=number, started_at=self._clock.now(), ended_at=None, node=node, references=references, signer=signer
        ))  # fmt: skip
        return number

    async def lapse(self, job: Job, result: LapseResult) -> None:
        message_event, job_event = LAPSES[result.state]
        held = self._held(job.id, job.claim, job_event, kind="hold")
        message = self._messages[held.message]
        if not self._change(message, message_event):
            raise ClaimLost
        message.error_code, message.error_detail = result.error_code, result.error_detail
        if message.state == "FAILED" and message.error_code is None:
            message.error_code = "EBMS:0004"
        for attempt in message.attempts:
            if attempt.ended_at is None:
                self._end(message, attempt.number, AttemptResult(
                    state="FAILED", outcome="no-receipt", error_code=result.error_code,
                    error_detail=result.error_detail))  # fmt: skip
        held.state, held.claim, held.attempt, held.lost = after(JOB, held.state, job_event), None, 0, 0
        held.due_at = self._clock.now() + timedelta(seconds=result.due_in)
        self._tell(message, result.events)

    # -- pulling ----------------------------------------------------------------------

    async def open_channels(self, queues: tuple[str, ...]) -> None:
        known = {job.queue for job in self._jobs.values() if job.kind == "pull"}
        for queue in dict.fromkeys(queues):
            if queue not in known:
                self._queue("pull", queue, None)

    async def rest(self, job_id: UUID, claim: UUID, *, due_in: float, error: str | None = None) -> None:
        job = self._held(job_id, claim, "release", kind="pull")
        job.state, job.claim, job.error = "READY", None, error
        job.attempt, job.lost = job.attempt if error else 0, 0
        job.due_at = self._clock.now() + timedelta(seconds=due_in)

    async def pull_now(self, queues: tuple[str, ...] | None = None) -> list[str]:
        resting = [
            job for job in self._jobs.values()
            if job.kind == "pull" and job.state == "READY" and (queues is None or job.queue in queues)
        ]  # fmt: skip
        for job in resting:
            job.due_at = self._clock.now()
        return sorted(job.queue for job in resting)

    async def answer_again(self, message: UUID, queue: str, receipt: bytes | None) -> None:
        job = self._job_of(message, "receipt") or self._queue("receipt", queue, message)
        job.state, job.claim, job.attempt, job.lost, job.error = "READY", None, 0, 0, None
        job.queue, job.due_at = queue, self._clock.now()
        job.data = {} if receipt is None else {"receipt": receipt.decode()}

    async def finish_receipt(self, job_id: UUID, claim: UUID) -> None:
        job = self._held(job_id, claim, "finish", kind="receipt")
        job.state, job.claim = "DONE", None

    # -- jobs -------------------------------------------------------------------------

    async def claim(
        self, kind: JobKind, *, queues: tuple[str, ...] | None = None, worker: str, limit: int, lease: float,
        scope: Scope = EVERYTHING, each: int | None = None, without: tuple[str, ...] = (), losses: int | None = None,
    ) -> list[Job]:  # fmt: skip
        now = self._clock.now()
        due = [
            job for job in self._jobs.values()
            if job.kind == kind and job.state in OPEN and job.due_at <= now and (queues is None or job.queue in queues)
            and job.queue not in without and (kind != "deliver" or _within(scope, self._messages[job.message]))
            and (losses is None or job.lost + _is_lost(job) < losses)
        ]  # fmt: skip
        claimed = []
        taken: Counter[str] = Counter()
        for job in sorted(due, key=lambda job: job.due_at):
            if len(claimed) < limit and (each is None or taken[job.queue] < each):
                if kind == "send" and not self._open_for(job.queue):
                    continue
                taken[job.queue] += 1
                claimed.append(self._claim(job, lease, counted=kind != "deliver" or losses is not None))
                if kind == "send":
                    self._probing(job.queue, job.claim, lease)
        return claimed

    async def claim_overdue(self, *, worker: str, limit: int, lease: float) -> list[Job]:
        now = self._clock.now()
        due = [
            job for job in self._jobs.values()
            if job.kind == "send" and job.state in OPEN and job.due_at <= now and self._is_shut(job.queue)
            and job.gives_up_at is not None and job.gives_up_at <= now
        ]  # fmt: skip
        return [msgspec.structs.replace(self._claim(job, lease), shut=True) for job in due[:limit]]

    async def claim_suspect(self, *, pushed: tuple[str, ...], worker: str, lease: float, losses: int) -> Job | None:
        due = [
            job for job in self._jobs.values()
            if job.state in OPEN and job.due_at <= self._clock.now() and job.lost and job.lost + _is_lost(job) >= losses
            and (job.kind != "deliver" or job.queue in pushed) and (job.kind != "send" or self._open_for(job.queue))
        ]  # fmt: skip
        return self._claim(min(due, key=lambda job: job.due_at), lease) if due else None

    def _claim(self, job: "_Job", lease: float, *, counted: bool = True) -> Job:
        job.lost += counted and _is_lost(job)
        job.state, job.claim, job.attempt = after(JOB, job.state, "claim"), uuid4(), job.attempt + 1
        job.due_at = self._clock.now() + timedelta(seconds=lease)
        if "until" in job.data:
            job.data["left"] = job.data["until"] - self._clock.now().timestamp()
        return msgspec.structs.replace(_job(job), at=self._clock.now())

    async def renew(self, job_id: UUID, claim: UUID, lease: float) -> datetime:
        job = self._held(job_id, claim, None)
        job.due_at = self._clock.now() + timedelta(seconds=lease)
        self._still_probing(claim, job.due_at)
        return job.due_at

    async def release(self, job_id: UUID, claim: UUID, *, due_in: float = 0.0, error: str | None = None) -> None:
        job = self._held(job_id, claim, "release")
        job.state, job.claim, job.error = "READY", None, error
        job.lost = job.lost if job.kind == "hold" else 0  # whoever finds a lost claim gives it back
        job.due_at = self._clock.now() + timedelta(seconds=due_in)
        self._work.set()

    async def park(self, job_id: UUID, claim: UUID, *, error: str) -> None:
        job = self._held(job_id, claim, "park")
        job.state, job.claim, job.error = "PARKED", None, error

    async def finish_delivery(
        self, job_id: UUID, claim: UUID, events: tuple[NewEvent, ...], steps: tuple[Step, ...] = ()
    ) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.kind == "deliver" and job.claim == claim and job.state == "DONE":
            return
        job = self._held(job_id, claim, "finish", kind="deliver")
        message = self._messages[job.message]
        if not self._change(message, "deliver"):
            raise ClaimLost
        job.state = "DONE"
        message.steps += steps
        self._tell(message, events)

    async def delivery(self, job_id: UUID, viewer: Viewer) -> Job | None:
        job = self._jobs.get(job_id)
        seen = job is not None and job.kind == "deliver" and _sees(viewer, self._messages[job.message])
        return _job(job) if seen and job.queue == viewer.backend else None

    async def claim_delivery(self, message: UUID, viewer: Viewer, *, worker: str, lease: float) -> Job | None:
        job, found = self._job_of(message, "deliver"), self._messages.get(message)
        if job is None or job.state not in OPEN or not _sees(viewer, found):
            return None
        now = self._clock.now()
        if job.due_at > now:
            raise ClaimLost
        job.state, job.claim, job.attempt = after(JOB, job.state, "claim"), uuid4(), job.attempt + 1
        job.due_at = now + timedelta(seconds=lease)
        return _job(job)

    async def undelivered(self, wanted: WaitingFilter, viewer: Viewer) -> list[str]:
        def fits(m: _Message) -> bool:
            corners = {p.name: names(p.value, p.type) for p in reversed(m.unit.properties)}
            return (
                wanted.message_id in (None, m.unit.message_id)
                and wanted.conversation_id in (None, m.unit.conversation_id)
                and wanted.ref_to_message_id in (None, m.unit.ref_to_message_id)
                and wanted.from_party in (None, m.unit.from_party.value)
                and wanted.original_sender in (None, *corners.get(ORIGINAL_SENDER, ()))
                and wanted.final_recipient in (None, *corners.get(FINAL_RECIPIENT, ()))
                and (wanted.received_from is None or m.created_at >= wanted.received_from)
                and (wanted.received_to is None or m.created_at <= wanted.received_to)
            )  # fmt: skip

        states = ("PARKED",) if wanted.parked else OPEN
        found = [
            m for m in self._messages.values()
            if m.direction == "inbound" and m.state == "RECEIVED" and m.wrapped_key is not None and _sees(viewer, m)
            and (job := self._job_of(m.id, "deliver")) is not None and job.state in states and fits(m)
        ]  # fmt: skip
        found.sort(key=lambda m: (m.created_at, m.id))
        return [m.unit.message_id for m in found[: wanted.limit]]

    async def wait_for_work(self, timeout: float) -> None:
        now = self._clock.now()
        waits = [(job.due_at - now).total_seconds() for job in self._jobs.values() if job.state in OPEN]
        timeout = min([timeout, *(wait + 0.001 for wait in waits if wait > 0)])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._work.wait()
        self._work.clear()

    async def backlog(self) -> dict[str, int]:
        return dict(Counter(f"{job.kind}.{job.state}" for job in self._jobs.values() if job.state != "DONE"))

    # -- reading ----------------------------------------------------------------------

    async def message(self, id: UUID, *, viewer: Viewer | None = None) -> Message | None:
        found = self._messages.get(id)
        return self._view(found) if found is not None and _sees(viewer, found) else None

    async def find(
        self, message_id: str, *, direction: Direction | None = None, viewer: Viewer | None = None
    ) -> list[Message]:
        long = len(message_id) >= PREFIX
        found = [
            m for m in self._messages.values()
            if (m.unit.message_id == message_id
                or (long and (m.unit.message_id.startswith(message_id) or str(m.id).startswith(message_id.lower()))))
            and direction in (None, m.direction) and _sees(viewer, m)
        ]  # fmt: skip
        found.sort(key=lambda m: (m.unit.message_id == message_id, m.created_at), reverse=True)
        return [self._view(m) for m in found[:20]]

    async def messages(self, wanted: MessageFilter, *, viewer: Viewer | None = None) -> list[Message]:
        def beyond(m: _Message) -> bool:
            place = (m.created_at, m.id)
            return wanted.after is None or (place > wanted.after if wanted.upwards else place < wanted.after)

        found = [m for m in self._messages.values() if _fits(wanted, m) and beyond(m) and _sees(viewer, m)]
        found.sort(key=lambda m: (m.created_at, m.id), reverse=not wanted.upwards)
        return [self._view(m, whole=False) for m in found[: wanted.limit]]

    async def sent_envelope(self, message: UUID, *, viewer: Viewer | None = None) -> bytes | None:
        found = self._messages.get(message)
        return found.sent if found is not None and _sees(viewer, found) else None

    async def conversations(
        self, *, viewer: Viewer, after: tuple[datetime, UUID] | None = None, limit: int = 50
    ) -> list[Conversation]:
        by_id: dict[str, list[_Message]] = {}
        for m in sorted(self._messages.values(), key=lambda m: (m.created_at, m.id), reverse=True):
            if _sees(viewer, m):
                by_id.setdefault(m.unit.conversation_id, []).append(m)
        found = [
            Conversation(conversation_id=id, newest=own[0].id, changed_at=own[0].created_at,
                         began_at=own[:COUNTED][-1].created_at, messages=len(own[:COUNTED]))
            for id, own in by_id.items()
        ]  # fmt: skip
        return [c for c in found if after is None or (c.changed_at, c.newest) < after][:limit]

    async def asked(
        self, request_id: str, *, direction: Direction, tenant: str, partner: str
    ) -> list[UserMessage]:
        return [
            m.unit for m in self._messages.values()
            if (m.request_id, m.direction, m.tenant, m.partner) == (request_id, direction, tenant, partner)
        ][:2]  # fmt: skip

    async def attempts(self, message: UUID, *, viewer: Viewer | None = None) -> list[Attempt]:
        found = self._messages.get(message)
        return list(found.attempts) if found and _sees(viewer, found) else []

    async def chunks(
        self, message: UUID, part: int, *, first: int = 0, viewer: Viewer | None = None
    ) -> AsyncIterator[bytes]:
        number = first
        if message in self._messages and not _sees(viewer, self._messages[message]):
            return
        while (content := self._chunks.get((message, part, number))) is not None:
            yield content
            number += 1

    async def events(
        self, *, viewer: Viewer | None = None, message: UUID | None = None, after: int = 0, limit: int = 100
    ) -> list[tuple[int, datetime, str, UUID | None, dict[str, Any]]]:
        return [
            (number, at, type, subject, data) for number, at, type, subject, whose, data in self._events
            if number > after and message in (None, subject) and (
                viewer is None or (whose == viewer.backend and _sees(viewer, self._messages.get(subject))))
        ][:limit]  # fmt: skip

    async def event_numbers(self, after: int | None, *, limit: int = 10_000) -> Numbers:
        start = after or 0
        return Numbers(start, tuple(number for number, *_ in self._events if number > start)[:limit], 1, 1)

    async def told(
        self, *, viewer: Viewer, after: int, upto: int, types: tuple[str, ...] = (), limit: int = 100
    ) -> list[Told]:
        return [
            Told(number=number, id=uuid5(NAMESPACE_OID, str(number)), at=at, type=type, message=message.id,
                 message_id=message.unit.message_id, conversation_id=message.unit.conversation_id, data=dict(data))
            for number, at, type, subject, whose, data in self._events
            if after < number <= upto and (not types or type in types) and whose == viewer.backend
            and (message := self._messages.get(subject)) is not None and _sees(viewer, message)
        ][:limit]  # fmt: skip

    # -- retention --------------------------------------------------------------------

    async def purge(self, *, delivered_before: float, settled_before: float, limit: int = 100) -> int:
        now = self._clock.now()
        erased: list[UUID] = []
        for message in sorted(self._messages.values(), key=lambda m: m.created_at):
            keep = delivered_before if message.direction == "inbound" else settled_before
            if len(erased) == limit:
                break
            if message.wrapped_key is None or message.changed_at >= now - timedelta(seconds=keep):
                continue
            if message.id in self._legal:
                continue
            if self._change(message, "erase") or (message.backend is None and self._change(message, "erase_test")):
                self._erase(message)
                erased.append(message.id)
        self._note_messages("messages.payloads_erased", "retention", erased)
        return len(erased)

    def _erase(self, message: _Message) -> None:
        message.wrapped_key = None
        message.parts = tuple(_without_content(part) for part in message.parts)
        self._chunks = {key: chunk for key, chunk in self._chunks.items() if key[0] != message.id}
        self._jobs = {
            id: job for id, job in self._jobs.items() if job.message != message.id or job.state in OPEN
        }
        self._keys = {key: value for key, value in self._keys.items() if value[0] != message.id}

    # -- registry ---------------------------------------------------------------------

    async def add_client(self, client: Client, *credentials: Credential, note: AuditEntry | None = None) -> None:
        if client.id in self._clients:
            raise StoreUnavailable("the client is known already")
        self._refuse_known(credentials)
        self._clients[client.id] = msgspec.structs.replace(client, created_at=self._clock.now())
        for credential in credentials:
            await self.add_credential(credential)
        self._noted(note)

    async def client_by(self, kind: CredentialKind, key: str) -> tuple[Client, Credential] | None:
        found = next((c for c in self._credentials.values() if (c.kind, c.key) == (kind, key)), None)
        if found is None or found.revoked or self._clients[found.client].revoked:
            return None
        if found.expires_at is not None and found.expires_at <= self._clock.now():
            return None
        return self._clients[found.client], found

    async def clients(self) -> list[Client]:
        return list(self._clients.values())

    async def revoke_client(self, id: str, *, note: AuditEntry | None = None) -> bool:
        client = self._clients.get(id)
        if client is None or client.revoked:
            return False
        self._clients[id] = msgspec.structs.replace(client, revoked=True)
        self._noted(note)
        return True

    async def set_scope(self, client: str, scope: Scope, *, note: AuditEntry | None = None) -> bool:
        if client not in self._clients:
            return False
        self._clients[client] = msgspec.structs.replace(self._clients[client], scope=scope)
        self._noted(note)
        return True

    async def add_credential(self, credential: Credential, *, note: AuditEntry | None = None) -> None:
        self._refuse_known((credential,))
        if credential.client not in self._clients:
            raise StoreUnavailable("there is no such client")
        self._credentials[credential.id] = msgspec.structs.replace(credential, created_at=self._clock.now())
        self._noted(note)

    def _refuse_known(self, credentials: tuple[Credential, ...]) -> None:
        taken = {(c.kind, c.key) for c in self._credentials.values()}
        if any(c.id in self._credentials or (c.kind, c.key) in taken for c in credentials):
            raise StoreUnavailable("the credential is known already")

    async def credentials(self, *, client: str | None = None) -> list[Credential]:
        return [c for c in self._credentials.values() if client in (None, c.client)]

    async def revoke_credential(self, id: str, *, note: AuditEntry | None = None) -> bool:
        known = self._credentials.get(id)
        if known is None or known.revoked:
            return False
        self._credentials[id] = msgspec.structs.replace(known, revoked=True)
        self._noted(note)
        return True

    # -- audit ------------------------------------------------------------------------

    async def audit(self, entry: AuditEntry) -> None:
        self._append(entry.kind, entry.actor, entry.subject, entry.detail)

    def _noted(self, note: AuditEntry | None) -> None:
        if note is not None:
            self._append(note.kind, note.actor, note.subject, note.detail)

    def _append(self, kind: str, actor: str, subject: str, detail: dict[str, Any]) -> None:
        number, previous = len(self._links) + 1, self._links[-1].hash if self._links else BEGINNING
        row = (number, self._clock.now(), *row_texts(kind, actor, subject, detail))
        self._links.append(Link(*row, hash_of(previous, *row)))

    async def audit_next(self, entry: AuditEntry, *, number: int, hash: bytes) -> bool:
        if await self.audit_head() != (number, hash):
            return False
        await self.audit(entry)
        return True

    async def audit_entries(self, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        return [_audit_entry(link) for link in self._links[after : after + limit]]

    async def audit_search(self, wanted: AuditFilter) -> list[AuditEntry]:
        w = wanted
        found = (
            _audit_entry(link) for link in reversed(self._links)
            if (w.kind is None or link.kind == w.kind or link.kind.startswith(f"{w.kind}."))
            and w.actor in (None, link.actor) and w.subject in (None, link.subject)
            and (w.since is None or link.at >= w.since) and (w.until is None or link.at < w.until)
            and (w.before is None or link.number < w.before)
        )  # fmt: skip
        return list(islice(found, w.limit))

    async def audit_head(self) -> tuple[int, bytes]:
        return (self._links[-1].number, self._links[-1].hash) if self._links else (0, BEGINNING)

    async def audit_links(self, *, after: int = 0, limit: int = 1000) -> list[Link]:
        return [link for link in self._links if link.number > after][:limit]

    async def verify_audit(self) -> int | None:
        return first_misfit(self._links)[0]

    # -- life -------------------------------------------------------------------------

    async def health(self) -> Health:
        return Health(
            writable=True, version="memory", migrations_pending=0, synchronous_commit="on", in_recovery=False
        )

    async def close(self) -> None:
        self._work.set()

    # -- within -----------------------------------------------------------------------

    def _known(self, direction: Direction, tenant: str, message_id: str, partner: str | None = None) -> _Message | None:
        return next(
            (m for m in self._messages.values()
             if m.direction == direction and m.tenant == tenant and m.unit.message_id == message_id
             and partner in (None, m.partner)),
            None,
        )  # fmt: skip

    def _not_taken(self, id: UUID) -> None:
        if id in self._messages:
            raise StoreUnavailable("the row id is taken")

    def _keep(self, id: UUID, chunks: dict[tuple[int, int], bytes]) -> None:
        self._chunks.update({(id, part, number): content for (part, number), content in chunks.items()})

    def _queue(
        self, kind: JobKind, queue: str, message: UUID | None, data: dict[str, Any] | None = None
    ) -> _Job:
        id, now = uuid4(), self._clock.now()
        self._jobs[id] = _Job(id, kind, queue, message, now, now, data or {})
        self._work.set()
        return self._jobs[id]

    def _hold(self, job: _Job, patience: float) -> None:
        job.due_at = self._clock.now() + timedelta(seconds=patience)
        job.data = {"patience": patience, "until": job.due_at.timestamp()}

    def _tell(self, message: _Message, events: tuple[NewEvent, ...]) -> None:
        for event in events:
            self._event_number = number = self._event_number + 1
            self._events.append((number, self._clock.now(), event.type, message.id, message.backend, dict(event.data)))
            if event.type in AUDITED:
                about = {"direction": message.direction, "partner": message.partner}
                self._append(event.type, str(event.data.get("by", "-")), message.unit.message_id, about)
            data = {
                **event.data, "id": str(uuid5(NAMESPACE_OID, str(number))), "type": event.type,
                "message_id": message.unit.message_id, "conversation_id": message.unit.conversation_id,
            }  # fmt: skip
            for webhook in self._webhooks.values():
                wanted = webhook.backend == message.backend and (not webhook.events or event.type in webhook.events)
                seen = self._seen_by(self._clients.get(webhook.client), message)
                if wanted and seen and not webhook.disabled:
                    self._queue("notify", webhook.id, message.id, data)

    def _tell_backend(self, backend: str, event: NewEvent) -> None:
        """An event that is about no message."""
        number = len(self._events) + 1
        self._events.append((number, self._clock.now(), event.type, None, backend, dict(event.data)))
        data = {**event.data, "id": str(uuid5(NAMESPACE_OID, str(number))), "type": event.type,
                "message_id": None, "conversation_id": None}  # fmt: skip
        for webhook in self._webhooks.values():
            client = self._clients.get(webhook.client)
            wanted = webhook.backend == backend and (not webhook.events or event.type in webhook.events)
            if wanted and not webhook.disabled and (client is None or not client.revoked):
                self._queue("notify", webhook.id, None, data)

    @staticmethod
    def _seen_by(client: Client | None, message: _Message) -> bool:
        return client is None or (not client.revoked and _within(client.scope, message))

    def _change(self, message: _Message, event: str) -> bool:
        state = after(INBOUND if message.direction == "inbound" else OUTBOUND, message.state, event)
        if state is None:
            return False
        message.state, message.changed_at = state, self._clock.now()
        return True

    def _held(self, job_id: UUID, claim: UUID | None, event: str | None, *, kind: JobKind | None = None) -> _Job:
        """The job, if `claim` is its current one and `event` may happen to it."""
        job = self._jobs.get(job_id)
        if job is None or job.claim is None or job.claim != claim or kind not in (None, job.kind):
            raise ClaimLost
        if job.state == "DONE" or (event is not None and after(JOB, job.state, event) is None):
            raise ClaimLost
        return job

    def _busy(self, job: _Job) -> bool:
        return job.state in ("CLAIMED", "ATTEMPT_OPEN") and job.due_at > self._clock.now()

    def _job_of(self, message: UUID, kind: JobKind) -> _Job | None:
        return next((job for job in self._jobs.values() if job.message == message and job.kind == kind), None)

    def _sending_job(self, message: UUID) -> _Job | None:
        return self._job_of(message, "send") or self._job_of(message, "hold")

    def _settle_job(self, message: UUID) -> None:
        job = self._sending_job(message)
        if job is not None and after(JOB, job.state, "settle"):
            job.state, job.claim, job.attempt = "DONE", None, 0

    def _end(self, message: _Message, number: int, result: AttemptResult) -> None:
        begun = message.attempts[number - 1]
        message.attempts[number - 1] = Attempt(
            number=number, started_at=begun.started_at, ended_at=self._clock.now(), node=begun.node,
            references=begun.references, signer=begun.signer, outcome=result.outcome, error_code=result.error_code,
            error_detail=result.error_detail, http_status=result.http_status, steps=result.steps,
        )  # fmt: skip

    def _close_attempts(self, message: _Message, outcome: str) -> None:
        for attempt in message.attempts:
            if attempt.ended_at is None:
                self._end(message, attempt.number, AttemptResult(state="FAILED", outcome=outcome))

    def _view(self, m: _Message, *, whole: bool = True) -> Message:
        job, own = self._job_of(m.id, "send"), self._own_job(m.id)
        return Message(
            id=m.id, direction=m.direction, state=m.state, tenant=m.tenant, partner=m.partner, user_message=m.unit,
            parts=tuple(_part(part, whole) for part in m.parts), wrapped_key=m.wrapped_key, pmode_id=m.pmode_id,
            pmode_revision=m.pmode_revision, backend=m.backend, client=m.client, created_at=m.created_at,
            changed_at=m.changed_at, deadline=m.deadline, attempts=len(m.attempts),
            next_attempt_at=job.due_at if job is not None and job.state == "READY" else None,
            held=own is not None and own.state == "HELD",
            error_code=m.error_code, error_detail=m.error_detail, receipt=m.receipt if whole else None,
            receipt_at=m.receipt_at, envelope=m.envelope if whole else None, signer=m.signer if whole else None,
            findings=m.findings, document=m.document, steps=m.steps, trace=m.trace,
        )  # fmt: skip


class _Chunked:
    """Chunks of a message that is not stored yet."""

    def __init__(self, id: UUID, store: Any) -> None:
        self._id, self._store = id, store
        self._written: dict[tuple[int, int], bytes] = {}

    async def chunk(self, part: int, number: int, sealed: bytes) -> None:
        self._written[part, number] = sealed

    async def _accept(self, message: Any) -> Any:
        _check_chunks(message.parts, Counter(part for part, _ in self._written))
        if message.id != self._id:
            raise StoreUnavailable("the chunks that were written are not those of the message")
        return self._store(message, self._written)


class _Receiving(_Chunked):
    async def accept(self, message: NewInbound) -> Received:
        return await self._accept(message)


class _Submitting(_Chunked):
    async def accept(self, message: NewOutbound) -> Stored:
        return await self._accept(message)


def _audit_entry(link: Link) -> AuditEntry:
    return AuditEntry(
        kind=link.kind, actor=link.actor, subject=link.subject, detail=msgspec.json.decode(link.detail), at=link.at,
        number=link.number,
    )  # fmt: skip


def _check_chunks(parts: tuple[NewPart, ...], written: Counter[int]) -> None:
    if Counter({part.number: part.chunks for part in parts if part.chunks}) != written:
        raise StoreUnavailable("the chunks that were written are not those of the message")


def _sees(viewer: Viewer | None, message: _Message | None) -> bool:
    if viewer is None:
        return True
    return message is not None and message.backend == viewer.backend and _within(viewer.scope, message)


def _fits(wanted: MessageFilter, m: _Message) -> bool:
    unit = m.unit
    corners = {p.name: names(p.value, p.type) for p in reversed(unit.properties)}
    other = unit.from_party if m.direction == "inbound" else unit.to_party
    return (
        wanted.backend in (None, m.backend) and wanted.direction in (None, m.direction)
        and wanted.state in (None, m.state) and wanted.conversation_id in (None, unit.conversation_id)
        and wanted.message_id in (None, unit.message_id) and wanted.action in (None, unit.action)
        and wanted.service in (None, unit.service.value) and wanted.partner in (None, m.partner, other.value)
        and wanted.original_sender in (None, *corners.get(ORIGINAL_SENDER, ()))
        and wanted.final_recipient in (None, *corners.get(FINAL_RECIPIENT, ()))
        and (wanted.since is None or m.created_at >= wanted.since)
        and (wanted.until is None or m.created_at < wanted.until)
    )  # fmt: skip


def _within(scope: Scope, message: _Message) -> bool:
    unit = message.unit
    other = unit.from_party if message.direction == "inbound" else unit.to_party
    corners = {p.name: names(p.value, p.type) for p in reversed(unit.properties)}
    return scope.covers(
        message.direction, partner=(message.partner, other.value), service=unit.service.value, action=unit.action,
        original_sender=corners.get(ORIGINAL_SENDER, ()), final_recipient=corners.get(FINAL_RECIPIENT, ()),
    )  # fmt: skip


def _is_lost(job: _Job) -> bool:
    """Whether somebody claimed it and neither finished nor gave it back. Handed out to who pulls, it waits."""
    return job.state == "CLAIMED" or (job.state == "ATTEMPT_OPEN" and job.kind != "hold")


def _job(job: _Job) -> Job:
    return Job(
        id=job.id, kind=job.kind, queue=job.queue, message=job.message, claim=job.claim, attempt=job.attempt,
        lost=job.lost, created_at=job.created_at, lease_until=job.due_at, data=dict(job.data),
    )  # fmt: skip


def _part(part: NewPart, whole: bool) -> Part:
    return Part(
        number=part.number, info=part.info, cid=part.cid, mime_type=part.mime_type, size=part.size,
        sha256=part.sha256, compressed=part.compressed, wire_size=part.wire_size, wire_digest=part.wire_digest,
        inline=part.inline if whole else None, chunks=part.chunks,
    )  # fmt: skip


def _without_content(part: NewPart) -> NewPart:
    return msgspec.structs.replace(part, inline=None)
