"""Numbers, legal holds, and forgetting."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import Record

from gateway.errors import NotFound
from gateway.stages import point
from gateway.store.keeping import Census, Inbox, Issued, LegalHold, Queue, proof
from gateway.store.postgres import rows
from gateway.store.postgres.audit import note
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("keeping")
QM = load("message")
FORGET = ("forget_events", "forget_attempts", "forget_jobs", "forget_parts", "forget_messages")


async def not_held(t: Transaction, locked: Sequence[Record]) -> list[Record]:
    """Those of the messages locked in this transaction that nobody holds."""
    held = {row["message"] for row in await t.rows(Q["held"], [row["id"] for row in locked])}
    return [row for row in locked if row["id"] not in held]


class Keeping(Room):
    """The verbs of `api.Keeping`."""

    async def census(self) -> Census:
        moment = await self._pool.row(Q["moment"])
        queues = [Queue(**dict(row.items())) for row in await self._pool.rows(Q["queues"])]
        inboxes = [Inbox(**dict(row.items())) for row in await self._pool.rows(Q["inboxes"])]
        return Census(now=moment["now"], standby=moment["standby"], queues=tuple(queues), inboxes=tuple(inboxes))

    async def hold_legally(self, messages: Sequence[UUID], *, reason: str, actor: str) -> int:
        async with self._pool.transaction() as t:
            for id in messages:
                if await t.row(QM["message"], id, None, None) is None:
                    raise NotFound(f"there is no message {id}")
            done = [id for id in messages if await t.row(Q["hold"], id, reason, actor)]
            await note(t, "messages.legal_hold", actor, done, reason=reason)
            await t.commit()
        return len(done)

    async def release_legally(self, messages: Sequence[UUID], *, reason: str, actor: str) -> int:
        async with self._pool.transaction() as t:
            done = [id for id in messages if await t.row(Q["let_go"], id)]
            await note(t, "messages.legal_release", actor, done, reason=reason)
            await t.commit()
        return len(done)

    async def legal_holds(self) -> list[LegalHold]:
        return [LegalHold(**dict(row.items())) for row in await self._pool.rows(Q["holds"])]

    async def forget(self, *, settled_before: float, limit: int = 100) -> int:
        async with self._pool.transaction(deadline=60.0) as t:
            found = await not_held(t, await t.rows(Q["forgettable"], settled_before, limit))
            if not found:
                return 0
            ids = [row["id"] for row in found]
            for statement in FORGET:
                await t.row(Q[statement], ids)
            point("MT04")
            await note(
                t, "messages.forgotten", "retention", ids, oldest=found[0]["created_at"].isoformat(),
                newest=found[-1]["created_at"].isoformat(), proofs=[proof(row["message_id"]) for row in found],
            )  # fmt: skip
            await t.commit()
        return len(ids)

    async def receipts(
        self, *, since: datetime, after: tuple[datetime, UUID] | None = None, limit: int = 500
    ) -> list[Issued]:
        found = await self._pool.rows(Q["receipts"], since, *(after or (None, None)), limit)
        return [_issued(row) for row in found]


def _issued(row: Any) -> Issued:
    header = rows.header(row["header"])
    return Issued(
        id=row["id"], message_id=row["message_id"], conversation_id=row["conversation_id"],
        party=header.from_party.value, action=header.action, at=row["receipt_at"], state=row["state"],
    )  # fmt: skip
