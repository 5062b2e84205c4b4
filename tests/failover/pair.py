"""Two real gateways, LV and EE, each with its own processes and database, and an outside checker.

The checker knows nothing of the gateways' insides. It writes each observation to its own log
before it acts on it (submitted, delivered, acknowledged), and at the end compares the logs.
"""

import contextlib
import hashlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from gateway.client import GatewayClient, GatewayProblem, Part
from tests.failover.table import record
from tests.peer import Authority, Keys, Peer
from tests.world import EE, LV, key_pem, to_pem

ROOT = Path(__file__).parents[2]

AGREEMENT = """
profile = "oots/2.0"
self = "{me}"
allow_http = true
retry = {{ first = "0.3s", factor = 1.2, max = "1s", count = 90, window = "10m" }}

[parties.{me}]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:{my_country}"

[parties.{partner}]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:{country}"
endpoint = "http://127.0.0.1:{port}/as4"
certificate = "partner.pem"
"""

CONFIG = """
[node]
name = "{name}"
host = "{name}.example"
[egress]
allow_networks = ["127.0.0.0/8"]
[workers]
processes = 1
claimers = 4
[[keys.store]]
path = "key.pem"
[as4]
bind = "127.0.0.1:{as4}"
[plugin]
bind = "127.0.0.1:{plugin}"
[operations]
bind = "127.0.0.1:{operations}"
[circuit]
first = "0.3s"
longest = "1s"
[log]
format = "json"
# What was delivered is looked at again at the end.
[retention]
delivered_payloads = "1h"
{more}
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Node:
    """One gateway: `gateway run` with its private PostgreSQL."""

    def __init__(self, folder: Path, name: str, ports: list[int]) -> None:
        self.folder, self.name = folder, name
        self.as4, self.plugin, self.operations = ports
        self.config = folder / "gateway.toml"
        self.process: subprocess.Popen | None = None
        #: What says that it has started; a passive node is never ready.
        self.probe = "/readyz"
        self.log = folder / "log.jsonl"
        #: Where its program is: another one for another release.
        self.root = ROOT

    def write(self, keys: Keys, partner: Keys, me: tuple[str, str], other: tuple[str, str], port: int, more: str = "") -> None:
        (self.folder / "pmodes").mkdir(parents=True)
        (self.folder / "pmodes" / "agreement.toml").write_text(AGREEMENT.format(
            me=me[0], my_country=me[1], partner=other[0], country=other[1], port=port))
        (self.folder / "pmodes" / "partner.pem").write_bytes(to_pem(partner.signing))
        (self.folder / "key.pem").write_bytes(key_pem(keys.signing_private) + to_pem(keys.signing))
        (self.folder / "key.pem").chmod(0o600)
        self.config.write_text(CONFIG.format(
            name=self.name, as4=self.as4, plugin=self.plugin, operations=self.operations, more=more))

    def start(self, **environment: str) -> None:
        if "GATEWAY_CRASH_ONCE" in environment:
            # One message may be there at every death: it is no poison.
            environment = {"GATEWAY__WORKERS__DEATHS": "1000", **environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "--config", str(self.config)],
                cwd=self.root, env={**os.environ, **environment}, stderr=log, stdout=log,
            )
        self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.name} is not ready after {seconds} s:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def ready(self) -> bool:
        return self.asked(self.probe)[0] == 200

    def asked(self, path: str, port: int | None = None, *, patience: float = 2.0) -> tuple[int, str]:
        """Status and text of a GET on the operations listener, or another; (0, "") when there is no answer."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port or self.operations, timeout=patience)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()
        return 0, ""

    def stop(self, seconds: float = 60) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to the supervisor: everything else has to notice by itself."""
        self.process.kill()
        self.process.wait(10)

    def cli(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--config", str(self.config)],
            cwd=self.root, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done

    def client(self) -> GatewayClient:
        made = json.loads(self.cli("backends", "create", "checker", "--json").stdout)
        return GatewayClient(f"http://127.0.0.1:{self.plugin}", made["token"], timeout=20, attempts=8)


class Pair:
    """LV sends to EE; both are real."""

    def __init__(self, folder: Path, *, more: str = "") -> None:
        self.authority = Authority()
        self.keys = {name: Keys.make(name, "rsa", self.authority) for name in ("LV", "EE")}
        ports = free_ports(6)
        self.lv, self.ee = Node(folder / "lv", "lv", ports[:3]), Node(folder / "ee", "ee", ports[3:])
        me, other = ("AP_LV_01", "LV"), ("AP_EE_01", "EE")
        self.lv.write(self.keys["LV"], self.keys["EE"], me, other, self.ee.as4, more)
        self.ee.write(self.keys["EE"], self.keys["LV"], other, me, self.lv.as4, more)

    @property
    def peer(self) -> Peer:
        """LV's identity in the hands of a test, for messages that a gateway would never send."""
        return Peer(LV, EE, self.keys["LV"], (self.keys["EE"].signing,), self.keys["EE"].encryption)

    def stop(self) -> None:
        for node in (self.lv, self.ee):
            with contextlib.suppress(Exception):
                node.stop()


