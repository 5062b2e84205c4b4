"""What a broken commit means. The standby here is a ghost: commits wait for one that does not exist."""

import asyncio
import os

import asyncpg
import pytest

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.api import AuditEntry, Client, MessageFilter, Viewer
from gateway.store.postgres import PostgresStore, pool
from gateway.store.postgres.hosts import hosts
from gateway.store.postgres.pool import Pool
from tests.contract.test_store_contract import again, attempt, inbound, outbound, part
from tests.unit.store.servers import Database, Servers


@pytest.fixture(scope="module")
def lonely():
    """A server of its own: what is done to it would disturb others."""
    made = Servers()
    yield made
    made.stop()


@pytest.fixture
async def alone(lonely):
    made = await Database.make(lonely.dsn("wheel"))
    await made.sql.execute("SET synchronous_commit = local")
    yield made
    await set_standby(made, "")
    await made.drop()


async def set_standby(database, name):
    await database.sql.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await database.sql.execute("SELECT pg_reload_conf()")
    while await database.sql.fetchval("SHOW synchronous_standby_names") != name:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # the other sessions hear of it as well


async def waiting(database, count=1):
    """Process ids of the sessions whose commit waits for the standby."""
    for _ in range(300):
        rows = await database.sql.fetch("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        if len(rows) >= count:
            return [row["pid"] for row in rows]
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def warm(store):
    """Connections made before the standby goes away, as in life."""
    await asyncio.gather(*(store.health() for _ in range(3)))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_wait_that_was_cut_short_is_no_success(alone, how, large):
    """R09, finding 2: to the driver the commit looks like any other."""
    store = await alone.store()
    await warm(store)
    await set_standby(alone, "ghost")
    new = inbound(parts=(part(0, inline=None, chunks=1),) if large else (part(),))

    async def receive():
        if not large:
            return await store.receive_once(new)
        async with store.receiving(new.id) as receiving:
            await receiving.chunk(0, 0, b"x")
            return await receiving.accept(new)

    task = asyncio.create_task(receive())
    [pid] = await waiting(alone)
    assert await alone.sql.fetchval(f"SELECT {how}($1)", pid)
    with pytest.raises(OutcomeUnknown):
        await task
    # The row is here, on this server alone. A duplicate must not get its receipt yet.
    assert await alone.sql.fetchval("SELECT count(*) FROM message") == 1
    duplicate = asyncio.create_task(store.receive_once(again(new, parts=(part(),))))
    [pid] = await waiting(alone)
    assert await alone.sql.fetchval("SELECT pg_cancel_backend($1)", pid)
    with pytest.raises(OutcomeUnknown):
        await duplicate
    # Once a standby confirms, it may.
    await set_standby(alone, "")
    received = await store.receive_once(again(new, parts=(part(),)))
    assert (received.outcome, received.receipt) == ("duplicate", new.receipt)


async def test_every_verb_that_commits_knows_of_the_warning(alone):
    store = await alone.store()
    await store.submit_once(outbound())
    await store.receive_once(inbound())
    await warm(store)
    for verb in (
        lambda: store.submit_once(outbound()),
        lambda: store.claim("deliver", worker="w", limit=1, lease=9),
        lambda: attempt(store),
        lambda: store.audit(AuditEntry(kind="k", actor="a", subject="s")),
        lambda: store.add_client(Client(id="c", name="n", backend="b")),
        lambda: store.health(),
    ):
        await set_standby(alone, "ghost")
        task = asyncio.create_task(verb())
        pids = await waiting(alone)
        for pid in pids:
            await alone.sql.execute("SELECT pg_cancel_backend($1)", pid)
        with pytest.raises(OutcomeUnknown):
            await task
        await set_standby(alone, "")
        await alone.sql.execute("UPDATE job SET due_at = now()")


async def test_our_deadline_ends_a_wait_and_does_not_cut_the_servers_short(alone):
    """Findings 3 and 4."""
    store = await alone.store()
    store._pool._deadline = 0.4
    await warm(store)
    await set_standby(alone, "ghost")
    new = inbound()
    with pytest.raises(OutcomeUnknown):
        await store.receive_once(new)
    assert len(await waiting(alone)) == 1  # the server still waits: no cancel was sent
    assert await alone.sql.fetchval("SELECT count(*) FROM message") == 0
    await set_standby(alone, "")
    assert (await store.receive_once(again(new))).outcome == "duplicate"


async def test_a_cancelled_task_leaves_the_server_waiting(alone):
    store = await alone.store()
    await warm(store)
    await set_standby(alone, "ghost")
    new = inbound()
    task = asyncio.create_task(store.receive_once(new))
    await waiting(alone)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    assert len(await waiting(alone)) == 1
    await set_standby(alone, "")
    assert (await store.receive_once(again(new))).receipt == new.receipt


async def test_after_a_commit_that_was_given_up_nothing_is_written_until_none_is_stuck(alone):
    """R08: they would wait in the server one beside the other, until it has no connection left."""
    store = await alone.store()
    store._pool._deadline = 0.3
    await warm(store)
    await set_standby(alone, "ghost")
    with pytest.raises(OutcomeUnknown):
        await store.receive_once(inbound())
    await asyncio.sleep(1.1)  # from now on it counts as stuck
    refused = await asyncio.gather(*(store.receive_once(inbound()) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(e, StoreUnavailable) and not isinstance(e, OutcomeUnknown) for e in refused)
    assert len(await waiting(alone)) == 1
    assert await store.messages(MessageFilter(), viewer=Viewer("rest")) == []  # who only looks goes on looking
    await set_standby(alone, "")
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await store.receive_once(inbound())).outcome == "stored"
                break
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_a_standby_that_is_required_has_to_have_been_asked(alone):
    for demand, stands in (("any", True), ("preferred", True), ("required", False)):
        store = await alone.store(synchronous=demand)
        for verb in (store.receive_once(inbound()), store.submit_once(outbound())):
            [outcome] = await asyncio.gather(verb, return_exceptions=True)
            assert isinstance(outcome, OutcomeUnknown) is not stands, (demand, outcome)


async def test_a_reader_cancelled_again_while_it_rolls_back_gives_its_connection_back(alone):
    store = await alone.store()
    size = store._pool._free._value
    for _ in range(2 * size):
        looking, rolling = asyncio.Event(), asyncio.Event()

        async def look(looking=looking, rolling=rolling):
            async with store._pool.viewing("rest", "{}") as transaction:
                rollback = transaction.rollback

                async def slowly():
                    rolling.set()
                    await asyncio.sleep(0.05)
                    await rollback()

                transaction.rollback = slowly
                looking.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(look())
        await looking.wait()
        task.cancel()
        await rolling.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await store.messages(MessageFilter(), viewer=Viewer("rest")) == []
    assert store._pool._free._value == size


async def test_a_connection_that_breaks_in_a_commit_leaves_it_unknown(alone):
    store = await alone.store()
    await warm(store)
    await alone.sql.execute("BEGIN")
    await alone.sql.execute("LOCK TABLE message")
    task = asyncio.create_task(store.receive_once(inbound()))
    await asyncio.sleep(0.2)
    await alone.sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with pytest.raises(OutcomeUnknown):
        await task
    await alone.sql.execute("ROLLBACK")
    assert (await store.receive_once(inbound())).outcome == "stored"


async def test_a_connection_that_breaks_before_the_commit_wrote_nothing(alone):
    store = await alone.store()
    new = inbound(parts=(part(0, inline=None, chunks=1),))
    with pytest.raises(StoreUnavailable) as error:
        async with store.receiving(new.id) as receiving:
            await receiving.chunk(0, 0, b"x")
            await alone.sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")
            await receiving.chunk(0, 1, b"y")
    assert not isinstance(error.value, OutcomeUnknown)
    assert await alone.census() == {}


async def test_connections_that_died_while_idle_are_not_used(alone):
    store = await alone.store()
    await warm(store)
    await alone.sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'gateway'")
    await asyncio.sleep(0.1)
    assert (await store.receive_once(inbound())).outcome == "stored"


async def test_a_lock_is_not_waited_for_forever(alone):
    store = await alone.store()
    await alone.sql.execute("BEGIN")
    await alone.sql.execute("LOCK TABLE message")
    with pytest.raises(StoreUnavailable) as error:
        await store.receive_once(inbound())
    assert not isinstance(error.value, OutcomeUnknown)  # the server said that it did not do it
    await alone.sql.execute("ROLLBACK")


# -- settings ---------------------------------------------------------------------


@pytest.mark.parametrize("weak", ["off", "local", "remote_write"])
async def test_a_role_that_commits_without_durability_is_refused(newest, weak):
    await newest.sql.execute(f"ALTER ROLE gateway IN DATABASE gateway SET synchronous_commit = {weak}")
    try:
        with pytest.raises(StoreUnavailable, match=f"synchronous_commit is {weak}"):
            await newest.store()
    finally:
        await newest.sql.execute("ALTER ROLE gateway IN DATABASE gateway RESET synchronous_commit")
    await newest.store()


async def test_durability_cannot_be_weakened_under_our_feet(newest):
    store = await newest.store()
    await newest.sql.execute("ALTER SYSTEM SET synchronous_commit = off")
    await newest.sql.execute("SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(0.2)
        assert (await store.health()).synchronous_commit == "on"
    finally:
        await newest.sql.execute("ALTER SYSTEM RESET synchronous_commit")
        await newest.sql.execute("SELECT pg_reload_conf()")


async def test_a_session_that_was_swapped_under_us_is_noticed(newest):
    """A transaction pooler, for one: the statement that stores a message says how it was committed."""
    store = await newest.store(pool_size=1)
    await store._pool.row("SET synchronous_commit = off")
    for verb in (store.receive_once(inbound()), store.submit_once(outbound())):
        with pytest.raises(OutcomeUnknown):
            await verb


async def test_a_server_that_takes_no_writes_is_refused(newest):
    await newest.sql.execute("ALTER ROLE gateway IN DATABASE gateway SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreUnavailable, match="no server takes writes"):
            await newest.store()
    finally:
        await newest.sql.execute("SET default_transaction_read_only = off")
        await newest.sql.execute("ALTER ROLE gateway IN DATABASE gateway RESET default_transaction_read_only")


async def test_session_settings(database):
    store = await database.store()
    for name, value in (("lock_timeout", "2s"), ("application_name", "gateway"), ("jit", "off"),
                        ("idle_in_transaction_session_timeout", "1min"), ("search_path", database.schema)):
        assert (await store._pool.row(f"SHOW {name}"))[0] == value
    if store._pool._idle[0].facts.version >= "14":
        assert (await store._pool.row("SHOW client_connection_check_interval"))[0] == "1s"


async def test_one_round_trip_for_a_small_message(newest):
    store = await newest.store(pool_size=1)
    await store.receive_once(inbound())
    seen = []
    store._pool._idle[0].connection.add_query_logger(lambda record: seen.append(record.query))
    await store.receive_once(inbound())
    await store.submit_once(outbound())
    await asyncio.sleep(0.05)
    assert [q.splitlines()[0] for q in seen if "ring" not in q.splitlines()[0]] == ["-- receive", "-- submit"]


# -- the pool ---------------------------------------------------------------------


async def test_connections_are_bounded_and_waited_for(newest, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    store = await newest.store(pool_size=2)
    async with store._pool.transaction(), store._pool.transaction():
        with pytest.raises(StoreUnavailable, match="no database connection became free"):
            await store.clients()
    assert await store.clients() == []


async def test_large_transfers_leave_connections_to_the_others(newest, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    store = await newest.store(pool_size=4)
    async with store.receiving(inbound().id), store.submitting(outbound().id):
        with pytest.raises(StoreUnavailable, match="too many large transfers"):
            async with store.receiving(inbound().id):
                pass
        assert (await store.receive_once(inbound())).outcome == "stored"


async def test_many_at_once_share_few_connections(newest):
    store = await newest.store(pool_size=3)
    received = await asyncio.gather(*(store.receive_once(inbound()) for _ in range(40)))
    assert {r.outcome for r in received} == {"stored"}
    assert await newest.sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gateway'") <= 3


async def test_a_database_that_is_away_fails_fast_and_comes_back(servers, monkeypatch):
    """R14: nobody queues up behind a dead host, and one caller at a time looks whether it is back."""
    connections = 0
    real = asyncpg.connect

    async def connect(*args, **options):
        nonlocal connections
        connections += 1
        if away:
            await asyncio.sleep(0.3)
            raise TimeoutError
        return await real(*args, **options)

    monkeypatch.setattr(asyncpg, "connect", connect)
    away = True
    made = Pool(servers.dsn("wheel"), size=4)
    with pytest.raises(StoreUnavailable):
        await made.facts()
    loop = asyncio.get_running_loop()
    begun, connections = loop.time(), 0
    refused = await asyncio.gather(*(made.facts() for _ in range(50)), return_exceptions=True)
    assert all(isinstance(error, StoreUnavailable) for error in refused)
    assert loop.time() - begun < 1 and connections <= 1
    away = False
    await asyncio.sleep(0.35)
    assert (await made.facts()).encoding == "UTF8"
    await made.close()


async def test_a_value_that_cannot_be_stored_is_an_error_and_no_more(newest):
    store = await newest.store(pool_size=1)
    for new in (inbound("a\0b"), inbound("\ud800"), inbound(pmode_revision=1 << 70), inbound(os.urandom(4500).hex())):
        with pytest.raises(StoreUnavailable) as error:
            await store.receive_once(new)
        assert not isinstance(error.value, OutcomeUnknown)
    assert await newest.census() == {}
    assert (await store.receive_once(inbound())).outcome == "stored"


async def test_errors_do_not_quote_rows(newest):
    """M04: DETAIL has the values."""
    store = await newest.store()
    secret = Client(id="canary-id", name="canary", backend="b")
    await store.add_client(secret)
    with pytest.raises(StoreUnavailable) as error:
        await store.add_client(secret)
    assert "canary" not in str(error.value) and "client_pkey" in str(error.value)


async def test_a_closed_store_says_so(newest):
    store = await PostgresStore.open(newest.dsn, schema=newest.schema)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.clients()


# -- hosts ------------------------------------------------------------------------


@pytest.mark.parametrize(("dsn", "expected"), [
    ("postgresql://u:p@h/db", [{}]),
    ("postgresql:///db?host=/run/x", [{}]),
    ("postgresql://u:p@h1,h2/db", [{"host": "h1", "port": 5432}, {"host": "h2", "port": 5432}]),
    ("postgresql://u:p@h1:1,h2:2/db?sslmode=require", [{"host": "h1", "port": 1}, {"host": "h2", "port": 2}]),
    ("postgresql://u@[::1]:1,[fe80::2]/db", [{"host": "::1", "port": 1}, {"host": "fe80::2", "port": 5432}]),
    ("postgresql:///db?host=/a,/b&port=7", [{"host": "/a", "port": 7}, {"host": "/b", "port": 7}]),
    ("postgresql:///db?host=a,b&port=7,8", [{"host": "a", "port": 7}, {"host": "b", "port": 8}]),
])  # fmt: skip
def test_hosts_of_a_dsn(dsn, expected):
    assert hosts(dsn) == expected


async def test_a_dead_first_host_is_passed_over(servers):
    dsn = servers.dsn("wheel")
    head, _, place = dsn.partition("?host=")
    made = Pool(f"{head}?host={os.path.dirname(place)}/nowhere,{place}", size=1)
    assert (await made.facts()).encoding == "UTF8"
    await made.close()
    made = Pool(f"{head}?host=/nowhere,/neither", size=1)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await made.facts()
