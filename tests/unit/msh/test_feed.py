"""The log of events is followed without a miss, whatever order transactions end in."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from gateway.clock import SystemClock
from gateway.msh import feed as module
from gateway.msh.feed import Feed
from gateway.store.api import Numbers, Told, Viewer

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Log:
    """A log whose numbers and transactions a test moves."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.oldest = self.next = 100
        self.bell = asyncio.Event()
        self.types: dict[int, str] = {}

    def commit(self, *numbers: int) -> None:
        self.seen |= set(numbers)
        self.bell.set()

    async def event_numbers(self, after, *, limit=10_000):
        start = after or 0
        return Numbers(start, tuple(sorted(n for n in self.seen if n > start))[:limit], self.oldest, self.next)

    async def told(self, *, viewer, after, upto, types=(), limit=100):
        return [
            Told(number=n, id=UUID(int=n), at=NOW, type="t", message=UUID(int=0), message_id="m", conversation_id="c", data={})
            for n in sorted(self.seen) if after < n <= upto
        ][:limit]

    async def wait_for_work(self, timeout):
        try:
            async with asyncio.timeout(timeout):
                await self.bell.wait()
        except TimeoutError:
            pass
        self.bell.clear()


@pytest.fixture
def log(monkeypatch):
    monkeypatch.setattr(module, "GATHER", 0.0)
    monkeypatch.setattr(module, "BEAT", 0.05)
    return Log()


@pytest.fixture
async def feed(log):
    made = Feed(log, SystemClock())
    yield made
    made.close()


class Reader:
    """Follows in a task of its own."""

    def __init__(self, feed, after=None) -> None:
        self.got, self.cursor = [], None
        self.task = asyncio.create_task(self._read(feed, after))

    async def _read(self, feed, after):
        async for cursor, told in feed.follow(Viewer("rest"), after=after, types=()):
            self.cursor = cursor
            if told is not None:
                self.got.append(told.number)

    async def has(self, *numbers):
        async with asyncio.timeout(5):
            while self.got != list(numbers):
                await asyncio.sleep(0.005)

    async def at(self, cursor):
        async with asyncio.timeout(5):
            while self.cursor != cursor:
                await asyncio.sleep(0.005)


async def test_from_now_on(log, feed):
    log.commit(1, 2)
    reader = Reader(feed)
    await reader.at(2)
    log.commit(3)
    await reader.has(3)
    assert reader.cursor == 3


async def test_a_number_that_appears_late_is_told(log, feed):
    log.commit(1)
    log.next = 110  # 2 and 3 were taken by transactions 105 and 106
    reader = Reader(feed)
    await reader.at(1)
    log.commit(3)
    await reader.has(3)
    assert reader.cursor == 1  # who comes again now gets 2, and 3 once more
    again = Reader(feed, after=1)
    await again.has(3)
    log.commit(2)
    for one in (reader, again):
        await one.has(3, 2)
        await one.at(3)


async def test_a_hole_is_closed_when_nobody_is_left_to_fill_it(log, feed):
    log.commit(1)
    log.next = 110
    reader = Reader(feed)
    await reader.at(1)
    log.commit(3)  # 2 was rolled back
    await reader.has(3)
    await asyncio.sleep(0.12)
    assert reader.cursor == 1
    log.oldest = 110
    log.commit(3)
    await reader.at(3)
    assert reader.got == [3]


async def test_from_a_place_and_from_beyond_the_log(log, feed):
    log.commit(*range(1, 260))
    reader = Reader(feed, after=5)
    await reader.has(*range(6, 260))
    beyond = Reader(feed, after=10_000)  # the database was put back
    await beyond.at(259)
    log.commit(260)
    await beyond.has(260)


async def test_pages(log, feed):
    log.commit(1, 2, 3, 5)
    log.next = 110
    rows, cursor, more = await feed.page(Viewer("rest"), after=0, types=(), limit=2)
    assert ([r.number for r in rows], cursor, more) == ([1, 2], 2, True)
    rows, cursor, more = await feed.page(Viewer("rest"), after=cursor, types=(), limit=9)
    assert ([r.number for r in rows], cursor, more) == ([3], 3, False)  # 4 may come yet
    log.oldest = 110
    rows, cursor, more = await feed.page(Viewer("rest"), after=cursor, types=(), limit=9)
    assert ([r.number for r in rows], cursor, more) == ([5], 5, False)
    assert await feed.page(Viewer("rest"), after=99, types=(), limit=9) == ([], 99, False)


async def test_many_numbers(log, feed, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 7)
    monkeypatch.setattr(module, "WINDOW", 5)
    log.commit(*range(1, 50))
    assert (await feed.page(Viewer("rest"), after=0, types=(), limit=500))[1] == 49
    log.commit(*range(60, 100), 5000)  # a crash of the server skips numbers
    reader = Reader(feed, after=45)
    await reader.has(*range(46, 50), *range(60, 100), 5000)


async def test_who_follows_is_let_go(log, feed):
    reader = Reader(feed)
    await reader.at(0)
    feed.close()
    async with asyncio.timeout(5):
        await reader.task
    async for _ in feed.follow(Viewer("rest"), after=None, types=()):
        raise AssertionError("nobody is told anything more")


async def test_nobody_looks_while_nobody_follows(log, feed):
    reader = Reader(feed)
    await reader.at(0)
    reader.task.cancel()
    await asyncio.gather(reader.task, return_exceptions=True)
    assert feed._task is None
