"""R24: a message that kills whoever works on it. It is set apart after three deaths, and everybody else's goes on.

`GATEWAY_CRASH_MESSAGE` makes one: a process dies whenever it comes to the named point with such a message, however often
it is started anew.
"""

import json
import threading
import time

import aiohttp
import pytest

from gateway.client import GatewayProblem
from tests.failover.pair import Checker
from tests.failover.table import record
from tests.failover.test_push_points import Backend

pytestmark = [pytest.mark.failover, pytest.mark.timeout(300)]

#: What three claims take that nobody gives back, a look of the suspects' loop each, and this machine's other work.
PATIENCE = 120
DEATHS = 3


@pytest.fixture
def backend():
    made = Backend()
    yield made
    made.close()


def events(node, name: str) -> list[dict]:
    lines = node.log.read_text().splitlines()
    return [event for line in lines if line.startswith("{") and (event := json.loads(line))["event"] == name]


def until(true, what: str, seconds: float = PATIENCE, node=None) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what + (node.log.read_text()[-3000:] if node is not None else "")
        time.sleep(0.1)


class Poisoned(Checker):
    """Every so often a submission bears the name that kills."""

    def submit_poison(self) -> str:
        from gateway.client import Part

        id = f"poison-{time.time_ns()}@checker.example"
        self.note("submit poison", message_id=id)
        self.producer.submit(
            self.receiver, self.action, [Part(b"<evidence/>", "application/octet-stream")],
            properties={"originalSender": "C1", "finalRecipient": "C4"}, message_id=id, idempotency_key=id,
        )  # fmt: skip
        return id


def state(client, id: str) -> str | None:
    try:
        return client.message(id)["state"]
    except (OSError, GatewayProblem):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("at", ["OB04", "OB07"])
def test_a_message_that_kills_its_sender_is_set_apart(pair, folder, at):
    """OB04: after the attempt is noted. OB07: before, while it is signed, so that no attempt tells of it."""
    pair.ee.start()
    pair.lv.start(GATEWAY_CRASH=at, GATEWAY_CRASH_MESSAGE="poison")
    checker = Poisoned(pair, folder / "checker.jsonl").consume()
    poison = checker.submit_poison()
    while state(checker.producer, poison) != "FAILED":
        checker.submit(b"<evidence/>")
        time.sleep(0.3)
        deaths = len(events(pair.lv, "worker.died"))
        assert deaths <= DEATHS, f"{deaths} deaths, and it goes on"
    checker.wait_acknowledged()
    checker.wait_delivered()
    checker.close()
    deaths = len(events(pair.lv, "worker.died"))
    poisoned = [(id, again) for id, again in checker.delivered if id == poison]
    checker.delivered = [one for one in checker.delivered if one not in poisoned]
    counts = checker.report("R24", "a message that kills who works on it", times=deaths)
    assert not poisoned  # it died before anything was sent
    assert deaths == DEATHS and counts["submitted"] > 20
    # The operator is told and sees it; nobody else's message was touched.
    [isolated] = events(pair.lv, "message.isolated")
    assert isolated["level"] == "error" and "3 processes" in isolated["reason"]
    [failed] = events(pair.lv, "message.failed")
    assert failed["msg_id"] == poison
    shown = pair.lv.cli("messages", "show", poison).stdout
    assert "FAILED" in shown and "3 processes in a row died" in shown
    # Mended, it can be sent after all.
    pair.lv.stop()
    pair.lv.start()
    checker.producer.resend(poison)
    until(lambda: state(checker.producer, poison) == "ACKNOWLEDGED", "resent, and not acknowledged", 30)


def until_isolated(node, checker) -> str:
    """The MessageId of the poison that `node` has set apart while others went through."""
    poison = checker.submit_poison()
    while not events(node, "message.isolated"):
        checker.submit(b"<evidence/>")
        time.sleep(0.3)
        assert len(events(node, "worker.died")) <= DEATHS
    checker.wait_acknowledged()
    return poison


