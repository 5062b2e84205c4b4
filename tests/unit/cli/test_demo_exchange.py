"""The demo's business software on both sides, against an in-memory plugin API.

The real thing (two gateways, processes, AS4) is `tests/interop/test_demo.py`; here the
roads a demo normally does not take are walked: declined, used links, replays, other octets.
"""

import base64
import datetime
import ipaddress
import json
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from hashlib import sha256

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.backends.webhook import sign
from gateway.cli.demo import pages, scenario
from gateway.cli.demo.ledger import DemoFailed, Ledger
from gateway.cli.demo.provider import Provider
from gateway.cli.demo.requester import Requester, request_properties
from gateway.client import Part
from gateway.oots import birth, codes, edm, samples

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Api:
    """What `GatewayClient` does, for one side; `other` is where submissions arrive."""

    def __init__(self, party: str, country: str) -> None:
        self.party = {"id": party, "type": f"{codes.UNREGISTERED}{country}", "role": codes.ROLE}
        self.other: Api | None = None
        self.waiting, self.messages, self.contents, self.acked, self.hooks = queue.SimpleQueue(), {}, {}, [], []
        self.spoil = False

    def submit(self, to_party, action, parts, **more):
        parts = list(parts)
        now = datetime.datetime.now(datetime.UTC).isoformat()
        view = {
            "id": str(uuid.uuid4()), "message_id": f"{uuid.uuid4()}@x", "state": "ACKNOWLEDGED",
            "timestamp": now, "created_at": now, "receipt_at": now, "action": action,
            "from_party": self.party, "to_party": {**to_party, "role": codes.ROLE},
            "service": more["service"], "service_type": more["service_type"],
            "conversation_id": more["conversation_id"], "properties": more["properties"],
            "parts": [{"cid": p.cid, "mime_type": p.mime_type, "sha256": sha256(p.content).hexdigest()} for p in parts],
        }  # fmt: skip
        self.messages[view["id"]] = view
        for part in parts:
            content = part.content + b"!" if self.spoil else part.content
            self.other.contents[view["id"], part.cid] = content
        self.other.waiting.put({"delivery_id": str(uuid.uuid4()), "claim": "c", "message": view})
        self.other.tell()
        return {"id": view["id"], "message_id": view["message_id"]}

    def tell(self):
        body = json.dumps({"type": "gateway.message.received"}).encode()
        stamp = int(time.time())
        headers = {
            "webhook-id": "e", "webhook-timestamp": str(stamp), "webhook-signature": sign(SECRET, "e", stamp, body),
        }  # fmt: skip
        for url in self.hooks:
            urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5).close()

    def add_webhook(self, url, events):
        self.hooks.append(url)
        return {"id": "wh", "secret": SECRET}

    def claim(self, limit=1):
        found = []
        while not self.waiting.empty():
            found.append(self.waiting.get())
        return found

    def payload(self, id, cid):
        return self.contents[id, cid]

    def ack(self, delivery):
        self.acked.append(delivery["message"]["message_id"])

    def wait(self, id, timeout):
        return self.messages[id]

    message = wait

    def events(self, id):
        return [{"stage": "receipt"}]


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1: the sites' context and the browser's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "site.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


