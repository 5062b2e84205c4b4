"""Who takes part beside the nodes: two partners with access points of their own, a producer and a consumer.

Each writes down what it saw before it acts on it. They know nothing of the nodes' insides.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

from gateway.as4.units import Receipt
from gateway.errors import GatewayError
from gateway.plugin import Caller, PartSubmission, PartyRef, PropertyValue, Submission
from tests.peer import Peer, check_receipt
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.world import CORNERS


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


@dataclass
class Partner:
    """A foreign access point: sends until it has the receipt, and takes each message once."""

    name: str
    peer: Peer
    network: Network
    faults: Faults
    gateway: str
    clock: object
    sent: dict[str, str] = field(default_factory=dict)  # MessageId -> digest
    receipted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    taken: dict[str, set[tuple]] = field(default_factory=dict)  # MessageId -> what each attempt signed
    contents: dict[str, set[str]] = field(default_factory=dict)
    arrivals: int = 0

    async def send(self, size: int) -> None:
        """One message, again and again with the same octets, until its receipt is here."""
        content = self.faults.random.randbytes(size)
        sent = self.peer.message([("application/octet-stream", content)], timestamp=self.clock.now())
        id = sent.message.message_id
        self.sent[id] = digest(content)
        self.faults.note(f"{self.name} sends {id}")
        while True:
            try:
                status, kind, body = await self.network.post(self.gateway, sent.content_type, sent.body)
                if status == 200:
                    answer = self.peer.answer(status, kind, body)
                    if isinstance(answer.unit, Receipt):
                        check_receipt(answer, sent)
                        self.faults.note(f"{self.name} has the receipt for {id}")
                        self.receipted.add(id)
                        return
                    self.refused[id] = f"{answer.code}"
                    self.faults.note(f"{self.name} is answered {answer.code} for {id}")
            except ConnectionError:
                pass
            await asyncio.sleep(self.faults.random.uniform(0.5, 5.0))

    async def listen(self, content_type: str, body: bytes) -> tuple[int, str, bytes]:
        """Take a message of ours and answer with a signed receipt."""
        try:
            message, contents, references = self.peer.receive(content_type, body)
        except Exception:  # whatever a cut message looks like
            return 400, "text/plain", b""
        self.arrivals += 1
        id = message.message_id
        self.faults.note(f"{self.name} takes {id}")
        self.taken.setdefault(id, set()).add(tuple(sorted((r.uri, r.digest) for r in references)))
        self.contents.setdefault(id, set()).add(digest(b"".join(contents)))
        await asyncio.sleep(self.faults.random.choice((0.0, 0.05, 0.5, 10.0)))
        return 200, "application/soap+xml; charset=UTF-8", self.peer.receipt_for(message, references)


@dataclass
class Producer:
    """A backend that submits until it is told that the gateway has it."""

    call: object  # (verb, arguments) at some node; raises ConnectionError or GatewayError
    faults: Faults
    accepted: dict[str, tuple[str, str]] = field(default_factory=dict)  # MessageId -> (partner, digest)

    async def submit(self, party, size: int) -> None:
        content = self.faults.random.randbytes(size)
        id = f"{self.faults.random.randbytes(8).hex()}@producer.example"
        submission = Submission(
            to_party=PartyRef(party.value), action="ExecuteQueryRequest", message_id=id,
            properties=tuple(PropertyValue(p.name, p.value, p.type) for p in CORNERS),
            parts=(PartSubmission(mime_type="application/octet-stream"),),
        )

        async def payload(_number: int):
            yield content

        while True:
            try:
                await self.call(lambda door: door.submit(PRODUCER, submission, payload, idempotency_key=id))
                break
            except (ConnectionError, GatewayError) as error:
                assert isinstance(error, ConnectionError) or error.temporary, error
                await asyncio.sleep(self.faults.random.uniform(0.2, 2.0))
        self.faults.note(f"accepted {id}")
        self.accepted[id] = (party.value, digest(content))


@dataclass
class Consumer:
    """A backend that claims, reads, keeps and acknowledges; it dies now and then in between."""

    call: object
    faults: Faults
    delivered: list[tuple[str, str, bool]] = field(default_factory=list)  # MessageId, digest, redelivered
    acknowledged: dict[str, int] = field(default_factory=dict)
    closed: bool = False

    async def work(self) -> None:
        while not self.closed:
            try:
                for delivery in await self.call(lambda door: door.claim(CONSUMER, limit=3, lease=20.0)):
                    await self._take(delivery)
            except (ConnectionError, GatewayError):
                pass
            await asyncio.sleep(self.faults.random.uniform(0.05, 1.0))

    async def _take(self, delivery) -> None:
        message = delivery.message
        content = b"".join([await self._read(message, part.cid) for part in message.parts])
        self.faults.note(f"consumer has {message.message_id}{' again' if delivery.redelivered else ''}")
        self.delivered.append((message.message_id, digest(content), delivery.redelivered))
        if self.faults.strikes(0.1):
            return  # it died before it could say so
        await self.call(lambda door: door.ack(CONSUMER, delivery.delivery_id, delivery.claim))
        self.faults.note(f"consumer acknowledged {message.message_id}")
        self.acknowledged[message.message_id] = self.acknowledged.get(message.message_id, 0) + 1

    async def _read(self, message, cid: str) -> bytes:
        async def all_of(door) -> bytes:
            _, blocks = await door.payload(CONSUMER, message.id, cid)
            return b"".join([block async for block in blocks])

        return await self.call(all_of)


PRODUCER = Caller("cl_producer", "producer", "rest")
CONSUMER = Caller("cl_consumer", "consumer", "rest")
