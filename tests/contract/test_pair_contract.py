"""Nodes that share a database, and the lease of the active one."""

import asyncio
from uuid import uuid4

import pytest

from gateway.errors import NotFound, StalePlan
from gateway.store.pair import Presence

A, B = uuid4(), uuid4()


def presence(node="a", instance=A, **more):
    return Presence(node=node, instance=instance, **more)


async def test_the_first_who_asks_is_active_and_stays_it(store, other):
    first = await store.report(presence())
    assert first.holds and first.lease.holder == "a" and first.lease.live
    second = await other.report(presence("b", B))
    assert not second.holds and second.lease.token == first.lease.token
    again = await store.report(presence())
    assert again.holds and again.lease.epoch == first.lease.epoch
    assert abs((again.at - first.at).total_seconds()) < 5


async def test_of_many_at_once_one_is_active(store, other):
    turns = await asyncio.gather(
        *(s.report(presence(f"n{i}", uuid4())) for i in range(6) for s in (store,)),
        *(other.report(presence(f"m{i}", uuid4())) for i in range(6)),
    )
    assert sum(turn.holds for turn in turns) == 1


async def test_who_steps_down_is_followed_at_once_with_a_later_token(store, other):
    first = await store.report(presence())
    await other.report(presence("b", B))
    await store.step_down(A)
    assert not (await store.lease()).live
    after = await other.report(presence("b", B))
    assert after.holds and after.lease.token > first.lease.token
    await store.step_down(A)  # it is not ours any more
    assert (await store.lease()).holder == "b" and (await store.lease()).live


async def test_who_leaves_does_not_take_it(store):
    turn = await store.report(presence(takes=False))
    assert not turn.holds and turn.lease is None


async def test_who_is_unfit_has_it_only_while_nobody_better_lives(store, other):
    assert (await store.report(presence(trouble="no key"))).holds
    [node] = await store.nodes()
    assert (node.name, node.trouble, node.alive, node.drained) == ("a", "no key", True, False)
    assert not (await other.report(presence("b", B))).holds  # the lease still runs
    assert not (await store.report(presence(trouble="no key"))).holds  # and is not renewed any more
    await store.step_down(A)
    assert (await other.report(presence("b", B))).holds
    await other.step_down(B, gone=True)
    assert (await store.report(presence(trouble="no key"))).holds


async def test_a_drained_node_lets_go_and_takes_nothing_until_it_is_undrained(store, other):
    await store.report(presence())
    await other.report(presence("b", B))
    assert await store.set_drained("a", True, actor="op")
    assert not await store.set_drained("a", True, actor="op")
    turn = await store.report(presence())
    assert turn.drained and not turn.holds and not turn.lease.live
    assert (await other.report(presence("b", B))).holds
    assert await store.set_drained("a", False, actor="op")
    assert not (await store.report(presence())).drained
    kinds = [(e.kind, e.actor, e.subject) for e in await store.audit_entries()]
    assert kinds == [("pair.drained", "op", "a"), ("pair.undrained", "op", "a")]
    with pytest.raises(NotFound):
        await store.set_drained("nobody", True, actor="op")


async def test_handing_over(store, other):
    first = await store.report(presence())
    await other.report(presence("b", B))
    with pytest.raises(StalePlan):
        await store.hand_over("b", holder=None, actor="op")
    with pytest.raises(StalePlan):
        await store.hand_over("a", holder="b", actor="op")
    with pytest.raises(NotFound):
        await store.hand_over("c", holder="a", actor="op")
    given = await store.hand_over("b", holder="a", actor="op")
    assert given.holder == "b" and given.token > first.lease.token
    assert not (await store.report(presence())).holds
    assert (await other.report(presence("b", B))).holds
    [entry] = await store.audit_entries()
    assert (entry.kind, entry.actor, entry.subject, entry.detail["from"]) == ("pair.switchover", "op", "b", "a")
    assert await store.verify_audit() is None


async def test_a_name_that_another_living_node_has_is_refused(store, other):
    assert (await store.report(presence())).holds
    clash = await other.report(presence("a", B))
    assert clash.name_taken and not clash.holds
    await store.step_down(A, gone=True)
    [node] = await store.nodes()
    assert not node.alive
    taken = await other.report(presence("a", B))
    assert taken.holds and not taken.name_taken


async def test_a_node_that_starts_again_goes_on_at_once(store, other):
    """Killed and started with the same data folder: nobody waits for the lease of a dead process to run out."""
    first = await store.report(presence())
    again = await other.report(presence())
    assert again.holds and again.lease.epoch == first.lease.epoch


async def test_a_copied_data_folder_does_not_make_two_active(store, other):
    assert (await store.report(presence())).holds
    assert not (await other.report(presence("copy", A))).holds
    assert (await store.report(presence())).holds


async def test_the_server_says_what_commits_wait_for(store):
    server = await store.server()
    assert server.durability == "on alone" and server.awaited == "" and server.standbys == ()
    assert server.timeline >= 1
    assert (await store.report(presence())).durability == "on alone"
