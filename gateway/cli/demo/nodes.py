"""The two access points of the demo: folders, keys, configuration, processes, and their end.

Each is a complete gateway of its own: `gateway run` in a process of its own, with its own
keys (from its own development CA), its own private PostgreSQL and its own agreement file.
They know each other only by what is written into the agreements.
"""

import contextlib
import ctypes
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gateway
from gateway.cli.demo.ledger import DemoFailed
from gateway.cli.demo.sweep import sweep
from gateway.oots import codes

#: The default port of each listener of the first node; a taken one is replaced by the next free one.
AS4, PLUGIN, OPERATIONS = 8443, 8081, 9091
#: A cold disk and a busy machine; a healthy start takes two to four seconds.
START_PATIENCE = 60.0
#: What a node may take to end by itself before it is made to. With it the whole end stays within two seconds.
STOP_PATIENCE = 1.0
VALID_FOR = timedelta(hours=24)
_PDEATHSIG = 1


class Ports:
    """Free loopback ports, kept apart from those of other demos on this machine.

    A node binds its ports seconds after they were chosen. Meanwhile a name in the abstract
    socket namespace says that they are taken; it vanishes with this process.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self, wanted: int) -> int:
        """`wanted`, or the next port that is free."""
        for port in range(wanted, wanted + 500):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            name = socket.socket(socket.AF_UNIX)
            try:
                name.bind(f"\0gateway-demo-port-{port}")
            except OSError:
                name.close()
                continue
            self._held.append(name)
            return port
        raise DemoFailed(f"no free port near {wanted}")

    def close(self) -> None:
        for name in self._held:
            name.close()


class Node:
    """One access point: party AP_{country}_01, everything of it in `folder`."""

    def __init__(self, country: str, root: Path, ports: Ports, number: int) -> None:
        self.country, self.folder = country, root / country.lower()
        self.party, self.stem = f"AP_{country}_01", f"ap_{country.lower()}_01"
        self.port = ports.take(AS4 + number)
        self.plugin_port = ports.take(PLUGIN + number)
        self.operations_port = ports.take(OPERATIONS + number)
        self.config = self.folder / "gateway.toml"
        self.certs = self.folder / "certs"
        self.log = self.folder / "gateway.log"
        self.token = ""
        self._process: subprocess.Popen | None = None
        self._helper: subprocess.Popen | None = None

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}/as4"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.plugin_port}"

    @property
    def type(self) -> str:
        return f"{codes.UNREGISTERED}{self.country}"

    # -- making -------------------------------------------------------------------------

    def make_keys(self) -> None:
        """A development CA, a TLS certificate, and a key pair for the party, in `certs`."""
        from gateway.keys.development import make_development

        _make_folder(self.folder)
        make_development(self.certs, [self.party], now=datetime.now(UTC), valid_for=VALID_FOR)

    def write_configuration(self, nodes: Iterable["Node"]) -> None:
        """The configuration, and one agreement with the other nodes, whose public certificates
        are copied here as if they had come by mail."""
        pmodes = self.folder / "pmodes"
        pmodes.mkdir()
        agreement = [f'profile = "oots/2.0"\nself = "{self.party}"\n']
        for node in nodes:
            if node is not self:
                shutil.copy(node.certs / f"{node.stem}.pem", self.certs)
            shutil.copy(node.certs / "ca.pem", self.certs / f"tls-ca-{node.country.lower()}.pem")
            agreement.append(
                f'[parties.{node.party}]\ntype = "{node.type}"\nendpoint = "{node.endpoint}"\n'
                f'certificate = "{node.stem}.pem"\ntls_ca = "tls-ca-{node.country.lower()}.pem"\n'
            )
        (pmodes / "oots.toml").write_text("\n".join(agreement))
        self.config.write_text(
            f"""\
# Written by `gateway demo`: throwaway keys, loopback only.
pmodes = "pmodes"
certs = "certs"

[node]
name = "{self.party}"
host = "{self.stem.replace("_", "-")}.example"

[data]
folder = "data"

[as4]
bind = "127.0.0.1:{self.port}"
public_url = "{self.endpoint}"
[as4.tls]
certificate = "certs/tls.pem"
key = "certs/tls.key.pem"

