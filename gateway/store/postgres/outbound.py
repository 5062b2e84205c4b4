"""Submitting, attempts, and how an outbound message is settled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID

from msgspec.structs import astuple

from gateway.as4.units import Reference
from gateway.errors import ClaimLost, StoreUnavailable, SubmissionConflict, SubmissionRefused
from gateway.stages import point
from gateway.store.api import AttemptResult, Job, NewEvent, NewOutbound, Stored, Viewer
from gateway.store.chain import row_texts
from gateway.store.postgres import rows
from gateway.store.postgres.payloads import ChunkWriter
from gateway.store.postgres.pool import Abandoned, Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.rotation import REFUSING
from gateway.store.states import INBOUND, JOB, OUTBOUND, RESULTS, SUSPENDABLE, after, before

Q = load("outbound")
QP = load("pull")
QJ = load("job")
QA = load("audit")
QR = load("agreement")
TRIES = 3
#: What failed has an error, if only this one (EBMS "Other").
UNNAMED = "EBMS:0004"


class Outbound(Room):
    """The verbs of `api.Store` for outbound messages."""

    # -- submitting -----------------------------------------------------------------

    async def submit_once(self, message: NewOutbound) -> Stored:
        """One statement and one round trip for a submission that is new."""
        if any(part.chunks for part in message.parts):
            raise StoreUnavailable("chunks are written by `submitting`")
        _check_texts(message)
        for _ in range(TRIES):
            point("OB01")
            try:
                row = await self._pool.write(Q["submit"], *rows.outbound_columns(message))
            except Abandoned:
                row = None
            if row is not None and row["durability"] is not None:
                self._assured(row)
                self._bell.ring()
                return _stored(message)
            if (stored := await self._replay(message)) is not None:
                return stored
        raise StoreUnavailable("a known submission cannot be found")

    @asynccontextmanager
    async def submitting(self, id: UUID) -> AsyncIterator["Submitting"]:
        async with self._pool.transaction(streaming=True) as transaction:
            yield Submitting(id, transaction, self)

    async def _replay(self, message: NewOutbound) -> Stored | None:
        """The submission that is stored already. Raises `SubmissionConflict` when it is another one."""
        row = await self._pool.write(
            Q["replay"], message.client, message.idempotency_key, message.tenant, message.user_message.message_id,
            message.fingerprint, message.backend,
        )  # fmt: skip
        if row is None:
            return None
        if not row["same"]:
            by_key = message.idempotency_key is not None and row["message_id"] != message.user_message.message_id
            raise SubmissionConflict(
                "the Idempotency-Key was used for another submission" if by_key
                else "the MessageId was used for another submission",
                field="Idempotency-Key" if by_key else "message_id",
                hint="a new submission needs a new one",
            )  # fmt: skip
        self._assured(row)
        return Stored(row["id"], row["message_id"], row["conversation_id"], row["state"], replayed=True)

    # -- attempts -------------------------------------------------------------------

    async def begin_attempt(
        self, job: Job, *, node: str, references: tuple[Reference, ...], envelope: bytes | None = None,
        signer: bytes | None = None,
    ) -> int:  # fmt: skip
        row = await self._pool.write(
            Q["begin_attempt"], job.id, job.claim, node, rows.text(references), before(JOB, "begin"), envelope, signer
        )
        if row is None:
            raise ClaimLost
        return row["number"]

    async def finish_attempt(self, job: Job, attempt: int, result: AttemptResult) -> Literal["shut", "open"] | None:
        message_event, job_event = RESULTS[result.state]
        error_code = result.error_code or (UNNAMED if result.state == "FAILED" else None)
        point("OB14")
        try:
            row = await self._pool.write(
                Q["finish_attempt"], job.id, job.claim, attempt,
                before(JOB, job_event), after(JOB, "ATTEMPT_OPEN", job_event), result.retry_in or 0.0,
                before(OUTBOUND, message_event), result.state,
                error_code, result.error_detail, result.outcome, rows.events(result.events),
                result.http_status, result.receipt, rows.text(result.steps), result.refusal, result.answered,
                *astuple(result.shutting),
            )  # fmt: skip
        except Abandoned:
            row = None
        point("OB15")
        if row is None:
            raise ClaimLost
        self._bell.ring()
        return row["circuit"]

    # -- settled outside an attempt ---------------------------------------------------

    async def settle_late(self, message: UUID, receipt: bytes, events: tuple[NewEvent, ...]) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_send_job"], message)
            was = await t.row(Q["lock_message"], message)
            allowed = before(OUTBOUND, "acknowledge", "acknowledge_late")
            if was is None or not await t.row(
                Q["settle_message"], message, allowed, "ACKNOWLEDGED", receipt, None, None
            ):
                return False
            if job is not None:
                await t.row(Q["settle_job"], job["id"], before(JOB, "settle"), "DONE")
            in_time = was["state"] == "WAITING_FOR_RECEIPT"
            await t.row(Q["close_attempts"], message, "acknowledged" if in_time else "settled")
            await t.row(Q["outlived_late"], message)
            await t.row(Q["tell"], message, was["backend"], rows.events(events))
            if was["state"] == "FAILED":
                detail = {"from": "FAILED", "to": "ACKNOWLEDGED"}
                await t.row(QA["append"], *row_texts("receipt.late", was["partner"], was["message_id"], detail))
            await t.commit()
        self._bell.ring()
        return True

    async def fail_late(
        self, message: UUID, error_code: str, error_detail: str, events: tuple[NewEvent, ...]
    ) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_send_job"], message)
            was = await t.row(Q["lock_message"], message)
            if was is None or not await t.row(
                Q["settle_message"], message, before(OUTBOUND, "fail"), "FAILED", None, error_code, error_detail
            ):
                return False
            if job is not None:
                await t.row(Q["settle_job"], job["id"], before(JOB, "settle"), "DONE")
            await t.row(Q["close_attempts"], message, "failed")
            if error_code in REFUSING:
                await t.row(Q["refused_late"], message, error_code)
            await t.row(Q["tell"], message, was["backend"], rows.events(events))
            await t.commit()
        self._bell.ring()
        return True

    async def cancel(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_send_job"], message)
            if job is None or (job["busy"] and job["state"] == "ATTEMPT_OPEN"):
                return False  # its octets may be on the way at this moment
            if not await t.row(
                Q["settle_message"], message, before(OUTBOUND, "cancel"), "CANCELLED", None, None, None
            ):
                return False
            await t.row(Q["settle_job"], job["id"], before(JOB, "settle"), "DONE")
            await t.row(Q["close_attempts"], message, "lost")
            await self._tell(t, message, events)
            await t.commit()
        if events:
            self._bell.ring()
        return True

    async def requeue(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_send_job"], message)
            was = await t.row(Q["lock_message"], message)
            if was is None:
                done = bool(await t.row(QJ["requeue_delivery"], message, before(JOB, "requeue")))
            elif (
                job is None or job["busy"] or not was["has_payload"] or job["state"] not in before(JOB, "requeue")
            ):  # fmt: skip
                done = False
            else:
                held = job["kind"] == "hold"
                event = "hold_again" if held and was["state"] == "FAILED" else "requeue"
                done = was["state"] in before(OUTBOUND, event) and bool(
                    await t.row(
                        Q["settle_message"], message, before(OUTBOUND, event), after(OUTBOUND, was["state"], event),
                        None, None, None,
                    )
                )  # fmt: skip
                if done and held:
                    await t.row(QP["hold_again"], job["id"], before(JOB, "requeue"))
                    await t.row(Q["close_attempts"], message, "lost")
                elif done:
                    await t.row(Q["settle_job"], job["id"], before(JOB, "requeue"), "READY")
            if done and was is not None:
                await t.row(QR["take_active"], message)  # sent again, it goes by today's agreements
                await t.row(Q["try_partner"], message)
            if done:
                await self._tell(t, message, events)
                await t.commit()
        if done:
            self._bell.ring()
        return done

    # -- kept back, and delivered once more -------------------------------------------

    async def suspend(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_work"], message)
            if job is None or job["state"] == "HELD":
                return job is not None
            if job["busy"] or job["message_state"] not in SUSPENDABLE:
                return False
            if not await t.row(Q["suspend"], job["id"], before(JOB, "suspend")):
                return False
            await t.row(Q["close_attempts"], message, "lost")
            await self._tell(t, message, events)
            await t.commit()
        self._bell.ring()
        return True

    async def resume(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_work"], message)
            if job is None or not await t.row(Q["resume"], job["id"], before(JOB, "resume")):
                return False
            await self._tell(t, message, events)
            await t.commit()
        self._bell.ring()
        return True

    async def redeliver(self, message: UUID, events: tuple[NewEvent, ...] = ()) -> bool:
        async with self._pool.transaction() as t:
            job = await t.row(Q["lock_work"], message)
            if job is None or job["kind"] != "deliver" or not job["has_payload"]:
                return False
            if job["state"] == "DONE" and not await t.row(QJ["receive_again"], message, before(INBOUND, "redeliver")):
                return False
            if not await t.row(QJ["redeliver"], job["id"], ["PARKED", "DONE"]):
                return False
            await self._tell(t, message, events)
            await t.commit()
        self._bell.ring()
        return True

    async def _tell(self, t: Transaction, message: UUID, events: tuple[NewEvent, ...]) -> None:
        if events:
            await t.row(Q["tell_of"], message, rows.events(events))

    async def sent_envelope(self, message: UUID, *, viewer: Viewer | None = None) -> bytes | None:
        row = await self._row(viewer, Q["sent_envelope"], message)
        return None if row is None else row["envelope"]


class Submitting(ChunkWriter):
    """`api.Submitting`."""

    def __init__(self, id: UUID, transaction: Transaction, store: Outbound) -> None:
        super().__init__(id, transaction)
        self._store = store

    async def accept(self, message: NewOutbound) -> Stored:
        self._check(message.id, message.parts)
        _check_texts(message)
        try:
            row = await self._transaction.row(Q["submit"], *rows.outbound_columns(message))
        except Abandoned:
            row = None
        if row is None or row["durability"] is None:
            await self._transaction.rollback()  # the chunks go
            stored = await self._store._replay(message)
            if stored is None:
                raise StoreUnavailable("a known submission cannot be found")
            return stored
        self._store._assured(row)
        point("OB01")
        await self._transaction.commit()
        self._store._bell.ring()
        return _stored(message)


def _check_texts(message: NewOutbound) -> None:
    """A producer hears what is wrong; asked again later it would be wrong still."""
    unit = message.user_message
    texts = (unit.message_id, unit.conversation_id, unit.ref_to_message_id, message.idempotency_key)
    if not rows.storable(*texts):
        raise SubmissionRefused("an identifier contains a character that cannot be stored", field="message_id")


def _stored(message: NewOutbound) -> Stored:
    unit = message.user_message
    return Stored(message.id, unit.message_id, unit.conversation_id, message.state)


