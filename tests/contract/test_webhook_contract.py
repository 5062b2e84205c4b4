"""What every store promises about webhooks and the notices they are sent."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from gateway.errors import ClaimLost
from gateway.scope import Scope
from gateway.store.api import Client
from gateway.store.webhooks import KEPT_ATTEMPTS, NoticeAttempt, Webhook
from tests.contract.test_store_contract import LEASE, inbound, submitted

FAILED = NoticeAttempt(outcome="failed", status=500, seconds=0.25, detail="the webhook answered 500")


async def hook(store, id="w", client="c1", **more):
    made = Webhook(id=id, backend="rest", url="https://x/y", sealed_secret=b"one", client=client, **more)
    await store.add_webhook(made)
    return made


async def claimed(store):
    [job] = await store.claim("notify", worker="w", limit=9, lease=LEASE)
    return job


async def test_change(store):
    made = await hook(store, events=("message.failed",))
    changed = await store.change_webhook("w", "c1", url="https://z", events=(), disabled=True)
    assert (changed.url, changed.events, changed.disabled) == ("https://z", (), True)
    assert changed == await store.webhook("w") == (await store.webhooks(client="c1"))[0]
    again = await store.change_webhook("w", "c1", disabled=False)
    assert (again.url, again.disabled, again.sealed_secret) == ("https://z", False, made.sealed_secret)
    assert await store.change_webhook("w", "c1") == again
    for id, client in (("w", "c2"), ("no", "c1"), ("w\0", "c1")):
        assert await store.change_webhook(id, client, url="https://q") is None
        assert await store.rotate_webhook(id, client, b"x", replacing=b"one", previous=b"one", overlap=9) is None
        assert await store.test_webhook(id, client, {}) is None
        assert await store.notices(id, client) == []
    assert await store.webhook("no") is None


async def test_rotation_keeps_the_secret_before_for_a_while(store):
    await hook(store)
    one = await store.rotate_webhook("w", "c1", b"two", replacing=b"one", previous=b"one", overlap=3600)
    assert (one.sealed_secret, one.sealed_previous) == (b"two", b"one")
    assert await store.rotate_webhook("w", "c1", b"x", replacing=b"one", previous=b"one", overlap=3600) is None
    two = await store.rotate_webhook("w", "c1", b"three", replacing=b"two", previous=b"two one", overlap=60)
    assert (two.sealed_secret, two.sealed_previous) == (b"three", b"two one")
    assert two.previous_until == one.previous_until  # never shorter than promised
    assert await store.webhook("w") == two
    three = await store.rotate_webhook("w", "c1", b"four", replacing=b"three", previous=b"three", overlap=0)
    assert two.previous_until - three.previous_until > timedelta(minutes=59)


async def test_a_webhook_of_a_revoked_client_is_not_there(store):
    await store.add_client(Client(id="c1", name="n", backend="rest"))
    await hook(store)
    assert await store.webhook("w") is not None
    await store.revoke_client("c1")
    assert await store.webhook("w") is None


async def test_a_notice_from_its_first_attempt_to_its_delivery(store):
    await hook(store)
    new = inbound()
    await store.receive_once(new)
    [notice] = await store.notices("w", "c1")
    assert (notice.state, notice.message, notice.attempts) == ("waiting", new.id, ())
    assert notice.data["type"] == "message.received" and notice.due_at is not None
    job = await claimed(store)
    assert job.id == notice.id
    await store.finish_notify(job.id, job.claim, FAILED, due_in=0.0)
    with pytest.raises(ClaimLost):
        await store.finish_notify(job.id, job.claim)
    [notice] = await store.notices("w", "c1", state="waiting")
    [noted] = notice.attempts
    assert (noted.outcome, noted.status, noted.seconds, noted.detail) == ("failed", 500, 0.25, "the webhook answered 500")
    assert noted.at >= notice.created_at
    job = await claimed(store)
    assert job.attempt == 2
    await store.finish_notify(job.id, job.claim, NoticeAttempt(outcome="delivered", status=204))
    assert await store.notices("w", "c1", state="waiting") == []
    [notice] = await store.notices("w", "c1", state="delivered")
    assert [a.outcome for a in notice.attempts] == ["failed", "delivered"] and notice.due_at is None
    assert await store.claim("notify", worker="w", limit=9, lease=LEASE) == []
    assert "notify.DONE" not in await store.backlog()


async def test_parked_and_sent_again(store):
    await hook(store)
    await store.receive_once(inbound())
    job = await claimed(store)
    assert await store.notify_again(job.id, "w", "c1") is False  # somebody is at it
    await store.finish_notify(job.id, job.claim, FAILED)
    [notice] = await store.notices("w", "c1", state="parked")
    assert (await store.backlog())["notify.PARKED"] == 1
    for id, webhook, client in ((notice.id, "w", "c2"), (notice.id, "v", "c1"), (uuid4(), "w", "c1")):
        assert await store.notify_again(id, webhook, client) is False
        assert await store.notice(id, webhook, client) is None
    assert await store.notify_again(notice.id, "w", "c1") is True
    job = await claimed(store)
    assert (job.id, job.attempt, job.data["id"]) == (notice.id, 1, notice.data["id"])
    await store.finish_notify(job.id, job.claim)
    assert await store.notify_again(notice.id, "w", "c1") is True  # one that was delivered, too
    assert len((await store.notice(notice.id, "w", "c1")).attempts) == 2


async def test_a_notice_that_waits_for_its_time_is_due_at_once(store):
    await hook(store)
    await store.receive_once(inbound())
    job = await claimed(store)
    await store.finish_notify(job.id, job.claim, FAILED, due_in=3600)
    assert await store.claim("notify", worker="w", limit=9, lease=LEASE) == []
    assert await store.notify_again(job.id, "w", "c1")
    assert (await claimed(store)).id == job.id


async def test_only_so_many_attempts_are_kept(store):
    await hook(store)
    await store.receive_once(inbound())
    for number in range(KEPT_ATTEMPTS + 3):
        job = await claimed(store)
        await store.finish_notify(job.id, job.claim, NoticeAttempt(outcome="failed", status=500 + number), due_in=0.0)
    [notice] = await store.notices("w", "c1")
    assert [a.status for a in notice.attempts] == list(range(503, 503 + KEPT_ATTEMPTS))


async def test_a_test_notice(store):
    await hook(store, disabled=True)
    id = await store.test_webhook("w", "c1", {"type": "webhook.test", "id": "e"})
    job = await claimed(store)
    assert (job.id, job.message, job.queue, job.data["type"]) == (id, None, "w", "webhook.test")
    assert (await store.notice(id, "w", "c1")).state == "waiting"


async def test_notices_page_by_page(store):
    await hook(store)
    for _ in range(5):
        await store.receive_once(inbound())
    found, after = [], None
    while page := await store.notices("w", "c1", after=after, limit=2):
        found += page
        after = page[-1].created_at, page[-1].id
    assert len({n.id for n in found}) == 5
    assert [n.created_at for n in found] == sorted((n.created_at for n in found), reverse=True)


async def test_notices_are_of_messages_within_the_scope_of_the_client(store):
    await store.add_client(Client(id="c1", name="n", backend="rest"))
    await hook(store)
    await store.receive_once(inbound())
    [notice] = await store.notices("w", "c1")
    await store.set_scope("c1", Scope(actions=("Another",)))
    assert await store.notices("w", "c1") == [] and await store.notice(notice.id, "w", "c1") is None
    assert await store.notify_again(notice.id, "w", "c1") is False


async def test_a_removed_webhook_takes_its_notices_along(store):
    await hook(store)
    await store.receive_once(inbound())
    job = await claimed(store)
    await store.finish_notify(job.id, job.claim)
    assert await store.remove_webhook("w", "c1")
    await hook(store)
    assert await store.notices("w", "c1") == []


async def test_pruning(store):
    await hook(store)
    for outcome in ["delivered"] * 4 + ["failed"] * 2:
        await store.receive_once(inbound())
        job = await claimed(store)
        await store.finish_notify(job.id, job.claim, NoticeAttempt(outcome=outcome))
    await submitted(store)  # one that waits
    day = 86_400.0
    assert await store.prune_notices(delivered_before=day, parked_before=day, keep=9) == 0
    assert await store.prune_notices(delivered_before=day, parked_before=day, keep=3) == 1
    assert len(await store.notices("w", "c1", state="delivered")) == 3
    await asyncio.sleep(0.01)
    assert await store.prune_notices(delivered_before=0.0, parked_before=day, keep=9, limit=2) == 2
    assert await store.prune_notices(delivered_before=0.0, parked_before=day, keep=9) == 1
    assert len(await store.notices("w", "c1", state="parked")) == 2
    assert await store.prune_notices(delivered_before=0.0, parked_before=0.0, keep=9) == 2
    [left] = await store.notices("w", "c1")
    assert left.state == "waiting"


async def test_of_one_queue_only_so_many(store):
    await hook(store, "a")
    await hook(store, "b")
    for _ in range(5):
        await store.test_webhook("a", "c1", {"type": "webhook.test"})
    await store.test_webhook("b", "c1", {"type": "webhook.test"})
    for _ in range(4):
        await store.receive_once(inbound(backend="x"))
    await store.receive_once(inbound(backend="y"))
    jobs = await store.claim("notify", worker="w", limit=9, lease=LEASE, each=2)
    assert sorted(job.queue for job in jobs) == ["a", "a", "b"]
    jobs = await store.claim("notify", queues=("b",), worker="w", limit=9, lease=LEASE, each=2)
    assert jobs == []
    jobs = await store.claim("deliver", queues=("x", "y"), worker="w", limit=9, lease=LEASE, each=3)
    assert sorted(job.queue for job in jobs) == ["x", "x", "x", "y"]
    assert len(await store.claim("notify", worker="w", limit=2, lease=LEASE)) == 2
