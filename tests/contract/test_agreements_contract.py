"""What `gateway.store.agreements` promises, run against every store."""

import asyncio
import hashlib
from uuid import uuid4

import msgspec
import pytest

from gateway.errors import NotFound, StalePlan
from gateway.store.agreements import ALIVE, Beat, NewRevision
from tests.contract.test_store_contract import RED, attempt, outbound, submitted


def new(base=0, content=b"one", **more):
    return NewRevision(base=base, content=content, author="anna@lv", reason="because", **more)


def process(place="0", node="lv", revision=1, **more):
    return Beat(id=uuid4(), node=node, place=place, revision=revision, **more)


async def alive(store, *processes):
    for one in processes:
        await store.beat(one)


async def test_the_first_files_become_revision_1_once(store, other):
    assert await store.active_agreements() is None
    made, again = await asyncio.gather(store.begin_agreements(new()), other.begin_agreements(new(content=b"two")))
    assert made.number == again.number == 1 and made.content == again.content and made.sha256 == again.sha256
    active = await other.active_agreements()
    assert active.state == "ACTIVE" and active.content in (b"one", b"two")
    assert active.sha256 == hashlib.sha256(active.content).digest() and active.settled_at is not None
    assert [e.kind for e in await store.audit_entries()] == ["agreements.activated"]


async def test_a_proposal_waits_for_every_living_process(store, other):
    await store.begin_agreements(new())
    a, b = process("0"), process("1", node="ee")
    await alive(store, a, b)
    proposed = await store.propose_revision(new(1, b"two", notes={"findings": "none"}))
    assert (proposed.number, proposed.state, proposed.base) == (2, "PROPOSED", 1)
    assert await other.beat(a) == (await other.beat(b))
    assert (await other.beat(b)).proposed == 2
    assert (await store.settle_revision(2)).state == "PROPOSED"
    await store.acknowledge_revision(2, a, None)
    assert (await store.settle_revision(2)).state == "PROPOSED"
    await other.acknowledge_revision(2, b, None)
    assert (await other.settle_revision(2)).state == "ACTIVE"
    assert (await store.settle_revision(2)).state == "ACTIVE", "idempotent"
    assert [(r.number, r.state) for r in await store.revisions()] == [(2, "ACTIVE"), (1, "SUPERSEDED")]
    assert (await store.beat(a)).active == 2 and (await store.active_agreements()).content == b"two"
    assert [(w.node, w.place, w.why) for w in await store.acknowledgements(2)] == [("ee", "1", None), ("lv", "0", None)]
    kinds = [(e.kind, e.subject, e.actor) for e in await store.audit_entries()]
    assert kinds == [("agreements.activated", "revision 1", "anna@lv"), ("agreements.proposed", "revision 2", "anna@lv"),
                     ("agreements.activated", "revision 2", "anna@lv")]  # fmt: skip
    detail = (await store.audit_entries())[1].detail
    assert detail == {"sha256": hashlib.sha256(b"two").hexdigest(), "base": 1, "reason": "because", "findings": "none"}
    assert await store.verify_audit() is None


async def test_one_refusal_refuses_for_all_and_the_first_word_stands(store):
    await store.begin_agreements(new())
    a, b = process("0"), process("1")
    await alive(store, a, b)
    await store.propose_revision(new(1, b"two"))
    await store.acknowledge_revision(2, a, None)
    await store.acknowledge_revision(2, b, "no key for edelivery-as4/2.0 \0 \ud800")
    await store.acknowledge_revision(2, b, None)
    refused = await store.settle_revision(2)
    assert refused.state == "REFUSED" and refused.refusal.startswith("lv 1: no key for edelivery-as4/2.0")
    assert (await store.active_agreements()).number == 1
    assert (await store.audit_entries())[-1].kind == "agreements.refused"
    # The next one has the next number; no number is used twice.
    assert (await store.propose_revision(new(1, b"three"))).number == 3


async def test_who_is_silent_is_dead_and_not_asked(store, nodes):
    await store.begin_agreements(new())
    dead, living = process("0"), process("1")
    await alive(store, dead, living)
    await store.propose_revision(new(1, b"two"))
    await nodes.quiet(ALIVE + 1, watched=True)
    await store.beat(living)
    await store.acknowledge_revision(2, living, None)
    assert (await store.settle_revision(2)).state == "ACTIVE"
    assert {p.place: p.alive for p in await store.processes()} == {"0": False, "1": True}


