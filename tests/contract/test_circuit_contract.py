"""Partners that do not answer: their messages wait, one tries, and others go on."""

import asyncio

from gateway.store.api import Shutting
from tests.contract.test_store_contract import claim_one, inbound, outbound, references, result

DEAD, WELL = "dead", "well"
FAILURES = Shutting().failures


async def submit(store, count=1, receiver=DEAD, **more):
    made = [outbound(receiver=receiver, **more) for _ in range(count)]
    for message in made:
        await store.submit_once(message)
    return made


async def end(store, job, *, answered, state="WAITING_FOR_RETRY", **more):
    number = await store.begin_attempt(job, node="n", references=references())
    return await store.finish_attempt(job, number, result(state, answered=answered, **more))


async def shut(store):
    """One failure after another, until the partner is shut."""
    for number in range(FAILURES):
        changed = await end(store, await claim_one(store), answered=False, retry_in=0.0)
        assert changed == ("shut" if number == FAILURES - 1 else None)


async def test_after_five_failures_nothing_is_sent_there_and_others_go_on(store, other):
    await submit(store, 8)
    await shut(store)
    [circuit] = await other.circuits()
    assert (circuit.partner, circuit.failures) == (DEAD, 5) and circuit.shut_until is not None
    assert await claim_one(other) is None
    await submit(store, 1, WELL)
    assert (await claim_one(other)).queue == WELL and await claim_one(store) is None


async def test_an_answer_begins_the_count_anew(store):
    await submit(store, 8)
    for _ in range(3):
        for _ in range(FAILURES - 1):
            assert await end(store, await claim_one(store), answered=False, retry_in=0.0) is None
        assert await end(store, await claim_one(store), answered=True, retry_in=0.0) is None
        assert await store.circuits() == []
    await end(store, await claim_one(store), answered=None, retry_in=0.0)  # it was not asked
    assert await store.circuits() == []


async def test_when_its_time_is_over_one_tries_for_all(store, other):
    messages = await submit(store, 8)
    await shut(store)
    # An operator who has one sent again does not wait for that time.
    job, *_ = [m for m in messages if (await store.message(m.id)).state == "SUBMITTED"]
    assert await store.requeue(job.id)
    taken = await asyncio.gather(*(s.claim("send", worker="w", limit=4, lease=9) for s in (store, other, store, other)))
    [probe] = [job for jobs in taken for job in jobs]
    assert await claim_one(store) is None
    # It fails: shut again, for longer.
    before = (await store.circuits())[0]
    assert await end(store, probe, answered=False, retry_in=0.0) == "shut"
    after = (await store.circuits())[0]
    assert after.failures == before.failures + 1 and await claim_one(store) is None
    # The next one is answered: everything goes out.
    assert await store.requeue(job.id)
    assert await end(store, await claim_one(other), answered=True, state="ACKNOWLEDGED") == "open"
    assert await store.circuits() == []
    assert len(await other.claim("send", worker="w", limit=20, lease=9)) == 7


async def test_who_tries_and_dies_is_followed_when_its_claim_ends(store, other):
    messages = await submit(store, 8)
    await shut(store)
    job, *_ = [m for m in messages if (await store.message(m.id)).state == "SUBMITTED"]
    assert await store.requeue(job.id)
    [probe] = await store.claim("send", worker="w", limit=4, lease=0.3)
    await store.renew(probe.id, probe.claim, 0.6)  # it takes its time, and says so
    await asyncio.sleep(0.35)
    assert await claim_one(other) is None
    await asyncio.sleep(0.4)
    [follower] = await other.claim("send", worker="w", limit=4, lease=9)
    assert follower.queue == DEAD and await claim_one(store) is None
    assert await end(other, follower, answered=True, state="ACKNOWLEDGED") == "open"


async def test_what_had_begun_before_does_not_keep_it_shut_for_longer(store):
    await submit(store, 9)
    early = await store.claim("send", worker="w", limit=3, lease=9)
    await shut(store)
    for job in early:
        assert await end(store, job, answered=False, retry_in=0.0) is None
    assert (await store.circuits())[0].failures == FAILURES


async def test_whose_time_is_over_can_be_given_up_while_it_is_shut(store):
    patient, hasty = await submit(store, 7, patience=3600.0), await submit(store, 2, patience=0.0)
    await submit(store, 1, WELL, patience=0.0)
    assert await store.claim_overdue(worker="w", limit=10, lease=9) == []  # nobody is shut
    # The patient ones fail; those that are in a hurry were submitted last and are not tried before.
    await shut(store)
    jobs = await store.claim_overdue(worker="w", limit=10, lease=9)
    assert {job.message for job in jobs} == {m.id for m in hasty} and all(job.shut for job in jobs)
    assert await end(store, jobs[0], answered=None, state="FAILED") is None
    assert (await store.message(jobs[0].message)).state == "FAILED"
    assert len(await store.circuits()) == 1 and len(patient) == 7


async def test_a_message_whose_senders_died_waits_for_its_partner_too(store):
    [lost] = await submit(store, 1)
    for _ in range(2):
        assert len(await store.claim("send", worker="w", limit=1, lease=0.0, losses=2)) == 1
    others = await submit(store, 7)
    for _ in range(FAILURES):
        [job] = await store.claim("send", worker="w", limit=1, lease=9, losses=2)
        await end(store, job, answered=False, retry_in=0.0)
    assert await store.claim_suspect(pushed=(), worker="w", lease=9, losses=2) is None
    assert await store.requeue(others[-1].id)  # an operator does not wait until its time is over
    assert (await store.claim_suspect(pushed=(), worker="w", lease=9, losses=2)).message == lost.id


async def test_of_one_partner_only_so_many_at_once(store):
    await submit(store, 6)
    await submit(store, 2, WELL)
    jobs = await store.claim("send", worker="w", limit=20, lease=9, each=3)
    assert sorted(job.queue for job in jobs) == [DEAD] * 3 + [WELL] * 2
    assert await store.claim("send", worker="w", limit=20, lease=9, each=3, without=(DEAD,)) == []
    assert len(await store.claim("send", worker="w", limit=2, lease=9, each=3)) == 2


async def test_a_backend_with_no_hand_left_is_passed_over(store):
    for backend in ("a", "a", "b"):
        await store.receive_once(inbound(backend=backend))
    jobs = await store.claim("deliver", queues=("a", "b"), worker="w", limit=10, lease=9, each=5, without=("a",))
    assert [job.queue for job in jobs] == ["b"]
    assert len(await store.claim("deliver", queues=("a", "b"), worker="w", limit=10, lease=9, each=5)) == 2
