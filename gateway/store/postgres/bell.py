"""The hint that there is work: rung after a commit, heard by every process.

A lost ring costs seconds, never a message: whoever waits also looks for himself.

The ring is not part of the transaction that makes the job. PostgreSQL takes one lock for
all transactions that notify and holds it through their commit, so that they wait for disk
and standby one after another: with a standby 2 ms away 16 connections made 5,600 commits a
second without NOTIFY and 400 with it (PostgreSQL 15 and 18). A ring of its own writes
nothing and waits for nothing. Rings are gathered: one at once, then at most one in 10 ms.
"""

import asyncio
import contextlib
import secrets

from gateway.errors import StoreUnavailable
from gateway.store.postgres.pool import Pool, Session, describe
from gateway.store.postgres.sql import load

Q = load("session")
GATHER = 0.01
#: Listening gets a sign of life this often, or the connection is taken for dead.
ANSWER = 2.0
#: What a ring says when it is not about work.
AGREEMENTS = "agreements"


class Bell:
    """Rings and hears on one channel. Its listening connection is made when somebody first waits."""

    def __init__(self, pool: Pool, channel: str) -> None:
        self._pool, self._channel = pool, channel
        self._name = secrets.token_hex(8)
        self._waiting: set[asyncio.Future[None]] = set()
        self._missed = False
        self._listening: Session | None = None
        self._asking = asyncio.Lock()
        self._pending = False
        self._topics: list[str] = []
        self._news = asyncio.Event()
        self._ringer: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """There may be work. Wakes this process at once and the others a moment later; never fails."""
        self._wake()
        self._pending = True
        self._send()

    def ring_agreements(self) -> None:
        """Something about the agreements may have changed. Wakes this process and the others that listen for work."""
        self._news.set()
        self._topics = [AGREEMENTS]
        self._send()

    async def wait_for_agreements(self, timeout: float) -> None:
        """Return when somebody rang for the agreements since the last wait, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        self._news.clear()

    def _send(self) -> None:
        if self._ringer is None or self._ringer.done():
            self._ringer = asyncio.create_task(self._ring(), name="ring")

    async def wait(self, timeout: float) -> None:
        """Return when the bell rang since the last wait, when a waiting job becomes due, or after
        `timeout` seconds. Raises `StoreUnavailable`."""
        if self._missed:
            self._missed = False
            return
        rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(rung)  # before the first look, so that no ring falls between
        try:
            due = await self._next_due()
            if due is not None:
                timeout = min(timeout, max(due, 0.0) + 0.002)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await rung
        finally:
            self._waiting.discard(rung)

    async def close(self) -> None:
        """Stop listening. Whoever waits wakes up."""
        self._wake()
        self._news.set()
        if self._ringer is not None:
            self._ringer.cancel()
            await asyncio.gather(self._ringer, return_exceptions=True)
        if self._listening is not None:
            self._listening.drop()

    def _wake(self) -> None:
        if not self._waiting:
            self._missed = True
        for rung in self._waiting:
            if not rung.done():
                rung.set_result(None)

    async def _ring(self) -> None:
        while self._pending or self._topics:
            topics, self._topics = [*self._topics, *([""] if self._pending else [])], []
            self._pending = False
            try:
                for topic in topics:
                    await self._pool.row(Q["ring"], self._channel, f"{self._name} {topic}".strip())
            except StoreUnavailable:
                return  # the others look for themselves
            await asyncio.sleep(GATHER)

    async def _next_due(self) -> float | None:
        """Seconds until a job that waits becomes due. Also the proof that we can still hear."""
        async with self._asking:
            session = self._listening
            if session is None or session.connection.is_closed():
                session = self._listening = await self._listen()
            try:
                async with asyncio.timeout(ANSWER):
                    return await session.connection.fetchval(Q["next_due"])
            except Exception as error:
                session.drop()
                raise StoreUnavailable(f"listening broke: {describe(error)}") from error

    async def _listen(self) -> Session:
        session = await self._pool.connect()
        try:
            async with asyncio.timeout(ANSWER):
                await session.connection.add_listener(self._channel, self._heard)
        except BaseException:
            session.drop()
            raise
        return session

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        name, _, topic = payload.partition(" ")
        if name == self._name:
            return  # our own ring has woken us already
        if topic == AGREEMENTS:
            self._news.set()
        else:
            self._wake()
