"""Deliveries and notifications: at once, nothing lost while a backend is down, poison parked, none in another's way."""

import asyncio

import pytest

from gateway.plugin import DeliveryDelayed, DeliveryRefused
from gateway.store.webhooks import Webhook
from tests.world import CALLER, world

HOUR = 3600.0


class Pushed:
    """A backend that takes pushes; `answer(delivery)` may raise."""

    pushes, asgi = True, None

    def __init__(self, name="register", answer=lambda delivery: None, waits=(0.01,) * 50) -> None:
        self.name, self.answer, self.waits = name, answer, waits
        self.taken, self.told = [], []
        self.changed = asyncio.Event()

    async def run(self) -> None: ...

    async def deliver(self, delivery) -> None:
        self.taken.append(delivery)
        self.changed.set()
        done = self.answer(delivery)
        if asyncio.iscoroutine(done):
            await done

    async def notify(self, _target, event) -> None:
        self.told.append(event)
        self.changed.set()

    def retry_in(self, attempt):
        return self.waits[attempt - 1] if attempt <= len(self.waits) else None

    async def until(self, condition, seconds=30.0):
        async with asyncio.timeout(seconds):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


def site(tmp_path, *, backend="register"):
    from tests.world import replace

    tables = {name: {"kind": "filesystem", "folder": str(tmp_path / name)} for name in ("register", "archive")}
    return world(
        tmp_path / "lv", more=f'[overrides.AP_EE_01]\nbackend = "{backend}"',
        change=lambda c: replace(c, backends=tables),
    )  # fmt: skip


@pytest.fixture
async def start():
    """Start the loops; they end with the test, however it ends."""
    started = []

    def begin(lv):
        started.append(lv.gateway._workers)
        started[-1].start()

    yield begin
    for workers in started:
        for task in [*workers._tasks, *workers._running]:
            task.cancel()


def use(lv, *backends):
    """Instead of what the configuration says."""
    lv.gateway._workers._backends = {b.name: b for b in backends}


async def test_a_message_is_pushed_when_its_receipt_is_out_and_nothing_polls(tmp_path, monkeypatch, start):
    monkeypatch.setattr("gateway.msh.workers.POLL", HOUR)
    async with site(tmp_path) as lv:
        backend = Pushed()
        use(lv, backend)
        start(lv)
        await asyncio.sleep(0.1)  # every loop rests
        answer = await lv.give(lv.peer.message([("application/xml", b"<response/>")]))
        assert answer.status == 200
        await backend.until(lambda b: b.taken)
        [delivery] = backend.taken
        [message] = await lv.store.find(delivery.message.message_id)
        assert message.receipt_at is not None and not delivery.redelivered and delivery.attempt == 1
        await lv.gateway.drain()
        assert (await lv.store.message(message.id)).state == "DELIVERED"


async def test_a_backend_that_is_down_loses_nothing_and_is_told_what_comes_again(tmp_path, monkeypatch, start):
    monkeypatch.setattr("gateway.msh.workers.POLL", 0.05)
    async with site(tmp_path) as lv:
        down = True

        def answer(delivery):
            if down:
                raise DeliveryDelayed("connection refused")

        backend = Pushed(answer=answer)
        use(lv, backend)
        start(lv)
        sent = [lv.peer.message([("application/xml", b"<a/>")]) for _ in range(6)]
        for one in sent:
            await lv.give(one)
        await backend.until(lambda b: len(b.taken) >= 15)
        down = False
        ids = {one.message.message_id for one in sent}
        before = len(backend.taken)
        await backend.until(lambda b: {d.message.message_id for d in b.taken[before:]} == ids)
        again = [d for d in backend.taken[before:] if d.attempt > 1]
        assert again and all(d.redelivered for d in again)
        assert len({(d.message.message_id, d.delivery_id) for d in backend.taken}) == 6  # the same delivery each time
        await lv.gateway.drain()
        assert {(await lv.store.find(id))[0].state for id in ids} == {"DELIVERED"}


async def test_a_poisonous_message_is_parked_and_the_others_go_on(tmp_path, monkeypatch, start):
    monkeypatch.setattr("gateway.msh.workers.POLL", 0.05)
    async with site(tmp_path) as lv:
        poison = lv.peer.message([("application/xml", b"<poison/>")])
        refused = lv.peer.message([("application/xml", b"<never/>")])

        def answer(delivery):
            if delivery.message.message_id == poison.message.message_id:
                raise DeliveryDelayed("500")
            if delivery.message.message_id == refused.message.message_id:
                raise DeliveryRefused("not for us")

        backend = Pushed(answer=answer, waits=(0.01, 0.01))
        use(lv, backend)
        start(lv)
        good = [lv.peer.message([("application/xml", b"<a/>")]) for _ in range(3)]
        for one in (poison, refused, *good):
            await lv.give(one)

        def count(id):
            return sum(d.message.message_id == id for d in backend.taken)

        await backend.until(lambda b: count(poison.message.message_id) == 3 and len(b.taken) >= 7)
        async with asyncio.timeout(30):
            while (await lv.store.backlog()).get("deliver.PARKED") != 2:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert count(poison.message.message_id) == 3 and count(refused.message.message_id) == 1
        assert {(await lv.store.find(one.message.message_id))[0].state for one in good} == {"DELIVERED"}
        # an operator, or the backend, has it delivered once more
        backend.answer = lambda delivery: None
        [parked] = await lv.store.find(poison.message.message_id)
        assert await lv.store.redeliver(parked.id)
        await backend.until(lambda b: count(poison.message.message_id) == 4)
        assert backend.taken[-1].redelivered
        await lv.gateway.drain()


