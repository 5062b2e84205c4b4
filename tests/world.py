"""A gateway of our own (AP_LV_01) and a peer (AP_EE_01), in one process, for tests.

The gateway is the real one, wired by `app.build`; its AS4 application is called as a server
would call it. The peer is `tests.peer`. What the gateway sends goes over real HTTP to a
listener whose answers a test decides.
"""

import asyncio
import contextlib
import datetime
import functools
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace

from gateway import app
from gateway.as4.units import PartyId
from gateway.config import Config
from gateway.plugin import Caller, PartSubmission, PartyRef, PropertyValue, Submission
from tests.peer import Answer, Authority, Keys, Peer, Sent
from tests.serving import serving

LV = PartyId("AP_LV_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV")
EE = PartyId("AP_EE_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE")
CALLER = Caller("cl_test", "test", "rest")
CORNERS = (
    PropertyValue("originalSender", "C1", LV.type),
    PropertyValue("finalRecipient", "C4", EE.type),
    PropertyValue("ExchangeId", "c6d1a9b2-3a57-4c1e-b0d4-9f2200000020"),
    PropertyValue("SpecificationId", "oots-edm:v2.0"),
)

AGREEMENT = """
profile = "{profile}"
self = "AP_LV_01"
allow_http = true

[parties.AP_LV_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"

[parties.AP_EE_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"
endpoint = "{endpoint}"
signing = "ee-sign.pem"
encryption = "ee-enc.pem"
{more}
"""


def to_pem(der: bytes) -> bytes:
    return pem_block("CERTIFICATE", der)


def pem_block(name: str, der: bytes) -> bytes:
    import base64
    import textwrap

    text = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {name}-----\n{text}\n-----END {name}-----\n".encode()


def key_pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_site(folder: Path, keys: Keys, partner: Keys, *, profile: str = "oots/2.0",
               endpoint: str = "http://127.0.0.1:9/as4", more: str = "") -> None:
    """Agreement, certificates and keys of AP_LV_01 as files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pmodes").mkdir(exist_ok=True)
    (folder / "pmodes" / "agreement.toml").write_text(AGREEMENT.format(profile=profile, endpoint=endpoint, more=more))
    (folder / "pmodes" / "ee-sign.pem").write_bytes(to_pem(partner.signing))
    (folder / "pmodes" / "ee-enc.pem").write_bytes(to_pem(partner.encryption))
    (folder / "lv-sign.pem").write_bytes(key_pem(keys.signing_private) + to_pem(keys.signing))
    (folder / "lv-enc.pem").write_bytes(key_pem(keys.decryption_private) + to_pem(keys.encryption))
    for name in ("lv-sign.pem", "lv-enc.pem"):
        (folder / name).chmod(0o600)
    stores = "".join(f'[[keys.store]]\npath = "{name}"\n' for name in ("lv-sign.pem", "lv-enc.pem"))
    (folder / "gateway.toml").write_text(
        f'[node]\nname = "lv-test"\nhost = "lv.example"\n[egress]\nallow_networks = ["127.0.0.0/8"]\n'
        f'[workers]\nclaimers = 4\n{stores}'
    )


@dataclass
class Listener:
    """The peer's HTTP listener. `answer(content_type, body)` gives (status, content type, body) or raises."""

    received: list[tuple[str, bytes]] = field(default_factory=list)
    answer: object = None
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append((request.headers.get("Content-Type", ""), body))
        outcome = self.answer(self.received[-1][0], body)
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        if outcome is None:  # hang up without an answer
            request.transport.close()
            return web.Response()
        status, content_type, octets = outcome
        headers = {"Content-Type": content_type} if content_type else {}
        return web.Response(status=status, body=octets, headers=headers)

    @contextlib.asynccontextmanager
    async def running(self):
        async with serving(self.handle) as place:
            self.url = f"http://{place}/as4"
            yield self


