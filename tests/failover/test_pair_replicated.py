"""Two gateways on a primary with a synchronous standby that is required: each server is lost in turn, under load."""

import http.client
import signal
import threading
import time

import pytest

from tests.failover.pair import Checker
from tests.failover.standby import Cluster
from tests.failover.table import record
from tests.failover.twins import Twins

pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster(folder):
    made = Cluster(folder / "db")
    yield made
    made.stop()


@pytest.fixture
def twins(folder, cluster, monkeypatch):
    monkeypatch.setenv("TEST_DSN", cluster.dsn)
    found = Twins(folder, cluster.dsn, store='synchronous = "required"\n')
    try:
        yield found.start()
    finally:
        found.stop()


class Knocking:
    """A partner who sends the same small message again and again to a node, and notes what it hears."""

    def __init__(self, twins: Twins, name: str) -> None:
        self.node, self.heard, self.sent, self.receipted = twins.nodes[name], [], set(), set()
        self._peer, self._stop = twins.pair.peer, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            sent, began = self._peer.message([("application/octet-stream", b"<evidence/>")]), time.monotonic()
            self.sent.add(sent.message.message_id)
            status, again = 0, None
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.node.as4, timeout=20)
                connection.request("POST", "/as4", sent.body, {"Content-Type": sent.content_type})
                answer = connection.getresponse()
                status, again = answer.status, answer.headers.get("Retry-After")
                answer.read()
                connection.close()
            except OSError:
                pass
            if status == 200:
                self.receipted.add(sent.message.message_id)
            self.heard.append((began, time.monotonic() - began, status, again))
            self._stop.wait(0.1)

    def since(self, moment: float) -> list:
        return [one for one in self.heard if one[0] >= moment]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(25)


def until(what, seconds: float, why: str = "") -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, why or what
        time.sleep(0.05)
    return time.monotonic() - began


def test_servers_are_lost_and_messages_are_not(twins, cluster, folder):
    [active] = twins.active()
    node = twins.nodes[active]
    knocking = Knocking(twins, active)
    try:
        until(lambda: any(status == 200 for *_, status, _ in knocking.heard), 10)
        # R08, strict: without the standby nobody is ready, and nobody gets a receipt.
        cluster.standby.kill()
        gone = time.monotonic()
        unready = until(lambda: not twins.active(), 10)
        # One that was in its commit is given up after five seconds; whoever comes later is told at once.
        time.sleep(6)
        refused = knocking.since(gone + 5.5)
        assert refused and {status for *_, status, _ in refused} == {503} and {again for *_, again in refused} == {"5"}
        assert max(took for _, took, *_ in refused) < 1
        assert not [1 for began, took, status, _ in knocking.since(gone + 0.2) if status == 200]
        assert "no durable commit" in node.asked("/readyz?verbose")[1]
        cluster.standby.start()
        ready = until(lambda: len(twins.active()) == 1, 20)
        print(f"standby lost: not ready after {unready:.1f} s, ready {ready:.1f} s after it was back")
        record("R08", "standby lost, required: ready again", gap=ready, limit=20)
        cluster.wait_synchronous()
        # R14: the database is away for a while. 503 at once, and work goes on when it is back.
        cluster.primary.kill()
        gone = time.monotonic()
        time.sleep(6)
        refused = knocking.since(gone + 2.5)
        assert {status for *_, status, _ in refused} == {503} and max(took for _, took, *_ in refused) < 1
        assert twins.active() == []
        cluster.primary.start()
        back = time.monotonic()
        ready = until(lambda: len(twins.active()) == 1, 20)
        until(lambda: any(status == 200 for *_, status, _ in knocking.since(back)), 20)
        print(f"database away for 6 s: refused within {max(took for _, took, *_ in refused):.2f} s, ready after {ready:.1f} s")
        record("R14", "database away: 503 within a second; ready again", gap=ready, limit=20)
        cluster.wait_synchronous()
    finally:
        knocking.close()
    # R06: the primary dies while messages come; the standby is promoted. Whatever has a receipt is there.
    twins.lv.start()
    checker = Checker(twins.pair, folder / "checker.jsonl")
    stop = threading.Event()

    def load():
        while not stop.is_set():
            checker.submit(b"<evidence/>")
            time.sleep(0.1)

    loads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
    for thread in loads:
        thread.start()
    time.sleep(2)
    cluster.primary.kill(signal.SIGKILL)
    began = time.monotonic()
    time.sleep(1)
    cluster.fail_over()
    promoted = time.monotonic()
    cluster.rejoin()  # it is required
    ready = until(lambda: len(twins.active()) >= 1, 30)
    print(f"primary killed: ready {time.monotonic() - promoted:.1f} s after the promotion "
          f"(with {promoted - began:.1f} s for that, and a new standby made in between)")
    time.sleep(1)
    stop.set()
    for thread in loads:
        thread.join(70)
    twins.wait_active(seconds=10)
    [active] = twins.active()
    checker.consumer = twins.nodes[active].client()
    checker.consume()
    try:
        checker.wait_delivered(60)
        checker.wait_acknowledged(60)
        # The partner's own messages of before are among them: all that had a receipt, and none that was not sent.
        until(lambda: knocking.receipted <= {id for id, _ in checker.delivered}, 60, "a receipt, and no message")
        assert {id for id, _ in checker.delivered} <= knocking.sent | set(checker.submitted)
        checker.delivered = [(id, again) for id, again in checker.delivered if id not in knocking.sent]
        counts = {**checker.report("R06", "primary killed under load, standby promoted by hand"), "receipted before": len(knocking.receipted)}
    finally:
        checker.close()
    print(counts)
    assert counts["submitted"] > 20 and counts["submitted"] == counts["delivered"]
    assert twins.ha("status")[1]["server"]["timeline"] == 2
