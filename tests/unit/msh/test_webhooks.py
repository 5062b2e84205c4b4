"""Webhooks from the door to a real receiver: signatures, rotation, attempts that are noted, parking, replay."""

import asyncio
import base64
import contextlib
import json
from datetime import timedelta

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec.structs import replace
from standardwebhooks.webhooks import Webhook as Reference
from standardwebhooks.webhooks import WebhookVerificationError

from gateway import log
from gateway.backends.webhook import RETRY_SCHEDULE
from gateway.client import WebhookRefused, verify_webhook
from gateway.errors import NotFound, NotPossible, QuotaReached, SubmissionConflict, SubmissionRefused
from gateway.plugin import Caller
from tests.serving import serving
from tests.world import CALLER, world

OTHER = Caller("cl_other", "other", "rest")


class Receiver:
    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.arrived = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        self.arrived.set()
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        return web.Response(status=status, headers=headers)

    @contextlib.asynccontextmanager
    async def running(self):
        async with serving(self.handle) as place:
            self.url = f"http://{place}/hook"
            yield self


@pytest.fixture
async def receiver():
    async with Receiver().running() as made:
        yield made


@pytest.fixture
async def lv(tmp_path):
    async with world(tmp_path / "lv") as found:
        yield found


async def tell(lv) -> None:
    """Carry out every notification that is due."""
    for job in await lv.store.claim("notify", worker="test", limit=20, lease=60):
        await lv.gateway._workers._notify(job)


async def only(lv, target):
    [found] = (await lv.door.webhook_deliveries(CALLER, target.id)).deliveries
    return found


