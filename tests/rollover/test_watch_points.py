"""Two nodes watch the same certificates and are killed in the middle of it: each is told of once, and reaches the hook."""

import asyncio
import json
import sys
import time
from collections import Counter

import asyncpg
import pytest

from tests.rollover.agreements import Site
from tests.unit.store.servers import Servers

HOOK = """#!{python}
import os, sys
with open({file!r}, "a") as file:
    file.write(sys.stdin.read() + "\\n")
"""


@pytest.fixture
def dsn():
    servers = Servers()
    yield servers.dsn("wheel")
    servers.stop()


async def rows(dsn, query):
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "gateway"})
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


@pytest.mark.failover
@pytest.mark.slow
@pytest.mark.parametrize("points", [
    pytest.param(("AL01",), id="told"),
    pytest.param(("AL02", "AL03"), id="on the way to the hook",                  # waits for a lease to end up to four times: each node is killed once at each
                 marks=[pytest.mark.timeout(600)]),
])  # fmt: skip
def test_told_once_by_two_nodes_that_are_killed(folder, dsn, points):
    site = Site(folder, dsn)
    told, struck = folder / "told.jsonl", folder / "struck"
    hook = folder / "hook"
    hook.write_text(HOOK.format(python=sys.executable, file=str(told)))
    hook.chmod(0o755)
    for node in (site.ee, site.twin):
        node.config.write_text(node.config.read_text() + f'\n[alerts]\ncommand = ["{hook}"]\n')
    environment = {**site.environment, "GATEWAY_CRASH": ",".join(points), "GATEWAY_CRASH_ONCE": str(struck)}
    try:
        for node in (site.ee, site.twin):
            node.start(**environment)
        end, alerts = time.monotonic() + (400 if len(points) > 1 else 120), []
        while not alerts or any(row["state"] != "DONE" for row in alerts) or not _struck(struck, points):
            assert time.monotonic() < end, (alerts, struck.exists() and struck.read_text(), site.ee.log.read_text()[-2000:])
            time.sleep(0.5)
            alerts = asyncio.run(rows(dsn, "SELECT id::text, state, attempt, data::text FROM alert"))
    finally:
        for node in (site.ee, site.twin):
            node.stop()
    due = Counter((c["certificate"], c["about"]) for row in alerts for c in json.loads(row["data"])["certificates"])
    kept = asyncio.run(rows(dsn, "SELECT certificate, about FROM expiry_told"))
    assert set(due.values()) == {1} and set(due) == {tuple(row) for row in kept} and len(due) >= 4
    heard = Counter(json.loads(line)["id"] for line in told.read_text().splitlines())
    assert set(heard) == {row["id"] for row in alerts}
    # Who was told and killed before that was noted is told again, under the same id.
    assert sum(heard.values()) - len(heard) <= 2 * points.count("AL03")


def _struck(struck, points):
    return struck.exists() and set(points) <= set(struck.read_text().split())
