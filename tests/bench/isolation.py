"""Bulkheads: what a slow partner and a dead one cost the others [reliability R19, R20].

    python -m tests.bench.isolation

One gateway process on PostgreSQL sends to three partners that are well, at a steady rate: by
themselves, and with a thousand messages queued to a partner that reads 1 kB/s and a thousand to one that
nobody is. Both are measured in turn, several times in one run, and compared as a ratio: from the
submission to the receipt, as the database has it. Prints one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import asyncpg

from gateway import app
from gateway.as4.units import PartyId
from gateway.config import Config
from gateway.msh.rooms import party_key
from gateway.plugin import PartSubmission, PartyRef, Submission
from gateway.store.embedded import PrivatePostgres
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.migrate import migrate
from tests.peer import Authority, Keys, Peer
from tests.world import CALLER, CORNERS, EE, LV, Listener, write_site

WELL = ("AP_W1_01", "AP_W2_01", "AP_W3_01")
SLOW, DEAD = "AP_SL_01", "AP_DE_01"
PARTY = """
[parties.{name}]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"
endpoint = "{endpoint}"
signing = "ee-sign.pem"
encryption = "ee-enc.pem"
"""
KEYS = [party_key(PartyId(name, EE.type)) for name in (SLOW, DEAD)]
#: As if nothing were queued to these.
SHUT = """
INSERT INTO circuit (partner, failures, shut_until) SELECT unnest($1::text[]), 9, 'infinity'
    ON CONFLICT (partner) DO UPDATE SET shut_until = 'infinity'
"""
#: Octets a second of the slow one, and of a message to it.
RATE, LARGE = 1000, 40_000


class Slow:
    """A partner that reads a message at its own pace and never comes to answer."""

    def __init__(self) -> None:
        self.url = ""

    async def start(self) -> asyncio.Server:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{raw.getsockname()[1]}/as4"
        return await asyncio.start_server(self._read, sock=raw, limit=1024)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while await reader.read(RATE // 4):
                await asyncio.sleep(0.25)
        writer.close()


class Site:
    """The gateway and its partners."""

    def __init__(self, gateway: app.Gateway, store: PostgresStore, slow: Slow) -> None:
        self.gateway, self.store, self.slow = gateway, store, slow
        self.sockets = 0

    async def submit(self, partner: str, content: bytes) -> str:
        submission = Submission(to_party=PartyRef(partner), action="ExecuteQueryRequest", properties=CORNERS,
                                parts=(PartSubmission(mime_type="application/octet-stream"),))  # fmt: skip

        async def blocks(_number: int):
            yield content

        return (await self.gateway.door.submit(CALLER, submission, blocks)).id

    async def steady(self, seconds: float, rate: float) -> list[float]:
        """Milliseconds from submission to receipt of messages to the partners that are well."""
        ids, loop = [], asyncio.get_running_loop()
        until, due = loop.time() + seconds, loop.time()
        while loop.time() < until:
            ids.append(await self.submit(WELL[len(ids) % len(WELL)], b"<evidence/>"))
            due += 1 / rate
            if (pool := self.gateway._rooms.client._pools.get(KEYS[0])) is not None:
                self.sockets = max(self.sockets, pool._users)
            await asyncio.sleep(max(due - loop.time(), 0))
        times = []
        for id in ids:
            async with asyncio.timeout(60):
                while (view := await self.gateway.door.message(CALLER, id)).state != "ACKNOWLEDGED":
                    await asyncio.sleep(0.05)
            times.append((view.receipt_at - view.created_at).total_seconds() * 1e3)
        return times


@contextlib.asynccontextmanager
async def site(folder: Path, dsn: str):
    """The wired gateway, claiming, on a database of its own."""
    authority = Authority()
    keys, partner = Keys.make("AP_LV_01", "rsa", authority), Keys.make("AP_EE_01", "rsa", authority)
    listener, slow = Listener(), Slow()
    peer = Peer(EE, LV, partner, (keys.signing,), keys.encryption, "oots/2.0")

    def receipt(content_type: str, body: bytes):
        message, _, references = peer.receive(content_type, body)  # whichever of the three it is for
        return 200, "application/soap+xml; charset=UTF-8", peer.receipt_for(message, references)

    listener.answer = receipt
    async with listener.running():
        server = await slow.start()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            endpoints = {**dict.fromkeys(WELL, listener.url), SLOW: slow.url,
                         DEAD: f"http://127.0.0.1:{nobody.getsockname()[1]}/as4"}  # fmt: skip
            more = "".join(PARTY.format(name=name, endpoint=endpoint) for name, endpoint in endpoints.items())
            write_site(folder, keys, partner, endpoint=listener.url, more=more)
            config = Config.load(folder / "gateway.toml", environ={})
            await migrate(dsn)
            store = await PostgresStore.open(dsn)
            gateway = await app.build(config, store=store)
            await gateway.start()
            try:
                yield Site(gateway, store, slow)
            finally:
                gateway._workers._stopping.set()
                for task in gateway._workers._running:
                    task.cancel()
                await gateway.drain()
                await gateway.close()
                server.close()


async def measure(folder: Path, dsn: str, *, queued: int = 1000, seconds: float = 6.0, rounds: int = 3, rate: float = 15) -> dict:
    """Alone and beside the slow and the dead, in turn."""
    sql = await asyncpg.connect(dsn, server_settings={"search_path": "gateway"})
    async with site(folder, dsn) as found:
        await found.steady(2.0, rate)  # connections, caches
        alone: list[float] = []
        beside: list[float] = []
        await sql.execute(SHUT, KEYS)
        large = os.urandom(LARGE)
        for _ in range(queued):
            await found.submit(SLOW, large)
            await found.submit(DEAD, b"<x/>")
        dead_shut = True
        for _ in range(rounds):
            alone += await found.steady(seconds, rate)
            await sql.execute("DELETE FROM circuit")
            beside += await found.steady(seconds, rate)
            dead_shut &= await sql.fetchval("SELECT count(*) FROM circuit WHERE shut_until IS NOT NULL AND partner = $1", KEYS[1]) == 1
            await sql.execute(SHUT, KEYS)
            for task in list(found.gateway._workers._running):
                task.cancel()
        hands = found.sockets
    await sql.close()
    return {
        "queued": {"slow": queued, "dead": queued}, "sockets_to_the_slow": hands, "dead_is_shut": dead_shut,
        "alone_ms": _figures(alone), "beside_ms": _figures(beside),
        "p99_ratio": round(_at(beside, 0.99) / _at(alone, 0.99), 3),
        "p50_ratio": round(_at(beside, 0.5) / _at(alone, 0.5), 3),
    }  # fmt: skip


def _at(times: list[float], share: float) -> float:
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


def _figures(times: list[float]) -> dict:
    return {"count": len(times), "p50": round(_at(times, 0.5), 1), "p99": round(_at(times, 0.99), 1)}


@contextlib.contextmanager
def database():
    """A folder and a private PostgreSQL in it."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-isolation-"))
    folder.chmod(0o711)
    try:
        with PrivatePostgres(folder / "pg") as dsn:
            yield folder / "site", dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = vars(parser.parse_args())
    with database() as (folder, dsn):
        print(json.dumps(asyncio.run(measure(folder, dsn, **arguments)), indent=2))


if __name__ == "__main__":
    main()
