"""What `gateway.store.api` promises about pull, run against every store."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import ClaimLost
from gateway.store.api import Held, LapseResult, MessageFilter, NewEvent
from tests.contract.test_store_contract import LEASE, again, claim_one, inbound, outbound, references, submitted

CHANNEL, OTHER = "AP_LV_01 AP_EE_01 urn:mpc:ee", "AP_LV_01 AP_FI_01 urn:mpc:fi"


async def held(store, queue=CHANNEL, patience=600.0, **changes):
    return await submitted(store, held=Held(queue, patience), **changes)


async def take(store, queue=CHANNEL, lease=LEASE):
    return await store.claim_held(queue, worker="w", lease=lease)


async def handed_out(store, within=60.0, queue=CHANNEL):
    """The next message of the channel, handed out: its job and the number of the attempt."""
    job = await take(store, queue)
    return job, await store.hand_out(job, node="n", references=references(), receipt_within=within)


async def lapsed(store, state="READY_TO_PULL", **more):
    """What is due is claimed and its time is over."""
    job = await claim_one(store, "hold")
    await store.lapse(job, LapseResult(state=state, **{"due_in": 600.0, "error_code": "EBMS:0301"} | more))
    return job


async def state(store, message):
    return (await store.message(message.id)).state


# -- held -------------------------------------------------------------------------


async def test_a_held_message_waits_and_is_not_sent(store, nodes):
    new = await held(store)
    found = await store.message(new.id)
    assert (found.state, found.attempts, found.next_attempt_at) == ("READY_TO_PULL", 0, None)
    assert await claim_one(store) is None and await claim_one(store, "hold") is None
    assert await nodes.census() == {"message": 1, "part": 2, "job": 1, "event": 1}
    assert [m.id for m in await store.messages(MessageFilter(state="READY_TO_PULL"))] == [new.id]
    assert await store.backlog() == {"hold.READY": 1}


async def test_a_held_message_with_chunks(store):
    from tests.contract.test_store_contract import part

    new = outbound(parts=(part(0, inline=None, chunks=2),), held=Held(CHANNEL, 600.0))
    async with store.submitting(new.id) as submitting:
        for number in range(2):
            await submitting.chunk(0, number, b"chunk")
        stored = await submitting.accept(new)
    assert (stored.state, (await take(store)).message) == ("READY_TO_PULL", new.id)


async def test_a_submission_that_is_replayed_is_held_once(store):
    new = await held(store)
    replayed = await store.submit_once(new)
    assert (replayed.replayed, replayed.state) == (True, "READY_TO_PULL")
    assert await take(store) and await take(store) is None


async def test_the_oldest_of_the_channel_comes_first_and_each_to_one(store, other):
    stranger = await held(store, OTHER)
    messages = [await held(store) for _ in range(4)]
    taken = await asyncio.gather(*(take(one) for one in (store, other, store, other)))
    assert {job.message for job in taken} == {m.id for m in messages}
    assert await take(other) is None
    assert (await take(store, OTHER)).message == stranger.id


async def test_one_that_lapsed_is_still_the_oldest(store):
    first, second = await held(store), await held(store)
    await handed_out(store, within=0.0)
    await lapsed(store)
    assert [(await take(store)).message for _ in range(2)] == [first.id, second.id]


async def test_handing_out_opens_an_attempt_and_waits_for_the_receipt(store):
    new = await held(store)
    job, number = await handed_out(store)
    found = await store.message(new.id)
    assert (found.state, found.attempts, number) == ("WAITING_FOR_RECEIPT", 1, 1)
    [attempt] = await store.attempts(new.id)
    assert attempt.ended_at is None and len(attempt.references) == 3 and attempt.node == "n"
    assert await take(store) is None and await claim_one(store, "hold") is None
    assert [m.id for m in await store.messages(MessageFilter(state="WAITING_FOR_RECEIPT"))] == [new.id]
    with pytest.raises(ClaimLost):  # once for a claim
        await store.hand_out(job, node="n", references=(), receipt_within=1.0)


async def test_an_overdue_receipt_makes_it_ready_again(store):
    new = await held(store)
    old, _ = await handed_out(store, within=0.0)
    await lapsed(store, error_detail="no receipt", events=(NewEvent("message.retrying", {"attempt": 1}),))
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.error_detail) == ("READY_TO_PULL", "EBMS:0301", "no receipt")
    [attempt] = await store.attempts(new.id)
    assert attempt.ended_at and attempt.outcome == "no-receipt"
    assert [event[2] for event in await store.events(message=new.id)] == ["message.accepted", "message.retrying"]
    with pytest.raises(ClaimLost):
        await store.renew(old.id, old.claim, LEASE)
    assert (await handed_out(store))[1] == 2


async def test_renewing_puts_the_receipt_off(store):
    await held(store)
    job, _ = await handed_out(store, within=0.0)
    await store.renew(job.id, job.claim, LEASE)
    assert await claim_one(store, "hold") is None


async def test_it_is_given_up_pulled_or_not(store):
    pulled = await held(store)
    await handed_out(store, within=0.0)
    await lapsed(store, "FAILED", events=(NewEvent("message.failed"),))
    never = await held(store, patience=0.0)
    await lapsed(store, "FAILED", error_code=None)
    assert [await state(store, m) for m in (pulled, never)] == ["FAILED", "FAILED"]
    assert (await store.message(never.id)).error_code == "EBMS:0004"  # what failed has an error
    assert await take(store) is None and await claim_one(store, "hold") is None


async def test_a_claim_that_ran_out_is_released(store):
    new = await held(store)
    lost = await take(store, lease=0.0)
    assert await take(store) is None  # only who looks after held messages decides
    job = await claim_one(store, "hold")
    assert (job.message, job.id) == (new.id, lost.id)
    assert 590 < job.data["left"] <= 600
    with pytest.raises(ClaimLost):
        await store.hand_out(lost, node="n", references=(), receipt_within=1.0)
    await store.release(job.id, job.claim, due_in=60.0)
    assert (await take(store)).message == new.id


async def test_a_receipt_settles_it_from_every_open_state(store):
    ready, waiting, failed = await held(store), await held(store, OTHER), await held(store, "third")
    await handed_out(store, queue=OTHER)
    await handed_out(store, within=0.0, queue="third")
    await lapsed(store, "FAILED")
    for message in (ready, waiting, failed):
        assert await store.settle_late(message.id, b"<Receipt/>", (NewEvent("message.acknowledged"),))
        found = await store.message(message.id)
        assert (found.state, found.receipt, found.error_code) == ("ACKNOWLEDGED", b"<Receipt/>", None)
        assert not await store.settle_late(message.id, b"<Other/>", ())
    assert [(await store.attempts(m.id))[0].outcome for m in (waiting, failed)] == ["acknowledged", "no-receipt"]
    assert await take(store) is None and await claim_one(store, "hold") is None


async def test_a_receipt_takes_the_claim_from_whoever_looks_after_it(store):
    new = await held(store)
    await handed_out(store, within=0.0)
    job = await claim_one(store, "hold")
    await store.settle_late(new.id, b"<Receipt/>", ())
    with pytest.raises(ClaimLost):
        await store.lapse(job, LapseResult(state="READY_TO_PULL", due_in=60.0))
    assert await state(store, new) == "ACKNOWLEDGED"


async def test_a_final_error_fails_it(store):
    for hand in (False, True):
        new = await held(store)
        if hand:
            await handed_out(store)
        assert await store.fail_late(new.id, "EBMS:0003", "inconsistent", ())
        assert (await store.message(new.id)).error_code == "EBMS:0003"
    assert await take(store) is None


async def test_cancelling(store):
    new = await held(store)
    assert await store.cancel(new.id) and await state(store, new) == "CANCELLED"
    new = await held(store)
    claimed = await take(store)
    assert await store.cancel(new.id)  # nothing of it went out yet
    with pytest.raises(ClaimLost):
        await store.hand_out(claimed, node="n", references=(), receipt_within=1.0)
    new = await held(store)
    await handed_out(store)
    assert not await store.cancel(new.id)


async def test_requeueing(store):
    new = await held(store)
    await handed_out(store)
    assert not await store.requeue(new.id)  # its receipt may come at any moment
    assert await store.settle_late(new.id, b"<Receipt/>", ())
    assert not await store.requeue(new.id)
    new = await held(store)
    await handed_out(store, within=0.0)
    assert await store.requeue(new.id) and await state(store, new) == "READY_TO_PULL"
    assert (await store.attempts(new.id))[0].outcome == "lost"
    await handed_out(store, within=0.0)
    await lapsed(store, "FAILED")
    assert await store.requeue(new.id)
    found = await store.message(new.id)
    assert (found.state, found.error_code) == ("READY_TO_PULL", None)
    job = await take(store)
    assert 590 < job.data["left"] <= 600  # as long as at first


async def test_sent_and_held_do_not_mix(store):
    await submitted(store)
    await held(store)
    send, hold = await claim_one(store), await take(store)
    with pytest.raises(ClaimLost):
        await store.hand_out(send, node="n", references=(), receipt_within=1.0)
    with pytest.raises(ClaimLost):
        await store.begin_attempt(hold, node="n", references=())


async def test_purging(store, nodes):
    new = await held(store)
    await store.settle_late(new.id, b"<Receipt/>", ())
    assert await store.purge(delivered_before=0.0, settled_before=0.0) == 1
    assert await state(store, new) == "PURGED"
    assert "job" not in await nodes.census()


# -- PullRequests -----------------------------------------------------------------


async def test_a_pull_request_is_new_once(store, other):
    assert await store.note_pull_request("AP_EE_01", "p@ee")
    assert not await other.note_pull_request("AP_EE_01", "p@ee")
    assert await other.note_pull_request("AP_FI_01", "p@ee")
    assert sorted(await asyncio.gather(*(one.note_pull_request("AP_EE_01", "q@ee") for one in (store, other)))) == [False, True]


# -- channels -----------------------------------------------------------------------


async def test_a_channel_has_one_job_however_often_it_is_opened(store, other):
    await asyncio.gather(*(one.open_channels((CHANNEL, OTHER, CHANNEL)) for one in (store, other)))
    await store.open_channels(())
    await other.open_channels((CHANNEL,))
    jobs = await store.claim("pull", queues=(CHANNEL, OTHER), worker="w", limit=9, lease=LEASE)
    assert sorted(job.queue for job in jobs) == sorted((CHANNEL, OTHER))
    assert all(job.message is None and job.attempt == 1 for job in jobs)
    assert await other.claim("pull", worker="w", limit=9, lease=LEASE) == []


async def test_a_channel_rests_and_counts_its_failures(store):
    await store.open_channels((CHANNEL,))
    for number in (1, 2, 3):
        job = await claim_one(store, "pull")
        assert job.attempt == number
        await store.rest(job.id, job.claim, due_in=0.0, error="no answer")
    job = await claim_one(store, "pull")
    await store.rest(job.id, job.claim, due_in=0.0)
    job = await claim_one(store, "pull")
    assert job.attempt == 1
    await store.rest(job.id, job.claim, due_in=60.0)
    assert await claim_one(store, "pull") is None
    with pytest.raises(ClaimLost):
        await store.rest(job.id, job.claim, due_in=0.0)


async def test_pulling_now(store):
    await store.open_channels((CHANNEL, OTHER))
    for job in await store.claim("pull", worker="w", limit=2, lease=LEASE):
        if job.queue == CHANNEL:
            await store.rest(job.id, job.claim, due_in=600.0)
    assert await store.pull_now(("nothing",)) == []
    assert await store.pull_now() == [CHANNEL]  # the other is at it
    assert (await claim_one(store, "pull")).queue == CHANNEL


# -- receipts -----------------------------------------------------------------------


async def test_a_pulled_message_owes_its_receipt_in_the_same_commit(store, nodes):
    new = inbound(answer_to=CHANNEL)
    await store.receive_once(new)
    assert await nodes.census() == {"message": 1, "part": 1, "job": 2, "event": 1}
    job = await claim_one(store, "receipt")
    assert (job.message, job.queue, job.data) == (new.id, CHANNEL, {})
    await store.finish_receipt(job.id, job.claim)
    assert await claim_one(store, "receipt") is None
    with pytest.raises(ClaimLost):
        await store.finish_receipt(job.id, job.claim)
    assert await claim_one(store, "deliver") is not None


async def test_a_ping_that_was_pulled_owes_one_too(store):
    await store.receive_once(inbound(backend=None, answer_to=CHANNEL))
    assert await claim_one(store, "receipt") and await claim_one(store, "deliver") is None


async def test_a_large_pulled_message_owes_its_receipt(store):
    from tests.contract.test_store_contract import part

    new = inbound(parts=(part(inline=None, chunks=1),), answer_to=CHANNEL)
    async with store.receiving(new.id) as receiving:
        await receiving.chunk(0, 0, b"chunk")
        await receiving.accept(new)
    assert (await claim_one(store, "receipt")).message == new.id


async def test_a_pulled_message_that_comes_again_owes_it_again(store):
    new = inbound(answer_to=CHANNEL)
    await store.receive_once(new)
    job = await claim_one(store, "receipt")
    await store.finish_receipt(job.id, job.claim)
    assert (await store.receive_once(again(new))).outcome == "duplicate"
    assert await claim_one(store, "receipt") is None  # until somebody asks for it
    await store.answer_again(new.id, CHANNEL, None)
    job = await claim_one(store, "receipt")
    assert (job.attempt, job.data) == (1, {})
    await store.answer_again(new.id, OTHER, b"<fresh/>")  # while the first is on its way
    with pytest.raises(ClaimLost):
        await store.finish_receipt(job.id, job.claim)
    job = await claim_one(store, "receipt")
    assert (job.queue, job.data) == (OTHER, {"receipt": "<fresh/>"})
    await store.park(job.id, job.claim, error="HTTP 400")
    await store.answer_again(new.id, CHANNEL, None)
    assert await claim_one(store, "receipt")


async def test_one_that_was_pushed_before_owes_it_when_it_is_pulled(store):
    new = inbound()
    await store.receive_once(new)
    await store.answer_again(new.id, CHANNEL, None)
    assert (await claim_one(store, "receipt")).message == new.id


async def test_waiting_is_by_the_clock_of_the_store(store):
    await held(store, patience=0.2)
    assert await claim_one(store, "hold") is None
    end = datetime.now(UTC) + timedelta(seconds=20)
    while (job := await claim_one(store, "hold")) is None and datetime.now(UTC) < end:
        await asyncio.sleep(0.05)
    assert job is not None
