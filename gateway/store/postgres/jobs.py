"""The queue: claims, leases, and the ends of deliveries."""

from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg import Record

from gateway.errors import ClaimLost
from gateway.scope import EVERYTHING, Scope
from gateway.stages import Step
from gateway.store.api import Circuit, Job, JobKind, NewEvent, Viewer, WaitingFilter
from gateway.store.postgres import rows
from gateway.store.postgres.pool import Abandoned
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.states import INBOUND, JOB, before

Q = load("job")


class Jobs(Room):
    """The verbs of `api.Store` for jobs."""

    async def claim(
        self, kind: JobKind, *, queues: tuple[str, ...] | None = None, worker: str, limit: int, lease: float,
        scope: Scope = EVERYTHING, each: int | None = None, without: tuple[str, ...] = (), losses: int | None = None,
    ) -> list[Job]:  # fmt: skip
        wanted = None if queues is None else list(queues)
        states = before(JOB, "claim")
        if kind == "deliver":
            bound = None if scope.unbounded else rows.text(scope)
            found = await self._pool.writes(Q["claim_deliver"], limit, worker, lease, wanted, states, bound, each,
                                            list(without), losses)  # fmt: skip
        elif kind == "notify":
            found = await self._pool.writes(Q["claim_notify"], limit, worker, lease, wanted, states, each,
                                            list(without), losses)  # fmt: skip
        elif kind == "send":
            found = await self._pool.writes(Q["claim_send"], limit, worker, lease, wanted, states, each,
                                            list(without), losses)  # fmt: skip
        else:
            found = await self._pool.writes(Q["claim_pull"], kind, limit, worker, lease, wanted, states, losses)
        return _in_order(found)

    async def claim_overdue(self, *, worker: str, limit: int, lease: float) -> list[Job]:
        found = _in_order(await self._pool.writes(Q["claim_overdue"], limit, worker, lease, before(JOB, "claim")))
        return [msgspec.structs.replace(job, shut=True) for job in found]

    async def claim_suspect(self, *, pushed: tuple[str, ...], worker: str, lease: float, losses: int) -> Job | None:
        row = await self._pool.write(Q["claim_suspect"], worker, lease, list(pushed), losses, before(JOB, "claim"))
        return None if row is None else rows.job(row)

    async def circuits(self) -> list[Circuit]:
        return [Circuit(**row) for row in await self._pool.rows(Q["circuits"])]

    async def renew(self, job_id: UUID, claim: UUID, lease: float) -> datetime:
        return (await self._held(Q["renew"], job_id, claim, lease))["lease_until"]

    async def release(self, job_id: UUID, claim: UUID, *, due_in: float = 0.0, error: str | None = None) -> None:
        await self._held(Q["release"], job_id, claim, due_in, error, before(JOB, "release"))
        self._bell.ring()

    async def park(self, job_id: UUID, claim: UUID, *, error: str) -> None:
        await self._held(Q["park"], job_id, claim, error, before(JOB, "park"))

    async def finish_delivery(
        self, job_id: UUID, claim: UUID, events: tuple[NewEvent, ...], steps: tuple[Step, ...] = ()
    ) -> None:
        try:
            done = await self._pool.write(
                Q["finish_delivery"], job_id, claim, before(JOB, "finish"), before(INBOUND, "deliver"),
                rows.text(steps), rows.events(events),
            )  # fmt: skip
        except Abandoned:
            done = None
        if done is None:
            await self._held(Q["delivered_before"], job_id, claim)
        self._bell.ring()

    async def delivery(self, job_id: UUID, viewer: Viewer) -> Job | None:
        row = await self._row(viewer, Q["delivery"], job_id)
        return None if row is None else rows.job(row)

    async def claim_delivery(self, message: UUID, viewer: Viewer, *, worker: str, lease: float) -> Job | None:
        row = await self._pool.write(
            Q["claim_delivery"], message, worker, lease, before(JOB, "claim"), viewer.backend, rows.text(viewer.scope)
        )
        if row is not None:
            return rows.job(row)
        row = await self._row(viewer, Q["is_open"], message)
        if row is not None and row["open"]:
            raise ClaimLost
        return None

    async def undelivered(self, wanted: WaitingFilter, viewer: Viewer) -> list[str]:
        texts = (wanted.message_id, wanted.conversation_id, wanted.ref_to_message_id, wanted.from_party,
                 wanted.original_sender, wanted.final_recipient)  # fmt: skip
        if not rows.storable(*texts):
            return []
        found = await self._rows(
            viewer, Q["undelivered"], *texts, wanted.received_from, wanted.received_to, wanted.parked, wanted.limit,
            planned=True,
        )  # fmt: skip
        return [row["message_id"] for row in found]

    async def wait_for_work(self, timeout: float) -> None:
        await self._bell.wait(timeout)

    async def backlog(self) -> dict[str, int]:
        return {f"{row['kind']}.{row['state']}": row["jobs"] for row in await self._pool.rows(Q["backlog"])}

    async def _held(self, query: str, *args: object) -> dict:
        """Run a statement that names a claim; no row means that it is not ours any more."""
        row = await self._pool.write(query, *args)
        if row is None:
            raise ClaimLost
        return row


def _in_order(found: list[Record]) -> list[Job]:
    """RETURNING keeps no order."""
    return [rows.job(row) for row in sorted(found, key=lambda row: row["was_due"])]
