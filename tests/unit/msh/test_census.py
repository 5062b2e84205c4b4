"""Numbers that are looked at, and numbers of attempts, as /metrics shows them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.msh import census
from gateway.store.keeping import Census, Inbox, Queue
from tests.world import replace, world


@pytest.fixture(autouse=True)
def fresh():
    metrics.configure(None, "memory")
    yield
    metrics.configure(None, "memory")


@pytest.fixture
async def lv(tmp_path):
    (tmp_path / "data").mkdir()
    async with world(tmp_path, change=lambda c: replace(c, data=replace(c.data, folder=tmp_path / "data"))) as found:
        yield found


def value(name, **labels):
    _, text = metrics.exposition()
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def queue(kind, state, jobs, *, later=0, oldest=10.0, overdue=None):
    return Queue(kind=kind, state=state, jobs=jobs, later=later, oldest=oldest, overdue=overdue)


def test_what_waits_becomes_numbers():
    found = Census(
        now=datetime.now(UTC), standby=False,
        queues=(queue("send", "READY", 5, later=3, oldest=100.0, overdue=7.0), queue("send", "PARKED", 2, oldest=9e6),
                queue("send", "ATTEMPT_OPEN", 1, oldest=200.0), queue("deliver", "HELD", 4), queue("notify", "READY", 1, overdue=0.5)),
        inboxes=(Inbox(backend="rest", waiting=6, oldest=33.0),),
    )  # fmt: skip
    census.tell(found)
    assert value("gateway_queue_depth", queue="send", state="READY") == 5
    assert value("gateway_queue_oldest_seconds", queue="send") == 200  # what was given up does not grow old
    assert value("gateway_queue_overdue_seconds", queue="send") == 7
    assert value("gateway_messages_in_flight", direction="outbound", state="due") == 2
    assert value("gateway_messages_in_flight", direction="outbound", state="later") == 3
    assert value("gateway_messages_in_flight", direction="outbound", state="active") == 1
    assert value("gateway_messages_in_flight", direction="inbound", state="held") == 4
    assert value("gateway_inbox_unclaimed", backend="rest") == 6
    census.tell(Census(now=found.now, standby=False, queues=(), inboxes=()))
    for name, labels in (("gateway_queue_depth", {"queue": "send", "state": "READY"}), ("gateway_queue_oldest_seconds", {"queue": "send"}),
                         ("gateway_inbox_oldest_seconds", {"backend": "rest"}), ("gateway_messages_in_flight", {"direction": "inbound", "state": "held"})):
        assert value(name, **labels) == 0, name


async def test_a_look_at_a_store_that_is_there_and_one_that_is_not(lv):
    rooms = lv.gateway._rooms
    await census.look(rooms)
    assert value("gateway_db_up") == 1 and value("gateway_db_role", role="primary") == 1
    assert 0 < value("gateway_disk_free_ratio", place="data") <= 1
    assert value("gateway_clock_skew_seconds") < 0.5

    async def away():
        raise StoreUnavailable("gone")

    rooms.store.census = away
    await census.look(rooms)
    assert value("gateway_db_up") == 0 and value("gateway_db_role", role="primary") == 0


async def test_a_clock_that_is_off_is_told(lv):
    rooms = lv.gateway._rooms
    real = rooms.store.census

    async def early():
        found = await real()
        return Census(now=found.now - timedelta(seconds=90), standby=False, queues=found.queues, inboxes=())

    rooms.store.census = early
    await census.look(rooms)
    assert 89 < value("gateway_clock_skew_seconds") < 91


async def test_the_audit_is_looked_at(lv):
    rooms = lv.gateway._rooms
    loop = asyncio.create_task(census.keep_count(rooms))
    for _ in range(100):
        if value("gateway_audit_broken", check="whole") is not None:
            break
        await asyncio.sleep(0.02)
    loop.cancel()
    assert value("gateway_audit_broken", check="whole") == 0

    async def broken():
        return 3

    rooms.store.verify_audit = broken
    assert await census.check_audit(rooms) is False
    assert value("gateway_events_total", event="audit.broken") == 1


async def test_partners_that_answer_and_that_do_not(lv):
    submitted = await lv.submit()
    lv.listener.answer = lambda *_: None  # hangs up
    await lv.send_due()
    assert value("gateway_party_rtt_seconds", party="AP_EE_01") is None
    assert value("gateway_errors_total", code="EBMS:0005", stage="receipt", who="network") == 1
    lv.listener.answer = lambda *_: (200, "text/html", b"<html>nobody home</html>")
    await lv.submit()
    await lv.send_due()
    lv.listener.answer = lv.receipting
    good = await lv.submit()
    await lv.send_due()
    assert (await lv.view(good)).state == "ACKNOWLEDGED" and (await lv.view(submitted)).state == "WAITING_FOR_RETRY"
    assert value("gateway_party_up", party="AP_EE_01") == 1
    assert 0 < value("gateway_party_rtt_seconds", party="AP_EE_01") < 5
    assert value("gateway_party_last_success_timestamp_seconds", party="AP_EE_01") > 1.7e9


async def test_a_partner_that_does_not_answer_time_and_again_is_down(lv):
    lv.listener.answer = lambda *_: None  # hangs up
    for _ in range(5):
        assert value("gateway_party_up", party="AP_EE_01") is None
        await lv.submit()
        await lv.send_due()
        await census.look(lv.gateway._rooms)
    assert value("gateway_party_up", party="AP_EE_01") == 0


async def test_who_is_at_fault(lv):
    spoilt = lv.peer.message([("application/xml", b"<a/>")], digest=lambda *_: bytes(32))
    await lv.give(spoilt)
    assert value("gateway_errors_total", code="EBMS:0101", stage="verify", who="partner") == 1
    real = lv.store.receive_once

    async def away(message):
        raise StoreUnavailable("gone")

    lv.store.receive_once = away
    assert (await lv.give(lv.peer.message([("application/xml", b"<a/>")]))).status == 503
    assert value("gateway_errors_total", code="EBMS:0004", stage="store", who="us") == 1
    assert value("gateway_events_total", event="store.unavailable") == 1
    lv.store.receive_once = real
