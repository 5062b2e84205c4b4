"""Two nodes of one access point on one database, a partner, load in both directions, and forwarders between them."""

import asyncio
import json
import os
import socket
import threading
import time
from pathlib import Path

from gateway.store.postgres import PostgresStore
from tests.failover.pair import AGREEMENT, Checker, Node, Pair, free_ports
from tests.peer import Keys
from tests.world import key_pem, to_pem

FINLAND = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "http://127.0.0.1:9/as4"
certificate = "finland.pem"
"""


#: Between two messages of one direction. `make rollover` asks for more.
INTERVAL = 0.02 if os.environ.get("GATEWAY_ROLLOVER") == "full" else 0.25
PROCESSES = ["ee 0", "ee 1", "ee2 0", "ee2 1"]


class Forwarder:
    """A TCP port whose connections go to the given ports in turn: a load balancer, or a second address."""

    def __init__(self, *ports: int) -> None:
        self._ports, self.taken = list(ports), 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            for _ in self._ports:
                port = self._ports[self.taken % len(self._ports)]
                self.taken += 1
                try:
                    server = socket.create_connection(("127.0.0.1", port), 5)
                except OSError:
                    continue  # that node is away: the next one, as a load balancer does
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()
                break
            else:
                client.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while block := source.recv(65_536):
                sink.sendall(block)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        self._server.close()


class Site:
    """EE is two nodes with two processes each on one database; LV is a gateway of its own."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.pair = pair = Pair(folder)
        self.lv, self.ee = pair.lv, pair.ee
        kek = folder / "kek"
        kek.write_bytes(os.urandom(32))
        kek.chmod(0o600)
        # Both work: what a change of agreements means to two nodes is what is asked here.
        shared = f'[store]\ndsn = "env:TEST_DSN"\n[pair]\nroles = "active/active"\n[keys]\nkey_encryption_key = "file:{kek}"\n'
        text = self.ee.config.read_text().replace("processes = 1", "processes = 2")
        ports = free_ports(3)
        self.twin = Node(folder / "ee2", "ee2", ports)
        (folder / "ee2" / "pmodes").mkdir(parents=True)
        for name in ("key.pem", "pmodes/agreement.toml", "pmodes/partner.pem"):
            (folder / "ee2" / name).write_bytes((folder / "ee" / name).read_bytes())
        (folder / "ee2" / "key.pem").chmod(0o600)
        self.ee.config.write_text(shared + text)
        twin = text.replace('name = "ee"', 'name = "ee2"')
        for old, new in zip((self.ee.as4, self.ee.plugin, self.ee.operations), ports, strict=True):
            twin = twin.replace(f":{old}\"", f":{new}\"")
        self.twin.config.write_text(shared + twin)
        self.environment = {"TEST_DSN": dsn}
        self.balancer, self.detour = Forwarder(self.ee.as4, self.twin.as4), Forwarder(self.lv.as4)
        self.agreement(self.lv, "AP_LV_01", "LV", "AP_EE_01", "EE", self.balancer.port)
        self.write(self.lv.as4)

    def agreement(self, node: Node, me: str, my_country: str, partner: str, country: str, port: int, more: str = "") -> None:
        (node.folder / "pmodes" / "agreement.toml").write_text(
            AGREEMENT.format(me=me, my_country=my_country, partner=partner, country=country, port=port) + more
        )

    def write(self, port: int, more: str = "", node: Node | None = None, **replaced: str) -> None:
        """EE's files, at the node where an operator works."""
        node = node or self.ee
        self.agreement(node, "AP_EE_01", "EE", "AP_LV_01", "LV", port, more)
        file = node.folder / "pmodes" / "agreement.toml"
        text = file.read_text()
        for old, new in replaced.items():
            text = text.replace({"certificate": 'certificate = "partner.pem"'}[old], new)
        file.write_text(text)

    def certificate(self, name: str, keys: Keys) -> None:
        (self.ee.folder / "pmodes" / name).write_bytes(to_pem(keys.signing))

    def start(self, **environment: str) -> None:
        self.ee.start(**self.environment, **environment)
        self.twin.start(**self.environment)
        self.lv.start()
        self.wait_serving(1)

    def cli(self, *arguments: str, node: Node | None = None, check: bool = True, **environment: str):
        return (node or self.ee).cli(*arguments, check=check, **self.environment, **environment)

    def apply(self, reason: str, *more: str, check: bool = True) -> dict:
        done = self.cli("pmodes", "apply", "--reason", reason, "--yes", "--json", *more, check=check)
        return json.loads(done.stdout)

    def serving(self) -> dict[str, int]:
        """Process -> revision, of those that live."""

        async def look() -> dict[str, int]:
            store = await PostgresStore.open(self.environment["TEST_DSN"])
            try:
                return {f"{p.node} {p.place}": p.revision for p in await store.processes() if p.alive}
            finally:
                await store.close()

        return asyncio.run(look())

    def wait_serving(self, revision: int, seconds: float = 60) -> None:
        """All four processes serve it."""
        expected, end = dict.fromkeys(PROCESSES, revision), time.monotonic() + seconds
        while (found := self.serving()) != expected:
            assert time.monotonic() < end, found
            time.sleep(0.2)

    def events(self, name: str) -> list[dict]:
        """Log lines of all nodes."""
        lines = [line for node in (self.ee, self.twin, self.lv) for line in node.log.read_text().splitlines()]
        return [event for line in lines if line.startswith("{") and (event := json.loads(line))["event"] == name]

    def stop(self) -> None:
        self.twin.stop()
        self.pair.stop()
        self.balancer.close()
        self.detour.close()