def verifies(public: str, headers: dict[str, str], body: bytes) -> int:
    """How many of the v1a signatures are by this key; written down from the standard, not from the code."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = 0
    for one in headers["webhook-signature"].split(" "):
        version, signature = one.split(",")
        with contextlib.suppress(InvalidSignature):
            if version == "v1a":
                key.verify(base64.b64decode(signature), signed)
                right += 1
    return right


async def test_a_secret_and_the_reference_library(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    sent = await lv.submit()
    await tell(lv)
    [(headers, body)] = receiver.got
    event = Reference(target.secret).verify(body, headers)
    assert event["type"] == "gateway.message.accepted" and event["subject"] == sent.id
    assert event == verify_webhook(headers, body, target.secret) and event["id"] == headers["webhook-id"]
    assert "<query/>" not in body.decode() and set(event["data"]) == {"message_id", "conversation_id", "findings"}
    found = await only(lv, target)
    assert (found.state, found.type, found.event_id, found.message) == ("delivered", "message.accepted", event["id"], sent.id)
    [attempt] = found.attempts
    assert (attempt.outcome, attempt.status, attempt.detail) == ("delivered", 204, "") and attempt.seconds >= 0


async def test_a_public_key(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, (), signature="ed25519")
    assert target.secret == "" and target.signature == "ed25519"
    [public] = target.public_keys
    assert await lv.door.webhooks(CALLER) == [await lv.door.webhook(CALLER, target.id)] == [target]
    await lv.submit()
    await tell(lv)
    [(headers, body)] = receiver.got
    assert verifies(public, headers, body) == 1
    assert verify_webhook(headers, body, public)["type"] == "gateway.message.accepted"
    for changed in ({**headers, "webhook-id": "x"}, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}):
        with pytest.raises(WebhookRefused):
            verify_webhook(changed, body, public)
    with pytest.raises(WebhookRefused):
        verify_webhook(headers, body + b" ", public)


async def test_a_public_key_is_no_secret(lv, receiver):
    """Key confusion: whoever knows the public key must not be able to sign with it as HMAC secret."""
    target = await lv.door.add_webhook(CALLER, receiver.url, (), signature="ed25519")
    [public] = target.public_keys
    await lv.submit()
    await tell(lv)
    [(headers, body)] = receiver.got
    key = base64.b64decode(public.removeprefix("whpk_"))
    import hmac

    mac = hmac.digest(key, f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body, "sha256")
    for forged in ("v1," + base64.b64encode(mac).decode(), "v1a," + base64.b64encode(mac).decode(), "v1a,", "v1a,!!"):
        with pytest.raises(WebhookRefused):
            verify_webhook({**headers, "webhook-signature": forged}, body, public)


@pytest.mark.parametrize("signature", ["hmac", "ed25519"])
async def test_rotation_without_a_gap(lv, receiver, signature):
    first = await lv.door.add_webhook(CALLER, receiver.url, (), signature=signature)
    second = await lv.door.rotate_webhook(CALLER, first.id, overlap=3600)
    third = await lv.door.rotate_webhook(CALLER, first.id, overlap=60)  # the answer of the second one was lost
    assert third.previous_until == second.previous_until
    keys = [t.secret or t.public_keys[0] for t in (first, second, third)]
    assert len(set(keys)) == 3
    shown = await lv.door.webhook(CALLER, first.id)
    assert shown.secret == "" and shown.previous_until == second.previous_until
    assert shown.public_keys == (tuple(keys[::-1]) if signature == "ed25519" else ())
    await lv.submit()
    await tell(lv)
    [(headers, body)] = receiver.got
    assert all(verify_webhook(headers, body, key) for key in keys)
    last = await lv.door.rotate_webhook(CALLER, first.id, overlap=0)  # they are out: now
    await lv.submit()
    await tell(lv)
    headers, body = receiver.got[1]
    assert verify_webhook(headers, body, last.secret or last.public_keys[0])
    for key in keys:
        with pytest.raises(WebhookRefused):
            verify_webhook(headers, body, key)
        if signature == "hmac":
            with pytest.raises(WebhookVerificationError):
                Reference(key).verify(body, headers)
    assert (await lv.door.webhook(CALLER, first.id)).previous_until is None


async def test_failures_are_noted_and_retried_on_schedule(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    await lv.submit()
    receiver.answers = [(500, {}), (302, {"Location": "http://127.0.0.1:1/"}), (503, {"Retry-After": "7200"}), (204, {})]
    waits = []
    for _ in range(3):
        await tell(lv)
        found = await only(lv, target)
        waits.append((found.next_attempt_at - found.attempts[-1].at).total_seconds())
        assert found.state == "waiting"
        job = lv.store._jobs[next(iter(k for k, j in lv.store._jobs.items() if j.kind == "notify"))]
        job.due_at -= timedelta(days=2)
    for wait, planned in zip(waits, (*RETRY_SCHEDULE[1:3], 7200), strict=True):
        assert planned - 1 <= wait <= planned * 1.1 + 1, waits
    await tell(lv)
    found = await only(lv, target)
    assert [(a.outcome, a.status) for a in found.attempts] == [("failed", 500), ("failed", 302), ("failed", 503), ("delivered", 204)]
    assert len(receiver.got) == 4 and len({h["webhook-id"] for h, _ in receiver.got}) == 1


async def test_exhausted_is_parked_visible_and_replayed(lv, receiver, monkeypatch):
    told, counted = [], []
    monkeypatch.setattr(log, "event", lambda name, **facts: told.append((name, facts)))
    monkeypatch.setattr("gateway.metrics.webhook", lambda backend, outcome: counted.append(outcome))
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    await lv.submit()
    receiver.answers = [(500, {})] * len(RETRY_SCHEDULE)
    for _ in RETRY_SCHEDULE:
        await tell(lv)
        for job in lv.store._jobs.values():
            job.due_at -= timedelta(days=2)
    found = await only(lv, target)
    assert found.state == "parked" and found.next_attempt_at is None and len(found.attempts) == len(RETRY_SCHEDULE)
    assert (await lv.store.backlog())["notify.PARKED"] == 1
    assert [facts["kind"] for name, facts in told if name == "delivery.parked"] == ["notify"]
    assert counted == ["failed"] * len(RETRY_SCHEDULE) + ["parked"]
    again = await lv.door.replay_webhook(CALLER, target.id, found.id)
    assert again.state == "waiting"
    receiver.answers = [(500, {})]
    await tell(lv)  # the schedule begins anew
    assert (await only(lv, target)).state == "waiting"
    await lv.door.replay_webhook(CALLER, target.id, found.id)
    await tell(lv)
    assert (await only(lv, target)).state == "delivered"
    assert len({h["webhook-id"] for h, _ in receiver.got}) == 1


async def test_gone_disables_and_it_can_be_enabled_again(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    await lv.submit()
    receiver.answers = [(410, {})]
    await tell(lv)
    found = await only(lv, target)
    assert found.state == "parked" and (found.attempts[0].outcome, found.attempts[0].status) == ("refused", 410)
    assert (await lv.door.webhook(CALLER, target.id)).enabled is False
    await lv.submit()
    await tell(lv)
    assert len(receiver.got) == 1
    assert (await lv.door.change_webhook(CALLER, target.id, enabled=True)).enabled is True
    await lv.door.replay_webhook(CALLER, target.id, found.id)
    await tell(lv)
    assert (await only(lv, target)).state == "delivered"


async def test_what_was_queued_for_one_that_was_disabled_or_revoked_is_not_sent(lv, receiver):
    from gateway.store.api import Client

    await lv.store.add_client(Client(id=CALLER.id, name="test", backend="rest"))
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    await lv.submit()
    await lv.door.change_webhook(CALLER, target.id, enabled=False)
    await tell(lv)
    found = await only(lv, target)
    assert found.state == "parked" and found.attempts[0].detail == "the webhook is disabled"
    await lv.door.change_webhook(CALLER, target.id, enabled=True)
    await lv.door.replay_webhook(CALLER, target.id, found.id)
    await lv.store.revoke_client(CALLER.id)
    await tell(lv)
    assert receiver.got == []


async def test_the_test_event(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.failed",))
    await lv.door.change_webhook(CALLER, target.id, enabled=False)  # to be tried before it is switched on
    made = await lv.door.test_webhook(CALLER, target.id)
    assert (made.type, made.state, made.message) == ("webhook.test", "waiting", None)
    receiver.answers = [(500, {})]
    await tell(lv)
    found = await lv.door.webhook_delivery(CALLER, target.id, made.id)
    assert found.state == "parked" and found.attempts[0].status == 500  # nobody waits three days for a test
    [(headers, body)] = receiver.got
    event = verify_webhook(headers, body, target.secret)
    assert (event["type"], event["data"]) == ("gateway.webhook.test", {"webhook": target.id})
    assert json.loads(body)["id"] == made.event_id


async def test_egress(lv, receiver):
    """[threats J01]"""
    for url in ("http://169.254.169.254/latest", "https://10.0.0.1/", "http://b.example:22/", "ftp://b.example/"):
        with pytest.raises(SubmissionRefused):
            await lv.door.add_webhook(CALLER, url, ())
    target = await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    with pytest.raises(SubmissionRefused):
        await lv.door.change_webhook(CALLER, target.id, url="https://169.254.169.254/")
    # one that the policy of today would not have let in
    await lv.store.change_webhook(target.id, CALLER.id, url="https://10.0.0.1/hook")
    await lv.submit()
    await tell(lv)
    found = await only(lv, target)
    assert found.state == "parked" and found.attempts[0].outcome == "refused" and found.attempts[0].status is None


async def test_others_see_nothing(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, ())
    made = await lv.door.test_webhook(CALLER, target.id)
    door = lv.door
    for attempt in (
        door.webhook(OTHER, target.id), door.change_webhook(OTHER, target.id, enabled=False),
        door.rotate_webhook(OTHER, target.id), door.remove_webhook(OTHER, target.id), door.test_webhook(OTHER, target.id),
        door.webhook_deliveries(OTHER, target.id), door.webhook_delivery(OTHER, target.id, made.id),
        door.replay_webhook(OTHER, target.id, made.id), door.webhook_delivery(CALLER, target.id, "nonsense"),
        door.webhook(CALLER, "wh_\0"), door.webhook(CALLER, "own_rest"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await attempt
    assert await door.webhooks(OTHER) == []


async def test_not_while_it_is_being_sent(lv, receiver):
    target = await lv.door.add_webhook(CALLER, receiver.url, ())
    made = await lv.door.test_webhook(CALLER, target.id)
    await lv.store.claim("notify", worker="test", limit=1, lease=60)
    with pytest.raises(NotPossible):
        await lv.door.replay_webhook(CALLER, target.id, made.id)


async def test_there_are_not_too_many(lv, receiver, monkeypatch):
    monkeypatch.setattr("gateway.msh.webhooks.MOST", 2)
    for _ in range(2):
        await lv.door.add_webhook(CALLER, receiver.url, ())
    with pytest.raises(QuotaReached):
        await lv.door.add_webhook(CALLER, receiver.url, ())
    await lv.door.add_webhook(replace(CALLER, id="cl_2"), receiver.url, ())


async def test_a_running_gateway_tells_at_once(lv, receiver, monkeypatch):
    """Nothing waits for the next look at the queue: the poll is an hour away."""
    monkeypatch.setattr("gateway.msh.workers.POLL", 3600.0)
    await lv.door.add_webhook(CALLER, receiver.url, ("message.accepted",))
    await lv.gateway.start()
    await asyncio.sleep(0.1)
    await lv.submit()
    await asyncio.wait_for(receiver.arrived.wait(), 30)
    await lv.gateway.drain()


# -- registering twice ----------------------------------------------------------------


@pytest.mark.parametrize("signature", ["hmac", "ed25519"])
async def test_whoever_lost_the_answer_asks_again_under_the_same_key(lv, signature):
    async def add(caller=CALLER, key="k1", url="https://example.org/hook", events=("message.failed",), kind=signature):
        return await lv.door.add_webhook(caller, url, events, signature=kind, idempotency_key=key)

    first = await add()
    assert await add() == first
    assert [w.id for w in await lv.door.webhooks(CALLER)] == [first.id]
    for other in ({"url": "https://example.org/other"}, {"events": ()}, {"kind": "hmac" if signature == "ed25519" else "ed25519"}):
        with pytest.raises(SubmissionConflict):
            await add(**other)
    assert (await add(key="k2")).id != first.id
    assert (await add(caller=OTHER)).id != first.id  # keys are the client's own
