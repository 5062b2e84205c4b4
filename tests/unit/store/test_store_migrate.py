import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import ConfigError, StoreUnavailable
from gateway.store.api import Client
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.migrate import Migration, known, migrate
from tests.unit.store.servers import Database

module = sys.modules["gateway.store.postgres.migrate"]


@pytest.fixture
async def empty(servers):
    made = await Database.make(servers.dsn("wheel"), fresh=True)
    yield made
    await made.drop()


def test_files_are_in_order_and_none_is_overlooked():
    found = known()
    assert [m.number for m in found] == sorted(m.number for m in found) and len(found) >= 4
    folder = Path(module.__file__).parent / "migrations"
    assert len(found) == len(list(folder.iterdir()))


async def test_once_and_never_again(empty):
    assert await migrate(empty.dsn, schema=empty.schema) == [m.title for m in known()]
    assert await migrate(empty.dsn, schema=empty.schema) == []
    rows = await empty.sql.fetch("SELECT number, phase, name FROM migration ORDER BY number")
    assert [r["number"] for r in rows] == [m.number for m in known()]
    assert (await (await empty.store()).health()).migrations_pending == 0


async def test_health_counts_what_is_missing(empty):
    store = await empty.store()
    assert (await store.health()).migrations_pending == len(known())
    with pytest.raises(StoreUnavailable):
        await store.clients()


async def test_several_nodes_at_once(empty):
    applied = await asyncio.gather(*(migrate(empty.dsn, schema=empty.schema) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(known())]


async def test_a_file_that_changed_is_refused(empty, monkeypatch):
    await migrate(empty.dsn, schema=empty.schema)
    await empty.sql.execute("UPDATE migration SET checksum = '\\x00' WHERE number = 2")
    with pytest.raises(ConfigError, match="0002_pre_job was changed"):
        await migrate(empty.dsn, schema=empty.schema)


async def test_a_newer_release_beside_us_is_fine(empty):
    """The pair is upgraded one node at a time: our release runs on the next one's schema."""
    await migrate(empty.dsn, schema=empty.schema)
    await empty.sql.execute("INSERT INTO migration VALUES (9999, 'pre', 'future', '\\x00')")
    assert await migrate(empty.dsn, schema=empty.schema) == []
    store = await empty.store()
    await store.add_client(Client(id="c", name="n", backend="b"))
    await empty.sql.execute("ALTER TABLE client ADD COLUMN future text; ALTER TABLE client ALTER COLUMN name TYPE varchar")
    assert [c.id for c in await store.clients()] == ["c"]


async def test_a_failed_file_leaves_nothing_and_names_the_error(empty, monkeypatch):
    bad = Migration(5000, "pre", "bad", "CREATE TABLE half (id int); SELECT 1/0;")
    monkeypatch.setattr(module, "known", lambda: [bad])
    with pytest.raises(StoreUnavailable, match="DivisionByZero"):
        await migrate(empty.dsn, schema=empty.schema)
    assert await empty.sql.fetchval("SELECT to_regclass('half')") is None
    assert await empty.sql.fetchval("SELECT count(*) FROM migration") == 0


async def test_a_lock_is_not_waited_for_long(empty, monkeypatch):
    """R27: DDL never queues up in front of live traffic; it gives up and tries again."""
    await migrate(empty.dsn, schema=empty.schema)
    later = Migration(5000, "pre", "later", "ALTER TABLE client ADD COLUMN later text")
    real = known()
    monkeypatch.setattr(module, "known", lambda: [*real, later])
    reader = empty.sql.transaction()
    await reader.start()
    await empty.sql.execute("SELECT count(*) FROM client")
    task = asyncio.create_task(migrate(empty.dsn, schema=empty.schema))
    await asyncio.sleep(1.6)
    assert not task.done()
    await reader.rollback()
    assert await asyncio.wait_for(task, 10) == ["5000_pre_later"]


async def test_killed_between_two_files(empty):
    """MT03."""
    program = f"import asyncio; from gateway.store.postgres.migrate import migrate; asyncio.run(migrate({empty.dsn!r}, schema={empty.schema!r}))"
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, "GATEWAY_CRASH": "MT03:2"}, cwd=Path(__file__).parents[3])
    assert died.returncode == -9
    assert await empty.sql.fetchval("SELECT count(*) FROM migration") == 2
    assert await migrate(empty.dsn, schema=empty.schema) == [m.title for m in known()[2:]]


async def test_a_role_with_no_other_rights_than_to_its_database(empty, servers):
    """An operator's DSN: no superuser, no extension, a database of its own."""
    await empty.sql.execute("DROP DATABASE IF EXISTS plain")
    await empty.sql.execute("DROP ROLE IF EXISTS plain")
    await empty.sql.execute("CREATE ROLE plain LOGIN PASSWORD 'pw'")
    await empty.sql.execute("CREATE DATABASE plain OWNER plain")
    place = empty.dsn.partition("host=")[2]
    dsn = f"postgresql://plain:pw@/plain?host={place}"
    try:
        assert len(await migrate(dsn)) == len(known())
        store = await PostgresStore.open(dsn)
        assert (await store.health()).writable
        await store.wait_for_work(0.01)
        await store.close()
    finally:
        await empty.sql.execute("DROP DATABASE plain WITH (FORCE)")
        await empty.sql.execute("DROP ROLE plain")
