"""The second wall: what a client's transaction sees when the statement itself asks for everything."""

import asyncpg
import pytest

from gateway.errors import StoreUnavailable
from gateway.scope import Scope
from gateway.store.api import MessageFilter, Viewer
from gateway.store.postgres import PostgresStore, rows
from gateway.store.postgres.migrate import migrate
from tests.contract.test_store_contract import inbound, outbound, part, unit
from tests.unit.store.servers import KINDS, Servers

EVERYTHING = {
    "message": "SELECT id FROM message",
    "part": "SELECT message AS id FROM part",
    "chunk": "SELECT message AS id FROM chunk",
    "attempt": "SELECT message AS id FROM attempt",
    "event": "SELECT message AS id FROM event",
    "job": "SELECT message AS id FROM job",
}


@pytest.fixture
async def store(database):
    return await database.store()


@pytest.fixture
async def stored(store):
    mine = outbound(backend="rest", user_message=unit(action="Ask"), parts=(part(inline=None, chunks=1),))
    same_backend = inbound(backend="rest", user_message=unit(action="Answer"))
    others = inbound(backend="portal", user_message=unit(action="Ask"))
    async with store.submitting(mine.id) as submitting:
        await submitting.chunk(0, 0, b"chunk")
        await submitting.accept(mine)
    [job] = await store.claim("send", worker="w", limit=1, lease=60)
    await store.begin_attempt(job, node="n", references=())
    for message in (same_backend, others):
        await store.receive_once(message)
    return mine, same_backend, others


@pytest.mark.parametrize("table", EVERYTHING)
async def test_a_statement_without_any_condition_still_sees_only_what_is_in_scope(store, stored, table):
    mine, same_backend, others = stored
    for viewer, seen in (
        (Viewer("rest", Scope(actions=("Ask",))), {mine.id}),
        (Viewer("rest"), {mine.id, same_backend.id}),
        (Viewer("portal"), {others.id}),
        (Viewer("nobody"), set()),
    ):
        async with store._pool.viewing(viewer.backend, rows.text(viewer.scope)) as look:
            found = {row["id"] for row in await look.rows(EVERYTHING[table])}
        assert found <= seen
        assert table in ("chunk", "attempt") or found == seen
    # The role ends with the transaction: the gateway's own work sees all.
    assert len(await store._pool.rows("SELECT id FROM message")) == 3


@pytest.mark.parametrize("statement", [
    "UPDATE message SET backend = 'nobody' RETURNING id", "DELETE FROM part RETURNING message", "SELECT * FROM client",
    "SELECT * FROM credential", "SELECT * FROM webhook", "SELECT * FROM audit", "SELECT * FROM idempotency",
])  # fmt: skip
async def test_nothing_else_is_open_to_it(store, stored, statement):
    with pytest.raises(StoreUnavailable, match="InsufficientPrivilege"):
        async with store._pool.viewing("rest", "{}") as look:
            await look.rows(statement)


async def test_without_backend_and_scope_nothing_is_seen(store, stored):
    async with store._pool.transaction() as transaction:
        await transaction.row("SELECT set_config('role', 'gateway_backend', true)")
        assert await transaction.rows("SELECT id FROM message") == []


async def test_raising_it_again_changes_nothing(store):
    assert (await store._pool.write("SELECT raise_wall() AS up"))["up"] is True


@pytest.fixture(params=KINDS)
async def limited(request):
    """Makes database users that are no superusers, each with a database of its own, on a server that has no wall yet."""
    made = Servers()
    sql = await asyncpg.connect(made.dsn(request.param))
    place = made.dsn(request.param).partition("host=")[2]

    async def user(name: str, right: str) -> str:
        await sql.execute(f"CREATE ROLE {name} LOGIN {right} PASSWORD 'pw'")
        await sql.execute(f"CREATE DATABASE {name} OWNER {name}")
        dsn = f"postgresql://{name}:pw@/{name}?host={place}"
        await migrate(dsn)
        return dsn

    user.sql = sql
    yield user
    await sql.close()
    made.stop()


async def look(dsn: str) -> tuple[str, list]:
    """As whom a client's read is done, and what it finds."""
    store = await PostgresStore.open(dsn)
    try:
        async with store._pool.viewing("rest", "{}") as looking:
            seen_as = (await looking.row("SELECT current_user"))["current_user"]
        return seen_as, await store.messages(MessageFilter(), viewer=Viewer("rest"))
    finally:
        await store.close()


async def test_who_may_create_roles_raises_it_alone_and_may_take_the_role(limited):
    """PostgreSQL 16 gives the creator of a role a membership without the right to take it."""
    assert await look(await limited("creating", "CREATEROLE")) == ("gateway_backend", [])


async def test_who_may_not_reads_without_it_until_the_administrator_helps(limited):
    dsn = await limited("plain", "NOCREATEROLE")
    assert await look(dsn) == ("plain", [])
    await limited.sql.execute("CREATE ROLE gateway_backend NOLOGIN")
    assert await look(dsn) == ("plain", [])
    await limited.sql.execute("GRANT gateway_backend TO plain")
    assert await look(dsn) == ("plain", [])  # the wall is not raised yet: reading goes on
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "gateway"})
    assert await owner.fetchval("SELECT raise_wall()") is True
    await owner.close()
    assert await look(dsn) == ("gateway_backend", [])


async def test_a_role_of_somebody_else_on_the_server_stops_nobody(limited):
    await limited("first", "CREATEROLE")
    assert await look(await limited("second", "CREATEROLE")) in (("second", []), ("gateway_backend", []))
