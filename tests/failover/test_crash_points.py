"""Processes are killed at every declared point; the checker counts at the end.

The short form strikes every point once. `make failover` repeats that many times.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.stages import POINTS
from tests.failover.pair import Checker

ROUNDS = 5 if os.environ.get("GATEWAY_FAILOVER") == "full" else 1
SMALL, LARGE = b"<evidence>" + os.urandom(300).hex().encode() + b"</evidence>", os.urandom(1_600_000)

#: Where a point is struck. IB12 needs a message that no gateway sends; MT ones a command.
AT_LV = [name for name in POINTS if name.startswith("OB") and name != "OB17"]
AT_EE = [name for name in POINTS if name.startswith(("IB", "DL")) or name == "OB17"]  # the webhook is at EE

pytestmark = [pytest.mark.failover, pytest.mark.timeout(1200)]


async def _post(url: str, sent) -> int:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url, data=sent.body, headers={"Content-Type": sent.content_type}) as answer:
                body = await answer.read()
                return 101 if b"EBMS:0101" in body else answer.status
        except (aiohttp.ClientError, OSError):
            return 0


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_at_every_point_loses_nothing_and_doubles_nothing(pair, folder, number):
    struck = {"lv": folder / "struck-lv", "ee": folder / "struck-ee"}
    points = {"lv": folder / "points-lv", "ee": folder / "points-ee"}
    for node, names in ((pair.ee, AT_EE), (pair.lv, AT_LV)):
        node.start(GATEWAY_CRASH=",".join(names), GATEWAY_CRASH_ONCE=str(struck[node.name]), GATEWAY_POINTS=str(points[node.name]))
    checker = Checker(pair, folder / "checker.jsonl")
    checker.listen()
    checker.consume()
    spoilt = pair.peer.message([("application/octet-stream", SMALL)], digest=lambda *_: b"\0" * 32)

    def left() -> set[str]:
        done = {name for path in struck.values() if path.exists() for name in path.read_text().split()}
        return {*AT_LV, *AT_EE} - done

    end = time.monotonic() + 400
    for count in itertools.count():
        if not left():
            break
        assert time.monotonic() < end, f"points that were never hit: {sorted(left())}"
        checker.submit(*[LARGE, SMALL] if count % 3 == 0 else [SMALL])
        if "IB12" in left():
            asyncio.run(_post(f"http://127.0.0.1:{pair.ee.as4}/as4", spoilt))
        time.sleep(0.4)  # not so many that they are waited for long
    checker.wait_acknowledged()
    checker.wait_delivered()
    time.sleep(4)  # a lease: what would come again, comes now
    checker.close()
    figures = checker.report("R01", "kill -9 at a point of a message's way", times=len({*AT_LV, *AT_EE}))
    print(figures)
    # A message spoilt on the way was refused, and nothing of it stayed.
    assert asyncio.run(_post(f"http://127.0.0.1:{pair.ee.as4}/as4", spoilt)) == 101
    assert spoilt.message.message_id not in pair.ee.cli("messages", "list", "--json", "--limit", "500").stdout
    # The webhook heard of every message at least once, under one id each.
    ids = {}
    for event in checker.events:
        ids.setdefault(event["id"], event)
    assert len(ids) >= figures["delivered"]
    # Retention may be killed in the middle of a batch, too, and goes on where it was.
    now = {"GATEWAY__RETENTION__DELIVERED_PAYLOADS": "0s"}
    assert pair.ee.cli("store", "purge", "--yes", check=False, GATEWAY_CRASH="MT01", **now).returncode == -9
    pair.ee.cli("store", "purge", "--yes", **now)
    states = {m["state"] for m in json.loads(pair.ee.cli("messages", "list", "--json", "--limit", "500").stdout)}
    assert states == {"PURGED"}
    now |= {"GATEWAY__RETENTION__SENT_PAYLOADS": "0s", "GATEWAY__RETENTION__MESSAGES": "0s"}
    assert pair.ee.cli("store", "purge", "--yes", check=False, GATEWAY_CRASH="MT04", **now).returncode == -9
    assert len(json.loads(pair.ee.cli("messages", "list", "--json", "--limit", "500").stdout)) > 0
    pair.ee.cli("store", "purge", "--yes", **now)
    assert json.loads(pair.ee.cli("messages", "list", "--json", "--limit", "500").stdout) == []


def test_migrations_may_be_killed_too(folder):
    """MT03: between two migrations."""
    from gateway.store.embedded import PrivatePostgres

    server = PrivatePostgres(folder / "pg")
    dsn = server.start()
    try:
        config = folder / "gateway.toml"
        kek = folder / "kek"
        kek.write_bytes(os.urandom(32))
        kek.chmod(0o600)
        config.write_text(f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{kek}"\n')
        environment = {**os.environ, "TEST_DSN": dsn}

        def migrate(**more):
            return subprocess.run([sys.executable, "-m", "gateway", "store", "migrate", "--config", str(config)],
                                  env={**environment, **more}, cwd=Path(__file__).parents[2], capture_output=True, text=True)

        first = migrate(GATEWAY_CRASH="MT03")
        assert first.returncode == -9, first.stderr
        again = migrate()
        assert again.returncode == 0, again.stderr
        assert migrate().stdout.strip() == "the schema is up to date"
    finally:
        server.stop()


@pytest.mark.slow
def test_the_whole_gateway_may_be_killed(pair, folder):
    """SIGKILL to the supervisor, in the middle of traffic; workers and database notice, and a new start goes on."""
    pair.ee.start()
    pair.lv.start()
    checker = Checker(pair, folder / "checker.jsonl").consume()
    for node in (pair.ee, pair.lv):
        for _ in range(5):
            checker.submit(SMALL)
        node.kill()
        time.sleep(0.5)
        node.start()
    checker.wait_acknowledged()
    checker.wait_delivered()
    time.sleep(4)
    checker.close()
    print(checker.report("R01g", "kill -9 of a whole gateway", times=2))
