"""An event loop in which time passes only when nothing is left to do, and nothing depends on the machine."""

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

#: The virtual clock begins here; a moment in the life of the certificates, which are made at the start.
START = 1000.0


class Stuck(Exception):
    """Nothing can happen any more: everybody waits for somebody else."""


class _Selector(selectors.SelectSelector):
    """Nothing ever comes from outside, so the system is not asked."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list:
        if timeout is None:
            raise Stuck("nobody has anything left to do")
        if timeout > 0:
            self.loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Work for threads is done at once, in place."""

    def __init__(self) -> None:
        self._virtual = START
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        return self._virtual

    def pass_time(self, seconds: float) -> None:
        self._virtual += seconds

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future:
        future = self.create_future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class VirtualClock:
    """`gateway.clock.Clock` on a `VirtualLoop`. `ahead` is how wrong the wall clock of this machine is, in seconds."""

    def __init__(self, loop: VirtualLoop, begin: datetime | None = None) -> None:
        self._loop, self.begin = loop, begin or datetime.now(UTC)
        self.ahead = 0.0

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=self._loop.time() - START + self.ahead)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
