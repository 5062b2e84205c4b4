"""Connections to PostgreSQL, and what their errors mean.

The one question that matters here: when a statement that commits does not come back
cleanly, is the row durable? Three answers exist, and nothing is guessed:

- it came back: durable on every server that `synchronous_commit` waits for;
- `StoreUnavailable`: nothing was written;
- `OutcomeUnknown`: the commit was sent and its fate is not known. So it is when the
  connection breaks, when our deadline passes (the server's own timeouts do not fire while
  a commit waits for a standby), and when the server *warns* that it gave up that wait: to
  the driver such a commit looks like any other [reliability 0, findings 2-4]. The
  connection is dropped, and no receipt may be sent.

A commit that waits for a standby goes on waiting in the server when we have given it up, and keeps
its connection. So that these do not pile up until there is none left, after one such nothing is
written until a look at the server shows that no session of ours waits any more. Or until another server
is found that has taken over: a primary that was replaced and does not know it goes on, and nobody confirms its commits.

asyncpg's own pool is not used: it sends a reset after every use, a second round trip, and
drops the listener for that warning. A connection here serves one statement or one
transaction at a time and is dropped whenever its state is in doubt.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.postgres.hosts import hosts
from gateway.store.postgres.sql import load
from gateway.store.postgres.verdict import Abandoned, describe, ends_connection, verdict

Q = load("session")

#: What a receipt may stand on.
DURABLE = ("on", "remote_apply")
CONNECT_TIMEOUT = 2.0
#: Longest wait for a statement or commit. A peer gives up later than this, so it hears 503 in time.
DEADLINE = 5.0
#: Longest wait for a free connection.
PATIENCE = 3.0
#: While the database is down one caller at a time tries to connect, this often; the others are
#: told at once and do not queue up behind a dead host.
PROBE_EVERY = 0.3
#: What connecting to one host may raise.
UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
#: A session that waits for a standby for longer than this is stuck; one look for such a second.
STUCK, LOOK_EVERY = 1.0, 1.0
#: Session settings, each for a server that is lost without a word [reliability 5.4]. The idle
#: limit is for producers that stall in the middle of an upload.
SETTINGS = {
    "tcp_user_timeout": "5000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "1000",
    "idle_in_transaction_session_timeout": "60000",
    "lock_timeout": "2000",
    "statement_timeout": "60000",
}
#: The WARNING of a commit that stopped waiting for its standby bears one of these. Its text is
#: in the server's language, so the code decides; other warnings have codes of their own.
UNSURE = ("01000", "57P01")


class Facts(NamedTuple):
    """What a server said of itself when the connection was made."""

    version: str
    in_recovery: bool
    read_only: bool
    encoding: str
    synchronous_commit: str
    #: Commits of this session wait for no standby.
    is_alone: bool
    #: One more after every promotion; None: it takes no writes.
    timeline: int | None


class Session:
    """One connection. `unsure` is set when the server warned about the last commit."""

    __slots__ = ("connection", "facts", "unsure")

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.unsure = False
        connection.add_log_listener(self._warned)

    def _warned(self, _: object, message: Any) -> None:
        # asyncpg calls this before it wakes whoever waits for the statement: both go through
        # the loop's queue, in the order in which the server spoke.
        if (message.severity_en or message.severity) == "WARNING" and message.sqlstate in UNSURE:
            self.unsure = True

    def drop(self) -> None:
        """End the connection without a word. No cancel request is sent: it would end a standby's wait early."""
        self.connection.terminate()


