"""Two nodes of AP_EE_01 on one database, and the proxies of deploy/ in front of them."""

import contextlib
import http.client
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from tests.deploy.tools import ROOT
from tests.failover.pair import Node, Pair, free_ports
from tests.interop.tls import certificate
from tests.peer import Authority, check_receipt
from tests.unit.store.servers import Servers
from tests.world import to_pem

TLS = """
[as4.tls]
certificate = "server.pem"
client_ca = "tls-ca.pem"
require_client_certificate = true
"""


class Nodes:
    """Nodes `a` and `b`, both active, and `peer`, who is AP_LV_01."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.servers = folder, Servers()
        dsn = next((d for d in map(self._dsn, ("wheel", "system")) if d), None)
        pair = Pair(folder)
        self.peer, self.a = pair.peer, pair.ee
        self.tls = Authority("TLS CA")
        (self.a.folder / "tls-ca.pem").write_bytes(to_pem(self.tls.certificate))
        for name in ("server", "client"):
            certificate(self.a.folder, name, self.tls)
        self.a.config.write_text(self.a.config.read_text() + TLS)
        ports = free_ports(3)
        shutil.copytree(self.a.folder, folder / "b")
        self.b = Node(folder / "b", "b", ports)
        text = self.b.config.read_text()
        for mine, its in zip(ports, (self.a.as4, self.a.plugin, self.a.operations), strict=True):
            text = text.replace(f":{its}", f":{mine}")
        self.b.config.write_text(text.replace('name = "ee"', 'name = "b"'))
        kek = folder / "kek"
        kek.write_text(os.urandom(32).hex())
        kek.chmod(0o600)
        (folder / "dsn").write_text(dsn)
        (folder / "dsn").chmod(0o600)
        self.environment = {
            "GATEWAY__STORE__DSN": f"file:{folder / 'dsn'}", "GATEWAY__KEYS__KEY_ENCRYPTION_KEY": f"file:{kek}",
            "GATEWAY__PAIR__ROLES": "active/active", "GATEWAY_DRAIN_DELAY": "2",
        }  # fmt: skip

    def _dsn(self, kind: str) -> str | None:
        with contextlib.suppress(BaseException):  # a server that is not here skips, which is an exception
            return self.servers.dsn(kind)
        return None

    def start(self) -> None:
        for node in (self.a, self.b):
            node.start(**self.environment)

    def stop(self) -> None:
        for node in (self.a, self.b):
            with contextlib.suppress(Exception):
                node.stop()
        self.servers.stop()

    def context(self, *, client: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.a.folder / "tls-ca.pem")
        if client:
            context.load_cert_chain(self.a.folder / "client.pem")
        return context

    def post(self, port: int, content: bytes = b"<a/>", *, timeout: float = 60.0) -> bool:
        """Whether a message of AP_LV_01 through `port` was answered with a receipt that holds."""
        sent = self.peer.message([("application/octet-stream", content)])
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=self.context())
        try:
            connection.request("POST", "/as4", sent.body, {"Content-Type": sent.content_type})
            response = connection.getresponse()
            if response.status != 200:
                return False
            answer = self.peer.answer(response.status, response.getheader("Content-Type", ""), response.read())
            check_receipt(answer, sent)
            return True
        finally:
            connection.close()


class Stream:
    """Small messages one after the other, each on a connection of its own, until it is stopped."""

    def __init__(self, nodes: Nodes, port: int) -> None:
        self.good: list[float] = []
        self.bad: list[tuple[float, str]] = []
        self._nodes, self._port, self._end = nodes, port, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                received = self._nodes.post(self._port, timeout=10)
                if received:
                    self.good.append(time.monotonic())
                else:
                    self.bad.append((time.monotonic(), "refused"))
            except (OSError, http.client.HTTPException) as error:
                self.bad.append((time.monotonic(), repr(error)))
            time.sleep(0.02)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)

    def gap(self, since: float) -> float:
        """The longest time after `since` in which no message got through."""
        moments = [since, *(t for t in self.good if t > since), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


class Proxy:
    """A proxy that listens on `port` until it is stopped."""

    def __init__(self, command: list[str], port: int, log: Path, **environment: str) -> None:
        self.port, self.log, self.stats = port, log, 0
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
        end = time.monotonic() + 15
        while True:
            if self.process.poll() is not None:
                raise AssertionError(log.read_text()[-3000:])
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def material(nodes: Nodes, folder: Path) -> Path:
    """What a proxy that ends TLS has: its own certificates and the CAs of both sides."""
    folder.mkdir(parents=True, exist_ok=True)
    for target, source in (("server", "server.pem"), ("client", "client.pem"), ("partners-ca", "tls-ca.pem"), ("nodes-ca", "tls-ca.pem")):
        shutil.copy(nodes.a.folder / source, folder / f"{target}.pem")
    return folder


def haproxy(nodes: Nodes, name: str) -> Proxy:
    port, stats = free_ports(2)
    environment = {
        "AS4_BIND": f"127.0.0.1:{port}", "STATS_BIND": f"127.0.0.1:{stats}", "CERTIFICATES": str(material(nodes, nodes.folder / "crt")),
        **{f"NODE_{n.upper()}": f"127.0.0.1:{node.as4}" for n, node in (("a", nodes.a), ("b", nodes.b))},
        **{f"NODE_{n.upper()}_OPERATIONS": str(node.operations) for n, node in (("a", nodes.a), ("b", nodes.b))},
    }  # fmt: skip
    made = Proxy(["haproxy", "-db", "-f", str(ROOT / "deploy/haproxy" / name)], port, nodes.folder / "haproxy.log", **environment)
    made.stats = stats
    time.sleep(1.5)  # the first checks
    return made


def nginx(nodes: Nodes, name: str) -> Proxy:
    """The snippet as it is, but for addresses and paths, in the smallest nginx.conf."""
    [port] = free_ports(1)
    folder = nodes.folder / "nginx"
    folder.mkdir(exist_ok=True)
    crt = material(nodes, folder / "crt")
    text = (ROOT / "deploy/nginx" / name).read_text()
    for old, new in (("10.0.1.10:8443", f"127.0.0.1:{nodes.a.as4}"), ("10.0.2.10:8443", f"127.0.0.1:{nodes.b.as4}"),
                     ("listen 443", f"listen 127.0.0.1:{port}"), ("/etc/nginx/as4", str(crt))):
        assert old in text or name == "as4-stream.conf", old
        text = text.replace(old, new)
    module = ""
    if "stream {" in text:
        module = f"load_module {stream_module()};"
    else:
        text = "http {\naccess_log off;\n" + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")) + text + "}"
    (folder / "nginx.conf").write_text(f"{module}\nuser root;\npid {folder}/pid;\nerror_log stderr warn;\ndaemon off;\nworker_processes 1;\nevents {{}}\n{text}")
    return Proxy(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], port, folder / "log")


def stream_module() -> str | None:
    """Debian's dynamic module, beside the nginx that is used."""
    program = shutil.which("nginx")
    folders = [Path("/usr/lib/nginx/modules"), *([Path(program).resolve().parents[1] / "lib/nginx/modules"] if program else [])]
    return next((str(p) for f in folders if (p := f / "ngx_stream_module.so").exists()), None)
