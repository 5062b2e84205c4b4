"""R15: a disk is full, that of the spool, of the database or of the log; or has room and no more files.

What has no room is refused in a way that the partner tries again, `/readyz` says why, and when there is room everything
goes on by itself.
"""

import json
import os
import threading
import time

import pytest

from tests.failover.disk import disk
from tests.failover.pair import Checker

FULL = os.environ.get("GATEWAY_FAILOVER") == "full"
SMALL, LARGE = b"<evidence/>", os.urandom(3_000_000)
TIMES = 3 if FULL else 1

pytestmark = [pytest.mark.failover, pytest.mark.timeout(600)]


def ready(node) -> tuple[int, str]:
    return node.asked("/readyz?verbose")


def until(true, what: str, seconds: float, node) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, (what, ready(node), node.log.read_text()[-2000:])
        time.sleep(0.1)
    return time.monotonic() - began


def states(node, ids) -> list[str]:
    return [node.message(id)["state"] for id in ids]


def settled(checker, id: str, fault: str, times: int, **more) -> None:
    """Everything has its receipt and was delivered once; for the table first."""
    checker.wait_acknowledged(120)
    checker.wait_delivered()
    time.sleep(4)  # a lease: what would come again, comes now
    checker.close()
    counts = checker.report(id, fault, times=times, **more)
    assert counts["redelivered"] == 0


@pytest.mark.slow
def test_the_spool_is_full_or_has_no_more_files(pair, folder):
    with disk(pair.ee.folder / "data" / "spool", 24 << 20, inodes=5000) as spool:
        pair.ee.start()
        pair.lv.start()
        checker = Checker(pair, folder / "checker.jsonl").consume()
        for fill in (spool.fill, spool.fill_inodes) * TIMES:
            fill()
            # What needs no disk goes on; what does comes again.
            small, large = checker.submit(SMALL), checker.submit(LARGE)
            until(lambda: ready(pair.ee)[0] == 503, "it says that it is ready", 5, pair.ee)
            said = ready(pair.ee)[1]
            assert "[-]spool" in said, said
            until(lambda id=small: checker.producer.message(id)["state"] == "ACKNOWLEDGED", "a small one waits", 20, pair.ee)
            until(lambda id=large: checker.producer.message(id)["state"] == "WAITING_FOR_RETRY", "not tried again", 20, pair.ee)
            spool.make_room()
            until(lambda: ready(pair.ee)[0] == 200, "there is room, and it is not ready", 10, pair.ee)
            until(lambda id=large: checker.producer.message(id)["state"] == "ACKNOWLEDGED", "it does not come", 60, pair.ee)
        settled(checker, "R15s", "disk of the spool full, or out of inodes", 2 * TIMES)
    assert '"incident"' not in pair.ee.log.read_text()


@pytest.mark.slow
def test_the_disk_of_the_database_is_full(pair, folder):
    """Data and WAL on one small disk: statements fail, then the server ends, and both come back."""
    with disk(pair.ee.folder / "data", 400 << 20) as data:
        pair.ee.start()
        pair.lv.start()
        checker = Checker(pair, folder / "checker.jsonl").consume()
        gap = 0.0
        for _ in range(TIMES):
            checker.submit(SMALL)
            checker.wait_acknowledged()
            data.fill()
            began = time.monotonic()
            ids = [checker.submit(LARGE, SMALL) for _ in range(8)]
            until(lambda: ready(pair.ee)[0] == 503, "it says that it is ready", 60, pair.ee)
            waiting = [state for state in states(checker.producer, ids) if state != "ACKNOWLEDGED"]
            assert waiting, "everything found room"
            time.sleep(5)
            data.make_room()
            until(lambda: ready(pair.ee)[0] == 200, "there is room, and it is not ready", 60, pair.ee)
            checker.wait_acknowledged(120)
            gap = max(gap, time.monotonic() - began)
        settled(checker, "R15d", "disk of the database full, data and WAL", TIMES, gap=gap)
        # It ends in order, and starts again without help.
        assert pair.ee.stop() == 0
        pair.ee.start()
        assert pair.ee.cli("audit", "verify", check=False).returncode in (0, 3)


@pytest.mark.slow
def test_the_disk_of_the_log_is_full(pair, folder):
    """Nothing waits for a log, and nothing ends because of one; how much is missing is told when there is room."""
    with disk(folder / "log", 1 << 20) as log:
        pair.ee.log = log.folder / "ee.jsonl"
        pair.ee.start()
        pair.lv.start()
        checker = Checker(pair, folder / "checker.jsonl").consume()
        checker.submit(SMALL)
        checker.wait_acknowledged()
        log.fill()
        size = pair.ee.log.stat().st_size
        slowest = 0.0
        for _ in range(300 if FULL else 20):
            began = time.monotonic()
            id = checker.submit(SMALL)
            while checker.producer.message(id)["state"] != "ACKNOWLEDGED":
                assert time.monotonic() - began < 10, pair.ee.asked("/readyz?verbose")
                time.sleep(0.02)
            slowest = max(slowest, time.monotonic() - began)
        assert ready(pair.ee)[0] == 200 and pair.ee.log.stat().st_size < size + 4096
        log.make_room()
        checker.submit(SMALL)
        settled(checker, "R15l", "disk of the log full", 1, gap=slowest)
        lines = [json.loads(line) for line in pair.ee.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        assert any(line["event"] == "log.dropped" and line["count"] > 0 for line in lines)
        # Also an end with a full log is an orderly one.
        log.fill()
        threading.Timer(0, pair.lv.stop).start()
        assert pair.ee.stop() == 0
