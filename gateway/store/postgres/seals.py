"""Sealing anew, on PostgreSQL."""

from collections.abc import Sequence

from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.seals import KINDS, Sealed, SealedKind

Q = load("seal")
#: Counting reads every row.
PATIENCE = 600.0


class Seals(Room):
    """The verbs of `store.seals`."""

    async def sealed_by_others(
        self, kek: bytes, kind: SealedKind, *, after: str | None = None, limit: int = 500
    ) -> list[Sealed]:
        async with self._pool.transaction(deadline=PATIENCE) as t:
            rows = await t.rows(Q[f"{kind.replace('-', '_')}_others"], after, kek, limit)
        return [Sealed(kind, row["id"], row["octets"]) for row in rows]

    async def seal_anew(self, kind: SealedKind, before: Sequence[Sealed], after: Sequence[bytes]) -> int:
        ids, old = [one.id for one in before], [one.octets for one in before]
        return len(await self._pool.writes(Q[f"{kind.replace('-', '_')}_anew"], ids, old, list(after)))

    async def sealed_counts(self) -> dict[SealedKind, dict[bytes, int]]:
        found: dict[SealedKind, dict[bytes, int]] = {kind: {} for kind in KINDS}
        async with self._pool.transaction(deadline=PATIENCE) as t:
            for row in await t.rows(Q["counts"]):
                found[row["kind"]][row["kek"]] = row["count"]
        return found
