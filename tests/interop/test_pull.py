"""Two real gateways, one of which pulls from the other: processes die on the way, and a large message is streamed."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.failover.pair import Checker, Node, Pair
from tests.failover.test_pull_points import AGREEMENT, LARGE, SMALL, Fetching


@pytest.fixture
def pair():
    # As root, the private PostgreSQL runs as another user: every folder above it must let it pass.
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)
    found = Pair(folder)
    for node in (found.lv, found.ee):
        with (node.folder / "pmodes" / "agreement.toml").open("a") as file:
            file.write(AGREEMENT)
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


def finish(checker: Checker) -> dict[str, int]:
    checker.wait_acknowledged(120)
    checker.wait_delivered(120)
    checker.close()
    return checker.judge()


def test_what_one_holds_the_other_fetches_though_processes_die(pair, tmp_path):
    """LV's worker dies when a message was handed out, EE's when one is stored and its receipt is not sent, and
    when a receipt was sent and that is not noted."""
    struck = {name: tmp_path / name for name in ("lv", "ee")}
    pair.lv.start(GATEWAY_CRASH="HD03", GATEWAY_CRASH_ONCE=str(struck["lv"]))
    pair.ee.start(GATEWAY_CRASH="IB23,PL04", GATEWAY_CRASH_ONCE=str(struck["ee"]))
    checker = Fetching(pair, tmp_path / "checker.jsonl").consume()
    for content in (SMALL, LARGE, SMALL):
        checker.submit(content)
    figures = finish(checker)
    assert figures["delivered"] == 3
    assert struck["lv"].read_text().split() == ["HD03"]
    assert sorted(struck["ee"].read_text().split()) == ["IB23", "PL04"]
    # An operator may have the channel asked at once; it is passed over while it is being asked.
    end, rows = time.monotonic() + 60, []
    while not rows and time.monotonic() < end:
        rows = json.loads(pair.ee.cli("messages", "pull", "--json").stdout)
    assert [row["mpc"] for row in rows] == ["urn:example:mpc:AP_EE_01"]
    assert "AP_LV_01" in rows[0]["holder"] and "AP_EE_01" in rows[0]["puller"]


def resident(node: Node) -> int:
    """Bytes in memory of a node's workers."""
    supervisor = node.process.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    workers = [pid for pid in children if "postgres" not in Path(f"/proc/{pid}/comm").read_text()]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in workers]
    return sum(int(one[21]) for one in fields) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_large_message_is_pulled_with_flat_memory(pair, tmp_path):
    size = 150 << 20
    pair.lv.start()
    pair.ee.start()
    checker = Fetching(pair, tmp_path / "checker.jsonl").consume()
    checker.submit(SMALL)
    checker.wait_delivered()
    before = resident(pair.lv), resident(pair.ee)
    checker.submit(os.urandom(size))
    most = [0, 0]
    end = time.monotonic() + 300
    while len(checker.acknowledged) < 2:
        assert time.monotonic() < end
        most = [max(seen, resident(node)) for seen, node in zip(most, (pair.lv, pair.ee), strict=True)]
        time.sleep(0.05)
    grown = [peak - base for peak, base in zip(most, before, strict=True)]
    print([f"{bytes_ / (1 << 20):.0f} MiB" for bytes_ in grown])
    assert max(grown) < size / 2
    finish(checker)
