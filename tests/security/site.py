"""A real gateway under attack: its processes, its database, its files, and what they give away.

AP_EE_01 runs as an operator would run it, with its private PostgreSQL; the tests hold the
keys of AP_LV_01. Each attack comes from an address of its own (127.0.0.n), so that the
limit of security events a source does not hide one.
"""

import asyncio
import base64
import dataclasses
import http.client
import itertools
import os
import re
import socket
import threading
import time
from pathlib import Path

import asyncpg

from gateway.store.embedded import running_dsn
from gateway.store.postgres import PostgresStore
from tests.failover.pair import Pair
from tests.peer import Answer, Sent, check_receipt

#: Everything a message could leave behind. `audit` is looked at on its own.
TABLES = ("message", "part", "chunk", "attempt", "job", "event", "duplicate_seen", "idempotency")

ENVIRONMENT = {
    "GATEWAY__WORKERS__PROCESSES": "2",
    "GATEWAY__LOG__LEVEL": "debug",
    "GATEWAY__LIMITS__PART": "4 MiB",
    "GATEWAY__LIMITS__BODY_DEADLINE": "3s",
    "GATEWAY__LIMITS__UPLOADS_PER_PARTNER": "64",
}


@dataclasses.dataclass
class Reply:
    """The HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True)
class Usage:
    """What the worker processes used together: seconds, octets."""

    cpu: float
    rss: int


class Site:
    """AP_EE_01 under attack."""

    def __init__(self, folder: Path) -> None:
        self.pair = Pair(folder)
        self.node, self.peer = self.pair.ee, self.pair.peer
        self.data = self.node.folder / "data"
        self._sources = itertools.count(2)
        self.listener = Witness()
        self._runner, self._connection = asyncio.Runner(), None
        self.node.start(**ENVIRONMENT)

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._runner.close()
        self.node.stop()
        self.listener.close()

    # -- HTTP -------------------------------------------------------------------------

    def source(self) -> str:
        """An address nobody has sent from yet."""
        number = next(self._sources)
        return f"127.0.{number // 250}.{number % 250 + 2}"

    def post(self, content_type: str, body: bytes, *, source: str = "127.0.0.1") -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.node.as4, timeout=30, source_address=(source, 0))
        try:
            connection.request("POST", "/as4", body, {"Content-Type": content_type})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def read(self, reply: Reply) -> Answer:
        """The answer as the peer understands it; raises where it is signed wrongly."""
        return self.peer.answer(reply.status, reply.headers.get("content-type", ""), reply.body)

    def accepted(self, sent: Sent) -> float:
        """Send a valid message; the seconds until its receipt was there, which is checked."""
        began = time.perf_counter()
        reply = self.post(sent.content_type, sent.body)
        seconds = time.perf_counter() - began
        assert reply.status == 200, reply
        check_receipt(self.read(reply), sent)
        return seconds

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A connection on which nothing was said yet."""
        return socket.create_connection(("127.0.0.1", self.node.as4), 30, source_address=(source, 0))

    def head(self, content_type: str, length: int) -> bytes:
        return (f"POST /as4 HTTP/1.1\r\nHost: ee.example\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {length}\r\n\r\n").encode()

    # -- database and files -----------------------------------------------------------

    def sql(self, *statements: str) -> list:
        """The rows of the last statement."""
        async def run():
            if self._connection is None:
                self._connection = await asyncpg.connect(running_dsn(self.data / "postgres"))
            return [await self._connection.fetch(statement) for statement in statements][-1]

        return self._runner.run(run())

    def store(self, verb):
        """What an awaitable verb of the message store gives: what no door offers yet."""
        async def run():
            store = await PostgresStore.open(running_dsn(self.data / "postgres"), pool_size=2)
            try:
                return await verb(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def counts(self) -> dict[str, int]:
        columns = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in TABLES)
        return dict(self.sql(f"SELECT {columns}")[0])

    def audit(self, actor: str) -> list:
        return [row for row in self.sql("SELECT * FROM audit ORDER BY number") if row["actor"] == actor]

    def found(self, *needles: bytes) -> list[str]:
        """The files, database and write-ahead log and logs included, that hold one of the needles."""
        self.sql("CHECKPOINT")
        hits = []
        for path in self.node.folder.rglob("*"):
            # Payloads are looked for where the gateway writes, not in its configuration.
            if path.is_file() and (path == self.node.log or self.data in path.parents):
                octets = path.read_bytes()
                hits += [f"{path.relative_to(self.node.folder)}: {n[:40]!r}" for n in needles if n in octets]
        return hits

    def open_spools(self) -> list[str]:
        """Spool files that a worker still holds open, unlinked as they are."""
        held = []
        for pid in self.workers():
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    target = os.readlink(fd)
                except FileNotFoundError:
                    continue
                if str(self.data / "spool") in target:
                    held.append(target)
        return held

    # -- processes --------------------------------------------------------------------

    def workers(self) -> list[int]:
        """The worker processes: what the supervisor started and is no database."""
        supervisor = self.node.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        return [int(pid) for pid in children if "postgres" not in Path(f"/proc/{pid}/comm").read_text()]

    def usage(self) -> Usage:
        cpu, rss = 0.0, 0
        for pid in self.workers():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            rss += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        return Usage(cpu, rss)

    def logged(self) -> str:
        return self.node.log.read_text()


class Witness:
    """A listener that must never hear from the gateway."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


def spellings(text: bytes) -> list[bytes]:
    """A text as it is, in hexadecimal, and as it shows inside base64, wherever it begins."""
    found = [text, text.hex().encode(), text.hex().upper().encode()]
    for shift in range(3):
        octets = base64.b64encode(b"\0" * shift + text)
        found.append(octets[4 if shift else 0 :].rstrip(b"=")[: len(text)])
    return found


def printable(text: str) -> bool:
    return re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]*", text) is not None and text.isprintable()
