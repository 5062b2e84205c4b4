"""A commit that the standby may not have is no receipt: against a real primary with a real synchronous standby.

The short form does everything once; `make failover` repeats R09 a thousand times.
"""

import asyncio
import os
import random
import signal
import time

import pytest

from gateway.errors import ClaimLost, OutcomeUnknown, StoreUnavailable
from gateway.store.pair import Presence
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.migrate import migrate
from tests.contract.test_store_contract import again, inbound, outbound
from tests.failover.standby import Cluster
from tests.failover.table import record

ROUNDS = 1000 if os.environ.get("GATEWAY_FAILOVER") == "full" else 12

pytestmark = [pytest.mark.failover, pytest.mark.timeout(3000)]


@pytest.fixture
def cluster(folder):
    made = Cluster(folder / "db")
    asyncio.run(migrate(made.dsn))
    yield made
    made.stop()


async def open_store(cluster, **more):
    return await PostgresStore.open(cluster.dsn, **more)


def waiting(cluster) -> list[int]:
    """Sessions whose commit waits for the standby."""
    return cluster.primary.sql(
        "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


async def seen_waiting(cluster, count=1):
    for _ in range(400):
        if len(pids := await asyncio.to_thread(waiting, cluster)) >= count:
            return pids
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits for the standby")


async def when_found(verb):
    """What `verb` says as soon as the new primary is found."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await verb()
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_what_the_store_says_of_its_server(cluster):
    store = await open_store(cluster, synchronous="required")
    try:
        from uuid import uuid4

        turn = await store.report(Presence(node="a", instance=uuid4()))
        assert turn.durability == "on" and turn.holds
        server = await store.server()
        assert server.awaited == "beta" and server.timeline == 1
        [standby] = server.standbys
        assert (standby.name, standby.state, standby.sync) == ("beta", "streaming", "sync") and standby.lag is not None
        assert (await store.receive_once(inbound())).outcome == "stored"
        # Nobody is asked to confirm any more: kept, and no receipt where one is required.
        cluster_demand = asyncio.to_thread(cluster.demand, "")
        await cluster_demand
        new = inbound()
        with pytest.raises(OutcomeUnknown, match="no standby"):
            await store.receive_once(new)
        with pytest.raises(OutcomeUnknown, match="no standby"):  # nor for the same one again
            await store.receive_once(again(new))
        await asyncio.to_thread(cluster.demand, "beta")
        assert (await store.receive_once(again(new))).outcome == "duplicate"
    finally:
        await store.close()


async def test_a_receipt_is_never_sent_for_what_a_failover_loses(cluster):
    """R09: the wait is cut short in every way there is, then the primary dies. `make failover`: 1,000 times."""
    chance = random.Random(seed := int(os.environ.get("GATEWAY_SEED", time.time_ns() % 10**9)))
    print(f"GATEWAY_SEED={seed}")
    receipted, unknown = [], []
    store = await open_store(cluster, pool_size=10)
    try:
        for _ in range(10):
            new = inbound()
            await store.receive_once(new)
            receipted.append(new)
        await asyncio.gather(*(store.health() for _ in range(6)))
        await asyncio.to_thread(cluster.standby.kill)  # it will never hear of what comes now
        for number in range(ROUNDS):
            new = inbound()
            how = chance.choice(["cancel", "terminate", "task", "deadline"])
            store._pool._deadline = 0.3 if how == "deadline" else 30.0
            before = set(await asyncio.to_thread(waiting, cluster))
            store._pool._doubt = False  # every one of them is to get as far as the commit
            task = asyncio.create_task(store.receive_once(new))
            while not (found := set(await asyncio.to_thread(waiting, cluster)) - before):
                assert not task.done() or how == "deadline", task
                if task.done():
                    break
            if how in ("cancel", "terminate"):
                for pid in found:
                    await asyncio.to_thread(cluster.primary.sql, f"SELECT pg_{how}_backend($1)", pid)
            elif how == "task":
                task.cancel()
            [outcome] = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(outcome, OutcomeUnknown | asyncio.CancelledError), (number, how, outcome)
            unknown.append(new)
            # The row is visible here, on one server; a duplicate gets no receipt either.
            if how == "cancel":
                store._pool._deadline, store._pool._doubt = 0.3, False
                with pytest.raises(OutcomeUnknown):
                    await store.receive_once(again(new))
            for pid in await asyncio.to_thread(waiting, cluster):  # make room in the server for the next
                await asyncio.to_thread(cluster.primary.sql, "SELECT pg_terminate_backend($1)", pid)
        await asyncio.to_thread(cluster.primary.kill, signal.SIGKILL)
        await asyncio.to_thread(cluster.standby.start)
        await asyncio.to_thread(cluster.fail_over)
        store._pool._deadline = 5.0
        await when_found(lambda: store.receive_once(again(receipted[0])))
        found = [(await store.receive_once(again(new))).outcome for new in receipted]
        lost = [(await store.receive_once(again(new))).outcome for new in unknown]
        record("R09", "commit cut short while it waits for the standby, then failover", times=len(unknown),
               messages=len(receipted) + len(unknown), lost=len(receipted) - found.count("duplicate"), seed=seed)  # fmt: skip
        assert found == ["duplicate"] * len(receipted)  # whatever had a receipt is there
        print(f"{len(unknown)} commits were cut short, {lost.count('stored')} of them were lost with the primary, "
              f"0 had a receipt; 95 % bound {3 / len(unknown):.2g}")
        assert lost.count("stored") >= len(lost) / 2  # or the test proves nothing
        assert (await store.server()).timeline == 2
    finally:
        await store.close()


async def test_a_claim_waits_for_nobody_and_an_attempt_is_not_begun_without_the_standby(cluster):
    """What leaves must not be forgotten; what was only claimed may be: it is claimed again."""
    store = await open_store(cluster, pool_size=4)
    try:
        new = outbound()
        await store.submit_once(new)
        await asyncio.to_thread(cluster.standby.kill)
        began = time.monotonic()
        [job] = await store.claim("send", worker="a", limit=4, lease=60)
        assert time.monotonic() - began < 1
        store._pool._deadline = 0.5
        with pytest.raises(OutcomeUnknown):
            await store.begin_attempt(job, node="a", references=())
        await asyncio.to_thread(cluster.primary.kill, signal.SIGKILL)
        await asyncio.to_thread(cluster.standby.start)
        await asyncio.to_thread(cluster.fail_over)
        store._pool._deadline = 5.0
        back = await when_found(lambda: store.claim("send", worker="b", limit=4, lease=60))
        assert [(found.message, found.attempt) for found in back] == [(new.id, 1)]
        with pytest.raises(ClaimLost):
            await store.begin_attempt(job, node="a", references=())
        assert await store.begin_attempt(back[0], node="b", references=()) == 1
    finally:
        await store.close()


async def test_a_primary_that_was_replaced_and_does_not_know_it_is_left(cluster):
    """R10: nobody has stopped it, it takes writes, and it is the first that the DSN names."""
    store = await open_store(cluster, pool_size=4)
    try:
        store._pool._deadline = 0.5
        assert (await store.receive_once(inbound())).outcome == "stored"
        await asyncio.to_thread(cluster.standby.promote)
        new, began = inbound(), time.monotonic()
        with pytest.raises(OutcomeUnknown):  # its standby has gone to be a primary
            await store.receive_once(new)
        found = await when_found(lambda: store.receive_once(again(new)))
        print(f"the new primary was found after {time.monotonic() - began:.1f} s")
        assert found.outcome == "stored" and (await store.server()).timeline == 2
        assert (await asyncio.gather(*(store.receive_once(inbound()) for _ in range(8))))[0].outcome == "stored"
        # Who comes anew is not deceived for long, either.
        other = await open_store(cluster, pool_size=2)
        other._pool._deadline = 0.5
        try:
            with pytest.raises(OutcomeUnknown):
                await other.receive_once(inbound())
            assert (await when_found(lambda: other.receive_once(again(new)))).outcome == "duplicate"
        finally:
            await other.close()
    finally:
        await store.close()


async def test_a_standby_that_is_away_piles_nothing_up_in_the_server(cluster):
    """R08, strict: commits hang. They are given up by us and go on waiting in the server, so there must be few."""
    store = await open_store(cluster, pool_size=4)
    try:
        store._pool._deadline = 0.5
        await asyncio.gather(*(store.health() for _ in range(4)))
        await asyncio.to_thread(cluster.standby.kill)
        refused, slow, end = 0, 0, time.monotonic() + 5

        async def hammer():
            nonlocal refused, slow
            while time.monotonic() < end:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await store.receive_once(inbound())
                refused += 1
                slow += time.monotonic() - began > 0.4
                await asyncio.sleep(0.02)

        await asyncio.gather(*(hammer() for _ in range(8)))
        stuck = await asyncio.to_thread(waiting, cluster)
        print(f"{refused} writes refused, {slow} of them after a wait, {len(stuck)} sessions stuck in the server")
        # Four connections, ten deadlines: without care there were forty.
        assert len(stuck) <= 20 and refused > 200
        await asyncio.to_thread(cluster.standby.start)
        began = time.monotonic()
        while True:
            try:
                await store.receive_once(inbound())
                break
            except StoreUnavailable:
                assert time.monotonic() - began < 20
                await asyncio.sleep(0.05)
        print(f"writing again {time.monotonic() - began:.1f} s after the standby was back")
    finally:
        await store.close()
