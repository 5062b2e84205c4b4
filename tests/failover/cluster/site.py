"""A site in full: two data centres and an arbiter, HAProxy in front, a partner beyond it.

    dc1      gateway-a · db-1 (PostgreSQL under Patroni, etcd)
    dc2      gateway-b · db-2
    arbiter  db-3
             front (HAProxy) · partner (a gateway with a database of its own; senders)

Each is a host of its own. The gateways are AP_EE_01, the partner AP_LV_01. What is shipped in deploy/ runs as it is.
"""

import contextlib
import csv
import http.client
import io
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path

from gateway.client import GatewayClient
from tests.failover.cluster.network import Host, Network
from tests.failover.cluster.servers import Database, Program
from tests.failover.pair import Node
from tests.failover.twins import family
from tests.interop.tls import certificate
from tests.peer import Authority, Keys, Peer
from tests.world import EE, LV, key_pem, to_pem

ROOT = Path(__file__).parents[3]
SITES = {"dc1": ("gateway-a", "db-1"), "dc2": ("gateway-b", "db-2"), "arbiter": ("db-3",)}
HOSTS = (*(host for hosts in SITES.values() for host in hosts), "front", "partner")

AGREEMENT = """
profile = "oots/2.0"
self = "{me.value}"
retry = {{ first = "0.5s", factor = 1.3, max = "5s", count = 100, window = "10m" }}

[parties.{me.value}]
type = "{me.type}"

[parties.{partner.value}]
type = "{partner.type}"
endpoint = "https://{place}/as4"
certificate = "partner.pem"
tls_ca = "tls-ca.pem"
"""
CONFIG = """
[node]
name = "{name}"
host = "{name}.example"
[workers]
processes = {processes}
claimers = 4
[[keys.store]]
path = "key.pem"
[as4]
bind = "0.0.0.0:8443"
[as4.tls]
certificate = "tls.pem"
client_ca = "tls-ca.pem"
require_client_certificate = true
[as4.client_tls]
certificate = "tls.pem"
[plugin]
bind = "0.0.0.0:8081"
[operations]
bind = "0.0.0.0:9090"
[circuit]
first = "0.5s"
longest = "2s"
[log]
format = "json"
"""


