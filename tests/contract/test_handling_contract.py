"""Kept back, delivered once more, followed and found again: the same in every store."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.as4.units import Property
from gateway.errors import ClaimLost
from gateway.scope import FINAL_RECIPIENT, ORIGINAL_SENDER, Scope
from gateway.store.api import Held, MessageFilter, NewEvent, Viewer
from tests.contract.test_store_contract import claim_one, inbound, outbound, result, submitted, unit

HELD, RELEASED = (NewEvent("message.held"),), (NewEvent("message.released"),)
REST = Viewer("rest")


async def types(store, message):
    return [type for _, _, type, _, _ in await store.events(message=message)]


# -- kept back ------------------------------------------------------------------------


async def test_what_is_held_is_not_sent(store, other):
    new = await submitted(store)
    assert await store.suspend(new.id, HELD) is True
    assert (await other.message(new.id)).held is True
    assert (await other.messages(MessageFilter()))[0].held is True
    assert await claim_one(other) is None
    assert await other.suspend(new.id, HELD) is True  # as it was
    assert await store.requeue(new.id) is False
    assert await other.resume(new.id, RELEASED) is True
    assert await other.resume(new.id, RELEASED) is False
    assert (await store.message(new.id)).held is False
    job = await claim_one(store)
    await store.finish_attempt(job, await store.begin_attempt(job, node="n", references=()), result())
    assert await store.suspend(new.id) is False and await store.resume(new.id) is False
    assert [t for t in await types(store, new.id) if t in ("message.held", "message.released")] == [
        "message.held", "message.released"]  # fmt: skip


async def test_what_is_held_is_not_delivered(store):
    new = inbound()
    await store.receive_once(new)
    assert await store.suspend(new.id) is True
    assert await claim_one(store, "deliver") is None
    assert await store.claim_delivery(new.id, REST, worker="w", lease=9) is None
    assert await store.redeliver(new.id) is False
    assert await store.resume(new.id) is True
    assert (await claim_one(store, "deliver")).attempt == 1


async def test_nobody_holds_what_somebody_is_at(store):
    new = await submitted(store)
    job = await claim_one(store)
    assert await store.suspend(new.id) is False
    await store.begin_attempt(job, node="n", references=())
    assert await store.suspend(new.id) is False
    await store.finish_attempt(job, 1, result("WAITING_FOR_RETRY", retry_in=60.0))
    before = (await store.message(new.id)).next_attempt_at
    assert await store.suspend(new.id) is True and await store.resume(new.id) is True
    assert (await store.message(new.id)).next_attempt_at == before  # it waits as it waited


async def test_a_held_message_is_cancelled_and_settled(store):
    cancelled, settled = await submitted(store), await submitted(store)
    for new in (cancelled, settled):
        assert await store.suspend(new.id) is True
    assert await store.cancel(cancelled.id, (NewEvent("message.cancelled"),)) is True
    assert await store.settle_late(settled.id, b"receipt", ()) is True
    for new, state in ((cancelled, "CANCELLED"), (settled, "ACKNOWLEDGED")):
        found = await store.message(new.id)
        assert (found.state, found.held) == (state, False)
        assert await store.resume(new.id) is False
    assert (await types(store, cancelled.id))[-1] == "message.cancelled"


async def test_a_message_to_be_pulled_is_held(store):
    new = await submitted(store, held=Held("q", 60.0))
    assert await store.suspend(new.id) is True
    assert await store.claim_held("q", worker="w", lease=9) is None
    assert await store.resume(new.id) is True
    job = await store.claim_held("q", worker="w", lease=9)
    assert job.message == new.id
    await store.hand_out(job, node="n", references=(), receipt_within=60.0, envelope=b"<e/>")
    assert await store.suspend(new.id) is False
    assert await store.sent_envelope(new.id) == b"<e/>"


async def test_nothing_is_held_that_is_not_there(store):
    assert await store.suspend(uuid4()) is False and await store.resume(uuid4()) is False
    assert await store.redeliver(uuid4()) is False


# -- delivered once more --------------------------------------------------------------


async def test_a_delivered_message_is_delivered_once_more(store):
    new = inbound()
    await store.receive_once(new)
    assert await store.redeliver(new.id) is False  # it waits
    job = await claim_one(store, "deliver")
    await store.finish_delivery(job.id, job.claim, (NewEvent("message.delivered"),))
    assert await store.redeliver(new.id, (NewEvent("message.redelivered"),)) is True
    assert (await store.message(new.id)).state == "RECEIVED"
    again = await claim_one(store, "deliver")
    assert (again.id, again.attempt) == (job.id, 2) and again.claim != job.claim
    with pytest.raises(ClaimLost):
        await store.finish_delivery(job.id, job.claim, ())
    await store.finish_delivery(again.id, again.claim, (NewEvent("message.delivered"),))
    assert (await types(store, new.id))[1:] == ["message.delivered", "message.redelivered", "message.delivered"]


async def test_a_parked_delivery_begins_its_schedule_anew(store):
    new = inbound()
    await store.receive_once(new)
    for _ in range(3):
        job = await claim_one(store, "deliver")
        await store.release(job.id, job.claim)
    job = await claim_one(store, "deliver")
    await store.park(job.id, job.claim, error="poison")
    assert await store.redeliver(new.id) is True
    assert (await claim_one(store, "deliver")).attempt == 2


async def test_what_was_erased_is_not_delivered_again(store):
    new = inbound()
    await store.receive_once(new)
    job = await claim_one(store, "deliver")
    await store.finish_delivery(job.id, job.claim, ())
    assert await store.purge(delivered_before=-1, settled_before=-1) == 1
    assert await store.redeliver(new.id) is False
    assert await store.redeliver((await submitted(store)).id) is False


# -- envelopes --------------------------------------------------------------------------


async def test_the_envelope_of_the_last_attempt_is_kept(store):
    new = await submitted(store)
    assert await store.sent_envelope(new.id) is None
    for number, envelope in enumerate((b"<1/>", b"<2/>", None), 1):
        job = await claim_one(store)
        assert await store.begin_attempt(job, node="n", references=(), envelope=envelope) == number
        await store.finish_attempt(job, number, result("WAITING_FOR_RETRY", retry_in=0.0))
    assert await store.sent_envelope(new.id, viewer=REST) == b"<2/>"
    assert [a.outcome for a in await store.attempts(new.id)] == [result("WAITING_FOR_RETRY").outcome] * 3
    for stranger in (Viewer("portal"), Viewer("rest", Scope(actions=("none",)))):
        assert await store.sent_envelope(new.id, viewer=stranger) is None


# -- found ------------------------------------------------------------------------------


async def test_lists_are_filtered(store):
    corner = (Property(ORIGINAL_SENDER, "C1", "urn:t"), Property(FINAL_RECIPIENT, "C4"))
    wanted = inbound(user_message=unit("m1@x", properties=corner))
    for new in (wanted, inbound(user_message=unit("m2@x"))):
        await store.receive_once(new)
    now, hour = datetime.now(UTC), timedelta(hours=1)

    async def found(**more):
        return [m.user_message.message_id for m in await store.messages(MessageFilter(**more), viewer=REST)]

    both = ["m2@x", "m1@x"]
    assert await found() == both and await found(upwards=True) == both[::-1]
    service, party = wanted.user_message.service.value, wanted.user_message.from_party.value
    for more in ({"service": service}, {"partner": party}, {"partner": wanted.sender}, {"since": now - hour, "until": now + hour}):
        assert await found(**more) == both, more
    for more in ({"original_sender": "C1"}, {"original_sender": "urn:t:C1", "final_recipient": "C4"}):
        assert await found(**more) == ["m1@x"], more
    for more in ({"service": "x"}, {"partner": "x"}, {"since": now + hour}, {"until": now - hour}, {"final_recipient": "C1\0"}):
        assert await found(**more) == [], more
    first = (await store.messages(MessageFilter(upwards=True, limit=1)))[0]
    assert await found(upwards=True, after=(first.created_at, first.id)) == ["m2@x"]


async def test_conversations(store):
    for number in range(6):
        message = unit(f"m{number}@x", conversation_id=f"c{number % 3}")
        new = inbound(user_message=message) if number % 2 else outbound(user_message=message)
        await (store.receive_once(new) if number % 2 else store.submit_once(new))
    await store.receive_once(inbound(user_message=unit("other@x", conversation_id="c0"), backend="portal"))
    found = await store.conversations(viewer=REST)
    assert [(c.conversation_id, c.messages) for c in found] == [("c2", 2), ("c1", 2), ("c0", 2)]
    assert all(c.began_at <= c.changed_at for c in found)
    assert (await store.message(found[0].newest)).user_message.message_id == "m5@x"
    page = await store.conversations(viewer=REST, limit=2)
    rest = await store.conversations(viewer=REST, after=(page[-1].changed_at, page[-1].newest))
    assert [c.conversation_id for c in (*page, *rest)] == ["c2", "c1", "c0"]
    assert [(c.conversation_id, c.messages) for c in await store.conversations(viewer=Viewer("portal"))] == [("c0", 1)]
    assert await store.conversations(viewer=Viewer("rest", Scope(actions=("none",)))) == []


# -- events -----------------------------------------------------------------------------


async def test_events_as_they_are_told(store, other):
    first = await submitted(store)
    await store.receive_once(inbound(backend="portal"))
    second = inbound()
    await other.receive_once(second)
    log = await store.event_numbers(None)
    assert list(log.numbers) == sorted(log.numbers) and len(log.numbers) == 3
    upto = log.numbers[-1]
    told = await other.told(viewer=REST, after=log.after, upto=upto)
    assert [(e.type, e.message, e.message_id) for e in told] == [
        ("message.accepted", first.id, first.user_message.message_id),
        ("message.received", second.id, second.user_message.message_id),
    ]
    assert len({e.id for e in told}) == 2 and told == await store.told(viewer=REST, after=log.after, upto=upto)
    assert [e.type for e in await store.told(viewer=REST, after=log.after, upto=upto, types=("message.received",))] == ["message.received"]
    assert len(await store.told(viewer=REST, after=log.after, upto=upto, limit=1)) == 1
    assert await store.told(viewer=REST, after=told[-1].number, upto=upto) == []
    assert [e.number for e in await store.told(viewer=REST, after=0, upto=told[0].number)] == [told[0].number]
    assert await store.told(viewer=Viewer("rest", Scope(actions=("none",))), after=0, upto=upto) == []
    assert (await store.event_numbers(upto)).numbers == ()
    assert (await store.event_numbers(0, limit=2)).numbers == log.numbers[:2]


async def test_what_somebody_has_done_with_a_message_is_in_the_audit(store):
    """By whom, in the commit of the deed; and what came to nothing is not there."""
    new = outbound()
    await store.submit_once(new)
    by = {"by": "cl_1"}
    assert await store.suspend(new.id, (NewEvent("message.held", by),))
    assert await store.resume(new.id, (NewEvent("message.released", by),))
    assert not await store.resume(new.id, (NewEvent("message.released", by),))
    assert await store.cancel(new.id, (NewEvent("message.cancelled", by),))
    assert not await store.cancel(new.id, (NewEvent("message.cancelled", by),))
    found = [(e.kind, e.actor, e.subject, e.detail) for e in await store.audit_entries()]
    about = {"direction": "outbound", "partner": new.receiver}
    id = new.user_message.message_id
    assert found == [(kind, "cl_1", id, about) for kind in ("message.held", "message.released", "message.cancelled")]
    assert await store.verify_audit() is None
