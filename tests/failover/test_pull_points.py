"""Pull between two real gateways: one fetches from the other, and processes are killed at every point of it.

Minutes, because a channel rests for a lease whenever who had it claimed was killed. The default run
kills at three points (`tests/interop/test_pull.py`).
"""

import json
import os
import time

import pytest

from tests.failover.pair import Checker, Pair

SMALL, LARGE = b"<evidence>" + os.urandom(300).hex().encode() + b"</evidence>", os.urandom(1_600_000)
AT_LV = ["HD01", "HD02", "HD03", "HD04", "OB01", "OB02"]
#: The ladder of a pulled message, and the points that only a pull has.
AT_EE = ["PL01", "PL02", "PL03", "PL04", "IB03", "IB05", "IB09", "IB11", "IB15", "IB21", "IB23"]

AGREEMENT = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "FetchedRequest"
mep = "one-way-pull"
mpc = "urn:example:mpc:{to}"
pull_every = "0.3s"
"""

pytestmark = [pytest.mark.failover, pytest.mark.slow]


class Fetching(Checker):
    """LV submits, EE fetches."""

    action = "FetchedRequest"


@pytest.fixture
def pair(folder):
    found = Pair(folder)
    for node in (found.lv, found.ee):
        with (node.folder / "pmodes" / "agreement.toml").open("a") as file:
            file.write(AGREEMENT)
    yield found
    found.stop()


def test_a_kill_at_every_point_of_a_pull_loses_nothing_and_doubles_nothing(pair, folder):
    struck = {"lv": folder / "struck-lv", "ee": folder / "struck-ee"}
    for node, names in ((pair.ee, AT_EE), (pair.lv, AT_LV)):
        node.start(GATEWAY_CRASH=",".join(names), GATEWAY_CRASH_ONCE=str(struck[node.name]))
    checker = Fetching(pair, folder / "checker.jsonl")
    checker.consume()

    def left() -> set[str]:
        done = {name for path in struck.values() if path.exists() for name in path.read_text().split()}
        return {*AT_LV, *AT_EE} - done

    end = time.monotonic() + 300
    while left():
        assert time.monotonic() < end, f"points that were never hit: {sorted(left())}"
        checker.submit(SMALL)
        checker.submit(LARGE)
        time.sleep(2)
    checker.wait_acknowledged(120)
    checker.wait_delivered()
    time.sleep(4)  # a lease: what would come again, comes now
    checker.close()
    print(checker.report("R01", "kill -9 at a point of a message's way", times=len({*AT_LV, *AT_EE})))
    states = [m["state"] for m in json.loads(pair.lv.cli("messages", "list", "--json", "--limit", "500").stdout)]
    assert set(states) == {"ACKNOWLEDGED"}


def test_either_gateway_may_be_killed_whole(pair, folder):
    """SIGKILL to the supervisors in the middle of pulling."""
    pair.ee.start()
    pair.lv.start()
    checker = Fetching(pair, folder / "checker.jsonl").consume()
    for node in (pair.ee, pair.lv):
        for _ in range(5):
            checker.submit(SMALL)
        node.kill()
        time.sleep(0.5)
        node.start()
    checker.wait_acknowledged(120)
    checker.wait_delivered()
    time.sleep(4)
    checker.close()
    print(checker.report("R01g", "kill -9 of a whole gateway", times=2))
