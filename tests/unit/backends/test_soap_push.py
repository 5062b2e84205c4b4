"""The gateway calls a backend that listens: what it says, what it takes for an answer, and when it stops."""

import asyncio
import base64
import contextlib
import email
import hashlib
import os

import pytest
from aiohttp import web
from lxml import etree

from gateway.backends.domibus_ws.reading import cid_of
from gateway.errors import ConfigError
from gateway.msh import workers
from gateway.plugin import Caller, MessageFilter, PartyRef, Submission, Waiting
from tests.serving import serving
from tests.world import CORNERS, EE, replace, world

PUSH = "{eu.domibus}"


def digest(octets: bytes) -> tuple[int, str]:
    """What is compared: to show how large contents differ would take minutes."""
    return len(octets), hashlib.sha256(octets).hexdigest()


class Backend:
    """What a backend implements of the interface: it keeps every call, and answers as a test wants."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict, bytes]] = []
        self.answers: list[int] = []
        self.seconds = 0.0  # that an answer takes

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append((dict(request.headers), await request.read()))
        await asyncio.sleep(self.seconds)
        status = self.answers.pop(0) if self.answers else 200
        fault = '<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault><e:Reason><e:Text xml:lang="en">full</e:Text></e:Reason></e:Fault></e:Body></e:Envelope>'
        return web.Response(status=status, text=fault if status != 200 else "", content_type="application/soap+xml")

    def said(self) -> list[tuple]:
        """(operation, message id, status) of every call."""
        found = []
        for _, octets in self.calls:
            body = etree.fromstring(octets).find(".//{*}Body")[0]
            found.append((etree.QName(body).localname, body.findtext("messageID"), body.findtext("messageStatus")))
        return found


@contextlib.asynccontextmanager
async def backend_at():
    backend = Backend()
    async with serving(backend.handle) as place:
        backend.url = f"http://{place}/ws/backend"
        yield backend


@contextlib.asynccontextmanager
async def pushing(tmp_path, **options):
    """(world, backend): what arrives is pushed to `portal`."""
    async with backend_at() as backend:
        (tmp_path / "password").write_text("Pa55 wörd\n")
        table = {"kind": "soap_push", "endpoint": backend.url, "username": "gateway", **options}
        table["password"] = f"file:{tmp_path / 'password'}"
        async with world(
            tmp_path / "lv", more='[overrides.AP_EE_01]\nbackend = "portal"',
            change=lambda c: replace(c, backends={"portal": table}),
        ) as lv:
            yield lv, backend


def handed_over(backend) -> list[tuple[dict, bytes]]:
    """The calls that bring a message."""
    return [call for call in backend.calls if b"submitRequest" in call[1]]


async def settled(condition) -> None:
    deadline = asyncio.get_running_loop().time() + 60
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_a_message_is_handed_over_whole(tmp_path):
    contents = [b"<response/>", os.urandom(700_001), b""]
    async with pushing(tmp_path) as (lv, backend):
        await lv.gateway.start()
        sent = lv.peer.message(
            [("application/x-ebrs+xml", contents[0]), ("application/pdf", contents[1]), ("text/plain", b"")]
        )
        assert (await lv.give(sent)).status == 200
        await settled(lambda: handed_over(backend))
        headers, octets = handed_over(backend)[0]
        assert headers["Authorization"] == "Basic " + base64.b64encode("gateway:Pa55 wörd".encode()).decode()
        assert headers["Content-Type"].startswith("application/soap+xml") and int(headers["Content-Length"]) == len(octets)
        root = etree.fromstring(octets, etree.XMLParser(huge_tree=True))
        call = root.find(".//{*}Body")[0]
        assert call.tag == PUSH + "submitRequest"
        found = [base64.b64decode(p.findtext("value") or "") for p in call.findall("payload")]
        assert list(map(digest, found)) == list(map(digest, contents))
        assert [p.get("mimeType") for p in call.findall("payload")] == ["application/x-ebrs+xml", "application/pdf", "text/plain"]
        header = root.find(f".//{PUSH}Messaging")
        assert header.findtext(".//MessageId") == sent.message.message_id
        assert [p.get("href") for p in header.iter("PartInfo")] == [p.get("payloadId") for p in call.findall("payload")]
        properties = {p.get("name"): (p.text, p.get("type")) for p in header.find(".//MessageProperties")}
        assert properties["finalRecipient"][0] == "C4" and properties["finalRecipient"][1]

        caller = Caller("c", "n", "portal")
        [view], _ = await lv.door.messages(caller, MessageFilter(direction="inbound"))

        async def delivered():
            return (await lv.door.message(caller, view.id)).state == "DELIVERED"

        for _ in range(200):
            if await delivered():
                break
            await asyncio.sleep(0.05)
        assert await delivered()


async def test_mtom(tmp_path):
    content = os.urandom(300_000)
    async with pushing(tmp_path, mtom=True) as (lv, backend):
        await lv.gateway.start()
        await lv.give(lv.peer.message([("application/pdf", content)]))
        await settled(lambda: handed_over(backend))
        headers, octets = handed_over(backend)[0]
        assert int(headers["Content-Length"]) == len(octets)
        parsed = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + octets)
        root, attachment = parsed.get_payload()
        included = etree.fromstring(root.get_payload(decode=True)).find(".//{http://www.w3.org/2004/08/xop/include}Include")
        assert attachment["Content-ID"] == f"<{cid_of(included.get('href'))}>"
        assert digest(attachment.get_payload(decode=True)) == digest(content)


async def test_a_large_message_gets_the_time_it_takes(tmp_path, monkeypatch):
    """The deadline of a delivery grows with the message; a small one does not wait that long."""
    monkeypatch.setattr(workers, "DELIVERY_DEADLINE", 0.3)
    async with pushing(tmp_path, types=("SUBMIT_MESSAGE",)) as (lv, backend):
        backend.seconds = 1.0
        await lv.gateway.start()
        large = lv.peer.message([("application/pdf", os.urandom(700_000))])
        await lv.give(large)
        await settled(lambda: handed_over(backend))
        await lv.give(small := lv.peer.message())
        await settled(lambda: len(handed_over(backend)) == 2)
        states = {}
        for _ in range(100):
            found, _ = await lv.door.messages(Caller("c", "n", "portal"), MessageFilter(direction="inbound"))
            states = {view.message_id: view.state for view in found}
            if states[large.message.message_id] == "DELIVERED":
                break
            await asyncio.sleep(0.05)
        assert states == {large.message.message_id: "DELIVERED", small.message.message_id: "RECEIVED"}


async def test_a_backend_that_is_down_loses_nothing(tmp_path):
    async with pushing(tmp_path, retry="1;60", types=("SUBMIT_MESSAGE",)) as (lv, backend):
        backend.answers = [500, 503]
        await lv.gateway.start()
        await lv.give(lv.peer.message())
        await settled(lambda: len(handed_over(backend)) == 3)


async def test_a_message_nobody_takes_is_parked_and_can_be_pushed_again(tmp_path):
    async with pushing(tmp_path, retry="1;60", types=("SUBMIT_MESSAGE",)) as (lv, backend):
        portal = lv.gateway._backends["portal"]
        backend.answers = [500] * 61
        portal.retry_in = lambda attempt: 0.0 if attempt <= 3 else None
        await lv.gateway.start()
        sent = lv.peer.message()
        await lv.give(sent)
        await settled(lambda: len(backend.calls) == 4)
        caller = Caller("c", "n", "portal")
        for _ in range(100):
            if await lv.door.waiting(caller, Waiting(parked=True)):
                break
            await asyncio.sleep(0.05)
        assert await lv.door.waiting(caller, Waiting(parked=True)) == [sent.message.message_id]
        backend.answers = []
        assert await lv.door.redeliver(caller, sent.message.message_id)
        await settled(lambda: len(backend.calls) == 5)


async def test_what_becomes_of_a_submission_is_told(tmp_path):
    async with pushing(tmp_path) as (lv, backend):
        await lv.gateway._backends["portal"].run()
        await lv.gateway._backends["portal"].run()  # as every process does
        async def nothing(_):
            return
            yield

        caller = Caller("c", "n", "portal")
        done = await lv.door.submit(caller, Submission(to_party=PartyRef(EE.value), action="ExecuteQueryRequest", properties=CORNERS), nothing)
        lv.gateway._workers.start()
        await settled(lambda: len(backend.calls) >= 3)
        said = backend.said()
        assert ("sendSuccess", done.message_id, None) in said
        assert ("messageStatusChange", done.message_id, "SEND_ENQUEUED") in said
        await settled(lambda: ("messageStatusChange", done.message_id, "ACKNOWLEDGED") in backend.said())


@pytest.mark.parametrize("retry", ["x", "0;5", "5;0", "5", "5;5;PROGRESSIVE", "-1;2"])
async def test_a_schedule_that_cannot_be_is_refused(tmp_path, retry):
    with pytest.raises(ConfigError, match="retry"):
        async with pushing(tmp_path, retry=retry):
            pass
