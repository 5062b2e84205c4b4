"""Bring a schema up to date: numbered files, each in a transaction of its own, each once.

`NNNN_pre_NAME.sql` expands: the release before runs on the result, so that a pair can be
upgraded one node at a time. `NNNN_post_NAME.sql` contracts and is written one release
later. A file that was applied never changes; its checksum is kept and compared.

An advisory lock lets one node migrate at a time. DDL waits at most a moment for its locks
and then tries again, so that it never queues up in front of live traffic.
"""

import asyncio
import hashlib
import re
from importlib.resources import files
from typing import NamedTuple

import asyncpg

from gateway.errors import ConfigError, StoreUnavailable
from gateway.stages import point
from gateway.store.postgres.pool import Pool, describe
from gateway.store.postgres.sql import load

Q = load("migration")

_NAME = re.compile(r"^(\d{4})_(pre|post)_([a-z0-9_]+)\.sql$")
#: Somebody else migrates; a large index may take its time.
PATIENCE = 600.0
TRIES = 20


class Migration(NamedTuple):
    """One file. They are applied in this order: number, then pre before post."""

    number: int
    phase: str
    name: str
    text: str

    @property
    def title(self) -> str:
        return f"{self.number:04}_{self.phase}_{self.name}"

    @property
    def checksum(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


def known() -> list[Migration]:
    """The migrations of this release, in order."""
    found = []
    for entry in (files(__package__) / "migrations").iterdir():
        if match := _NAME.match(entry.name):
            found.append(Migration(int(match[1]), match[2], match[3], entry.read_text()))
    return sorted(found, key=lambda m: (m.number, m.phase == "post"))


async def pending(pool: Pool) -> list[Migration]:
    """What `migrate` would apply. Raises `StoreUnavailable`, `ConfigError`."""
    ledger = await pool.row(Q["ledger_exists"])
    applied = await pool.rows(Q["applied"]) if ledger["found"] else []
    return _missing(applied)


async def migrate(dsn: str, *, schema: str = "gateway") -> list[str]:
    """Apply what is missing; the names of what was applied. Safe to run from every process of every node.

    Raises `StoreUnavailable`, and `ConfigError` for a file that changed after it was applied.
    """
    pool = Pool(dsn, size=1, schema=schema, application="gateway migrate")
    try:
        return await _migrate(pool, schema) if await pending(pool) else []
    finally:
        await pool.close()


async def _migrate(pool: Pool, schema: str) -> list[str]:
    session = await pool.connect()
    connection = session.connection
    try:
        await _lock(connection, schema)
        if not await connection.fetchval(Q["schema_exists"], schema):
            await connection.execute(await connection.fetchval(Q["schema_statement"], schema))
        await connection.execute(Q["ledger"])
        missing = _missing(await connection.fetch(Q["applied"]))
        for migration in missing:
            await _apply(connection, migration)
            point("MT03")
        return [migration.title for migration in missing]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailable(f"the schema cannot be migrated: {describe(error)}") from error
    finally:
        session.drop()  # and with it the lock


async def _lock(connection: asyncpg.Connection, schema: str) -> None:
    for _ in range(int(PATIENCE / 0.05)):
        if await connection.fetchval(Q["lock"], schema):
            return
        await asyncio.sleep(0.05)
    raise StoreUnavailable("another node has been migrating for ten minutes")


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    for tries in range(TRIES):
        try:
            async with connection.transaction():
                await connection.fetch(Q["patience"])
                await connection.execute(migration.text)
                await connection.execute(
                    Q["note"], migration.number, migration.phase, migration.name, migration.checksum
                )
            return
        except asyncpg.LockNotAvailableError:
            if tries == TRIES - 1:
                raise
            await asyncio.sleep(0.2 * (tries + 1))


def _missing(applied: list[asyncpg.Record]) -> list[Migration]:
    """Those not applied yet. Applied ones we do not know are a newer release's, and it runs beside us."""
    done = {(row["number"], row["phase"]): row for row in applied}
    missing = []
    for migration in known():
        row = done.get((migration.number, migration.phase))
        if row is None:
            missing.append(migration)
        elif row["checksum"] != migration.checksum:
            raise ConfigError(
                f"migration {migration.title} was changed after it was applied",
                hint="install the release the database belongs to",
            )
    return missing
