"""The hash-chained audit. `append_audit` in SQL makes the rows, `chain` checks them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from gateway.store.api import AuditEntry
from gateway.store.chain import BEGINNING, Link, first_misfit, row_texts
from gateway.store.postgres import rows
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("audit")
PAGE = 1000


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

    async def audit_entries(self, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        return [
            AuditEntry(
                kind=row["kind"],
                actor=row["actor"],
                subject=row["subject"],
                detail=rows.detail(row["detail"]),
                at=row["at"],
                number=row["number"],
            )
            for row in await self._pool.rows(Q["entries"], after, limit)
        ]

    async def verify_audit(self) -> int | None:
        # The head first: rows appended while we read come after it and are checked as well.
        head = await self._pool.row(Q["head"])
        number, hash = 0, BEGINNING
        at_head = hash if head["number"] == 0 else None
        while page := await self._pool.rows(Q["entries"], number, PAGE):
            links = [
                Link(r["number"], r["at"], r["kind"], r["actor"], r["subject"], r["detail"], r["hash"]) for r in page
            ]
            misfit, number, hash = first_misfit(links, number=number, hash=hash)
            if misfit is not None:
                return misfit
            at_head = next((link.hash for link in links if link.number == head["number"]), at_head)
        if number < head["number"]:
            return number + 1  # the tail was cut off
        return None if at_head == head["hash"] else head["number"]
