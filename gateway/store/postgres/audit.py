"""The hash-chained audit. `append_audit` in SQL makes the rows, `chain` checks them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asyncpg import Record

from gateway.store.api import AuditEntry, AuditFilter
from gateway.store.chain import BEGINNING, Link, Walk, row_texts
from gateway.store.postgres import rows
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("audit")
#: Rows hashed at once: some milliseconds of the event loop.
PAGE = 200


async def note(t: Transaction, kind: str, actor: str, messages: Sequence[UUID], **detail: Any) -> None:
    """A row about so many messages, in the transaction that changes them. Named one by one, unless
    `proofs` stands for them."""
    if messages:
        facts = {"count": len(messages)} | detail
        if "proofs" not in detail:
            facts["messages"] = [str(id) for id in messages]
        await t.row(Q["append"], *row_texts(kind, actor, str(len(messages)), facts))


class Audit(Room):
    """The verbs of `api.Store` for the audit."""

    async def audit(self, entry: AuditEntry) -> None:
        await self._pool.write(Q["append"], *row_texts(entry.kind, entry.actor, entry.subject, entry.detail))

    async def audit_next(self, entry: AuditEntry, *, number: int, hash: bytes) -> bool:
        texts = row_texts(entry.kind, entry.actor, entry.subject, entry.detail)
        return await self._pool.write(Q["append_next"], *texts, number, hash) is not None

    async def audit_entries(self, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        return [_entry(row) for row in await self._pool.rows(Q["entries"], after, limit)]

    async def audit_search(self, wanted: AuditFilter) -> list[AuditEntry]:
        if not rows.storable(wanted.kind, wanted.actor, wanted.subject):
            return []
        found = await self._pool.planned(
            Q["search"], wanted.kind, wanted.actor, wanted.subject, wanted.since, wanted.until, wanted.before,
            wanted.limit,
        )  # fmt: skip
        return [_entry(row) for row in found]

    async def audit_head(self) -> tuple[int, bytes]:
        row = await self._pool.row(Q["head"])
        return row["number"], row["hash"]

    async def audit_links(self, *, after: int = 0, limit: int = PAGE) -> list[Link]:
        return [
            Link(r["number"], r["at"], r["kind"], r["actor"], r["subject"], r["detail"], r["hash"])
            for r in await self._pool.rows(Q["entries"], after, limit)
        ]

    async def verify_audit(self) -> int | None:
        # The head first: rows appended while we read come after it and are checked as well.
        head, head_hash = await self.audit_head()
        walk = Walk()
        at_head = BEGINNING if head == 0 else None
        while links := await self.audit_links(after=walk.number, limit=PAGE):
            for link in links:
                if walk.step(link) is not None:
                    return walk.number + 1
                if link.number == head:
                    at_head = link.hash
        if walk.number < head:
            return walk.number + 1  # the tail was cut off
        return None if at_head == head_hash else head


def _entry(row: Record) -> AuditEntry:
    return AuditEntry(
        kind=row["kind"], actor=row["actor"], subject=row["subject"], detail=rows.detail(row["detail"]), at=row["at"],
        number=row["number"],
    )  # fmt: skip
