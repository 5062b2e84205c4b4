"""Numbers, legal holds and forgetting, on every store."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.errors import NotFound
from gateway.store.keeping import proof
from gateway.store.states import OUTBOUND
from tests.contract.test_store_contract import DELIVERED, NOW, again, attempt, claim_one, inbound, submitted


async def received(store, **changes):
    new = inbound(**changes)
    await store.receive_once(new)
    return new


async def delivered(store):
    new = await received(store)
    job = await claim_one(store, "deliver")
    await store.finish_delivery(job.id, job.claim, DELIVERED)
    return new


async def test_the_census_counts_what_waits(store):
    await submitted(store)
    await submitted(store)
    await attempt(store, "WAITING_FOR_RETRY")
    await received(store)
    await asyncio.sleep(0.05)
    found = await store.census()
    queues = {(q.kind, q.state): q for q in found.queues}
    assert {key: (q.jobs, q.later) for key, q in queues.items()} == {
        ("send", "READY"): (2, 1), ("deliver", "READY"): (1, 0)}  # fmt: skip
    assert all(0.04 < q.oldest < 10 and 0.04 < q.overdue < 10 for q in queues.values())
    assert [(i.backend, i.waiting) for i in found.inboxes] == [("rest", 1)] and 0.04 < found.inboxes[0].oldest < 10
    assert abs((found.now - datetime.now(UTC)).total_seconds()) < 1 and not found.standby
    await claim_one(store, "deliver")
    found = await store.census()
    assert found.inboxes == () and {q.overdue for q in found.queues if q.kind == "deliver"} <= {0, None}


async def test_forgetting_leaves_nothing_but_a_proof(store, nodes):
    before = await nodes.census()
    old = await delivered(store)
    sent = await submitted(store, idempotency_key="k")
    await attempt(store)
    failed = await submitted(store)
    await attempt(store, "FAILED")
    await asyncio.sleep(0.01)
    assert await store.forget(settled_before=0) == 0  # payloads first
    assert await store.purge(**NOW) == 3
    await asyncio.sleep(0.01)
    assert await store.forget(settled_before=3600) == 0
    assert await store.forget(settled_before=0) == 3
    assert {name: n for name, n in (await nodes.census()).items() if name != "audit"} == before
    entries = [e for e in await store.audit_entries() if e.kind == "messages.forgotten"]
    assert sorted(p for e in entries for p in e.detail["proofs"]) == sorted(
        proof(m.user_message.message_id) for m in (old, sent, failed))  # fmt: skip
    assert all(m.user_message.message_id not in str(e.detail) for e in entries for m in (old, sent, failed))
    assert await store.verify_audit() is None
    # The id is unknown from now on.
    assert (await store.receive_once(again(old))).outcome == "stored"


async def test_what_is_under_way_is_never_forgotten(store):
    waiting, untaken, test = await submitted(store), await received(store), await received(store, backend=None)
    await asyncio.sleep(0.01)
    assert await store.purge(**NOW) == 1
    await asyncio.sleep(0.01)
    assert await store.forget(settled_before=0) == 1
    assert await store.message(test.id) is None
    assert {(await store.message(m.id)).state for m in (waiting, untaken)} == {"SUBMITTED", "RECEIVED"}


async def test_a_legal_hold_keeps_payload_and_message(store):
    kept, other = await delivered(store), await delivered(store)
    await asyncio.sleep(0.01)
    assert await store.hold_legally([kept.id], reason="case 7", actor="anna") == 1
    assert await store.hold_legally([kept.id], reason="again", actor="otto") == 0
    [hold] = await store.legal_holds()
    assert (hold.id, hold.message_id, hold.reason, hold.actor) == (kept.id, kept.user_message.message_id, "case 7", "anna")
    assert await store.purge(**NOW) == 1 and (await store.message(other.id)).wrapped_key is None
    assert (await store.message(kept.id)).wrapped_key is not None
    await asyncio.sleep(0.01)
    assert await store.forget(settled_before=0) == 1
    assert await store.release_legally([kept.id, uuid4()], reason="closed", actor="anna") == 1
    assert await store.legal_holds() == []
    assert await store.purge(**NOW) == 1
    await asyncio.sleep(0.01)
    assert await store.forget(settled_before=0) == 1 and await store.message(kept.id) is None
    kinds = [(e.kind, e.actor) for e in await store.audit_entries()]
    assert kinds.count(("messages.legal_hold", "anna")) == kinds.count(("messages.legal_release", "anna")) == 1
    assert ("messages.legal_hold", "otto") not in kinds


async def test_a_hold_names_what_is_there_or_nothing(store):
    known = await delivered(store)
    with pytest.raises(NotFound):
        await store.hold_legally([known.id, uuid4()], reason="r", actor="a")
    assert await store.legal_holds() == []


async def test_several_may_forget_at_once(store, other):
    for _ in range(9):
        await store.cancel((await submitted(store)).id)
    await asyncio.sleep(0.01)
    await store.purge(**NOW)
    await asyncio.sleep(0.01)
    assert await store.forget(settled_before=0, limit=2) == 2
    assert sum(await asyncio.gather(*(s.forget(settled_before=0) for s in (store, other)))) == 7
    assert len([e for e in await store.audit_entries() if e.kind == "messages.forgotten"]) in (2, 3)


async def test_receipts_since(store):
    early = await received(store)
    await asyncio.sleep(0.02)
    cut = (await store.census()).now
    new = [await received(store) for _ in range(3)]
    await submitted(store)
    found = await store.receipts(since=cut)
    assert [r.message_id for r in found] == [m.user_message.message_id for m in new]
    assert (found[0].party, found[0].action, found[0].state) == ("AP_EE_01", "ExecuteQueryRequest", "RECEIVED")
    page = await store.receipts(since=cut, limit=2)
    assert page == found[:2] and await store.receipts(since=cut, after=(page[-1].at, page[-1].id)) == found[2:]
    assert early.user_message.message_id in {r.message_id for r in await store.receipts(since=cut - timedelta(days=1))}


async def test_an_event_of_a_forgotten_message_does_not_shift_the_numbers(store):
    await delivered(store)
    numbers = [n for n, *_ in await store.events()]
    await asyncio.sleep(0.01)
    await store.purge(**NOW)
    await asyncio.sleep(0.01)
    await store.forget(settled_before=0)
    await received(store)
    assert min(n for n, *_ in await store.events()) > max(numbers)


def test_every_settled_state_is_covered():
    """A new state of outbound messages must be named in `forgettable`, as open or not."""
    assert {change.after for change in OUTBOUND} == {
        "SUBMITTED", "WAITING_FOR_RETRY", "READY_TO_PULL", "WAITING_FOR_RECEIPT", "ACKNOWLEDGED", "FAILED", "CANCELLED",
        "PURGED"}  # fmt: skip