class Load:
    """Messages in both directions until told to stop: LV to EE over the balancer, EE to LV from both nodes."""

    def __init__(self, site: Site, log: Path) -> None:
        os.environ.update(site.environment)  # for `client()`, which asks the command line for a token
        try:
            self.inbound = Checker(site.pair, log.with_suffix(".in.jsonl"))
            self._nodes = [site.ee.client(), site.twin.client()]
            self._lv = site.lv.client()
        finally:
            for name in site.environment:
                os.environ.pop(name)
        self.sent: dict[str, int] = {}
        self.problems: list[str] = []
        self._stop = threading.Event()
        self.inbound.consume()
        self._threads = [threading.Thread(target=self._run, args=(call,), daemon=True) for call in (self._in, self._out)]
        for thread in self._threads:
            thread.start()

    def _run(self, call) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                call(number)
            except Exception as error:
                self.problems.append(f"{type(error).__name__}: {error}")
            number += 1
            self._stop.wait(INTERVAL)

    def _in(self, number: int) -> None:
        self.inbound.submit(b"<evidence>%d</evidence>" % number)

    def _out(self, number: int) -> None:
        from gateway.client import Part

        client = self._nodes[number % 2]
        message_id = f"{os.urandom(8).hex()}@checker.example"
        client.submit(
            "AP_LV_01", "ExecuteQueryRequest", [Part(b"<query>%d</query>" % number, "application/octet-stream")],
            properties={"originalSender": "C1", "finalRecipient": "C4"}, message_id=message_id,
        )
        self.sent[message_id] = number % 2

    def count(self) -> int:
        return len(self.sent) + len(self.inbound.submitted)

    def wait_for(self, more: int, seconds: float = 60) -> None:
        """So many further messages of each direction were submitted."""
        sent, got, end = len(self.sent) + more, len(self.inbound.submitted) + more, time.monotonic() + seconds
        while len(self.sent) < sent or len(self.inbound.submitted) < got:
            assert time.monotonic() < end, f"no load: {self.problems[-3:]}"
            time.sleep(0.05)

    def finish(self) -> dict[str, int]:
        """Stop, wait for the end of every message, judge."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self.inbound.wait_acknowledged()
        self.inbound.wait_delivered()
        left, end = dict(self.sent), time.monotonic() + 60
        while left:
            for message_id, node in list(left.items()):
                state = self._nodes[node].message(message_id)["state"]
                assert state != "FAILED", message_id
                if state == "ACKNOWLEDGED":
                    del left[message_id]
            assert time.monotonic() < end, f"without receipt: {list(left)[:5]}"
            time.sleep(0.05)
        end = time.monotonic() + 30
        while set(self.inbound.acknowledged) != set(self.inbound.submitted) and time.monotonic() < end:
            time.sleep(0.1)
        self.inbound.close()
        return {**self.inbound.judge(), "sent": len(self.sent)}


def rotated(keys: Keys, new: Keys) -> bytes:
    """LV's key file in the middle of a rotation: the new key signs, both decrypt."""
    return (key_pem(new.signing_private) + to_pem(new.signing) + key_pem(keys.signing_private) + to_pem(keys.signing))
