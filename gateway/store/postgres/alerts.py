"""What was told of certificates, and alerts."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.errors import ClaimLost
from gateway.store.alerts import Alert, Due, NewAlert
from gateway.store.postgres import rows
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("alert")


class Alerts(Room):
    """The verbs of `store.alerts.Alerts`."""

    async def now(self) -> datetime:
        return (await self._pool.row(Q["now"]))["now"]

    async def tell(self, due: Sequence[Due], say: Callable[[list[Due]], NewAlert]) -> list[Due]:
        timely = [d for d in due if not d.early]
        if not timely:
            return []
        async with self._pool.transaction() as t:
            fresh = await _note(t, timely)
            if not fresh:
                return []
            reached = {(d.about, d.threshold) for d in fresh}
            fresh += await _note(t, [d for d in due if d.early and (d.about, d.threshold) in reached])
            alert = say(fresh)
            await t.row(Q["raise"], alert.type, rows.text(alert.data))
            await t.commit()
        self._bell.ring()
        return fresh

    async def claim_alert(self, *, lease: float, newer: float) -> Alert | None:
        row = await self._pool.write(Q["claim"], lease, newer)
        return None if row is None else Alert(**dict(row) | {"data": rows.detail(row["data"])})

    async def finish_alert(
        self, id: UUID, claim: UUID, *, state: Literal["DONE", "READY", "PARKED"], due_in: float = 0.0, error: str = ""
    ) -> None:
        if await self._pool.write(Q["finish"], id, claim, state, due_in, error or None) is None:
            raise ClaimLost

    async def forget_alerts(self, *, alerts_before: float, told_before: float) -> int:
        return (await self._pool.write(Q["forget"], alerts_before, told_before))["count"]


async def _note(t: Transaction, due: list[Due]) -> list[Due]:
    """Those of them that were not told yet."""
    if not due:
        return []
    known = {(d.certificate, d.about, d.threshold): d for d in due}
    told = await t.rows(Q["tell"], *map(list, zip(*known, strict=True)))
    return [known[row["certificate"], row["about"], row["threshold"]] for row in told]
