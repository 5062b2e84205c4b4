"""EE as a pair: two nodes on one database; LV is a gateway of its own."""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

from tests.failover.pair import Node, Pair, free_ports


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if entry.isdigit() and int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def _answers(node: Node) -> set[int]:
    """What its workers answer on /readyz; a node that does not answer is asked once."""
    found = set()
    for _ in range(6):
        found.add(node.asked("/readyz", patience=0.5)[0])
        if 0 in found:
            break
    return found


class Twins:
    """`one` and `two` share the database at `dsn`. LV sends to `one`, until `point` says otherwise."""

    def __init__(self, folder: Path, dsn: str, *, store: str = "", more: str = "", processes: int = 1) -> None:
        self.pair = Pair(folder)
        self.lv, self.one = self.pair.lv, self.pair.ee
        kek = folder / "kek"
        kek.write_bytes(os.urandom(32))
        kek.chmod(0o600)
        shared = f'[store]\ndsn = "env:TEST_DSN"\n{store}[keys]\nkey_encryption_key = "file:{kek}"\n{more}'
        text = self.one.config.read_text().replace("processes = 1", f"processes = {processes}")
        ports = free_ports(3)
        self.two = Node(folder / "ee2", "ee2", ports)
        (folder / "ee2").mkdir()
        shutil.copytree(folder / "ee" / "pmodes", folder / "ee2" / "pmodes")
        shutil.copy(folder / "ee" / "key.pem", folder / "ee2" / "key.pem")
        self.one.config.write_text(shared + text)
        text = text.replace('name = "ee"', 'name = "ee2"')
        for old, new in zip((self.one.as4, self.one.plugin, self.one.operations), ports, strict=True):
            text = text.replace(f":{old}\"", f":{new}\"")
        self.two.config.write_text(shared + text)
        self.nodes = {"ee": self.one, "ee2": self.two}
        self.environment = {"TEST_DSN": dsn}
        for node in self.nodes.values():
            node.probe = "/rolez"

    def start(self, **environment: str) -> "Twins":
        for node in self.nodes.values():
            node.start(**self.environment, **environment)
        self.wait_active()
        return self

    def active(self) -> list[str]:
        """The nodes that say that they are ready, whichever of their workers is asked."""
        return [name for name, node in self.nodes.items() if 200 in _answers(node)]

    def wait_active(self, *names: str, seconds: float = 30) -> float:
        """Until just these are ready, or any one; how long that took."""
        began = time.monotonic()
        while True:
            found = self.active()
            if (set(found) == set(names) if names else len(found) == 1) and all(
                _answers(self.nodes[name]) == {200} for name in found
            ):
                return time.monotonic() - began
            assert time.monotonic() - began < seconds, (found, [n.asked("/readyz?verbose") for n in self.nodes.values()])
            time.sleep(0.05)

    def ha(self, *arguments: str, node: Node | None = None) -> tuple[int, dict]:
        """`gateway ha …`: exit status and what it says."""
        done = (node or self.one).cli("ha", *arguments, "--json", check=False, **self.environment)
        assert done.returncode in (0, 3, 5, 6, 8), done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def other(self, name: str) -> str:
        return next(other for other in self.nodes if other != name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """To every process of a node; the supervisor first, so that it replaces nobody."""
        for pid in family(self.nodes[name].process.pid):
            os.kill(pid, number)

    def events(self, name: str, node: str | None = None) -> list[dict]:
        """Lines of the log."""
        nodes = self.nodes.values() if node is None else [self.nodes[node]]
        lines = [line for one in nodes for line in one.log.read_text().splitlines()]
        return [event for line in lines if line.startswith("{") and (event := json.loads(line))["event"] == name]

    def stop(self) -> None:
        for name, node in self.nodes.items():
            with contextlib.suppress(OSError, AttributeError):
                self.signal(name, signal.SIGCONT)
            with contextlib.suppress(Exception):
                node.stop()
        self.pair.stop()
