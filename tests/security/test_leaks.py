"""M03, M04: neither secrets nor people show in logs, metrics, health or process lists, at level debug.

A person who exists nowhere else is put wherever evidence and its header hold people; the
gateway receives, refuses, delivers, notifies, sends and fails to send; and everything it
says meanwhile is searched.
"""

import contextlib
import http.client
import http.server
import json
import os
import re
import stat
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest

from gateway.as4.units import Property
from gateway.client import GatewayClient, GatewayProblem, Part
from tests.security import forge
from tests.security.site import spellings

PERSON = "Vaira-Canary Ozolina-Pseudonym"
CODE = "LV/EE/290475-CANARY"
PEOPLE = [*spellings(PERSON.encode()), *spellings(CODE.encode()), PERSON.split()[1].encode()]
EVIDENCE = f'<Person><Name>{PERSON}</Name><Identifier>{CODE}</Identifier></Person>'.encode()


#: What the webhook was told: path, body, header.
NOTIFIED: list[tuple[str, bytes, dict]] = []


class Hook(http.server.BaseHTTPRequestHandler):
    """A webhook that notes what it is told, and refuses the first time."""

    def do_POST(self) -> None:
        NOTIFIED.append((self.path, self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
        self.send_response(503 if len(NOTIFIED) == 1 else 204)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def life(site):
    """Everything a gateway goes through, with people in it. Gives the secrets that took part."""
    before = len(site.logged())
    token = json.loads(site.node.cli("backends", "create", "leaks", "--json").stdout)["token"]
    client = GatewayClient(f"http://127.0.0.1:{site.node.plugin}", token, timeout=20)
    hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    webhook = client.add_webhook(f"http://127.0.0.1:{hook.server_port}/hook", [])
    peer = site.peer
    people = (Property("originalSender", CODE), Property("finalRecipient", PERSON), Property("subject", PERSON))

    def message(**more):
        return peer.message([("application/xml", EVIDENCE), ("text/plain", EVIDENCE * 9000)], properties=people,
                            part_properties=(Property("FileName", f"{PERSON}.xml"),), **more)

    sent = message()
    site.accepted(sent)
    site.accepted(sent)
    packed = forge.Packed.of(sent.content_type, sent.body)
    for content_type, body in [
        packed.with_part(1, lambda o: o[:-1]).out,
        packed.with_envelope(packed.envelope.replace(PERSON.encode(), PERSON.upper().encode())).out,
        packed.with_envelope(packed.envelope.replace(b"</eb:Property>", b"", 1)).out,
        packed.with_envelope(packed.envelope.replace(b"<eb:Property ", f"<{PERSON.split()[1]} ".encode(), 1)).out,
        packed.with_envelope(packed.envelope + EVIDENCE).out,
        packed.with_head(1, lambda h: h + f"\r\n{PERSON}".encode()).out,
        (packed.content_type + f"; {PERSON}", sent.body),
        *((m.content_type, m.body) for m in (
            message(action=PERSON), message(message_id=sent.message.message_id), message(digest=lambda *_: bytes(32)),
            peer.message([("text/plain", EVIDENCE)], properties=people[:1]))),
    ]:
        assert site.post(content_type, body, source=site.source()).status < 500
    for delivery in client.claim(limit=50):
        for part in delivery["message"]["parts"]:
            client.payload(delivery["message"]["id"], part["cid"])
        client.nack(delivery, retry_in=3600) if delivery["message"]["message_id"] != sent.message.message_id else client.ack(delivery)
    # The partner's listener does not exist: attempts fail and are repeated.
    corners = {"originalSender": CODE, "finalRecipient": PERSON}
    submitted = client.submit("AP_LV_01", "ExecuteQueryRequest", [Part(EVIDENCE, "application/xml")], properties=corners)
    for wrong in ({"action": PERSON}, {"properties": {"originalSender": PERSON}}, {"message_id": PERSON}, {"to": PERSON}):
        asked = {"to": "AP_LV_01", "action": "ExecuteQueryRequest", "properties": corners, **wrong}
        with pytest.raises(GatewayProblem):
            client.submit(asked.pop("to"), asked.pop("action"), [Part(EVIDENCE, "application/xml")], **asked)
    with contextlib.suppress(GatewayProblem, OSError):
        client.message(CODE.replace("/", "%2F"))
    expected = {"gateway.message.received", "gateway.message.retrying"}
    _until(lambda: expected <= {json.loads(body)["type"] for _, body, _ in NOTIFIED})
    # Nothing of this goes on while other tests count rows.
    _until(lambda: site.store(lambda store: store.cancel(UUID(submitted["id"]))))
    client.remove_webhook(webhook["id"])
    hook.shutdown()
    hook.server_close()
    assert len(site.logged()) > before + 10_000  # it did talk
    return {"token": token, "webhook secret": webhook["secret"]}


def _until(met, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.05)


def metrics(site, path: str = "/metrics") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", site.node.operations, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().read()


def said(site) -> dict[str, bytes]:
    """Everything that the gateway says to operators, and what any user of the machine sees of it."""
    pids = [site.node.process.pid, *site.workers()]
    return {
        "log": site.node.log.read_bytes(),
        "database log": b"".join(p.read_bytes() for p in site.data.rglob("*.log")),
        "metrics": metrics(site), "health": metrics(site, "/readyz?verbose"),
        "process list": b"".join(Path(f"/proc/{p}/cmdline").read_bytes() for p in _with_children(pids)),
    }


def _with_children(pids: list[int]) -> list[int]:
    found = list(pids)
    for pid in found:
        with contextlib.suppress(OSError):
            found += [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if int(c) not in found]
    return found


def test_no_person_is_ever_told_of(site, life):
    for place, octets in said(site).items():
        assert octets or place == "database log"
        for person in PEOPLE:
            assert person not in octets, (place, octets[max(0, octets.index(person) - 300) :][:600])


def test_no_person_is_in_a_notification(site, life):
    for path, body, headers in NOTIFIED:
        assert not [p for p in PEOPLE if p in body or p in path.encode() or p in repr(headers).encode()]


def test_no_secret_is_ever_told(site, life):
    pem = (site.node.folder / "key.pem").read_text()
    private = re.search("BEGIN PRIVATE KEY-----\n(.*)\n-----END PRIVATE", pem, re.S)[1].split()
    kek = (site.data / "key-encryption-key").read_bytes()
    secrets = {
        **{name: [text.encode()] for name, text in life.items()},
        "private key": [line.encode() for line in private if len(line) == 64],
        "key-encryption key": [kek.strip(), *spellings(bytes.fromhex(kek.decode()) if len(kek.strip()) == 64 else kek)],
        "database password": [(site.data / "postgres" / "password").read_bytes().strip()],
    }
    for place, octets in said(site).items():
        for name, forms in secrets.items():
            assert not [form for form in forms if form in octets], (place, name)


def test_files_with_secrets_are_ours_alone(site):
    """M05, the part that a running node shows."""
    for path in (site.data / "key-encryption-key", site.data / "postgres" / "password"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for path in site.data.rglob("*"):
        if not path.is_symlink():
            assert not path.stat().st_mode & 0o002, path
    assert os.stat(site.data / "spool").st_mode & 0o077 == 0


def test_every_line_is_one_json_object(site, life):
    """M02: no value of a peer ends a line or begins another."""
    for line in site.logged().splitlines():
        entry = json.loads(line)
        assert {"ts", "level", "event"} <= entry.keys()
