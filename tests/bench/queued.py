"""A node that starts with a million queued messages: when it is ready, and what a claim takes [reliability I10, R25].

    python -m tests.bench.queued --messages 1000000

One submitted message is copied in the database, over fifty partners, and the node is started on it: first after it was
stopped, and then after it was killed at full work with its database. `ready_in_empty` is the same node before.
Prints one JSON object; times in seconds, those of claims in milliseconds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import asyncpg

from gateway.client import Part
from gateway.store.embedded import PrivatePostgres
from gateway.store.postgres import PostgresStore
from gateway.store.postmaster import postmaster, processes_in
from tests.failover.pair import Node, Pair

T = TypeVar("T")

PARTNERS = 50
#: Seconds of work before the node is killed.
WORK = 60.0
NOTHING = "SELECT pg_logical_emit_message(true, 'bench', 'nothing')"
COPY_MESSAGES = """
INSERT INTO message (id, direction, state, tenant, partner, message_id, conversation_id, service, action, backend, client,
                     pmode_id, pmode_revision, header, fingerprint, wrapped_key, steps)
SELECT gen_random_uuid(), direction, 'SUBMITTED', tenant, CASE n % $2 WHEN 0 THEN partner ELSE 'partner-' || n % $2 END,
       n || '@queued.example', n::text, service, action, backend, client, pmode_id, pmode_revision, header, fingerprint,
       wrapped_key, steps
  FROM message, generate_series(1, $1::int) AS n WHERE message_id = $3
"""
COPY_JOBS = """
INSERT INTO job (kind, queue, message, due_at, gives_up_at)
SELECT 'send', partner, id, now() - random() * interval '1 h', now() + interval '1 day'
  FROM message WHERE message_id LIKE '%@queued.example'
"""
SHUT = """
INSERT INTO circuit (partner, failures, shut_until)
SELECT 'partner-' || n, 5, now() + interval '1 h' FROM generate_series(2, $1) AS n
    ON CONFLICT (partner) DO UPDATE SET shut_until = excluded.shut_until
"""


def measure(folder: Path, messages: int) -> dict:
    """Everything, with a node and a database in `folder`."""
    pair = Pair(folder)  # EE is never started: whatever is sent there fails
    node, postgres = pair.lv, folder / "lv" / "data" / "postgres"
    try:
        node.start()  # makes the database
        sent = node.client().submit(
            "AP_EE_01", "ExecuteQueryRequest", [Part(b"<x/>", "application/octet-stream")],
            properties={"originalSender": "C1", "finalRecipient": "C4"},
        )  # fmt: skip
        node.stop()
        empty = _started(node)
        node.stop()
        with PrivatePostgres(postgres) as dsn:
            began = time.monotonic()
            asyncio.run(_copy(dsn, messages, sent["message_id"]))
            copied = time.monotonic() - began
        os.sync()  # what the machine still has to write of all that is no part of a start
        full = _started(node)
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            found = loop.run_until_complete(_claims(PrivatePostgres(postgres).dsn))
        time.sleep(WORK)
        waits = _kill(node, postgres / "data")
        after_kill = _started(node)
        return {"messages": messages, "copied_in": round(copied, 1), "ready_in": round(full, 2),
                "ready_in_empty": round(empty, 2), "ready_ratio": round(full / empty, 2),
                "ready_in_after_kill": round(after_kill, 2), "redo_mib": waits, **found}  # fmt: skip
    finally:
        pair.stop()


def _started(node: Node) -> float:
    """Start it; seconds until it is ready."""
    began = time.monotonic()
    node.start()
    return time.monotonic() - began


def _kill(node: Node, data: Path) -> int:
    """Every process of the node and of its database at once, as a machine does that loses its power; MiB of the log
    since the last checkpoint."""
    waits = asyncio.run(_ask(PrivatePostgres(data.parent).dsn, "SELECT pg_current_wal_lsn() - redo_lsn FROM pg_control_checkpoint()"))
    server, supervisor = postmaster(data).pid, node.process.pid
    workers = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
    for pid in (server, supervisor, *workers, *processes_in(data)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.process.wait(10)
    while processes_in(data):
        time.sleep(0.01)
    return int(waits) >> 20


async def _ask(dsn: str, query: str) -> object:
    sql = await asyncpg.connect(dsn)
    try:
        return await sql.fetchval(query)
    finally:
        await sql.close()


def _figures(times: list[float]) -> dict:
    return {"p50": round(statistics.median(times), 2), "p99": round(sorted(times)[int(len(times) * 0.99)], 2),
            "count": len(times)}  # fmt: skip


async def _copy(dsn: str, messages: int, original: str) -> None:
    sql = await asyncpg.connect(dsn, server_settings={"search_path": "gateway", "synchronous_commit": "off"}, command_timeout=3600)
    await sql.execute(COPY_MESSAGES, messages, PARTNERS, original)
    await sql.execute(COPY_JOBS)
    await sql.execute("ANALYZE message; ANALYZE job")
    await sql.close()


async def _claims(dsn: str, rounds: int = 500) -> dict:
    """Claims of four jobs beside those of the node, given back at once: with every partner open, then with all but one
    shut, and then also looks for what is to be given up. Each time a commit that does nothing, for what the machine
    itself takes."""
    store = await PostgresStore.open(dsn, pool_size=2)
    claims, shut, overdue, commits = [], [], [], []

    async def timed(times: list[float], call: Awaitable[T]) -> T:
        began = time.perf_counter()
        found = await call
        times.append((time.perf_counter() - began) * 1e3)
        return found

    async def claim(times: list[float]) -> bool:
        jobs = await timed(times, store.claim("send", worker="bench", limit=4, lease=9, each=4))
        if not jobs:
            times.pop()  # it is not a claim of anything
        for job in jobs:
            await store.release(job.id, job.claim, due_in=3600)
        await timed(commits, store._pool.write(NOTHING))
        return bool(jobs)

    try:
        for _ in range(rounds):
            if not await claim(claims):  # every partner is shut by now
                await store._pool.write("DELETE FROM circuit")
        await store._pool.writes(SHUT, PARTNERS - 1)
        for _ in range(rounds // 5):
            await claim(shut)
            await timed(overdue, store.claim_overdue(worker="bench", limit=20, lease=9))
        await store._pool.write("DELETE FROM circuit")
    finally:
        await store.close()
    return {"claim_ms": _figures(claims), "claim_with_others_shut_ms": _figures(shut),
            "give_up_ms": _figures(overdue), "commit_ms": _figures(commits)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gateway-queued-"))
    folder.chmod(0o711)
    try:
        print(json.dumps(measure(folder, arguments.messages), indent=2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
