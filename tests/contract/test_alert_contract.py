"""What is told of certificates: once for all nodes, and the alert that says it."""

import asyncio

import pytest

from gateway.errors import ClaimLost
from gateway.scope import Scope
from gateway.store.alerts import Due, NewAlert
from gateway.store.api import Client
from gateway.store.webhooks import Webhook

DAY = 86_400.0


def due(certificate, threshold, about="expiry"):
    return Due(certificate=certificate, about=about, threshold=threshold, facts={"certificate": certificate})


def say(found):
    return NewAlert("cert.due", {"certificates": sorted(f"{d.certificate} {d.threshold}" for d in found)})


def named(found):
    return sorted((d.certificate, d.about, d.threshold) for d in found)


async def claim(store, lease=30.0):
    return await store.claim_alert(lease=lease, newer=7 * DAY)


async def test_each_threshold_is_told_once_for_all_nodes(store, other):
    assert named(await store.tell([due("a", 90), due("b", 30)], say)) == [("a", "expiry", 90), ("b", "expiry", 30)]
    assert await other.tell([due("a", 90), due("b", 30)], say) == []
    assert named(await other.tell([due("a", 60), due("b", 30), due("c", 0)], say)) == [("a", "expiry", 60), ("c", "expiry", 0)]
    assert named(await store.tell([due("b", 45, "successor")], say)) == [("b", "successor", 45)]
    assert await store.tell([], say) == []


async def test_what_is_less_urgent_is_not_told_afterwards(store):
    await store.tell([due("a", 7)], say)
    assert await store.tell([due("a", 14)], say) == []
    assert named(await store.tell([due("a", 3)], say)) == [("a", "expiry", 3)]


async def test_two_nodes_at_the_same_moment_tell_each_once(store, other):
    many = [due(f"c{n}", 30) for n in range(40)]
    found = await asyncio.gather(*(s.tell(some, say) for s in (store, other) for some in (many, many[::-1], many[10:30])))
    told = [one.certificate for part in found for one in part]
    assert sorted(told) == sorted(d.certificate for d in many)


async def test_an_alert_of_all_that_is_new_comes_with_it(store, other):
    await store.tell([due("a", 90), due("b", 30)], say)
    await store.tell([due("a", 90), due("c", 30)], say)
    first, second = await claim(store), await claim(other)
    assert [first.type, first.data] == ["cert.due", {"certificates": ["a 90", "b 30"]}] and first.attempt == 1
    assert second.data == {"certificates": ["c 30"]} and await claim(store) is None
    events = [(kind, message, data) for _, _, kind, message, data in await store.events()]
    assert events == [("cert.due", None, first.data), ("cert.due", None, second.data)]


async def test_an_alert_is_tried_again_until_it_is_given_up(store, other):
    await store.tell([due("a", 90)], say)
    first = await claim(store)
    await store.finish_alert(first.id, first.claim, state="READY", due_in=0.0, error="no answer")
    second = await claim(other)
    assert (second.id, second.attempt) == (first.id, 2)
    with pytest.raises(ClaimLost):
        await store.finish_alert(first.id, first.claim, state="DONE")
    await other.finish_alert(second.id, second.claim, state="PARKED", error="no answer")
    assert await claim(store) is None


async def test_the_alert_of_a_process_that_died_is_told_by_another(store, other):
    await store.tell([due("a", 90)], say)
    first = await claim(store, lease=0.05)
    await asyncio.sleep(0.1)
    second = await claim(other)
    assert second.id == first.id
    await other.finish_alert(second.id, second.claim, state="DONE")
    with pytest.raises(ClaimLost):
        await store.finish_alert(first.id, first.claim, state="READY")
    assert await claim(store) is None


async def test_old_alerts_are_not_told_and_forgotten(store):
    await store.tell([due("a", 90)], say)
    assert await store.claim_alert(lease=30.0, newer=-1.0) is None
    assert await store.forget_alerts(alerts_before=DAY, told_before=DAY) == 0
    await asyncio.sleep(0.01)
    assert await store.forget_alerts(alerts_before=0.0, told_before=DAY) == 1 and await claim(store) is None
    assert await store.tell([due("a", 90)], say) == []


async def test_webhooks_hear_of_it_that_ask_for_it_by_name_and_see_everything(store):
    for id, scope in (("cl_all", Scope()), ("cl_one", Scope(partners=("AP_EE_01",))), ("cl_gone", Scope())):
        await store.add_client(Client(id=id, name=id, backend="rest", scope=scope))
    await store.revoke_client("cl_gone")

    async def webhook(id, events, client="cl_all", disabled=False):
        await store.add_webhook(Webhook(id=id, backend="rest", url="https://x", sealed_secret=b"s", events=events, client=client, disabled=disabled))

    await webhook("wh_named", ("message.failed", "cert.due"))
    await webhook("wh_every", ())  # whatever concerns messages; certificates of partners it does not know
    await webhook("wh_other", ("message.failed",))
    await webhook("wh_bound", ("cert.due",), client="cl_one")
    await webhook("wh_gone", ("cert.due",), client="cl_gone")
    await webhook("wh_off", ("cert.due",), disabled=True)
    await store.tell([due("a", 90)], say)
    jobs = await store.claim("notify", worker="w", limit=10, lease=30.0)
    assert [job.queue for job in jobs] == ["wh_named"]
    alert = await claim(store)
    assert jobs[0].data == {"id": str(alert.id), "type": "cert.due", "certificates": ["a 90"]}
    assert jobs[0].message is None


async def test_nothing_is_told_when_it_cannot_be_said(store):
    def fails(found):
        raise ValueError("no words")

    with pytest.raises(ValueError):
        await store.tell([due("a", 90)], fails)
    assert named(await store.tell([due("a", 90)], say)) == [("a", "expiry", 90)]


async def test_what_was_told_under_a_wrong_clock_does_not_count(store, nodes):
    """A clock that runs a year ahead tells the end of everything. Put right, each comes at its time again."""
    await store.tell([due("a", 0), due("b", 30)], say)
    await nodes.told_ahead(400)
    assert named(await store.tell([due("a", 90), due("b", 30)], say)) == [("a", "expiry", 90), ("b", "expiry", 30)]
    assert await store.tell([due("a", 90), due("b", 30)], say) == []


async def test_the_clock_is_that_of_all_nodes(store, other):
    before, after = await store.now(), await other.now()
    assert before.tzinfo is not None and before <= after


async def test_a_storm_is_told_when_one_of_it_is_due_and_not_before(store, other):
    def early(certificate, threshold=30):
        return Due(certificate=certificate, about="expiry", threshold=threshold, early=True)

    assert await store.tell([early("b"), early("c")], say) == [] and await claim(store) is None
    await store.tell([due("z", 60)], say)
    assert await store.tell([due("z", 60), early("b"), early("c")], say) == []
    assert named(await store.tell([due("y", 60), early("b")], say)) == [("y", "expiry", 60)]  # not of that threshold
    assert [n for n, *_ in named(await other.tell([due("a", 30), early("b"), early("c")], say))] == ["a", "b", "c"]
    # Each at its own time was told already; who comes later waits for the next that is due.
    assert await store.tell([due("a", 30), due("b", 30), early("d")], say) == []
