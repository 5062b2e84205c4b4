"""etcd and PostgreSQL under Patroni, three of each, in a network of namespaces.

Patroni reads deploy/patroni/patroni.yml as it is shipped; what differs between servers comes from the environment.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from gateway.store import binaries
from gateway.store.embedded import _server_user
from tests.failover.cluster.network import Host

ROOT = Path(__file__).parents[3]
PATRONI = ROOT / "deploy" / "patroni"
#: Where Debian puts what only root is thought to want.
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def missing() -> str | None:
    """Which program is not here, and where it comes from; None: all are."""
    for program, package in (("etcd", "Debian package etcd-server"), ("haproxy", "Debian package haproxy"),
                             ("patroni", "make install"), ("patronictl", "make install")):  # fmt: skip
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed ({package})"
    found = binaries.find(user=_server_user(Path("/")))
    if b"libicu" not in found.postgres.read_bytes():  # patroni.yml asks for it
        return f"{found.folder} has no ICU (Debian package postgresql)"
    return None


def _may_read(user: tuple[int, int] | None) -> tuple[str, ...]:
    """What goes before a program of the environment the tests run in, where that stands in a folder closed to `user`."""
    if user is None or binaries.closed_to(Path(sys.executable), user) is None:
        return ()
    uid, gid = map(str, user)
    return ("setpriv", "--reuid", uid, "--regid", gid, "--clear-groups",
            "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")  # fmt: skip


class Program:
    """Something that runs on a host, as `user`, until it is killed."""

    def __init__(self, host: Host, folder: Path, user: tuple[int, int] | None) -> None:
        self.host, self.folder, self._user = host, folder, user
        self.process: subprocess.Popen | None = None
        folder.mkdir(mode=0o700)
        if user is not None:
            os.chown(folder, *user)

    def launch(self, *command: str, python: bool = False, **environment: str) -> None:
        """`python`: a program of the environment that the tests run in."""
        who = {} if self._user is None else {"user": self._user[0], "group": self._user[1], "extra_groups": []}
        if python and (before := _may_read(self._user)):
            command, who = (*before, *command), {}
        # Started by its host's threads, it lives on that host.
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log, self.host:
            self.process = subprocess.Popen(
                command, env={"PATH": PATH, "LANG": "C.UTF-8", **environment}, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, **who,
            )  # fmt: skip

    def said(self, most: int | None = 3000) -> str:
        """Its log; the end of it."""
        said = (self.folder.parent / f"{self.folder.name}.log").read_text(errors="replace")
        return said if most is None else said[-most:]

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)


class Etcd(Program):
    """One member of a cluster of `members` (name: address)."""

    def __init__(self, host: Host, folder: Path, name: str, members: dict[str, str], user: tuple[int, int] | None) -> None:
        super().__init__(host, folder, user)
        self.name, self._members = name, members

    def start(self) -> None:
        address = self.host.address
        self.launch(
            "etcd", "--name", self.name, "--data-dir", str(self.folder / "data"),
            "--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", f"http://{address}:2379",
            "--listen-peer-urls", f"http://{address}:2380", "--initial-advertise-peer-urls", f"http://{address}:2380",
            "--initial-cluster", ",".join(f"{name}=http://{at}:2380" for name, at in self._members.items()),
            "--pre-vote", "--logger", "zap", "--log-level", "warn",
        )  # fmt: skip


class Patroni(Program):
    """Patroni and the PostgreSQL it keeps."""

    def __init__(self, host: Host, folder: Path, number: int, environment: dict[str, str], user: tuple[int, int] | None) -> None:
        super().__init__(host, folder, user)
        self.name, self.data = f"pg-{number}", folder / "data"
        # Sockets stand in /tmp, by their port, and all servers of this machine share it.
        self.port = 20000 + os.getpid() % 3000 * 4 + number
        self.environment = {
            **environment, "PATRONI_NAME": self.name, "PATRONI_POSTGRESQL_DATA_DIR": str(self.data),
            "PATRONI_POSTGRESQL_PGPASS": str(folder / "pgpass"), "PATRONI_POSTGRESQL_LISTEN": f"0.0.0.0:{self.port}",
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"{host.address}:{self.port}",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"{host.address}:8008",
        }  # fmt: skip

    def start(self) -> None:
        self.launch("patroni", str(PATRONI / "patroni.yml"), python=True, **self.environment)

    @property
    def postmaster(self) -> int | None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int((self.data / "postmaster.pid").read_text().splitlines()[0])
        return None

    def strike(self, number: signal.Signals = signal.SIGKILL) -> None:
        """PostgreSQL alone: the first process and, by their own doing, its children. Patroni goes on."""
        if pid := self.postmaster:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def sql(self, text: str) -> None:
        """Through its socket, as the superuser."""
        psql = Path(self.environment["PATRONI_POSTGRESQL_BIN_DIR"]) / "psql"
        done = subprocess.run(
            [psql, "-h", "/tmp", "-p", str(self.port), "-U", "postgres", "-c", text], capture_output=True, text=True, timeout=30,
            env={"PATH": PATH, "PGPASSWORD": self.environment["PATRONI_SUPERUSER_PASSWORD"]},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def asked(self, path: str, patience: float = 2.0) -> tuple[int, dict]:
        """Status and answer of its REST API, asked on its own host."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException), self.host:
            connection = http.client.HTTPConnection(self.host.address, 8008, timeout=patience)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read() or b"{}")
            finally:
                connection.close()
        return 0, {}


