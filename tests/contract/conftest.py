import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.store.memory import MemoryStore
from tests.unit.store.servers import KINDS, Database, Servers


@pytest.fixture(scope="session")
def servers():
    made = Servers()
    yield made
    made.stop()


class MemoryNodes:
    """The memory store as the suite sees it: every node is the same object."""

    def __init__(self) -> None:
        self._store = MemoryStore(SystemClock())

    async def store(self):
        return self._store

    async def census(self):
        s = self._store
        counts = {
            "message": len(s._messages), "job": len(s._jobs), "chunk": len(s._chunks), "event": len(s._events),
            "idempotency": len(s._keys), "audit": len(s._links), "duplicate_seen": s.duplicates_seen,
            "pull_request": len(s._pull_requests),
            "part": sum(len(m.parts) for m in s._messages.values()),
            "attempt": sum(len(m.attempts) for m in s._messages.values()),
        }
        return {name: count for name, count in counts.items() if count}

    async def tamper(self, number, **change):
        index = number - 1
        if change:
            self._store._links[index] = self._store._links[index]._replace(**change)
        else:
            del self._store._links[index]

    async def quiet(self, seconds, *, watched, expired=False):
        """So many seconds pass in which no process beats; `watched`: somebody looked all the time."""
        from datetime import timedelta

        s, shift = self._store, timedelta(seconds=seconds)
        s._processes = {id: (beat, began, seen - shift) for id, (beat, began, seen) in s._processes.items()}
        if s._watched:
            s._watched = (s._watched[0] if watched else s._watched[0] - shift, s._watched[1] - shift)
        if expired:
            s._revisions = {
                n: msgspec.structs.replace(r, expires_at=r.expires_at - timedelta(days=1)) for n, r in s._revisions.items()
            }

    async def told_ahead(self, days):
        """What was told of certificates was told so many days later than it was."""
        from datetime import timedelta

        self._store._told = {key: at + timedelta(days=days) for key, at in self._store._told.items()}

    async def drop(self):
        await self._store.close()


class PostgresNodes(Database):
    async def told_ahead(self, days):
        await self.sql.execute("UPDATE expiry_told SET told_at = told_at + make_interval(days => $1)", days)

    async def tamper(self, number, **change):
        """Change a column of an audit row, or delete the row."""
        for column, value in change.items():
            await self.sql.execute(f"UPDATE audit SET {column} = $2 WHERE number = $1", number, value)
        if not change:
            await self.sql.execute("DELETE FROM audit WHERE number = $1", number)

    async def quiet(self, seconds, *, watched, expired=False):
        await self.sql.execute("UPDATE process SET seen_at = seen_at - make_interval(secs => $1)", seconds)
        await self.sql.execute("UPDATE agreement_watch SET watched_since = watched_since - make_interval(secs => $1)", seconds)
        if not watched:
            await self.sql.execute("UPDATE agreement_watch SET watched_at = watched_at - make_interval(secs => $1)", seconds)
        if expired:
            await self.sql.execute("UPDATE agreement_revision SET expires_at = expires_at - interval '1 day'")


@pytest.fixture(params=["memory", *KINDS])
async def nodes(request, servers):
    """What several processes of a gateway share. `await nodes.store()` is one of them."""
    made = MemoryNodes() if request.param == "memory" else await PostgresNodes.make(servers.dsn(request.param))
    yield made
    await made.drop()


@pytest.fixture
async def store(nodes):
    return await nodes.store()


@pytest.fixture
async def other(nodes):
    """A second process, or node, on the same data."""
    return await nodes.store()
