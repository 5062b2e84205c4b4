"""Partners that do not answer, in the memory of one process; what `MemoryStore` asks of them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.clock import Clock
from gateway.store.api import Circuit, Shutting


@dataclass
class _Circuit:
    since: datetime
    failures: int = 0
    shut_until: datetime | None = None
    probe: UUID | None = None


class MemoryCircuits:
    """Every verb runs without waiting in between."""

    _clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self._circuits: dict[str, _Circuit] = {}

    async def circuits(self) -> list[Circuit]:
        return [
            Circuit(partner=partner, failures=c.failures, since=c.since, shut_until=c.shut_until)
            for partner, c in sorted(self._circuits.items())
        ]

    def _is_shut(self, partner: str) -> bool:
        return partner in self._circuits and self._circuits[partner].shut_until is not None

    def _open_for(self, partner: str) -> bool:
        """Whether one more message may go to the partner now: it is not shut, or its time is over."""
        found = self._circuits.get(partner)
        return found is None or found.shut_until is None or found.shut_until <= self._clock.now()

    def _probing(self, partner: str, claim: UUID, lease: float) -> None:
        """If the partner is shut, this claim tries for all, as long as it lasts."""
        if self._is_shut(partner):
            found = self._circuits[partner]
            found.shut_until, found.probe = self._clock.now() + timedelta(seconds=lease), claim

    def _still_probing(self, claim: UUID, until: datetime) -> None:
        for found in self._circuits.values():
            if found.probe == claim:
                found.shut_until = until

    def _try_partner(self, partner: str) -> None:
        if self._is_shut(partner):
            self._circuits[partner].shut_until = self._clock.now()

    def _heard_of(
        self, partner: str, claim: UUID, answered: bool | None, shutting: Shutting
    ) -> Literal["shut", "open"] | None:
        found = self._circuits.get(partner)
        if answered is None:
            return None
        if answered:
            self._circuits.pop(partner, None)
            return "open" if found is not None and found.failures >= shutting.failures else None
        if found is None:
            found = self._circuits[partner] = _Circuit(self._clock.now())
        elif found.shut_until is not None and found.probe != claim:
            return None  # it had begun before
        found.failures, found.probe = found.failures + 1, None
        if found.failures < shutting.failures:
            return None
        wait = min(shutting.first * 2 ** min(found.failures - shutting.failures, 20), shutting.longest)
        found.shut_until = self._clock.now() + timedelta(seconds=wait)
        return "shut"
