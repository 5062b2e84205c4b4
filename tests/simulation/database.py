"""The memory store as a node sees a database: far away, sometimes gone, and sometimes silent about a commit.

What PostgreSQL can do to us happens here: a statement that finds no connection (`StoreUnavailable`, nothing
done), a commit whose answer is lost (`OutcomeUnknown`, done or not), and time that passes on the way there and back.
"""

import inspect
from contextlib import asynccontextmanager
from typing import Any

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.memory import MemoryStore
from tests.simulation.faults import Faults, Life

#: Waiting, and what only looks: no commit whose fate could be unknown.
WAITS = {"wait_for_work", "wait_for_agreements"}
LOOKS = {
    "message", "find", "messages", "asked", "attempts", "sent_envelope", "conversations", "events", "event_numbers",
    "told", "upload", "clients", "client_by", "credentials", "webhooks", "webhook", "backlog", "health", "delivery",
    "undelivered", "audit_entries", "verify_audit", "active_agreements", "revision", "revisions", "revision_of",
    "acknowledgements", "processes", "in_flight", "notices", "notice", "census", "legal_holds", "receipts",
}  # fmt: skip
STREAMS = {"chunks", "upload_chunks"}
TRANSACTIONS = {"receiving", "submitting"}


class Database:
    """`gateway.store.api.Store` for one incarnation of a node."""

    def __init__(self, store: MemoryStore, life: Life, faults: Faults, sleep) -> None:
        self._store, self._life, self._faults, self._sleep = store, life, faults, sleep

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name in STREAMS:
            return lambda *given, **named: self._stream(verb, given, named)
        if name in TRANSACTIONS:
            return lambda *given, **named: self._transaction(name, verb, given, named)
        if not inspect.iscoroutinefunction(verb):
            return verb

        async def call(*given: Any, **named: Any) -> Any:
            return await self._call(name, verb, given, named)

        return call

    async def close(self) -> None:
        """The data stays."""

    async def _way(self) -> None:
        await self._life.alive()
        await self._sleep(self._faults.random.uniform(0.0, 0.004))
        await self._life.alive()

    async def _call(self, name: str, verb: Any, given: tuple, named: dict) -> Any:
        await self._way()
        if name in WAITS:
            await verb(*given, **named)
            await self._way()
            return None
        if self._faults.is_away("database") or self._faults.strikes(self._faults.refuse_commit):
            raise StoreUnavailable("no connection")
        commits = name not in LOOKS
        unknown = commits and self._faults.strikes(self._faults.unknown_commit)
        if unknown and self._faults.random.random() < 0.5:
            self._faults.note(f"{self._life.name}: {name} was never committed, and nobody knows")
            raise OutcomeUnknown("the connection broke during a commit")
        result = await verb(*given, **named)
        await self._way()
        if unknown:
            self._faults.note(f"{self._life.name}: {name} was committed, and nobody knows")
            raise OutcomeUnknown("the connection broke during a commit")
        return result

    async def _stream(self, verb: Any, given: tuple, named: dict) -> Any:
        await self._way()
        if self._faults.is_away("database"):
            raise StoreUnavailable("no connection")
        async for piece in verb(*given, **named):
            await self._way()
            yield piece

    @asynccontextmanager
    async def _transaction(self, name: str, verb: Any, given: tuple, named: dict) -> Any:
        await self._way()
        async with verb(*given, **named) as open_:
            yield _Transaction(self, name, open_)


class _Transaction:
    """Chunks go one by one, the commit is the last call."""

    def __init__(self, database: Database, name: str, open_: Any) -> None:
        self._database, self._name, self._open = database, name, open_

    async def chunk(self, *given: Any) -> None:
        await self._database._way()
        if self._database._faults.is_away("database"):
            raise StoreUnavailable("the connection broke")
        await self._open.chunk(*given)

    async def accept(self, message: Any) -> Any:
        return await self._database._call(self._name, self._open.accept, (message,), {})
