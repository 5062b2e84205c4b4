"""A node that starts with a million queued messages: when it is ready, and what a claim takes [reliability I10, R25].

    python -m tests.bench.queued --messages 1000000

One submitted message is copied in the database, over fifty partners, and the node is started on it.
Prints one JSON object; times in seconds, those of claims in milliseconds.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg

from gateway.client import Part
from gateway.store.embedded import PrivatePostgres
from gateway.store.postgres import PostgresStore
from tests.failover.pair import Pair

PARTNERS = 50
NOTHING = "SELECT pg_logical_emit_message(true, 'bench', 'nothing')"
COPY_MESSAGES = """
INSERT INTO message (id, direction, state, tenant, partner, message_id, conversation_id, service, action, backend, client,
                     pmode_id, pmode_revision, header, fingerprint, wrapped_key, steps)
SELECT gen_random_uuid(), direction, state, tenant, CASE n % $2 WHEN 0 THEN partner ELSE 'partner-' || n % $2 END,
       n || '@queued.example', n::text, service, action, backend, client, pmode_id, pmode_revision, header, fingerprint,
       wrapped_key, steps
  FROM message, generate_series(1, $1::int) AS n WHERE message_id = $3
"""
COPY_JOBS = """
INSERT INTO job (kind, queue, message, due_at, gives_up_at)
SELECT 'send', partner, id, now() - random() * interval '1 h', now() + interval '1 day'
  FROM message WHERE message_id LIKE '%@queued.example'
"""


def measure(folder: Path, messages: int) -> dict:
    """Everything, with a node and a database in `folder`."""
    pair = Pair(folder)  # EE is never started: whatever is sent there fails
    node = pair.lv
    try:
        node.start()
        sent = node.client().submit(
            "AP_EE_01", "ExecuteQueryRequest", [Part(b"<x/>", "application/octet-stream")],
            properties={"originalSender": "C1", "finalRecipient": "C4"},
        )  # fmt: skip
        node.stop()
        with PrivatePostgres(folder / "lv" / "data" / "postgres") as dsn:
            began = time.monotonic()
            asyncio.run(_copy(dsn, messages, sent["message_id"]))
            copied = time.monotonic() - began
        began = time.monotonic()
        node.start()
        ready = time.monotonic() - began
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            claims, commits = loop.run_until_complete(_claims(PrivatePostgres(folder / "lv" / "data" / "postgres").dsn))
        return {"messages": messages, "copied_in": round(copied, 1), "ready_in": round(ready, 2),
                "claim_ms": _figures(claims), "commit_ms": _figures(commits)}  # fmt: skip
    finally:
        pair.stop()


def _figures(times: list[float]) -> dict:
    return {"p50": round(statistics.median(times), 2), "p99": round(sorted(times)[int(len(times) * 0.99)], 2),
            "count": len(times)}  # fmt: skip


async def _copy(dsn: str, messages: int, original: str) -> None:
    sql = await asyncpg.connect(dsn, server_settings={"search_path": "gateway", "synchronous_commit": "off"}, command_timeout=3600)
    await sql.execute(COPY_MESSAGES, messages, PARTNERS, original)
    await sql.execute(COPY_JOBS)
    await sql.execute("ANALYZE message; ANALYZE job")
    await sql.close()


async def _claims(dsn: str, rounds: int = 500) -> tuple[list[float], list[float]]:
    """Claims of four jobs beside those of the node, given back at once; and each time a commit that does nothing, for
    what the machine itself takes."""
    store = await PostgresStore.open(dsn, pool_size=2)
    times, commits = [], []
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            jobs = await store.claim("send", worker="bench", limit=4, lease=9, each=4)
            times.append((time.perf_counter() - began) * 1e3)
            if not jobs:  # every partner is shut by now: it is not a claim of anything
                times.pop()
                await store._pool.write("DELETE FROM circuit")
            for job in jobs:
                await store.release(job.id, job.claim, due_in=3600)
            began = time.perf_counter()
            await store._pool.write(NOTHING)
            commits.append((time.perf_counter() - began) * 1e3)
    finally:
        await store.close()
    return times, commits


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