class World:
    def __init__(self, tls) -> None:
        self.lv, self.ee = Api("AP_LV_01", "LV"), Api("AP_EE_01", "EE")
        self.lv.other, self.ee.other = self.ee, self.lv
        self.ledger, self.browser = Ledger(), tls[1]
        self.answers = 0
        site = pages.Site(tls[0])
        self.requester = Requester(self.lv, self.ledger, site, tls[1])
        self.provider = Provider(self.ee, self.ledger, pages.Site(tls[0]), returns=site.address)

    def __enter__(self):
        self.requester.start()
        self.provider.start()
        return self

    def __exit__(self, *_):
        self.requester.stop()
        self.provider.stop()

    def run(self):
        return list(scenario.exchange(self.requester, self.ledger, patience=10))

    def ask(self, document: str, exchange: str | None = None) -> edm.EdmIndex:
        """Send a request of one's own and read the answer to it."""
        before = self.answers
        self.answers += 1
        self.requester.office.send(
            self.ee.party, codes.REQUEST, [Part(document.encode(), codes.REGREP_MEDIA_TYPE, cid=f"{uuid.uuid4()}@x")],
            conversation_id=str(uuid.uuid4()), properties=request_properties(exchange or str(uuid.uuid4())),
        )  # fmt: skip
        answer = self.ledger.sent("EE->LV", before, until=time.monotonic() + 5)
        return edm.index(self.ledger.taken(answer.message_id, until=time.monotonic() + 5).document)

    def open(self, url: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(url, data, timeout=5, context=self.browser) as page:
            return page.read()


@pytest.fixture
def world(tls):
    with World(tls) as world:
        yield world


def request(**more) -> str:
    known = {"id": uuid.uuid4(), "at": datetime.datetime.now(datetime.UTC)}
    return samples.request(more.pop("scenario", birth.BIRTH), **(known | more))


def test_the_exchange(world):
    results = world.run()
    assert [(r.direction, r.action) for r in results] == [
        ("LV->EE", codes.REQUEST), ("EE->LV", codes.EXCEPTION), ("LV->EE", codes.REQUEST), ("EE->LV", codes.RESPONSE),
    ]  # fmt: skip
    assert all(r.receipt_verified and r.payload_digest_equal and r.bytes for r in results)
    assert world.requester.evidence.startswith(b"%PDF-1.4") and world.requester.complete.is_set()
    assert sha256(world.requester.evidence).hexdigest() == world.requester.shown
    assert len(world.ee.acked) == 2 and len(world.lv.acked) == 2
    assert world.requester.office.notified == 2 and world.provider.office.notified == 2


def test_other_octets_are_noticed(world):
    world.lv.spoil = True
    with pytest.raises(DemoFailed, match="other octets"):
        world.run()


def test_a_failed_message_is_explained(world):
    failed = {"state": "FAILED", "error_code": "EBMS:0010", "error_detail": "no agreement"}
    world.lv.message = lambda id: failed
    world.ee.claim = lambda limit: []
    world.ee.tell = lambda: None
    with pytest.raises(DemoFailed, match=r"ExecuteQueryRequest LV->EE did not arrive .* FAILED: EBMS:0010 no agreement"):
        list(scenario.exchange(world.requester, world.ledger, patience=0.2))


def test_a_system_check_needs_no_preview(world):
    check = msgspec.structs.replace(birth.BIRTH, procedure="00")
    assert world.ask(request(scenario=check)).outcome == "evidence"


def test_decline_gives_the_empty_list(world):
    exchange = str(uuid.uuid4())
    url = world.ask(request(), exchange).preview_url
    assert world.open(url + "/certificate.pdf").startswith(b"%PDF")
    assert b"You can close this page" in world.open(url, b"decision=decline")
    assert world.ask(request(preview_location=url), exchange).outcome == "empty"


def test_the_second_request_may_come_after_the_decision(world):
    url = world.ask(request()).preview_url
    world.open(url, b"decision=accept")
    assert world.ask(request(preview_location=url)).outcome == "evidence"


def test_a_link_works_once(world):
    url = world.ask(request()).preview_url
    world.open(url, b"decision=accept")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        world.open(url)
    assert world.ask(request(preview_location=url)).outcome == "evidence"
    late = world.ask(request(preview_location=url))
    assert late.outcome == "error" and late.exceptions[0].code == "EDM:ERR:0005"


def test_opening_the_page_decides_nothing(world):
    url = world.ask(request()).preview_url
    for data in (None, b"", b"decision=perhaps"):
        assert b'value="accept"' in world.open(url, data)


def test_users_are_not_sent_just_anywhere(world):
    url = world.ask(request()).preview_url
    world.requester.office.send(
        world.ee.party, codes.REQUEST,
        [Part(request(preview_location=url, return_location="https://evil.example/").encode(),
              codes.REGREP_MEDIA_TYPE, cid="x@y")],
        conversation_id=str(uuid.uuid4()), properties=request_properties(str(uuid.uuid4())),
    )  # fmt: skip
    request_2 = world.ledger.sent("LV->EE", 1, until=time.monotonic() + 5)
    world.ledger.taken(request_2.message_id, until=time.monotonic() + 5)
    assert b"You can close this page" in world.open(url, b"decision=accept")


@pytest.mark.parametrize("document,code", [
    (lambda id: request(id=id), "EDM:ERR:0003"),
    (lambda id: request().replace(">R1<", ">T2<"), "EDM:ERR:0004"),
    (lambda id: request().replace("sdg:Person>", "sdg:Nobody>"), "EDM:ERR:0004"),
    (lambda id: request().replace("application/pdf", "image/png"), "EDM:ERR:0007"),
    (lambda id: request().replace(codes.EDM_2_0, "oots-edm:v9.0"), "EDM:ERR:0003"),
    (lambda id: request(preview_location="https://127.0.0.1/p/never"), "EDM:ERR:0005"),
], ids=["replay", "procedure", "subject", "format", "version", "link"])  # fmt: skip
def test_what_the_register_does_not_serve(world, document, code):
    id = uuid.uuid4()
    assert world.ask(request(id=id)).outcome == "preview"
    answer = world.ask(document(id))
    assert answer.outcome == "error" and answer.exceptions[0].code == code


def test_documents_nobody_can_answer_are_taken_and_left(world):
    for octets in (b"%PDF", b"<a/>", request().replace("LV-DEMO-ER-1", "").encode()):
        world.requester.office.send(
            world.ee.party, codes.REQUEST, [Part(octets, codes.REGREP_MEDIA_TYPE, cid="a@b")],
            conversation_id=str(uuid.uuid4()), properties=request_properties(str(uuid.uuid4())),
        )  # fmt: skip
    for number in range(3):
        sent = world.ledger.sent("LV->EE", number, until=time.monotonic() + 5)
        world.ledger.taken(sent.message_id, until=time.monotonic() + 5)
    assert len(world.ledger._sent) == 3


def test_an_unsigned_webhook_is_refused(world):
    office = world.requester.office
    assert office.told({}, b"{}") == 401
    stamp = int(time.time())
    headers = {"webhook-id": "e", "webhook-timestamp": str(stamp), "webhook-signature": sign(SECRET, "e", stamp, b"{}")}
    assert office.told(headers, b"{ }") == 401 and office.notified == 0
    assert office.told(headers, b"{}") == 204 and office.notified == 1


def test_threads_end(tls):
    before = threading.active_count()
    with World(tls):
        assert threading.active_count() > before
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert threading.active_count() <= before