async def test_after_an_outage_nobody_is_dead(store, nodes):
    """No process could beat and nobody looked: whoever comes back first does not decide for the others."""
    await store.begin_agreements(new())
    slow, quick = process("0"), process("1")
    await alive(store, slow, quick)
    await store.propose_revision(new(1, b"two"))
    await nodes.quiet(60, watched=False)
    await store.beat(quick)
    await store.acknowledge_revision(2, quick, None)
    assert (await store.settle_revision(2)).state == "PROPOSED", "the slow one may come back"
    await nodes.quiet(ALIVE + 1, watched=True)
    assert (await store.settle_revision(2)).state == "ACTIVE", "it did not"


async def test_an_orderly_end_and_a_successor_at_the_same_place(store):
    await store.begin_agreements(new())
    gone, killed = process("0"), process("1")
    await alive(store, gone, killed)
    await store.propose_revision(new(1, b"two"))
    await store.leave(gone.id)
    successor = process("1", fresh=True)
    await store.beat(successor)
    await store.acknowledge_revision(2, successor, None)
    assert (await store.settle_revision(2)).state == "ACTIVE"
    assert [p.id for p in await store.processes()] == [successor.id]


async def test_without_processes_a_proposal_is_active_at_once(store):
    await store.propose_revision(new())
    assert (await store.settle_revision(1)).state == "ACTIVE"


async def test_a_plan_on_something_else_is_stale(store, other):
    await store.begin_agreements(new())
    await alive(store, process())
    with pytest.raises(StalePlan, match="revision 1 is active"):
        await store.propose_revision(new(0, b"two"))
    await store.propose_revision(new(1, b"two"))
    with pytest.raises(StalePlan, match="revision 2 is being applied"):
        await other.propose_revision(new(1, b"three"))
    assert (await other.propose_revision(new(1, b"two"))).number == 2, "asked twice is one proposal"
    assert len(await store.revisions()) == 2


async def test_of_two_at_once_one_is_proposed(nodes):
    stores = [await nodes.store() for _ in range(4)]
    await stores[0].begin_agreements(new())
    await alive(stores[0], process())
    found = await asyncio.gather(
        *(s.propose_revision(new(1, f"{n}".encode())) for n, s in enumerate(stores)), return_exceptions=True
    )
    assert sum(isinstance(f, StalePlan) for f in found) == 3


async def test_a_proposal_nobody_answers_ends(store, nodes):
    await store.begin_agreements(new())
    one = process("0", node="ee2")
    await alive(store, one)
    await store.propose_revision(new(1, b"two"))
    await nodes.quiet(0, watched=True, expired=True)
    refused = await store.settle_revision(2)
    assert (refused.state, refused.refusal) == ("REFUSED", "no answer in time from ee2 0")


async def test_withdrawn(store):
    await store.begin_agreements(new())
    await alive(store, process())
    await store.propose_revision(new(1, b"two"))
    assert (await store.withdraw_revision(2, actor="berta", why="changed my mind")).refusal == "changed my mind"
    assert (await store.withdraw_revision(2, actor="berta", why="twice")).refusal == "changed my mind"
    assert (await store.audit_entries())[-1].actor == "berta"
    assert (await store.withdraw_revision(1, actor="berta", why="no")).state == "ACTIVE"
    for verb in (store.settle_revision(9), store.withdraw_revision(9, actor="a", why="b")):
        with pytest.raises(NotFound):
            await verb


async def test_a_proposal_whose_base_is_gone_is_refused(store):
    """Files became revision 1 by themselves while somebody proposed on nothing."""
    await alive(store, process())
    await store.propose_revision(new(0, b"two"))
    await store.begin_agreements(new(content=b"files"))
    settled = await store.settle_revision(1)
    assert settled.state == "REFUSED" and "revision 2 became active" in settled.refusal


