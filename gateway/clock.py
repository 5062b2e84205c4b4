"""Time and fresh identifiers, handed down as values so that tests own both."""

import asyncio
import time
import uuid
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall clock for what is written down, monotonic clock for what is measured."""

    def now(self) -> datetime:
        """The current time, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def new_message_id(host: str) -> str:
    """A globally unique MessageId in RFC 2822 form without angle brackets [as4 2.2]."""
    return f"{uuid.uuid4()}@{host}"


def milliseconds(moment: datetime) -> datetime:
    """`moment` with the precision of the wire: exactly three fraction digits."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