@pytest.mark.slow
def test_a_message_that_kills_its_delivery_is_set_apart(pair, folder, backend):
    agreement = pair.ee.folder / "pmodes" / "agreement.toml"
    agreement.write_text(agreement.read_text() + '\n[overrides.AP_LV_01]\nbackend = "register"\n')
    with pair.ee.config.open("a") as config:
        config.write(f'[backends.register]\nkind = "soap_push"\nendpoint = "{backend.url}"\n'
                     'types = ["SUBMIT_MESSAGE"]\nretry = "1;60"\n')  # fmt: skip
    pair.ee.start(GATEWAY_CRASH="DL04", GATEWAY_CRASH_MESSAGE="poison")
    pair.lv.start()
    checker = Poisoned(pair, folder / "checker.jsonl")
    poison = until_isolated(pair.ee, checker)
    backend.wait(set(checker.submitted))
    times = [sum(id == one for _, id, _ in backend.calls) for one in checker.submitted]
    deaths = len(events(pair.ee, "worker.died"))
    record("R24", "a message that kills who works on it", times=deaths, messages=len(times), lost=times.count(0))
    assert deaths == DEATHS and sum(id == poison for _, id, _ in backend.calls) == DEATHS
    # What was under way at a death comes once more at most for each; nothing else does.
    assert sum(times) - len(times) <= 4 * DEATHS
    assert events(pair.ee, "message.isolated")[0]["kind"] == "deliver"
    pair.ee.stop()
    pair.ee.start()
    made = json.loads(pair.ee.cli("backends", "create", "operator", "--backend", "register", "--json").stdout)
    from gateway.client import GatewayClient

    assert GatewayClient(f"http://127.0.0.1:{pair.ee.plugin}", made["token"]).redeliver(poison)
    until(lambda: sum(id == poison for _, id, _ in backend.calls) == DEATHS + 1, "delivered again, and not told", 30)
    checker.close()


@pytest.mark.slow
def test_an_event_that_kills_who_tells_it_is_set_apart(pair, folder):
    """DL03: the webhook was posted, and that is not noted."""
    pair.ee.start(GATEWAY_CRASH="DL03", GATEWAY_CRASH_MESSAGE="poison")
    pair.lv.start()
    checker = Poisoned(pair, folder / "checker.jsonl").consume()
    checker.listen()
    poison = until_isolated(pair.ee, checker)
    told = {}

    def count() -> dict:
        told.clear()
        for event in checker.events:
            told.setdefault(event["data"]["message_id"], []).append(event["id"])
        return told

    until(lambda: count().keys() >= set(checker.submitted), "events that were never told")
    deaths = len(events(pair.ee, "worker.died"))
    record("R24", "a message that kills who works on it", times=deaths, messages=len(checker.submitted))
    assert deaths == DEATHS and len(told[poison]) == DEATHS and len(set(told[poison])) == 1
    [hook] = checker.consumer.webhooks()
    [parked] = checker.consumer.webhook_deliveries(hook["id"], state="parked")
    assert "3 processes" in parked["attempts"][-1]["detail"]
    pair.ee.stop()
    pair.ee.start()
    checker.consumer.replay_webhook(hook["id"], parked["id"])
    until(lambda: len(count()[poison]) == DEATHS + 1, "replayed, and not told", 30)
    checker.close()


@pytest.mark.slow
def test_a_message_that_kills_who_receives_it_stops_nobody_else(pair, folder):
    """The partner sends it again and again; workers are replaced without hurry, and others' messages come in."""
    config = pair.ee.config.read_text().replace("processes = 1", "processes = 2")
    pair.ee.config.write_text(config)
    pair.ee.start(GATEWAY_CRASH="IB14", GATEWAY_CRASH_MESSAGE="poison")
    pair.lv.start()
    checker = Poisoned(pair, folder / "checker.jsonl").consume()
    sent = pair.peer.message([("application/octet-stream", b"<poison/>")], message_id="poison-1@peer.example")
    stop, knocks = threading.Event(), []

    def knock() -> None:
        import asyncio

        async def one() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
                try:
                    async with session.post(f"http://127.0.0.1:{pair.ee.as4}/as4", data=sent.body,
                                            headers={"Content-Type": sent.content_type}) as answer:  # fmt: skip
                        knocks.append(answer.status)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    knocks.append(0)

        while not stop.is_set():
            asyncio.run(one())
            stop.wait(10.0)  # a hasty partner: most come again after minutes

    knocker = threading.Thread(target=knock)
    knocker.start()
    began = last = time.monotonic()
    gap = 0.0
    try:
        while time.monotonic() - began < 65:
            id = checker.submit(b"<evidence/>")
            until(lambda id=id: state(checker.producer, id) == "ACKNOWLEDGED", "others are not served", 30, pair.ee)
            now = time.monotonic()
            gap, last = max(gap, now - last), now
            time.sleep(0.1)
    finally:
        stop.set()
        knocker.join(10)
    checker.wait_delivered()
    checker.close()
    deaths, seconds = len(events(pair.ee, "worker.died")), time.monotonic() - began
    counts = checker.report("R24r", "a message that kills who receives it, every 10 s", times=deaths, gap=gap, limit=15)
    print(counts, f"{deaths} deaths in {seconds:.0f} s, {len(knocks)} knocks, longest wait {gap:.1f} s")
    assert deaths >= 5 and not any(200 <= status < 300 for status in knocks)
    assert deaths <= seconds * 2  # two places, each started again once a second at most
    assert gap < 15 and counts["submitted"] > 10
