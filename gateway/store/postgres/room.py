"""What the verbs of this room share: the pool, the bell, and the check that a commit was durable."""

from typing import Any

from asyncpg import Record

from gateway.errors import OutcomeUnknown
from gateway.store.api import AuditEntry, Viewer
from gateway.store.chain import row_texts
from gateway.store.postgres import rows
from gateway.store.postgres.bell import Bell
from gateway.store.postgres.pool import DURABLE, Pool
from gateway.store.postgres.sql import load

QA = load("audit")


class Room:
    """Base of the classes that together are `PostgresStore`."""

    _pool: Pool
    _bell: Bell

    async def _row(self, viewer: Viewer | None, query: str, *args: Any) -> Record | None:
        """One row as the viewer sees it; the statement's last two parameters say who looks."""
        if viewer is None:
            return await self._pool.row(query, *args, None, None)
        scope = rows.text(viewer.scope)
        async with self._pool.viewing(viewer.backend, scope) as look:
            return await look.row(query, *args, viewer.backend, scope)

    async def _rows(self, viewer: Viewer | None, query: str, *args: Any, planned: bool = False) -> list[Record]:
        """The same for several rows; `planned` for these very values."""
        if viewer is None:
            return await (self._pool.planned if planned else self._pool.rows)(query, *args, None, None)
        scope = rows.text(viewer.scope)
        async with self._pool.viewing(viewer.backend, scope) as look:
            return await (look.planned if planned else look.rows)(query, *args, viewer.backend, scope)

    async def _noted(self, query: str, *args: Any, note: AuditEntry | None) -> Record | None:
        """Run a statement that returns a row when it changed something, with the audit entry in the same commit."""
        if note is None:
            return await self._pool.write(query, *args)
        async with self._pool.transaction() as t:
            if (row := await t.row(query, *args)) is not None:
                await t.row(QA["append"], *row_texts(note.kind, note.actor, note.subject, note.detail))
                await t.commit()
        return row

    def _assured(self, row: Record) -> Record:
        """`row`, if the session that committed it waited for what a receipt stands on.

        The setting is pinned when we connect; a pooler that swaps sessions under us is
        noticed here, where it matters. So is a server that no longer waits for a standby,
        where one is required.
        """
        setting, _, alone = row["durability"].partition(" ")
        if setting not in DURABLE:
            raise OutcomeUnknown(f"synchronous_commit was {setting} during the commit")
        if alone and self._pool.synchronous == "required":
            raise OutcomeUnknown("the commit waited for no standby, and one is required")
        return row
