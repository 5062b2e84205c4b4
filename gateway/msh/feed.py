"""Follow the log of events: every event once it can be seen, and none missed.

Numbers are taken before they are committed, so a number may appear after a higher one. A gap
in the numbers that can be seen is therefore open until every transaction that was running
when it was first noticed has ended; then its number has appeared, or never will. Everything
up to the first open gap is *settled*. Who follows gets events beyond it at once, and goes on
from what is settled: after an interruption an event may come twice, and none is lost.

One look at the numbers serves all followers of the process, and there is none while nobody
follows; each then reads its own events, as its viewer. Waiting for the oldest running
transaction instead would let one slow upload silence the feed.
"""

import asyncio
from collections.abc import AsyncIterator

from gateway import log
from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.store.api import Store, Told, Viewer

#: A ring of the bell is waited for so long before a look; and after a look so long for the next.
POLL, GATHER = 1.0, 0.05
#: Seconds without an event after which a follower gets a sign of life.
BEAT = 5.0
#: Numbers one statement looks through, so that no look at a long log takes long.
WINDOW = 20_000
#: Numbers of one look at the log.
LOOK = 10_000
PAGE = 100
#: A look for the log stops after so many windows without a page full of events.
WINDOWS = 10
#: A hole wider than this is not one that running transactions make: a crash or a restore skips numbers.
WIDEST = 1_000


class Feed:
    """The log of one process."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._settled: int | None = None
        self._highest = 0
        #: Numbers beyond what is settled that were seen; and open gaps, with the first transaction that is not meant.
        self._seen: set[int] = set()
        self._gaps: dict[int, int] = {}
        self._looking = asyncio.Lock()
        self._news = asyncio.Event()
        self._followers = 0
        self._task: asyncio.Task | None = None
        self._closed = False

    async def page(
        self, viewer: Viewer, *, after: int, types: tuple[str, ...], limit: int
    ) -> tuple[list[Told], int, bool]:
        """Settled events after a number, the number to go on from, and whether there is more now."""
        await self._look()
        settled, found = self._settled, []
        for _ in range(WINDOWS):
            upto = min(after + WINDOW, settled)
            if after >= settled or len(found) == limit:
                break
            rows = await self._store.told(
                viewer=viewer, after=after, upto=upto, types=types, limit=limit - len(found)
            )
            found += rows
            after = rows[-1].number if len(found) == limit else upto
        return found, after, after < settled

    async def follow(
        self, viewer: Viewer, *, after: int | None, types: tuple[str, ...]
    ) -> AsyncIterator[tuple[int, Told | None]]:
        """(number to go on from, event), as they come; None for the event every few seconds without one.

        A number beyond the log, of a database that was put back since, means from now on.
        """
        await self._look()
        told: set[int] = set()
        if after is None or after > self._highest:
            after, told = self._settled, set(self._seen)
        self._enter()
        try:
            while not self._closed:
                news, settled, highest = self._news, self._settled, self._highest
                start = after
                while start < highest:
                    end = min(start + WINDOW, highest)
                    rows = await self._store.told(viewer=viewer, after=start, upto=end, types=types, limit=PAGE)
                    for row in rows:
                        if row.number not in told:
                            told.add(row.number)
                            yield min(row.number, settled), row
                    start = rows[-1].number if len(rows) == PAGE else end
                after = max(after, settled)
                told = {number for number in told if number > after}
                try:
                    async with asyncio.timeout(BEAT):
                        await news.wait()
                except TimeoutError:
                    yield after, None
        finally:
            self._leave()

    def close(self) -> None:
        """Nobody is told anything more."""
        self._closed = True
        self._wake()
        if self._task is not None:
            self._task.cancel()

    # -- looking --------------------------------------------------------------------

    def _enter(self) -> None:
        self._followers += 1
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._watch(), name="feed")

    def _leave(self) -> None:
        self._followers -= 1
        if not self._followers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            try:
                await self._store.wait_for_work(POLL)
                if await self._look():
                    self._wake()
            except StoreUnavailable as error:
                log.event("store.unavailable", level="warning", reason=str(error))
                await self._clock.sleep(POLL)
            await self._clock.sleep(GATHER)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _look(self) -> bool:
        """Whether anything can be seen that could not before."""
        async with self._looking:
            changed, full = False, True
            while full:
                after = self._settled
                found = await self._store.event_numbers(after, limit=LOOK)
                if after is None:
                    self._settled = self._highest = found.after
                numbers = set(found.numbers)
                changed |= bool(numbers - self._seen)
                whole = len(found.numbers) < LOOK
                self._close_gaps(numbers, found.oldest, self._highest if whole else found.numbers[-1])
                self._open_gaps(found.numbers, found.next)
                self._seen |= numbers
                before, self._settled = self._settled, (min(self._gaps) - 1 if self._gaps else self._highest)
                self._seen = {number for number in self._seen if number > self._settled}
                full = not whole and self._settled > before
            return changed

    def _close_gaps(self, numbers: set[int], oldest: int, looked_at: int) -> None:
        self._gaps = {
            gap: until for gap, until in self._gaps.items()
            if gap not in numbers and (oldest < until or gap > looked_at)
        }  # fmt: skip

    def _open_gaps(self, numbers: tuple[int, ...], until: int) -> None:
        for number in numbers:
            if number > self._highest:
                first = max(self._highest + 1, number - WIDEST)
                self._gaps.update(dict.fromkeys(range(first, number), until))
                self._highest = number
