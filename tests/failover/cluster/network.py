"""A network that exists inside this machine only: hosts are Linux network namespaces on one switch.

The switch is a namespace of its own, so nothing of the machine's network is touched and several networks may stand
side by side. Their names carry the process id of whoever made them; what a dead one left is swept by the next.

A host that is cut off keeps its link, as on a switch that has gone: what it sends is lost without a word. So is what goes
along a line that is cut; `ip route add blackhole` would tell the sender at once.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "gwt"
NET = "10.77.0"
#: Nobody has this address: what is sent to it is lost.
NOWHERE = "02:00:00:00:00:99"
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def missing() -> str | None:
    """Why there can be no network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    if shutil.which("ip") is None:
        return "ip is not installed (Debian package iproute2)"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()}"


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _enter(file) -> None:
    if _LIBC.setns(file.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def processes(namespace: str) -> list[int]:
    """Those that live in a namespace; never this one."""
    return [pid for pid in map(int, _ip("netns", "pids", namespace).split()) if pid != os.getpid()]


def _remove(namespace: str) -> None:
    with contextlib.suppress(OSError):
        end = time.monotonic() + 10
        while (left := processes(namespace)) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        _ip("netns", "del", namespace)


def sweep() -> None:
    """Remove what runs of processes that are dead have left: programs, namespaces, folders."""
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    for name in names:
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == PREFIX and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(name)
    for folder in Path(tempfile.gettempdir()).glob("gateway-cluster-*"):
        pid = folder.name.split("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class Host:
    """A machine of its own, as far as the network goes. `with host:` puts the calling thread there, and what it starts."""

    def __init__(self, name: str, address: str, namespace: str) -> None:
        self.name, self.address, self.namespace = name, address, namespace
        self._before = threading.local()

    def __enter__(self) -> "Host":
        stack = self._before.__dict__.setdefault("stack", [])
        with open(f"/run/netns/{self.namespace}") as there:
            stack.append(open("/proc/thread-self/ns/net"))
            _enter(there)
        return self

    def __exit__(self, *_: object) -> None:
        with self._before.stack.pop() as before:
            _enter(before)

    def processes(self) -> list[int]:
        return processes(self.namespace)

    def signal(self, number: signal.Signals) -> None:
        """To everything that runs on it."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class Network:
    """`hosts`, by name, each with an address, all on one switch."""

    def __init__(self, *names: str) -> None:
        sweep()
        self._prefix = f"{PREFIX}-{os.getpid()}-{os.urandom(2).hex()}"
        self._switch = f"{self._prefix}-switch"
        self.hosts = {name: Host(name, f"{NET}.{number}", f"{self._prefix}-{name}") for number, name in enumerate(names, 11)}
        self._cut: set[tuple[str, str]] = set()
        self._lost: set[str] = set()
        try:
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "switch", "type", "bridge", "stp_state", "0", "forward_delay", "0")
            _ip("-n", self._switch, "link", "set", "switch", "up")
            for host in self.hosts.values():
                self._plug(host)
        except BaseException:
            self.close()
            raise

    def _plug(self, host: Host) -> None:
        _ip("netns", "add", host.namespace)
        _ip("link", "add", "eth0", "netns", host.namespace, "type", "veth", "peer", "name", host.name, "netns", self._switch)
        _ip("-n", self._switch, "link", "set", host.name, "master", "switch", "up")
        _ip("-n", host.namespace, "link", "set", "lo", "up")
        _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.namespace, "link", "set", "eth0", "up")

    # -- what goes wrong ----------------------------------------------------------

    def lose(self, *names: str) -> None:
        """Cut hosts off from everything. They go on and do not know it."""
        for name in names:
            _ip("-n", self._switch, "link", "set", name, "nomaster")
            self._lost.add(name)

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """Lose what `one` sends to `other`, and by default what comes back."""
        for source, target in ((one, other), (other, one))[: 2 if both_ways else 1]:
            _ip("-n", self.hosts[source].namespace, "neigh", "replace", self.hosts[target].address,
                "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0")  # fmt: skip
            self._cut.add((source, target))

    def mend(self, one: str, other: str) -> None:
        """What `cut` did to the two."""
        for source, target in ((one, other), (other, one)):
            if (source, target) in self._cut:
                _ip("-n", self.hosts[source].namespace, "neigh", "del", self.hosts[target].address, "dev", "eth0")
                self._cut.discard((source, target))

    def heal(self) -> None:
        """Everything reaches everything again."""
        for name in list(self._lost):
            _ip("-n", self._switch, "link", "set", name, "master", "switch")
            self._lost.discard(name)
        for source, target in list(self._cut):
            self.mend(source, target)

    def close(self) -> None:
        """End everything that runs on the hosts, and remove them."""
        for host in self.hosts.values():
            with contextlib.suppress(OSError):
                host.signal(signal.SIGKILL)
        for host in self.hosts.values():
            _remove(host.namespace)
        _remove(self._switch)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder whose parents everybody may pass; its name carries our process id."""
    folder = Path(tempfile.mkdtemp(prefix=f"gateway-cluster-{os.getpid()}-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