class Pool:
    """At most `size` connections to the server that takes writes."""

    def __init__(self, dsn: str, *, size: int = 8, schema: str = "gateway", application: str = "gateway",
                 deadline: float = DEADLINE, synchronous: str = "any") -> None:  # fmt: skip
        self._dsn, self._schema, self._application = dsn, schema, application
        self._deadline = deadline
        self._hosts = hosts(dsn)
        self._idle: list[Session] = []
        self._free = asyncio.Semaphore(size)
        # Transactions that live as long as a transfer may not take the last connections:
        # small messages and workers go on beside them.
        self._streams = asyncio.Semaphore(max(1, size // 2))
        self._down = self._probing = False
        self._probe_at = 0.0
        #: A commit was given up while it waited. Until when nobody looks again.
        self._doubt, self._doubt_until = False, 0.0
        #: `required`: what one server alone keeps is no success.
        self.synchronous = synchronous
        self._closed = False
        self._loop = asyncio.get_running_loop()

    # -- single statements, each its own commit -----------------------------------

    async def rows(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Read. Raises `StoreUnavailable`."""
        session = await self._take()
        return await self._finish(session, session.connection.fetch(query, *args), writing=False)

    async def row(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Read one row."""
        session = await self._take()
        return await self._finish(session, session.connection.fetchrow(query, *args), writing=False)

    async def planned(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Read with a plan made for these very values: for filters most of which are NULL."""
        session = await self._take()

        async def run() -> list[asyncpg.Record]:
            return await (await session.connection.prepare(query)).fetch(*args)

        return await self._finish(session, run(), writing=False)

    async def write(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run a statement and commit it; its first row. Raises `StoreUnavailable`, `OutcomeUnknown`, `Abandoned`."""
        session = await self._take(writing=True)
        return await self._finish(session, session.connection.fetchrow(query, *args), writing=True)

    async def writes(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """The same, with all rows."""
        session = await self._take(writing=True)
        return await self._finish(session, session.connection.fetch(query, *args), writing=True)

    # -- transactions ---------------------------------------------------------------

    @asynccontextmanager
    async def transaction(
        self, *, streaming: bool = False, deadline: float | None = None, writing: bool = True
    ) -> AsyncIterator["Transaction"]:
        """An open transaction; rolled back on leaving unless `commit` was called.

        `streaming` is for those that take a transfer's time. `deadline` is for each statement. One that is not
        `writing` needs no standby.
        """
        if streaming:
            await _acquire(self._streams, "too many large transfers at once")
        try:
            session = await self._take(writing=writing)
            transaction = Transaction(session, deadline or self._deadline, self._doubted)
            try:
                await transaction._control("BEGIN")
                yield transaction
            finally:
                try:
                    await transaction._end()
                finally:
                    self._give_back(session)  # also when our task is cancelled a second time, in the ROLLBACK
        finally:
            if streaming:
                self._streams.release()

    @asynccontextmanager
    async def viewing(self, backend: str, scope: str) -> AsyncIterator["Transaction"]:
        """A transaction that sees only what a client of `backend` with `scope` (JSON) may see. Nothing
        is written in it."""
        async with self.transaction(writing=False) as transaction:
            await transaction.row(Q["look_as"], backend, scope)
            yield transaction

    # -- connections ------------------------------------------------------------------

    async def facts(self) -> Facts:
        """What the server says of itself, asked anew."""
        row = await self.row(Q["facts"])
        return Facts(**row)

    async def connect(self) -> Session:
        """A connection outside the pool; the caller drops it. Raises `StoreUnavailable`."""
        refusal: Exception | None = None
        for host in self._hosts:
            try:
                return await self._connect(host)
            except UNREACHABLE as error:
                refusal = error
        raise StoreUnavailable(f"the database cannot be reached: {describe(refusal)}") from refusal

    async def _connect(self, host: dict[str, Any]) -> Session:
        # One host at a time, each with its own limit: asyncpg's covers all together, and a
        # dead first host would use it up.
        connection = await asyncpg.connect(
            self._dsn,
            **host,
            timeout=CONNECT_TIMEOUT,
            target_session_attrs="read-write",
            statement_cache_size=256,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={"application_name": self._application, "search_path": self._schema, "jit": "off"},
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.fetch(Q["settle"], list(SETTINGS), list(SETTINGS.values()))
                facts = Facts(**await connection.fetchrow(Q["facts"]))
            if facts.synchronous_commit not in DURABLE:
                raise StoreUnavailable(
                    f"synchronous_commit is {facts.synchronous_commit} for this role or database: set it to on, "
                    "for a receipt promises that the message is kept"
                )
            if facts.encoding != "UTF8":
                raise StoreUnavailable(f"the database's encoding is {facts.encoding}: create it with UTF8")
        except BaseException:
            connection.terminate()
            raise
        session = Session(connection)
        session.facts = facts
        return session

    async def _take(self, *, writing: bool = False) -> Session:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if writing and self._doubt:
            await self._reassure()
        await _acquire(self._free, "no database connection became free")
        try:
            while self._idle:
                session = self._idle.pop()
                if not session.connection.is_closed():
                    return session
            return await self._probe() if self._down else await self._first()
        except BaseException:
            self._free.release()
            raise

    def _doubted(self) -> None:
        self._doubt = True

    async def _reassure(self) -> None:
        """Writing goes on when no commit of ours is stuck. Raises `StoreUnavailable`."""
        if self._loop.time() < self._doubt_until:
            raise StoreUnavailable("commits wait for a standby that does not answer")
        self._doubt_until = self._loop.time() + LOOK_EVERY
        row = await self.row(Q["stuck"], STUCK)
        if row["sessions"] and not await self._follow():
            raise StoreUnavailable(f"{row['sessions']} commits wait for a standby that does not answer")
        self._doubt, self._doubt_until = False, 0.0

    async def _follow(self) -> bool:
        """Go over to the server with the highest timeline. False: it is the one we have."""
        timelines = await asyncio.gather(*map(self._timeline_of, self._hosts))
        newest = max(timelines)
        if newest <= max((session.facts.timeline or 0 for session in self._idle), default=0):
            return False
        first = timelines.index(newest)
        self._hosts.insert(0, self._hosts.pop(first))
        sessions, self._idle = self._idle, []
        for session in sessions:
            session.drop()
        return True

    async def _timeline_of(self, host: dict[str, Any]) -> int:
        """0: it takes no writes, or does not answer."""
        try:
            session = await self._connect(host)
        except (*UNREACHABLE, StoreUnavailable):
            return 0
        session.drop()
        return session.facts.timeline or 0

    async def _first(self) -> Session:
        try:
            return await self.connect()
        except StoreUnavailable:
            self._down, self._probe_at = True, self._loop.time() + PROBE_EVERY
            raise

    async def _probe(self) -> Session:
        if self._probing or self._loop.time() < self._probe_at:
            raise StoreUnavailable("the database could not be reached a moment ago")
        self._probing = True
        try:
            session = await self._first()
            self._down = False
            return session
        finally:
            self._probing = False

    def _give_back(self, session: Session) -> None:
        if self._closed:
            session.drop()
        elif not session.connection.is_closed():
            self._idle.append(session)
        self._free.release()

    async def _finish(self, session: Session, statement: Any, *, writing: bool) -> Any:
        """Await one statement under the deadline, judge how it ended, give the connection back."""
        watch = self._loop.call_later(self._deadline, session.drop)
        try:
            result = await statement
        except Exception as error:
            if ends_connection(error):
                session.drop()
                self._doubt = self._doubt or writing
            raise verdict(error, writing=writing) from error
        except BaseException:
            # Our task is cancelled. What the server makes of the statement stays open.
            session.drop()
            self._doubt = self._doubt or writing
            raise
        else:
            if session.unsure and writing:
                session.drop()
                raise OutcomeUnknown("the server stopped waiting for its standby")
            session.unsure = False
            return result
        finally:
            watch.cancel()
            self._give_back(session)

    async def close(self) -> None:
        """Close what is idle; what is in use ends when it is given back."""
        self._closed = True
        sessions, self._idle = self._idle, []
        for session in sessions:
            try:
                async with asyncio.timeout(1):
                    await session.connection.close()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                session.drop()


class Transaction:
    """A transaction on a connection of its own."""

    def __init__(self, session: Session, deadline: float, doubted: Callable[[], None]) -> None:
        self._session, self._deadline, self._doubted = session, deadline, doubted
        self._open = False

    async def row(self, query: str, *args: Any) -> asyncpg.Record | None:
        return await self._run(self._session.connection.fetchrow(query, *args))

    async def rows(self, query: str, *args: Any) -> list[asyncpg.Record]:
        return await self._run(self._session.connection.fetch(query, *args))

    async def planned(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Read with a plan made for these very values."""
        statement = await self._run(self._session.connection.prepare(query))
        return await self._run(statement.fetch(*args))

    async def commit(self) -> None:
        """Raises `OutcomeUnknown` when the fate of the commit is not known."""
        self._session.unsure = False
        self._open = False
        tag = await self._run(self._session.connection.execute("COMMIT"), writing=True)
        if self._session.unsure:
            self._session.drop()
            raise OutcomeUnknown("the server stopped waiting for its standby")
        if tag != "COMMIT":  # a transaction that failed before answers COMMIT with ROLLBACK
            raise StoreUnavailable("the transaction was rolled back")

    async def _control(self, command: str) -> None:
        await self._run(self._session.connection.execute(command))
        self._open = command == "BEGIN"

    async def rollback(self) -> None:
        await self._control("ROLLBACK")

    async def _run(self, statement: Any, *, writing: bool = False) -> Any:
        watch = asyncio.get_running_loop().call_later(self._deadline, self._session.drop)
        try:
            return await statement
        except Exception as error:
            if ends_connection(error):
                self._session.drop()
                if writing:
                    self._doubted()
            raise verdict(error, writing=writing) from error
        except BaseException:
            self._session.drop()
            if writing:
                self._doubted()
            raise
        finally:
            watch.cancel()

    async def _end(self) -> None:
        if not self._open or self._session.connection.is_closed():
            return
        try:
            await self.rollback()
        except StoreUnavailable:
            self._session.drop()  # the server rolls back on its own


async def _acquire(semaphore: asyncio.Semaphore, refusal: str) -> None:
    if not semaphore.locked():
        await semaphore.acquire()
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await semaphore.acquire()
    except TimeoutError:
        raise StoreUnavailable(refusal) from None


__all__ = ["DURABLE", "Abandoned", "Facts", "Pool", "Session", "Transaction", "describe"]
