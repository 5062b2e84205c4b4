"""The in-process world with agreements that are pulled: EE fetches from us, and we from EE."""

import contextlib
from pathlib import Path

from tests.peer import Answer
from tests.world import EE, World, world

SOAP = "application/soap+xml; charset=UTF-8"
#: The channels of the agreements below.
THEIRS, OURS = "urn:example:mpc:AP_EE_01", "urn:example:mpc:AP_LV_01"
ACTION = "FetchedRequest"

AGREEMENT = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "FetchedRequest"
mep = "one-way-pull"
mpc = "urn:example:mpc:{to}"
pull_every = "1s"
retry = { first = "0.1s", factor = 1, max = "0.1s", count = 2, window = "1h", jitter = 0.0 }
"""


@contextlib.asynccontextmanager
async def pulling(folder: Path, **more):
    """`more` goes to `world`."""
    async with world(folder, more=AGREEMENT, **more) as found:
        yield Pulling(found)


class Pulling:
    """What the two sides of a pull do, one step at a time."""

    def __init__(self, found: World) -> None:
        self.world, self.peer, self.store, self.gateway = found, found.peer, found.store, found.gateway

    # -- EE pulls from us -------------------------------------------------------------

    async def submit(self, *payloads: tuple[bytes, str], **more):
        return await self.world.submit(payloads or ((b"<query/>", "application/x-ebrs+xml"),), action=ACTION, **more)

    async def ask(self, request: bytes | None = None, *, step: int = 1 << 16) -> tuple[int, str, bytes]:
        """POST a PullRequest: (status, content type, body)."""
        body = self.peer.pull_request(THEIRS) if request is None else request
        status, headers, octets = await self.world.raw(SOAP, body, step=step)
        return status, headers.get("content-type", ""), octets

    async def refused(self, request: bytes | None = None) -> Answer:
        """The Error signal a PullRequest is answered with."""
        return self.peer.answer(*await self.ask(request))

    async def fetch(self):
        """Pull a message: (UserMessage, contents, references)."""
        status, content_type, body = await self.ask()
        assert status == 200
        return self.peer.receive(content_type, body)

    async def acknowledge(self, message, references) -> int:
        """POST the receipt in a request of its own; the status it is answered with."""
        return (await self.world.raw(SOAP, self.peer.receipt_for(message, references)))[0]

    async def review(self) -> int:
        """What the loop does with held messages that are due; how many there were."""
        jobs = await self.store.claim("hold", worker="test", limit=10, lease=60)
        for job in jobs:
            await self.gateway.holder.review(job)
        return len(jobs)

    async def state(self, submitted) -> str:
        return (await self.world.view(submitted)).state

    # -- we pull from EE --------------------------------------------------------------

    def offers(self, *answers) -> None:
        """What EE answers our PullRequests with, in this order, and then that the channel is empty; it
        takes signals with 202. An answer is (status, content type, body), or a `Sent`."""
        waiting = list(answers)

        def answer(content_type, body):
            opened, _ = self.peer.open(content_type, body)
            if type(opened.unit).__name__ != "PullRequest":
                return 202, None, b""
            assert opened.unit.mpc == OURS and opened.signer == self.world.keys.signing
            if not waiting:
                return self.empty(opened.unit)
            found = waiting.pop(0)
            return found if isinstance(found, tuple) else (200, found.content_type, found.body)

        self.world.listener.answer = answer

    def empty(self, request) -> tuple[int, str, bytes]:
        import datetime

        from gateway.as4.signals import error_for
        from gateway.errors import EmptyMessagePartitionChannel

        unit = error_for(EmptyMessagePartitionChannel(), ref_to=request.message_id, message_id="e@ee.example",
                         now=datetime.datetime.now(datetime.UTC))  # fmt: skip
        return 200, SOAP, self.peer.signal(unit)

    def message(self, payloads=(("application/x-ebrs+xml", b"<query/>"),), **more):
        more = {"action": ACTION, "mpc": OURS} | more
        return self.peer.message(payloads, **more)

    async def pull(self):
        """One round on the channel we pull; its job afterwards is not due."""
        queues = await self.gateway.puller.channels()
        await self.store.pull_now(queues)
        for job in await self.store.claim("pull", queues=queues, worker="test", limit=1, lease=60):
            await self.gateway.puller.pull(job)

    async def send_receipts(self) -> int:
        jobs = await self.store.claim("receipt", worker="test", limit=10, lease=60)
        for job in jobs:
            await self.gateway.puller.answer(job)
        return len(jobs)

    def signals(self) -> list:
        """What EE got from us besides PullRequests."""
        units = [self.peer.open(*request)[0].unit for request in self.world.listener.received]
        return [unit for unit in units if type(unit).__name__ != "PullRequest"]


__all__ = ["ACTION", "EE", "OURS", "SOAP", "THEIRS", "Pulling", "pulling"]