async def test_history_and_contents(store):
    await store.begin_agreements(new())
    for number in range(1, 6):
        await store.propose_revision(new(number, b"x%d" % number))
        await store.settle_revision(number + 1)
    page = await store.revisions(limit=2)
    assert [r.number for r in page] == [6, 5] and all(r.content is None for r in page)
    assert [r.number for r in await store.revisions(before=5, limit=2)] == [4, 3]
    assert (await store.revision(3)).content == b"x2" and await store.revision(99) is None
    restored = await store.propose_revision(new(6, b"x2", restores=3))
    await store.settle_revision(7)
    found = await store.revision_of(hashlib.sha256(b"x2").digest())
    assert (found.number, found.restores, restored.restores) == (7, 3, 3)
    await store.propose_revision(new(7, b"never"))
    await store.withdraw_revision(8, actor="a", why="b")
    assert await store.revision_of(hashlib.sha256(b"never").digest()) is None, "what was refused was never active"


async def test_trouble_is_told(store):
    one = process(revision=1)
    await store.beat(one)
    await store.beat(msgspec.structs.replace(one, revision=2, trouble="revision 3: no key \0"))
    told = (await store.processes())[0]
    assert told.revision == 2 and told.trouble.startswith("revision 3: no key") and told.alive


async def test_messages_in_flight(store):
    await store.begin_agreements(new())
    first, second = await submitted(store), await submitted(store, pmode_id="lv-fi", pmode_revision=1)
    done = outbound()
    await store.submit_once(done)
    await store.cancel(done.id)
    found = {(w.partner, w.pmode_id, w.revision): w.count for w in await store.in_flight()}
    assert found == {(RED, "lv-ee", 3): 1, (RED, "lv-fi", 1): 1}
    await attempt(store, "WAITING_FOR_RETRY", retry_in=600.0)  # the oldest: `first`
    assert await store.move_waiting(7, ("lv-ee", "lv-xx")) == 1
    assert (await store.message(first.id)).pmode_revision == 7
    assert (await store.message(second.id)).pmode_revision == 1
    assert await store.move_waiting(7, ("lv-ee",)) == 0
    jobs = await store.claim("send", worker="w", limit=5, lease=30)
    assert {job.message for job in jobs} == {first.id, second.id}, "what waited is due at once"
    assert (await store.message(done.id)).pmode_revision == 3


async def test_move_is_bounded(store):
    for _ in range(5):
        await submitted(store)
    assert [await store.move_waiting(9, ("lv-ee",), limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_what_is_sent_again_goes_by_the_active_revision(store):
    sent = await submitted(store)
    await attempt(store, "FAILED")
    assert await store.requeue(sent.id)
    assert (await store.message(sent.id)).pmode_revision == 3, "there is no revision yet"
    await attempt(store, "FAILED")
    await store.begin_agreements(new())
    assert await store.requeue(sent.id)
    assert (await store.message(sent.id)).pmode_revision == 1


async def test_the_bell_of_agreements(store, other):
    """Whoever listens for work hears of agreements, too; nobody else has to wait for long."""
    listening = asyncio.create_task(other.wait_for_work(20))
    await asyncio.sleep(0.3)
    waiting = asyncio.create_task(other.wait_for_agreements(20))
    await store.begin_agreements(new())
    await asyncio.wait_for(waiting, 10)
    listening.cancel()
    await other.wait_for_agreements(0.01)


async def test_what_a_revision_says_never_changes(nodes, store):
    if not hasattr(nodes, "sql"):
        pytest.skip("a wall of PostgreSQL")
    await store.begin_agreements(new())
    import asyncpg

    for change in ("reason = 'other'", "content = 'x', sha256 = sha256('x')", "author = 'other'", "number = 9", "base = 4",
                   "restores = 1", "state = 'REFUSED'", "state = 'PROPOSED'"):  # fmt: skip
        with pytest.raises(asyncpg.PostgresError):
            await nodes.sql.execute(f"UPDATE agreement_revision SET {change}")
    with pytest.raises(asyncpg.PostgresError):
        await nodes.sql.execute("INSERT INTO agreement_revision (number, state, base, content, sha256, author, reason)"
                                " VALUES (7, 'REFUSED', 1, '', sha256(''), 'a', 'r')")  # fmt: skip