class Gateway(Node):
    """A node on a host of its own; what it is asked is asked there."""

    def __init__(self, host: Host, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder, host.name, [8443, 8081, 9090])
        self.host, self.environment, self.probe = host, environment, "/rolez"

    def prepare(self, keys: Keys, partner: Keys, me, other, place: str, tls: Authority, processes: int) -> None:
        agreements = self.folder / "pmodes"
        agreements.mkdir(parents=True)
        (agreements / "agreement.toml").write_text(AGREEMENT.format(me=me, partner=other, place=place))
        (agreements / "partner.pem").write_bytes(to_pem(partner.signing))
        for folder in (agreements, self.folder):
            (folder / "tls-ca.pem").write_bytes(to_pem(tls.certificate))
        (self.folder / "key.pem").write_bytes(key_pem(keys.signing_private) + to_pem(keys.signing))
        (self.folder / "key.pem").chmod(0o600)
        certificate(self.folder, "tls", tls, self.host.address, place.partition(":")[0])
        self.config.write_text(CONFIG.format(name=self.name, processes=processes))

    def start(self, **environment: str) -> None:
        with self.host:
            super().start(**self.environment, **environment)

    def launch(self) -> None:
        """Start it, and do not wait."""
        wait, self.wait_ready = self.wait_ready, lambda: None
        try:
            self.start()
        finally:
            self.wait_ready = wait

    def asked(self, path: str, port: int | None = None, *, patience: float = 2.0) -> tuple[int, str]:
        with self.host:
            return super().asked(path, port, patience=patience)

    def cli(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        with self.host:
            return super().cli(*arguments, check=check, **self.environment, **environment)

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes; the supervisor first, so that it replaces nobody."""
        if self.runs():
            for pid in family(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def die(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def workers(self) -> list[int]:
        return family(self.process.pid)[1:]


class Site:
    """Everything, in `folder`. `roles` as in the configuration of a pair; `environment`: more for its nodes."""

    def __init__(
        self, folder: Path, *, roles: str = "active/passive", processes: int = 2, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.network = Network(*HOSTS)
        self.hosts = self.network.hosts
        try:
            self._make(roles, processes, environment or {})
        except BaseException:
            self.network.close()
            raise

    def _make(self, roles: str, processes: int, environment: dict[str, str]) -> None:
        folder, hosts = self.folder, self.hosts
        authority, self.tls = Authority(), Authority("TLS CA")
        self.keys = {name: Keys.make(name, "rsa", authority) for name in ("LV", "EE")}
        self.database = Database(folder / "db", [hosts[f"db-{number}"] for number in (1, 2, 3)])
        kek = folder / "kek"
        kek.write_bytes(os.urandom(32))
        kek.chmod(0o600)
        shared = {
            "GATEWAY__STORE__DSN": "env:SITE_DSN", "SITE_DSN": self.database.dsn, "GATEWAY__STORE__SYNCHRONOUS": "required",
            "GATEWAY__KEYS__KEY_ENCRYPTION_KEY": f"file:{kek}", "GATEWAY__PAIR__ROLES": roles, **environment,
        }  # fmt: skip
        self.a, self.b = (Gateway(hosts[f"gateway-{name}"], folder / name, shared) for name in "ab")
        self.partner = Gateway(hosts["partner"], folder / "partner", {})
        for node in self.nodes.values():
            node.prepare(self.keys["EE"], self.keys["LV"], EE, LV, f"{hosts['partner'].address}:8443", self.tls, processes)
            # The partner connects to the load balancer and finds a node.
            certificate(node.folder, "tls", self.tls, node.host.address, hosts["front"].address)
        self.partner.prepare(self.keys["LV"], self.keys["EE"], LV, EE, f"{hosts['front'].address}:443", self.tls, 1)
        self.proxy = Program(hosts["front"], folder / "haproxy", None)

    @property
    def nodes(self) -> dict[str, Gateway]:
        return {"gateway-a": self.a, "gateway-b": self.b}

    @property
    def peer(self) -> Peer:
        """The partner's identity, for messages without its gateway."""
        return Peer(LV, EE, self.keys["LV"], (self.keys["EE"].signing,), self.keys["EE"].encryption)

    def start(self, *, partner: bool = False) -> "Site":
        """`partner`: its gateway, too."""
        if partner:
            self.partner.probe = "/readyz"
            self.partner.launch()
        self.database.start()
        for node in self.nodes.values():
            node.launch()
        self.start_proxy()
        for node in (*self.nodes.values(), *([self.partner] if partner else ())):
            node.wait_ready()
        self.recover()
        return self

    def start_proxy(self) -> None:
        at = {node: self.nodes[node].host.address for node in self.nodes}
        self.proxy.launch(
            "haproxy", "-db", "-f", str(ROOT / "deploy" / "haproxy" / "haproxy.cfg"),
            AS4_BIND=f"{self.hosts['front'].address}:443", STATS_BIND="127.0.0.1:8404",
            NODE_A=f"{at['gateway-a']}:8443", NODE_B=f"{at['gateway-b']}:8443",
        )  # fmt: skip

    def seen_by_proxy(self) -> dict[str, str]:
        """What HAProxy takes each node for; nothing while it does not answer."""
        with contextlib.suppress(OSError, http.client.HTTPException), self.hosts["front"]:
            connection = http.client.HTTPConnection("127.0.0.1", 8404, timeout=3)
            try:
                connection.request("GET", "/;csv")
                rows = list(csv.DictReader(io.StringIO(connection.getresponse().read().decode().removeprefix("# "))))
            finally:
                connection.close()
            return {f"gateway-{r['svname']}": r["status"].split()[0]
                    for r in rows if r["pxname"] == "gateways" and r["svname"] in "ab"}  # fmt: skip
        return {}

    def active(self) -> list[str]:
        """The nodes that are ready."""
        return [name for name, node in self.nodes.items() if node.runs() and node.asked("/readyz", patience=1)[0] == 200]

    def wait_active(self, *names: str, seconds: float = 30) -> float:
        """Until all of these are ready, or any one; how long that took."""
        began = time.monotonic()
        while not ((found := self.active()) and set(names) <= set(found)):
            assert time.monotonic() - began < seconds, (found, [n.asked("/readyz?verbose") for n in self.nodes.values()])
            time.sleep(0.1)
        return time.monotonic() - began

    def other(self, name: str) -> str:
        return next(other for other in self.nodes if other != name)

    def ha(self, *words: str) -> subprocess.CompletedProcess:
        return self.a.cli("ha", *words, check=False)

    def recover(self) -> None:
        """Everything back: lines, programs, nodes; until all is well."""
        self.network.heal()
        self.database.revive()
        for node in self.nodes.values():
            node.signal(signal.SIGCONT)
            if not node.runs():
                node.launch()
        self.database.wait_well(120)
        end = time.monotonic() + 60
        while not self.is_well():
            assert time.monotonic() < end, (self.seen_by_proxy(), [n.asked("/readyz?verbose") for n in self.nodes.values()])
            time.sleep(0.3)

    def is_well(self) -> bool:
        """Each node in its role, and HAProxy sees it so."""
        ready = set(self.active())
        up = {name for name, state in self.seen_by_proxy().items() if state == "UP"}
        wanted = 2 if self.a.environment["GATEWAY__PAIR__ROLES"] == "active/active" else 1
        return all(node.asked("/rolez")[0] == 200 for node in self.nodes.values()) and len(ready) == wanted and up == ready

    # -- whoever talks to it ------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """TLS as the partner speaks it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.partner.folder / "tls-ca.pem")
        context.load_cert_chain(self.partner.folder / "tls.pem")
        return context

    def doors(self) -> list[GatewayClient]:
        """The plugin API of both nodes, for one backend."""
        import json

        token = json.loads(self.a.cli("backends", "create", "checker", "--json").stdout)["token"]
        return [GatewayClient(f"http://{node.host.address}:8081", token, timeout=10, attempts=1) for node in self.nodes.values()]

    def set_roles(self, roles: str) -> None:
        """Both nodes anew, `active/passive` or `active/active`."""
        if self.a.environment["GATEWAY__PAIR__ROLES"] == roles:
            return
        for node in self.nodes.values():
            node.environment["GATEWAY__PAIR__ROLES"] = roles
            node.die()
            node.launch()
        self.recover()

    def close(self) -> None:
        self.network.close()


__all__ = ["HOSTS", "SITES", "Gateway", "Site"]