class Checker:
    """Producer at LV, consumer at EE, webhook of EE. Logs first, acts second."""

    action = "ExecuteQueryRequest"
    receiver = "AP_EE_01"

    def __init__(self, pair: Pair, log: Path) -> None:
        self._pair, self._log, self._lock = pair, log.open("a"), threading.Lock()
        self.submitted: dict[str, list[str]] = {}      # MessageId -> digests of its parts
        self.acknowledged: list[str] = []              # MessageIds whose ack was answered
        self.delivered: list[tuple[str, bool]] = []    # (MessageId, redelivered)
        self.events: list[dict] = []
        self.producer, self.consumer = pair.lv.client(), pair.ee.client()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def note(self, what: str, **facts) -> None:
        with self._lock:
            self._log.write(json.dumps({"at": time.time(), "what": what, **facts}) + "\n")
            self._log.flush()
            os.fsync(self._log.fileno())

    # -- producer -----------------------------------------------------------------

    def submit(self, *contents: bytes, message_id: str = "") -> str:
        """Submit until the gateway says it has it; the same key, so once."""
        key = os.urandom(8).hex()
        message_id = message_id or f"{key}@checker.example"
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        self.note("submit", message_id=message_id, digests=digests)
        end = time.monotonic() + 60
        while True:
            try:
                self.producer.submit(
                    self.receiver, self.action, [Part(content, "application/octet-stream") for content in contents],
                    properties={"originalSender": "C1", "finalRecipient": "C4"},
                    message_id=message_id, idempotency_key=key,
                )
                break
            except (OSError, GatewayProblem) as error:
                if time.monotonic() > end or (isinstance(error, GatewayProblem) and error.status < 500):
                    raise
                time.sleep(0.1)
        self.note("submitted", message_id=message_id)
        self.submitted[message_id] = digests
        return message_id

    def wait_acknowledged(self, seconds: float = 60) -> None:
        """Every submitted message has its receipt."""
        end = time.monotonic() + seconds
        left = dict.fromkeys(self.submitted)
        while left:
            for message_id in list(left):
                with contextlib.suppress(OSError, GatewayProblem):
                    state = self.producer.message(message_id)["state"]
                    if state == "ACKNOWLEDGED":
                        del left[message_id]
                    assert state != "FAILED", f"{message_id} failed"
            if time.monotonic() > end:
                raise AssertionError(f"without receipt after {seconds} s: {list(left)}")
            time.sleep(0.1)

    # -- consumer -----------------------------------------------------------------

    def consume(self) -> "Checker":
        thread = threading.Thread(target=self._consume, daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def _consume(self) -> None:
        while not self._stop.is_set():
            try:
                for delivery in self.consumer.claim(limit=5, lease=3):
                    self._take(delivery)
            except (OSError, GatewayProblem):
                time.sleep(0.1)
                continue
            self._stop.wait(0.05)

    def _take(self, delivery: dict) -> None:
        message = delivery["message"]
        id = message["message_id"]
        digests = [
            hashlib.sha256(self.consumer.payload(message["id"], part["cid"])).hexdigest()
            for part in message["parts"]
        ]
        self.note("delivered", message_id=id, digests=digests, redelivered=delivery["redelivered"])
        self.delivered.append((id, delivery["redelivered"]))
        assert digests == self.submitted.get(id, digests)
        self.consumer.ack(delivery)
        self.note("acked", message_id=id)
        self.acknowledged.append(id)

    def wait_delivered(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while missing := set(self.submitted) - {id for id, _ in self.delivered}:
            if time.monotonic() > end:
                raise AssertionError(f"acknowledged to the sender and never delivered: {missing}")
            time.sleep(0.1)

    # -- webhook ------------------------------------------------------------------

    def listen(self) -> None:
        """A webhook receiver for EE's events."""
        checker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                checker.note("event", id=self.headers["webhook-id"])
                checker.events.append({"id": self.headers["webhook-id"], **json.loads(body)})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.consumer.add_webhook(f"http://127.0.0.1:{server.server_port}/hook", ["message.received"])

    # -- the verdict ----------------------------------------------------------------

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def report(self, id: str, fault: str, **facts) -> dict[str, int]:
        """What the logs say goes into the table of the suite, as `facts` for `record`; then they are judged."""
        delivered = {id for id, _ in self.delivered}
        acknowledged = Counter(self.acknowledged)
        record(id, fault, messages=len(self.submitted), lost=len(set(self.submitted) - delivered),
               twice=sum(count > 1 for count in acknowledged.values()), **facts)  # fmt: skip
        return self.judge()

    def judge(self) -> dict[str, int]:
        """Compare the logs: nothing lost, nothing delivered twice by our doing."""
        delivered: dict[str, int] = {}
        for id, redelivered in self.delivered:
            # A second delivery is one the consumer did not acknowledge, and it says so.
            assert id not in delivered or redelivered, f"{id} delivered twice and not marked"
            delivered[id] = delivered.get(id, 0) + 1
        assert set(delivered) == set(self.submitted), (
            f"lost: {set(self.submitted) - set(delivered)}, never submitted: {set(delivered) - set(self.submitted)}")
        after_ack = [id for id in delivered if self.acknowledged.count(id) > 1]
        assert not after_ack, f"delivered again after the acknowledgement was answered: {after_ack}"
        return {"submitted": len(self.submitted), "delivered": len(delivered),
                "redelivered": sum(delivered.values()) - len(delivered)}
