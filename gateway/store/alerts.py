"""What is told of certificates that come to their end: rows and verbs of the store.

The database decides what was told before, so that neither a restart nor the second node tells it again; and in the
same commit it writes what is told now: the event, the notices for webhooks, and the alert for the operator's hook.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from msgspec import Struct, field

#: How much further than now a row may have been told; what is beyond was told under a wrong clock.
FUTURE = 86_400.0


class Due(Struct, frozen=True, kw_only=True):
    """Something to tell: of `certificate` (SHA-256 in hexadecimal), `threshold` days before its end. `facts` are
    for whoever says it. `early`: only together with another that has come to the same threshold."""

    certificate: str
    about: Literal["expiry", "successor"]
    threshold: int
    early: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


class NewAlert(Struct, frozen=True):
    """What is said, as an event: its type and its data."""

    type: str
    data: dict[str, Any]


class Alert(Struct, frozen=True, kw_only=True):
    """An alert that was claimed for the hook. `attempt` counts claims."""

    id: UUID
    at: datetime
    type: str
    data: dict[str, Any]
    claim: UUID
    attempt: int


class Alerts(Protocol):
    """The verbs for alerts; a part of `api.Store`. All raise `StoreUnavailable`."""

    async def now(self) -> datetime:
        """The database's clock."""
        ...

    async def tell(self, due: Sequence[Due], say: Callable[[list[Due]], NewAlert]) -> list[Due]:
        """Those of `due` that were not told yet, at this threshold or a more urgent one; they are from now on. `say`
        makes one alert of them, written in the same commit. None of them: nothing is said."""
        ...

    async def claim_alert(self, *, lease: float, newer: float) -> Alert | None:
        """An alert that is due, not older than `newer` seconds; due again in `lease` seconds."""
        ...

    async def finish_alert(
        self, id: UUID, claim: UUID, *, state: Literal["DONE", "READY", "PARKED"], due_in: float = 0.0, error: str = ""
    ) -> None:
        """It was told (DONE), is tried again in `due_in` seconds (READY), or given up (PARKED). `ClaimLost`."""
        ...

    async def forget_alerts(self, *, alerts_before: float, told_before: float) -> int:
        """Drop what is older than so many seconds; how much."""
        ...
