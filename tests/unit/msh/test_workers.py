"""What the claim loops do when a process ends."""

import asyncio
import time

from gateway.plugin import DeliveryDelayed
from tests.world import CALLER, world


class Silent:
    """A backend whose webhooks are told, and never say that they heard."""

    name, pushes, asgi = "rest", False, None

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def notify(self, _target, _event) -> None:
        self.asked.set()
        await asyncio.Event().wait()

    async def deliver(self, _delivery) -> None:
        raise DeliveryDelayed("nothing is pushed")

    def retry_in(self, _attempt) -> float | None:
        return 60.0


async def test_a_silent_webhook_does_not_hold_up_the_end_and_is_told_by_another_process(tmp_path):
    async with world(tmp_path / "lv") as lv:
        backend = Silent()
        lv.gateway._workers._backends = {"rest": backend}
        await lv.door.add_webhook(CALLER, "http://127.0.0.1:9999/events", ("message.accepted",))
        lv.gateway._workers.start()
        await lv.submit()
        await asyncio.wait_for(backend.asked.wait(), 30)
        began = time.monotonic()
        await lv.gateway._workers.drain(300)
        assert time.monotonic() - began < 100  # far from the deadline of a notification that would be waited for
        [job] = await lv.store.claim("notify", worker="another", limit=1, lease=9.0)
        assert job.data["type"] == "message.accepted"


async def test_what_was_being_claimed_as_the_process_ends_is_given_back(tmp_path):
    """Neither left lying for a lease, nor counted as if somebody had died of it."""
    async with world(tmp_path / "lv") as lv:
        asked, answer, real = asyncio.Event(), asyncio.Event(), lv.store.claim

        async def slow(kind, **wanted):
            jobs = await real(kind, **wanted)
            if kind == "send":
                asked.set()
                await answer.wait()
            return jobs

        lv.store.claim = slow
        await lv.submit()
        lv.gateway._workers.start()
        async with asyncio.timeout(30):
            await asked.wait()
        ending = asyncio.create_task(lv.gateway._workers.drain(30))
        await asyncio.sleep(0.05)
        answer.set()
        await ending
        lv.store.claim = real
        [job] = await lv.store.claim("send", worker="another", limit=1, lease=9.0)
        assert job.lost == 0 and not lv.listener.received
