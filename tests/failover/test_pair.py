"""Active and passive: who works, who takes over, and that nothing rests on it.

Times are printed and bounded loosely: a machine of two cores does much else at the same time.
"""

import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from gateway.client import Part
from gateway.store.embedded import PrivatePostgres
from tests.failover.table import record
from tests.failover.twins import Twins, family

pytestmark = [pytest.mark.failover]


@pytest.fixture(scope="module")
def site():
    """One pair for all: what one test leaves is what the next finds."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)
    postgres = PrivatePostgres(folder / "pg")
    try:
        found = Twins(folder, postgres.start(), processes=2)
        try:
            yield found.start()
        finally:
            found.stop()
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def twins(site, monkeypatch):
    monkeypatch.setenv("TEST_DSN", site.environment["TEST_DSN"])
    return site


def session() -> list[tuple[list[str], int]]:
    """The commands of docs/operators/ha.md with their exit statuses."""
    page = (Path(__file__).parents[2] / "docs" / "operators" / "ha.md").read_text()
    block = re.search(r"^<!-- runs -->\n```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    lines = [re.fullmatch(r"gateway ha (.*?) +# (\d)(  .*)?", line) for line in block.splitlines()]
    return [(line[1].split(), int(line[2])) for line in lines]


def test_the_commands_of_the_documentation(twins):
    [active] = twins.active()
    names = {"node-a": active, "node-b": twins.other(active)}
    assert len(session()) == 9
    for words, expected in session():
        status, said = twins.ha(*[names.get(word, word) for word in words])
        assert status == expected, (words, status, said)
    twins.wait_active(active, seconds=5)


@pytest.mark.slow
def test_roles_are_taken_handed_over_and_found_again(twins):
    [active] = twins.active()
    passive = twins.other(active)
    one, two = twins.nodes[active], twins.nodes[passive]
    # What a probe is told, and where.
    status, text = two.asked("/readyz?verbose")
    assert status == 503 and f"[-]role passive: {active} is active" in text and "[+]store" in text
    assert two.asked("/readyz")[1] == "not ready\n"
    assert two.asked("/rolez") == (200, "passive\n") and two.asked("/rolez/active")[0] == 503
    assert one.asked("/rolez/active") == (200, "active\n") and one.asked("/livez")[0] == 200
    assert "passive" not in two.asked("/as4", two.as4)[1] and two.asked("/readyz", two.as4)[0] == 404
    lines = [line for line in two.asked("/metrics")[1].splitlines() if line.startswith("gateway_node_active")]
    assert lines and all(line.endswith(" 0.0") for line in lines), lines
    assert "gateway_db_commit_seconds_count" in one.asked("/metrics")[1]
    status, found = twins.ha("status")
    assert status == 0 and found["active"] == active and {n["name"] for n in found["nodes"]} == {"ee", "ee2"}
    # A plan first, a switch second; the token grows.
    status, plan = twins.ha("switchover", "--dry-run")
    assert (status, plan["before"], plan["after"]) == (0, active, passive) and twins.active() == [active]
    status, done = twins.ha("switchover", passive, "--yes")
    assert (status, done["active"]) == (0, passive) and done["epoch"] > found["lease"]["epoch"]
    twins.wait_active(passive, seconds=5)
    # Drained, over a restart of the node; then the other one has to stay.
    status, done = twins.ha("drain", passive, "--yes")
    assert (status, done["active"]) == (0, active)
    twins.wait_active(active, seconds=5)
    assert "drained" in two.asked("/readyz?verbose")[1] and two.asked("/rolez")[0] == 503
    status, plan = twins.ha("drain", active, "--yes")
    assert status == 3 and "no other node" in plan["objections"][0]
    status, plan = twins.ha("switchover", passive, "--yes")
    assert status == 3 and "drained" in plan["objections"][0]
    assert twins.ha("switchover", "nobody", "--yes")[0] == 5
    assert twins.ha("status")[0] == 3
    assert twins.ha("undrain", passive, "--yes")[0] == 0
    end = time.monotonic() + 10
    while two.asked("/rolez")[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    # Told to stop: the other one is ready while this one still serves.
    one.process.send_signal(signal.SIGTERM)
    took = twins.wait_active(passive, seconds=5)
    assert one.process.poll() is None and one.asked("/", one.as4)[0] == 404  # it still answers
    assert one.process.wait(30) == 0
    print(f"planned stop: the other node was ready after {took:.2f} s, while this one still served")
    status, found = twins.ha("status", node=two)
    assert status == 3 and f"{active} is not heard of" in found["findings"]
    one.start(**twins.environment)
    twins.wait_active(passive, seconds=10)  # who comes back takes nothing away


@pytest.mark.slow
def test_a_dead_node_and_a_stopped_one_are_followed_and_change_nothing(twins):
    """R02 and R03: the other takes over; the one that wakes up finds that nothing is its any more."""
    [active] = twins.active()
    passive = twins.other(active)
    twins.lv.start()
    producer = twins.nodes[active].client()
    # LV does not answer, so that EE is stopped in the middle of an attempt.
    partner = family(twins.lv.process.pid)[1:]
    for pid in partner:
        os.kill(pid, signal.SIGSTOP)
    sent = producer.submit("AP_LV_01", "ExecuteQueryRequest", [Part(b"<x/>", "application/octet-stream")],
                           properties={"originalSender": "C1", "finalRecipient": "C4"})  # fmt: skip
    time.sleep(0.5)
    twins.signal(active, signal.SIGSTOP)
    stopped = twins.wait_active(passive, seconds=15)
    for pid in partner:
        os.kill(pid, signal.SIGCONT)
    client = twins.nodes[passive].client()
    end = time.monotonic() + 40
    while client.message(sent["message_id"])["state"] != "ACKNOWLEDGED":
        assert time.monotonic() < end, client.message(sent["message_id"])
        time.sleep(0.2)
    settled = client.message(sent["message_id"])
    twins.signal(active, signal.SIGCONT)
    time.sleep(3)
    assert twins.active() == [passive]  # it does not believe what it believed before
    assert client.message(sent["message_id"]) == settled
    # Dead, with everything.
    twins.signal(passive, signal.SIGKILL)
    killed = twins.wait_active(active, seconds=15)
    print(f"node stopped: followed after {stopped:.2f} s; node killed: after {killed:.2f} s")
    record("R02", "active node killed, active/passive: until the other one is ready", gap=killed, limit=8)
    record("R03", "active node stopped and continued: until the other one is ready", gap=stopped, limit=15)
    assert killed < 8
    # One message, whoever sent it how often.
    deliveries = twins.lv.client().claim(limit=10, lease=30)
    assert [d["message"]["message_id"] for d in deliveries] == [sent["message_id"]]