class Database:
    """Three servers under Patroni and three etcd, one of each on each of `hosts`."""

    def __init__(self, folder: Path, hosts: list[Host]) -> None:
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)
        self._user = _server_user(folder)
        self.password = secrets.token_hex(12)
        handed = folder / "secrets"
        handed.mkdir(mode=0o700)
        (handed / "postgres").write_text(self.password)
        if self._user is not None:
            os.chown(handed, *self._user)
            os.chown(handed / "postgres", *self._user)
        members = {f"etcd-{number}": host.address for number, host in enumerate(hosts, 1)}
        self.etcd = {host.name: Etcd(host, folder / name, name, members, self._user)
                     for name, host in zip(members, hosts, strict=True)}  # fmt: skip
        self.environment = {
            "PATRONI_ETCD3_HOSTS": ",".join(f"{address}:2379" for address in members.values()),
            "PATRONI_POSTGRESQL_BIN_DIR": str(binaries.find(user=_server_user(folder)).folder),
            "PATRONI_SUPERUSER_USERNAME": "postgres", "PATRONI_SUPERUSER_PASSWORD": self.password,
            "PATRONI_REPLICATION_USERNAME": "replicator", "PATRONI_REPLICATION_PASSWORD": secrets.token_hex(12),
            # For post-init.
            "PATH": f"{PATRONI}{os.pathsep}{PATH}", "SECRETS": str(handed),
        }  # fmt: skip
        self.servers = {host.name: Patroni(host, folder / f"pg-{number}", number, self.environment, self._user)
                        for number, host in enumerate(hosts, 1)}  # fmt: skip
        places = ",".join(f"{server.host.address}:{server.port}" for server in self.servers.values())
        self.dsn = f"postgresql://gateway:{self.password}@{places}/gateway?target_session_attrs=read-write"

    def start(self) -> None:
        for one in (*self.etcd.values(), *self.servers.values()):
            one.start()
        self.wait_well(120)

    # -- who is what --------------------------------------------------------------

    def members(self) -> dict[str, dict]:
        """What Patroni says of each host's server, as the first that answers sees it."""
        for server in self.servers.values():
            status, answer = server.asked("/cluster")
            if status == 200:
                names = {s.name: host for host, s in self.servers.items()}
                return {names[m["name"]]: m for m in answer.get("members", []) if m["name"] in names}
        return {}

    def _one(self, *roles: str) -> str | None:
        running = ("running", "streaming")
        return next((host for host, m in self.members().items() if m["role"] in roles and m["state"] in running), None)

    @property
    def primary(self) -> str:
        """Its host. Raises `AssertionError` while there is none."""
        found = self._one("leader")
        assert found is not None, self.members()
        return found

    @property
    def synchronous(self) -> str:
        """The host of the standby that commits wait for."""
        found = self._one("sync_standby")
        assert found is not None, self.members()
        return found

    def is_well(self) -> bool:
        """A primary, a synchronous standby, and the third follows, too."""
        members = self.members()
        states = sorted((m["role"], m["state"]) for m in members.values())
        return states == [("leader", "running"), ("replica", "streaming"), ("sync_standby", "streaming")]

    def wait_well(self, seconds: float = 90) -> float:
        began = time.monotonic()
        while not self.is_well():
            if time.monotonic() - began > seconds:
                said = "\n".join(f"--- {s.name}\n{s.said()}" for s in self.servers.values())
                raise AssertionError(f"the database is not well after {seconds} s: {self.members()}\n{said}")
            time.sleep(0.3)
        return time.monotonic() - began

    def switch(self) -> str:
        """`patronictl switchover` to the synchronous standby, the only one that may; its host."""
        leader, target = self.primary, self.synchronous
        said = self.ctl("switchover", "--leader", self.servers[leader].name, "--candidate", self.servers[target].name, "--force", "gateway")
        assert self.primary == target, said
        return target

    def ctl(self, *words: str) -> str:
        server = next(iter(self.servers.values()))
        with server.host:
            done = subprocess.run(["patronictl", "-c", str(PATRONI / "patroni.yml"), *words], env={**server.environment, "LANG": "C.UTF-8"},
                                  capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def revive(self) -> None:
        """Start again whatever does not run."""
        for one in (*self.etcd.values(), *self.servers.values()):
            one.signal(signal.SIGCONT)
            if one.process is None or one.process.poll() is not None:
                one.start()
