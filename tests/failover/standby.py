"""A real primary and a real synchronous standby, for tests: PostgreSQL's own programs, sockets only.

`Cluster` makes a primary, copies it with pg_basebackup, and asks the primary to wait for the copy.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import asyncpg

from gateway.store import binaries
from gateway.store.embedded import _server_user

STANDBY = "beta"
CONF = """
listen_addresses = ''
unix_socket_directories = '{socket}'
max_connections = 100
synchronous_commit = on
hot_standby = on
wal_keep_size = 256MB
cluster_name = '{name}'
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
client_connection_check_interval = 1s
shared_buffers = 32MB
"""


class Server:
    """One PostgreSQL server in a folder of its own."""

    def __init__(self, folder: Path, name: str, found: binaries.Binaries, password: str) -> None:
        self.folder, self.name, self._found, self._password = folder, name, found, password
        self.data, self.socket = folder / "data", folder / "socket"
        self._user = _server_user(folder)
        for place in (folder, self.data, self.socket):
            place.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(place, *self._user)
        self.process: subprocess.Popen | None = None

    def _as_user(self) -> dict:
        return {} if self._user is None else {"user": self._user[0], "group": self._user[1], "extra_groups": []}

    def run(self, program: str, *arguments: str) -> None:
        environment = {"PATH": os.defpath, "PGPASSWORD": self._password}
        done = subprocess.run([self._found.folder / program, *arguments], env=environment, cwd=self.folder,
                              capture_output=True, text=True, **self._as_user())  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout

    def make(self) -> None:
        handed = self.folder / "password"
        handed.write_text(self._password)
        if self._user is not None:
            os.chown(handed, *self._user)
        self.run("initdb", "-D", str(self.data), "--username=gateway", f"--pwfile={handed}", "--auth=scram-sha-256",
                 "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync")  # fmt: skip

    def copy(self, source: "Server") -> None:
        connection = f"host={source.socket} user=gateway application_name={self.name} password={self._password}"
        self.run("pg_basebackup", "-D", str(self.data), "-d", connection, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def start(self, **environment: str) -> "Server":
        (self.data / "postgresql.conf").write_text(CONF.format(socket=self.socket, name=self.name))
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._found.postgres, "-D", self.data], env={"PATH": os.defpath, **environment}, cwd=self.folder, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user(),
            )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
            try:
                self.sql("SELECT 1")
                return self
            except (OSError, asyncpg.PostgresError):
                time.sleep(0.05)

    def sql(self, text: str, *arguments):
        """One value. Not in the way of a standby that does not answer."""

        async def ask():
            connection = await asyncpg.connect(host=str(self.socket), user="gateway", password=self._password,
                                               database="postgres", timeout=5)  # fmt: skip
            try:
                await connection.execute("SET synchronous_commit = local")
                return await connection.fetchval(text, *arguments)
            finally:
                connection.terminate()

        with contextlib.closing(asyncio.new_event_loop()) as loop:
            return loop.run_until_complete(ask())

    def kill(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """At once, without a checkpoint. SIGKILL leaves the children to notice."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        self.process.wait(30)
        end = time.monotonic() + 30
        while binaries_in(self.data) and time.monotonic() < end:
            time.sleep(0.05)

    def promote(self) -> None:
        self.sql("SELECT pg_promote(true, 30)")


def binaries_in(data: Path) -> list[int]:
    from gateway.store.postmaster import processes_in

    return processes_in(data)


class Cluster:
    """`primary` and `standby`; `dsn` names both."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        folder.chmod(0o711)
        self.folder, self.password = folder, secrets.token_hex(16)
        # The newest that whoever runs it may reach.
        self._found = binaries.find(user=_server_user(folder))
        self.alpha = self.primary = Server(folder / "a", "alpha", self._found, self.password)
        self.beta = self.standby = Server(folder / "b", STANDBY, self._found, self.password)
        self.primary.make()
        self.primary.start()
        self.primary.sql("CREATE DATABASE gateway")
        self.standby.copy(self.primary)
        self.standby.start()
        self.demand(STANDBY)
        self.wait_synchronous()

    @property
    def dsn(self) -> str:
        places = f"{self.alpha.socket},{self.beta.socket}"
        return f"postgresql://gateway:{self.password}@/gateway?host={places}"

    def demand(self, names: str) -> None:
        """What commits wait for."""
        self.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.sql("SELECT pg_reload_conf()")
        time.sleep(0.2)

    def wait_synchronous(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while self.primary.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1:
            assert time.monotonic() < end, "no synchronous standby"
            time.sleep(0.05)

    def fail_over(self) -> None:
        """The primary is dead; the standby takes its place, and its commits wait for nobody."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        self.demand("")

    def rejoin(self) -> None:
        """A copy of the primary in the place of what is dead, and commits wait for it."""
        shutil.rmtree(self.standby.data)
        self.standby.data.mkdir(mode=0o700)
        if self.standby._user is not None:
            os.chown(self.standby.data, *self.standby._user)
        self.standby.copy(self.primary)
        self.standby.start()
        self.demand(self.standby.name)
        self.wait_synchronous()

    def stop(self) -> None:
        for server in (self.alpha, self.beta):
            server.kill()


__all__ = ["STANDBY", "Cluster", "Server"]
