"""The figures of `isolation` and `queued`, held to what is promised. Long, and on a machine with little else to do."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.bench import isolation, queued

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_slow_partner_and_a_dead_one_cost_the_others_nothing():
    """R19, R20: of three runs the best: whatever else the machine does only adds."""
    ratios = []
    for _ in range(3):
        with isolation.database() as (folder, dsn):
            found = asyncio.run(isolation.measure(folder, dsn))
        print(found)
        assert 0 < found["sockets_to_the_slow"] <= 4 and found["dead_is_shut"]
        ratios.append(found["p99_ratio"])
        if ratios[-1] < 1.2:
            return
    raise AssertionError(f"p99 of the others grows by {ratios}")


def test_a_node_with_a_million_queued_is_ready_in_seconds():
    """R25: a claim is held against a commit that does nothing, in the same run, for the machine's own slowness."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-queued-"))
    folder.chmod(0o711)
    try:
        found = queued.measure(folder, 1_000_000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(found)
    # What waits costs a start nothing; after a crash the database has half a minute to do again.
    assert found["ready_in"] < max(5, 1.5 * found["ready_in_empty"])
    assert found["ready_in_after_kill"] < 10 and found["redo_mib"] < 1024
    for claim in ("claim_ms", "claim_with_others_shut_ms", "give_up_ms"):
        assert found[claim]["count"] >= 20 and found[claim]["p99"] < max(20, 2 * found["commit_ms"]["p99"]), claim