async def test_a_backend_that_does_not_answer_is_not_in_the_way_of_another(tmp_path, monkeypatch, start):
    monkeypatch.setattr("gateway.msh.workers.POLL", HOUR)
    async with site(tmp_path) as lv:
        silent = Pushed("register", answer=lambda delivery: asyncio.Event().wait())
        other = Pushed("archive")
        use(lv, silent, other)
        start(lv)
        for _ in range(20):
            await lv.give(lv.peer.message([("application/xml", b"<a/>")]))
        await silent.until(lambda b: len(b.taken) >= 4)
        await lv.give(lv.peer.message([("application/xml", b"<b/>")]))
        last = list(lv.store._jobs.values())[-1]
        assert last.kind == "deliver"
        last.queue = "archive"
        lv.gateway._workers._work.set()
        await other.until(lambda b: b.taken)
        assert len(silent.taken) == 4


async def test_a_webhook_that_does_not_answer_is_not_in_the_way_of_another(tmp_path, monkeypatch, start):
    """Sixteen are told at once, four of them at one webhook."""
    monkeypatch.setattr("gateway.msh.workers.POLL", HOUR)
    async with world(tmp_path / "lv") as lv:
        begun, told = [], asyncio.Event()

        class Rest(Pushed):
            pushes = False

            async def notify(self, target, event):
                begun.append(target.url)
                if target.url.endswith("/good"):
                    told.set()
                else:
                    await asyncio.Event().wait()

        use(lv, Rest("rest"))
        for name in ("dead", "good"):
            sealed = lv.gateway._rooms.kek.seal_secret(b"-", name)
            await lv.store.add_webhook(
                Webhook(id=name, backend="rest", url=f"http://127.0.0.1:9/{name}", sealed_secret=sealed, client=CALLER.id,
                        events=("message.accepted",) if name == "dead" else ("webhook.test",))
            )  # fmt: skip
        for _ in range(30):
            await lv.store.test_webhook("dead", CALLER.id, {"type": "webhook.test", "id": "e"})
        start(lv)
        async with asyncio.timeout(30):
            while len(begun) < 4:
                await asyncio.sleep(0.01)
        await lv.store.test_webhook("good", CALLER.id, {"type": "webhook.test", "id": "e"})
        await asyncio.wait_for(told.wait(), 30)
        assert begun.count("http://127.0.0.1:9/dead") == 4


async def test_all_of_a_long_queue_is_told_and_nothing_polls(tmp_path, monkeypatch, start):
    """More than there are hands: whoever is done looks for more."""
    monkeypatch.setattr("gateway.msh.workers.POLL", HOUR)
    async with world(tmp_path / "lv") as lv:
        backend = Pushed("rest")
        backend.pushes = False
        use(lv, backend)
        target = await lv.door.add_webhook(CALLER, "http://127.0.0.1:9999/x", ("message.accepted",))
        for _ in range(60):
            await lv.door.test_webhook(CALLER, target.id)
        start(lv)
        await backend.until(lambda b: len(b.told) == 60)
        await lv.gateway.drain()


async def test_the_submitter_hears_at_once_what_becomes_of_it(tmp_path, monkeypatch, start):
    """WAITING_FOR_RETRY and SEND_FAILURE of Domibus: message.retrying, message.failed."""
    monkeypatch.setattr("gateway.msh.workers.POLL", HOUR)
    async with world(tmp_path / "lv", more='[overrides.AP_EE_01]\nretry = { first = "0.2s", factor = 1, max = "0.2s", count = 1, window = "10s" }') as lv:
        backend = Pushed("rest")
        backend.pushes = False
        use(lv, backend)
        await lv.door.add_webhook(CALLER, "http://127.0.0.1:9999/x", ())
        lv.listener.answer = lambda *_: (503, "text/plain", b"")
        start(lv)
        submitted = await lv.submit()
        await backend.until(lambda b: any(e.type == "message.failed" for e in b.told))
        types = [e.type for e in backend.told if e.subject == submitted.id]
        assert types == ["message.accepted", "message.retrying", "message.failed"]
        assert (await lv.view(submitted)).state == "FAILED"
        await lv.gateway.drain()
