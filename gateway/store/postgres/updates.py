"""The ledger of agreement updates."""

from uuid import UUID

from asyncpg import Record

from gateway.store.api import AuditEntry
from gateway.store.chain import row_texts
from gateway.store.postgres import rows
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.updates import NewUpdate, Update, UpdateChange, UpdateDirection, UpdateState

Q = load("update")
QA = load("audit")


class Updates(Room):
    """The verbs of `store.updates`."""

    async def add_update(self, new: NewUpdate, audit: AuditEntry) -> tuple[Update, bool]:
        async with self._pool.transaction() as t:
            row = await t.row(
                Q["add"], new.id, new.direction, new.kind, new.state, new.partner, new.party, new.ours, new.reference,
                new.document, new.message_id, new.conversation_id, new.current, new.updated, list(new.certificates),
                new.signer, new.respond_by, new.activate_by, new.actor,
            )  # fmt: skip
            if row is None:
                return _update(await t.row(Q["of"], new.direction, new.partner, new.reference)), False
            await _note(t, audit)
            await t.commit()
        return _update(row), True

    async def update(self, id: UUID) -> Update | None:
        return _maybe(await self._pool.row(Q["one"], id))

    async def update_of(self, direction: UpdateDirection, partner: str, reference: str) -> Update | None:
        if not rows.storable(partner, reference):
            return None
        return _maybe(await self._pool.row(Q["of"], direction, partner, reference))

    async def updates(
        self, *, direction: UpdateDirection | None = None, partner: str | None = None,
        states: tuple[UpdateState, ...] = (), limit: int = 100,
    ) -> list[Update]:  # fmt: skip
        found = await self._pool.rows(Q["newest"], direction, partner, list(states) or None, limit)
        return [_update(row) for row in found]

    async def claim_updates(self, *, limit: int, lease: float) -> list[Update]:
        return [_update(row) for row in await self._pool.writes(Q["claim"], limit, lease)]

    async def change_update(
        self, id: UUID, change: UpdateChange, *, before: tuple[UpdateState, ...], claim: UUID | None = None,
        audit: AuditEntry | None = None,
    ) -> Update | None:  # fmt: skip
        async with self._pool.transaction() as t:
            row = await t.row(
                Q["change"], id, list(before), claim, change.state, change.due_in, change.code, change.detail,
                change.actor, change.answer, change.answer_message_id, change.answered, change.receipted, change.late,
                change.message_id,
            )  # fmt: skip
            if row is None:
                return None
            if audit is not None:
                await _note(t, audit)
            await t.commit()
        return _update(row)


async def _note(t: Transaction, entry: AuditEntry) -> None:
    await t.row(QA["append"], *row_texts(entry.kind, entry.actor, entry.subject, entry.detail))


def _maybe(row: Record | None) -> Update | None:
    return None if row is None else _update(row)


def _update(row: Record) -> Update:
    return Update(**dict(row) | {"certificates": tuple(row["certificates"])})
