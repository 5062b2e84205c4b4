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
