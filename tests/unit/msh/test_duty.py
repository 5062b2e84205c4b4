"""The lease as one process sees it. The clock is the test's."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec

from gateway.errors import StoreUnavailable
from gateway.msh.duty import LINGER, Duty
from gateway.store.memory import MemoryStore
from gateway.store.pair import BEAT, LEASE, TRUSTED
from tests.world import world


class Hands:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.passed, self.ahead = 1000.0, 0.0

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.passed + self.ahead)

    def monotonic(self):
        return self.passed

    async def sleep(self, seconds):
        self.passed += seconds


def node(store, clock, name="a", **more):
    return Duty(store, clock, node=name, instance=uuid4(), **more)


async def two(**more):
    clock = Hands()
    store = MemoryStore(clock)
    first, second = node(store, clock, **more), node(store, clock, "b", **more)
    await first.beat()
    await second.beat()
    return clock, store, first, second


async def test_one_works_and_the_other_says_who_does():
    _, _, first, second = await two()
    assert first.working and first.leads and first.role == "active" and first.on.is_set()
    assert not second.working and second.role == "passive" and not second.on.is_set()
    assert second.why_not() == "passive: a is active" and second.trouble() is None


async def test_a_process_that_stood_still_believes_nothing_of_before():
    clock, _, first, second = await two()
    clock.passed += TRUSTED + 0.1
    assert not first.working and not first.leads and not first.fresh  # before anybody told it
    clock.passed += LEASE - TRUSTED
    await second.beat()
    assert second.working
    await first.beat()
    assert not first.working and first.why_not() == "passive: b is active"


async def test_who_works_on_both_sides_works_without_the_lease():
    clock, _, first, second = await two(roles="active/active")
    assert first.working and second.working and second.role == "active"
    assert first.leads and not second.leads  # what one is enough for
    clock.passed += TRUSTED + 0.1
    assert not second.working


async def test_a_database_that_is_away_ends_it_within_two_seconds():
    clock, store, first, _ = await two()

    async def report(_):
        raise StoreUnavailable("the database cannot be reached")

    store.report = report
    await first.beat()
    assert first.working  # one that failed is not the end
    clock.passed += TRUSTED
    await first.beat()
    assert not first.working and "the database cannot be reached" in first.why_not()


async def test_a_report_that_hangs_has_failed(monkeypatch):
    from gateway.msh import duty

    monkeypatch.setattr(duty, "PATIENCE", 0.05)
    clock, store, first, _ = await two()

    async def report(_):
        await asyncio.Event().wait()

    store.report = report
    clock.passed += TRUSTED
    await first.beat()
    assert not first.working and "no durable commit" in first.why_not()


async def test_stepping_down_lets_another_take_over_at_once():
    _, _, first, second = await two()
    await first.step_down()
    assert not first.working and not first.on.is_set()
    await second.beat()
    assert second.working
    await first.beat()  # it still reports, and takes nothing
    assert not first.working


async def test_an_unfit_node_makes_room_for_a_fit_one():
    clock, _, first, second = await two()

    async def fit():
        return "keys: no key"

    first.watch(fit)
    await first.beat()
    clock.passed += LEASE + 0.1
    await second.beat()
    assert second.working
    await first.beat()
    assert not first.working


async def test_a_server_of_the_past_is_not_believed():
    """A primary that was replaced and does not know: its lease is an old one."""
    clock, store, first, _ = await two()
    real = store.report

    async def report(presence):
        turn = await real(presence)
        return msgspec.structs.replace(turn, lease=msgspec.structs.replace(turn.lease, timeline=timeline))

    store.report, timeline = report, 3
    await first.beat()
    assert first.working
    timeline = 2
    clock.passed += TRUSTED
    await first.beat()
    assert not first.working and "went back from timeline 3 to 2" in first.why_not()


async def test_a_standby_that_is_required_or_only_preferred():
    _, _, first, _ = await two(demand="required")
    assert not first.working and "no synchronous standby" in first.why_not()
    _, _, first, _ = await two(demand="preferred")
    assert first.working and "no synchronous standby" in first.weakness()
    _, _, first, _ = await two()
    assert first.working and first.weakness() is None


async def test_a_name_that_is_taken_is_said():
    clock, store, _, _ = await two()
    twin = node(store, clock)
    await twin.beat()
    assert "another living node is called a" in twin.trouble() and not twin.working


async def test_a_clock_that_is_off():
    clock, _, first, _ = await two()
    assert first.clock_wrong() is None
    real = first._store.report

    async def report(presence):
        return msgspec.structs.replace(await real(presence), at=clock.now() - timedelta(minutes=5))

    first._store.report = report
    await first.beat()
    assert first.clock_wrong() == "+300 s off the database's clock"
    # Certificates and deadlines would be judged by it for good: nothing is done until the clocks agree.
    assert not first.working and "off the database's clock" in first.why_not()


async def test_a_clock_that_jumps_between_two_reports_is_noticed_at_once():
    clock, _, first, _ = await two()
    assert first.working
    real = clock.now
    clock.now = lambda: real() + timedelta(days=3650)
    assert not first.working and first.clock_wrong() == "+315360000 s off the database's clock"
    clock.now = real
    assert first.working and first.clock_wrong() is None


async def test_a_gateway_with_a_database_of_its_own_never_notices(tmp_path):
    async with world(tmp_path / "lv") as lv:
        assert lv.gateway.duty.alone and lv.gateway.duty.working and lv.gateway.duty.leads
        ready, checks = await lv.gateway.ready()
        assert ready and {"store", "keys", "agreements", "spool", "clock"} <= {name for name, *_ in checks}
        assert "role" not in {name for name, *_ in checks}
        assert (await lv.gateway.role())[0] == "active"


async def test_a_full_disk_and_a_missing_key_are_told(tmp_path, monkeypatch):
    import os
    import threading
    from types import SimpleNamespace

    from gateway.keys.keyring import Keyring

    async with world(tmp_path / "lv") as lv:
        real = os.statvfs
        disk = SimpleNamespace(f_bavail=10, f_frsize=1 << 20, f_blocks=1000, f_files=1000, f_favail=1000)
        monkeypatch.setattr(os, "statvfs", lambda _: disk)
        ready, checks = await lv.gateway.ready()
        assert not ready and ("spool", False, "only 10 MiB are free on its disk") in checks
        monkeypatch.setattr(os, "statvfs", real)
        lv.gateway.health.forget()
        assert (await lv.gateway.ready())[0] and await lv.gateway.health.fit() is None
        answers = threading.Event()
        monkeypatch.setattr("gateway.msh.health.PATIENCE", 0.2)
        monkeypatch.setattr(os, "statvfs", lambda path: answers.wait(20) and real(path))
        assert await lv.gateway.health.fit() == "spool: its disk does not answer within 0.2 s"
        answers.set()
        monkeypatch.setattr("gateway.msh.health.PATIENCE", 1.5)
        assert await lv.gateway.health.fit() is None
        lv.gateway._rooms.keyring.value = Keyring({}, {})
        assert "keys" in await lv.gateway.health.fit()


async def test_a_passive_process_claims_nothing_until_it_is_active(tmp_path):
    async with world(tmp_path / "lv") as lv:
        duty = node(lv.store, lv.gateway._rooms.clock)
        await lv.store.report(msgspec.structs.replace(_presence(), node="other"))
        await duty.beat()
        lv.gateway._workers._duty = duty
        lv.gateway._workers.start()
        submitted = await lv.submit()
        await asyncio.sleep(0.2)
        assert lv.listener.received == [] and (await lv.view(submitted)).state == "SUBMITTED"
        await lv.store.set_drained("other", True, actor="op")
        await duty.beat()
        async with asyncio.timeout(20):
            while (await lv.view(submitted)).state != "ACKNOWLEDGED":
                await asyncio.sleep(0.01)
        await lv.gateway._workers.drain(5)


def _presence():
    from gateway.store.pair import Presence

    return Presence(node="x", instance=uuid4())


async def test_what_comes_while_no_commit_is_durable_is_turned_away_at_the_door(tmp_path):
    async with world(tmp_path / "lv") as lv:
        lv.gateway._tasks = [asyncio.create_task(asyncio.sleep(60))]  # it was started
        sent = lv.peer.message([("application/xml", b"<x/>")])
        lv.gateway.duty._instance = uuid4()  # of a pair that has not reported
        status, headers, _ = await lv.raw(sent.content_type, sent.body)
        assert status == 503 and headers["retry-after"] == "5"
        await lv.gateway.duty.beat()
        assert (await lv.give(sent)).status == 200


async def test_who_gives_way_in_order_is_ready_until_the_other_one_is_seen():
    """Else the load balancer has nobody to send to for a second: `ha switchover` was noticed."""
    clock, store, first, second = await two()
    await store.hand_over("b", holder="a", actor="test")
    await first.beat()
    assert not first.working and not first.on.is_set() and first.why_unready() is None
    clock.passed += BEAT
    await second.beat()
    await first.beat()
    assert second.working and second.why_unready() is None and first.why_unready() is None
    clock.passed += LINGER - BEAT
    await first.beat()
    assert first.why_unready() == first.why_not() == "passive: b is active"


async def test_a_drained_node_is_ready_until_the_other_one_is_seen():
    clock, store, first, _ = await two()
    await store.set_drained("a", True, actor="test")
    await first.beat()
    assert not first.working and first.why_unready() is None
    clock.passed += LINGER
    await first.beat()
    assert first.why_unready().startswith("drained")


async def test_who_failed_is_not_ready_a_moment_longer():
    clock, store, first, second = await two()
    clock.passed += LEASE + 0.1
    await second.beat()
    await first.beat()  # it stood still, and the other one has taken over
    assert not first.working and first.why_unready() == "passive: b is active"
    # And who gave way, but cannot make a durable commit, is not ready either.
    clock, store, first, second = await two()
    await store.hand_over("b", holder="a", actor="test")
    await first.beat()
    clock.passed += TRUSTED
    assert first.why_unready() is not None


async def test_both_active_nobody_waits_for_the_other():
    clock, _, first, _ = await two(roles="active/active")
    before = clock.passed
    await first.step_down()
    assert clock.passed == before and first.why_unready() == "it leaves"


async def test_a_stop_returns_when_the_other_one_was_seen():
    clock, _, first, _ = await two()
    before = clock.passed
    await first.step_down()
    assert clock.passed == before + LINGER and first.why_unready() == "it leaves"