class World:
    """The gateway, the peer, and what goes between them."""

    def __init__(self, gateway: app.Gateway, peer: Peer, store, listener: Listener, keys: Keys, authority: Authority) -> None:
        self.gateway, self.peer, self.store, self.listener = gateway, peer, store, listener
        self.keys, self.authority = keys, authority

    # -- peer → gateway -----------------------------------------------------------

    async def post(self, content_type: str, body: bytes, *, step: int = 1 << 16, path: str = "/as4") -> Answer:
        """POST to the gateway's AS4 application, cut into blocks of `step`."""
        status, headers, octets = await self.raw(content_type, body, step=step, path=path)
        if not octets:
            return Answer(status, None, None, b"")
        return self.peer.answer(status, headers.get("content-type", ""), octets)

    async def raw(self, content_type: str, body: bytes, *, step: int = 1 << 16, path: str = "/as4", method: str = "POST"):
        blocks = [body[i : i + step] for i in range(0, len(body), step)] or [b""]
        events = [{"type": "http.request", "body": b, "more_body": i + 1 < len(blocks)} for i, b in enumerate(blocks)]
        sent = []
        scope = {
            "type": "http", "method": method, "path": path, "client": ("192.0.2.1", 4711),
            "headers": [(b"content-type", content_type.encode())], "state": {},
        }

        async def receive():
            if not events:
                await asyncio.Event().wait()  # the connection stays until the answer is through
            return events.pop(0)

        async def send(event):
            sent.append(event)

        await self.gateway.as4(scope, receive, send)
        headers = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(e.get("body", b"") for e in sent[1:])

    async def give(self, sent: Sent) -> Answer:
        return await self.post(sent.content_type, sent.body)

    async def inbox(self) -> list:
        """Everything a backend would get now, and hand it back at once."""
        deliveries = await self.door.claim(CALLER, limit=100, lease=60)
        for delivery in deliveries:
            await self.door.nack(CALLER, delivery.delivery_id, delivery.claim)
        return deliveries

    async def nothing_stored(self) -> bool:
        from gateway.store.api import MessageFilter

        return not await self.store.messages(MessageFilter()) and not await self.inbox()

    async def content(self, delivery) -> list[bytes]:
        found = []
        for part in delivery.message.parts:
            _, blocks = await self.door.payload(CALLER, delivery.message.id, part.cid)
            found.append(b"".join([block async for block in blocks]))
        return found

    # -- gateway → peer -----------------------------------------------------------

    @property
    def door(self):
        return self.gateway.door

    async def submit(self, payloads=((b"<query/>", "application/x-ebrs+xml"),), *, parts=None, **more):
        parts = parts or tuple(PartSubmission(mime_type=mime) for _, mime in payloads)
        more.setdefault("properties", CORNERS)
        more.setdefault("action", "ExecuteQueryRequest")
        submission = Submission(to_party=PartyRef(EE.value), parts=parts, **more)

        async def content(number):
            yield payloads[number][0]

        return await self.door.submit(CALLER, submission, content)

    async def send_due(self, *, wait: bool = True) -> None:
        """Carry out every send job that is due now."""
        for job in await self.store.claim("send", worker="test", limit=10, lease=60):
            await self.gateway.sender.send(job)

    async def view(self, submitted):
        return await self.door.message(CALLER, submitted.id)

    def receipting(self, content_type: str, body: bytes):
        """The ordinary answer of a peer: a signed receipt."""
        message, _, references = self.peer.receive(content_type, body)
        return 200, "application/soap+xml; charset=UTF-8", self.peer.receipt_for(message, references)


@functools.cache
def _made(suite: str) -> tuple[Authority, Keys, Keys]:
    """Keys are made once a run: RSA keys take their time, and no test changes them."""
    authority = Authority()
    return authority, Keys.make("AP_LV_01", suite, authority), Keys.make("AP_EE_01", suite, authority)


@contextlib.asynccontextmanager
async def world(folder: Path, *, suite: str = "rsa", profile: str = "oots/2.0", more: str = "", store=None, change=None):
    """A gateway that is not claiming by itself: a test calls `send_due`."""
    authority, keys, peer_keys = _made(suite)
    listener = Listener()
    async with listener.running():
        write_site(folder, keys, peer_keys, profile=profile, endpoint=listener.url, more=more)
        config = Config.load(folder / "gateway.toml", environ={})
        if change:
            config = change(config)
        from gateway.clock import SystemClock
        from gateway.store.memory import MemoryStore

        store = store or MemoryStore(SystemClock())
        gateway = await app.build(config, store=store)
        peer = Peer(EE, LV, peer_keys, (keys.signing,), keys.encryption, profile)
        found = World(gateway, peer, store, listener, keys, authority)
        listener.answer = found.receipting
        try:
            yield found
        finally:
            await gateway.close()


__all__ = ["CALLER", "CORNERS", "EE", "LV", "Listener", "World", "datetime", "replace", "world", "write_site"]