[plugin]
bind = "127.0.0.1:{self.plugin_port}"

[operations]
bind = "127.0.0.1:{self.operations_port}"

[workers]
processes = 1

[[keys.store]]
path = "certs/{self.stem}.key.pem"

[egress]
allow_networks = ["127.0.0.0/8"]

[log]
format = "json"
"""
        )

    # -- running ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin `gateway run`. To be called from the thread that lives longest: the kernel
        ends the node with it."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "--config", self.config],
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which ends the nodes in order
                preexec_fn=_end_with_parent(),
            )

    def wait_until_ready(self, until: float, pulse: Callable[[], None] = lambda: None) -> None:
        """Until /readyz says 200, calling `pulse` meanwhile. Raises `DemoFailed` with what the node said."""
        while True:
            pulse()
            if self._process is None or self._process.poll() is not None:
                raise DemoFailed(f"{self.party} did not start: {self.last_words()}")
            if self._is_ready():
                return
            if time.monotonic() > until:
                raise DemoFailed(f"{self.party} is not ready after {START_PATIENCE:g} s: {self.last_words()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.operations_port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def begin_client(self) -> None:
        """Have a client of the plugin API made, as an operator would; `finish_client` gets its token."""
        self._helper = subprocess.Popen(
            [sys.executable, "-m", "gateway", "backends", "create", "demo", "--config", self.config, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=_environment(),
            start_new_session=True,
        )

    def finish_client(self) -> None:
        """The token into `token`. Raises `DemoFailed`."""
        assert self._helper is not None, "begun before"
        try:
            out, err = self._helper.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{self.party} gave no API token within 30 s") from None
        if self._helper.returncode != 0:
            said = err.decode(errors="replace").strip().splitlines()
            raise DemoFailed(f"{self.party} gave no API token: {said[0] if said else 'no reason was told'}")
        self.token = json.loads(out)["token"]

    def last_words(self) -> str:
        """The last thing in the node's log that tells why, as one line."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return "it left no log"
        for line in reversed(lines):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
            with contextlib.suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "critical"):
                    return " ".join(str(entry[k]) for k in ("event", "reason", "error") if entry.get(k))
        return lines[-1] if lines else "it said nothing"

    def check(self) -> None:
        """Raises `DemoFailed` when the node has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise DemoFailed(f"{self.party} has ended: {self.last_words()}")

    # -- ending -------------------------------------------------------------------------

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, until: float) -> None:
        """Wait for the end until `until`; then make one."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(until - time.monotonic(), 0.0))
            self._process.kill()  # does nothing when it has ended
            self._process.wait()
        # Workers, PostgreSQL and initdb have sessions of their own, but they all work in this folder.
        sweep(self.folder)
        if self._helper is not None:
            self._helper.wait()


def site_context(node: Node) -> ssl.SSLContext:
    """TLS for a page of that country's business software."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(node.certs / "tls.pem", node.certs / "tls.key.pem")
    return context


def browser_context(nodes: Iterable[Node]) -> ssl.SSLContext:
    """What a citizen's browser trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for node in nodes:
        context.load_verify_locations(node.certs / "ca.pem")
    return context


def make_root() -> Path:
    """A folder for everything. Short, because socket paths are."""
    parent = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - mode 0700, name unguessable
    if len(str(parent)) > 40:
        parent = Path("/tmp")  # noqa: S108
    root = parent / f"gateway-demo-{secrets.token_hex(4)}"
    _make_folder(root)
    return root


def _make_folder(folder: Path) -> None:
    """Where we are root PostgreSQL runs as another user, who must be able to pass (not to list)."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        folder.chmod(0o711)


def _environment() -> dict[str, str]:
    """Ours without settings for another gateway, and such that this very gateway is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    paths = [str(Path(gateway.__file__).parents[1]), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _end_with_parent() -> Callable[[], None]:
    """Have the kernel send SIGTERM to the child when the demo dies, however it dies."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda: None

    def arm() -> None:
        prctl(_PDEATHSIG, signal.SIGTERM)

    return arm
