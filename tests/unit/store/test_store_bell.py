import asyncio

import pytest

from gateway.errors import StoreUnavailable
from tests.contract.test_store_contract import inbound


async def listeners(database):
    return [r["pid"] for r in await database.sql.fetch(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '-- next_due%' AND pid <> pg_backend_pid()")]  # fmt: skip


async def test_a_ring_between_two_waits_is_not_lost(newest):
    store = await newest.store()
    await store.wait_for_work(0.01)
    await store.receive_once(inbound())
    await asyncio.wait_for(store.wait_for_work(10), 2)


async def test_a_dead_listening_connection_is_noticed_and_replaced(newest):
    store = await newest.store()
    await store.wait_for_work(0.01)
    [pid] = await listeners(newest)
    await newest.sql.execute("SELECT pg_terminate_backend($1)", pid)
    for _ in range(2):
        try:
            await store.wait_for_work(0.01)
            break
        except StoreUnavailable:
            continue
    [other] = await listeners(newest)
    assert other != pid


async def test_many_rings_become_few(newest):
    store, other = await newest.store(), await newest.store()
    await other.wait_for_work(0.01)
    heard = 0
    real = other._bell._heard

    def count(*args):
        nonlocal heard
        heard += 1
        real(*args)

    await other._bell._listening.connection.add_listener(other._bell._channel, count)
    begun = asyncio.get_running_loop().time()
    for _ in range(50):
        await store.receive_once(inbound())
    took = asyncio.get_running_loop().time() - begun
    await asyncio.sleep(0.1)
    assert 1 <= heard <= took / 0.01 + 2


async def test_several_may_wait_at_once(newest):
    store, other = await newest.store(), await newest.store()
    waits = [asyncio.create_task(s.wait_for_work(10)) for s in (store, store, other, other)]
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in waits)
    await store.receive_once(inbound())
    await asyncio.wait_for(asyncio.gather(*waits), 2)
    assert len(await listeners(newest)) == 2


async def test_no_transaction_notifies(newest):
    """NOTIFY in a transaction makes all such commits wait for one another."""
    text = "SELECT prosrc FROM pg_proc WHERE pronamespace = $1::regnamespace"
    for row in await newest.sql.fetch(text, newest.schema):
        assert "notify(" not in row["prosrc"].lower() and "NOTIFY " not in row["prosrc"]


async def test_closing_ends_a_wait(newest):
    store = await newest.store()
    task = asyncio.create_task(store.wait_for_work(30))
    await asyncio.sleep(0.1)
    await store.close()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 2)
    with pytest.raises(StoreUnavailable):
        await store.clients()
