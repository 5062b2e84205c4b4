"""Pull, both sides: messages held until they are fetched, channels we fetch from, receipts sent by themselves."""

from uuid import UUID

from gateway.as4.units import Reference
from gateway.errors import ClaimLost
from gateway.stages import point
from gateway.store.api import Job, LapseResult
from gateway.store.postgres import rows
from gateway.store.postgres.pool import Abandoned
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.states import JOB, LAPSES, OUTBOUND, after, before

Q = load("pull")
#: What failed has an error, if only this one (EBMS "Other").
UNNAMED = "EBMS:0004"


class Pulling(Room):
    """The verbs of `api.Store` for pull."""

    # -- held until pulled ------------------------------------------------------------

    async def note_pull_request(self, requester: str, message_id: str) -> bool:
        return await self._pool.write(Q["note_request"], requester, message_id) is not None

    async def claim_held(self, queue: str, *, worker: str, lease: float) -> Job | None:
        row = await self._pool.write(Q["claim_held"], queue, worker, lease)
        return None if row is None else rows.job(row)

    async def hand_out(
        self, job: Job, *, node: str, references: tuple[Reference, ...], receipt_within: float,
        envelope: bytes | None = None, signer: bytes | None = None,
    ) -> int:  # fmt: skip
        try:
            row = await self._pool.write(
                Q["hand_out"], job.id, job.claim, node, rows.text(references), before(JOB, "begin"),
                before(OUTBOUND, "hand_out"), receipt_within, envelope, signer,
            )  # fmt: skip
        except Abandoned:
            row = None
        if row is None:
            raise ClaimLost
        return row["number"]

    async def lapse(self, job: Job, result: LapseResult) -> None:
        message_event, job_event = LAPSES[result.state]
        error_code = result.error_code or (UNNAMED if result.state == "FAILED" else None)
        point("HD04")
        try:
            row = await self._pool.write(
                Q["lapse"], job.id, job.claim, after(JOB, "CLAIMED", job_event), before(JOB, job_event), result.due_in,
                result.state, before(OUTBOUND, message_event), error_code, result.error_detail,
                rows.events(result.events),
            )  # fmt: skip
        except Abandoned:
            row = None
        if row is None:
            raise ClaimLost
        self._bell.ring()

    # -- pulling ----------------------------------------------------------------------

    async def open_channels(self, queues: tuple[str, ...]) -> None:
        if queues:
            await self._pool.write(Q["open_channels"], list(queues))

    async def rest(self, job_id: UUID, claim: UUID, *, due_in: float, error: str | None = None) -> None:
        if await self._pool.write(Q["rest"], job_id, claim, due_in, error, before(JOB, "release")) is None:
            raise ClaimLost

    async def pull_now(self, queues: tuple[str, ...] | None = None) -> list[str]:
        found = await self._pool.writes(Q["pull_now"], None if queues is None else list(queues))
        return sorted(row["queue"] for row in found)

    async def answer_again(self, message: UUID, queue: str, receipt: bytes | None) -> None:
        data = {} if receipt is None else {"receipt": receipt.decode()}
        await self._pool.write(Q["answer_again"], message, queue, rows.text(data), before(JOB, "requeue"))

    async def finish_receipt(self, job_id: UUID, claim: UUID) -> None:
        if await self._pool.write(Q["finish_receipt"], job_id, claim, before(JOB, "finish")) is None:
            raise ClaimLost
