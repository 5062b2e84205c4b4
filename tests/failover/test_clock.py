"""R18: clocks that jump by an hour, back, by ten years and back, under load: of a gateway, and of the database server.

Nothing is lost, nothing comes twice, no partner is stormed, no message is given up before its time; and who has the wrong
clock says so and lets others work.
"""

import json
import os
import time

import pytest

from gateway.store import binaries
from gateway.store.embedded import PrivatePostgres, _server_user
from tests.failover.faketime import HOUR, YEARS, Clock
from tests.failover.pair import Checker
from tests.failover.standby import Server
from tests.failover.twins import Twins

FULL = os.environ.get("GATEWAY_FAILOVER") == "full"
JUMPS = (HOUR, 0, -HOUR, 0, YEARS, 0)
ROUNDS = 5 if FULL else 1
#: What a partner sees of one message at most, jumps or not.
ATTEMPTS = 40

pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def clock(folder):
    return Clock(folder / "clock")


def until(true, what, seconds: float = 30) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, what()
        time.sleep(0.1)
    return time.monotonic() - began


def said(node) -> str:
    return node.asked("/readyz?verbose")[1]


def judged(checker, pair, id: str, fault: str, gap: float) -> None:
    checker.wait_acknowledged(120)
    checker.wait_delivered()
    time.sleep(4)
    checker.close()
    attempts = [checker.producer.message(one)["attempts"] for one in checker.submitted]
    counts = checker.report(id, fault, times=len(JUMPS) * ROUNDS, gap=gap)
    print(counts, f"{max(attempts)} attempts at most, {sum(attempts)} in all")
    assert counts["redelivered"] == 0 and max(attempts) <= ATTEMPTS


def jumps(clock: Clock, node, checker: Checker) -> float:
    """While the clock is wrong the node says so and does nothing. The longest wait for receipts after it was right again."""
    gap = 0.0
    for jump in JUMPS * ROUNDS:
        clock.set(jump)
        began = time.monotonic()
        for _ in range(5):
            checker.submit(b"<evidence/>")
        until(lambda: node.ready() == (jump == 0), lambda: said(node))
        if jump:
            assert "off the database's clock" in said(node), said(node)
        else:
            checker.wait_acknowledged(60)
            gap = max(gap, time.monotonic() - began)
    return gap


@pytest.mark.parametrize("who", ["receives", "sends"])
def test_the_clock_of_a_gateway_jumps(folder, clock, monkeypatch, who):
    """Its database has the right time. EE receives and LV sends; one of them has the clock that jumps."""
    postgres = PrivatePostgres(folder / "pg")
    dsn = postgres.start()
    twins = None
    try:
        twins = Twins(folder, dsn)
        lv, ee = twins.lv, twins.one
        if who == "sends":  # then it is LV that has a database elsewhere, and EE one of its own
            kek, shared = folder / "kek", ee.config.read_text()
            ee.config.write_text(shared[shared.index("[node]") - 1 :])
            lv.config.write_text(f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{kek}"\n'
                                 + lv.config.read_text())  # fmt: skip
        monkeypatch.setenv("TEST_DSN", dsn)
        ee.probe = "/readyz"
        wrong = ee if who == "receives" else lv
        for node in (lv, ee):
            node.start(**(clock.environment if node is wrong else {}))
        checker = Checker(twins.pair, folder / "checker.jsonl").consume()
        gap = jumps(clock, wrong, checker)
        judged(checker, twins.pair, "R18g", "clock of a gateway jumps: +1 h, -1 h, +10 y, and back", gap)
        assert not [line for line in lv.log.read_text().splitlines() if '"message.failed"' in line]
    finally:
        if twins is not None:
            twins.stop()
        postgres.stop()


def test_the_clock_of_the_database_jumps(folder, clock, monkeypatch):
    """LV's and EE's clocks are right. While the database has another time than its node, the node is not ready."""
    server = None
    twins = None
    place = folder / "db"
    place.mkdir()
    place.chmod(0o711)
    try:
        server = Server(place / "a", "alpha", binaries.find(user=_server_user(place)), os.urandom(8).hex())
        server.make()
        server.start(**clock.environment)
        server.sql("CREATE DATABASE gateway")
        dsn = f"postgresql://gateway:{server._password}@/gateway?host={server.socket}"
        twins = Twins(folder, dsn)
        lv, ee = twins.lv, twins.one
        monkeypatch.setenv("TEST_DSN", dsn)
        ee.probe = "/readyz"
        lv.start()
        ee.start()
        checker = Checker(twins.pair, folder / "checker.jsonl").consume()
        gap = jumps(clock, ee, checker)
        judged(checker, twins.pair, "R18d", "clock of the database jumps: +1 h, -1 h, +10 y, and back", gap)
        failed = [json.loads(line) for line in lv.log.read_text().splitlines() if '"message.failed"' in line]
        assert not failed
    finally:
        if twins is not None:
            twins.stop()
        if server is not None:
            server.kill()
