"""R22, R23: the backend is away, slow, asks for time, is gone for good, or dies with what it was given.

Time is passed by making due what waits in the database: the schedule of webhooks is one of days.
"""

import asyncio
import collections
import http.server
import json
import os
import threading
import time

import asyncpg
import pytest

from gateway.backends.webhook import RETRY_SCHEDULE
from gateway.store.embedded import PrivatePostgres
from tests.failover.pair import Checker, Pair
from tests.failover.table import record

FULL = os.environ.get("GATEWAY_FAILOVER") == "full"
MESSAGES, DEATHS = (300, 1000) if FULL else (8, 24)

pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 300)]


class Hook:
    """A webhook receiver. `answer(message id)` gives a status and headers, and may take its time."""

    def __init__(self, checker: Checker) -> None:
        self.answer = lambda id: (204, {})
        self.taken: dict[str, set[str]] = collections.defaultdict(set)  # MessageId -> ids of events that were taken
        self.calls: list[tuple[str, int]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                id = body["data"]["message_id"]
                checker.note("event", id=self.headers["webhook-id"], message_id=id)
                status, headers = hook.answer(id)
                hook.calls.append((id, status))
                if status < 300:
                    hook.taken[id].add(self.headers["webhook-id"])
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site(folder, monkeypatch):
    """A pair; the database of EE can be reached."""
    postgres = PrivatePostgres(folder / "pg")
    monkeypatch.setenv("TEST_DSN", dsn := postgres.start())
    pair = Pair(folder)
    kek = folder / "kek"
    kek.write_bytes(os.urandom(32))
    kek.chmod(0o600)
    pair.ee.config.write_text(f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{kek}"\n'
                              + pair.ee.config.read_text())  # fmt: skip
    pair.ee.start()
    pair.lv.start()
    checker = Checker(pair, folder / "checker.jsonl")
    yield pair, checker, dsn
    checker.close()
    pair.stop()
    postgres.stop()


def pass_time(dsn: str) -> None:
    """Whatever waits is due."""

    async def do() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE gateway.job SET due_at = now() WHERE kind = 'notify' AND state = 'READY'")
        await connection.close()

    asyncio.run(do())


def until(true, what: str, seconds: float = 60, between=lambda: None) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        between()
        time.sleep(0.2)


def test_a_webhook_that_is_away_slow_asks_for_time_or_refuses(site):
    pair, checker, dsn = site
    hook = Hook(checker)
    checker.consume()
    known = checker.consumer.add_webhook(hook.url, ["message.received"])

    def entries(**more) -> list[dict]:
        return list(checker.consumer.webhook_deliveries(known["id"], **more))

    # Away for its first attempts; one body it will never take; then it is slow.
    poison = checker.submit(b"<poison/>")
    hook.answer = lambda id: (503, {})
    for _ in range(MESSAGES):
        checker.submit(b"<evidence/>")
    checker.wait_acknowledged(300)
    until(lambda: len({id for id, _ in hook.calls}) == MESSAGES + 1, "not everybody was told of", 120)
    hook.answer = lambda id: (400, {}) if id == poison else (time.sleep(0.5), (204, {}))[1]
    told = set(checker.submitted) - {poison}
    until(lambda: told <= hook.taken.keys(), "events that were lost", 300, lambda: pass_time(dsn))
    until(lambda: entries(state="parked"), "a body it never takes is tried for ever", 120, lambda: pass_time(dsn))
    [parked] = entries(state="parked")
    refused = sum(id == poison for id, _ in hook.calls)
    # Too much at the moment: the time it asks for is kept.
    hook.answer = lambda id: (429, {"Retry-After": "7200"})
    busy = checker.submit(b"<evidence/>")
    until(lambda: (busy, 429) in hook.calls, "it was not told")
    until(lambda: entries(state="waiting"), "it does not wait")
    [waiting] = entries(state="waiting")
    hook.answer = lambda id: (204, {})
    time.sleep(8)  # longer than the first wait of the schedule
    early = busy in hook.taken
    pass_time(dsn)
    until(lambda: busy in hook.taken, "what was asked to wait is lost")
    checker.consumer.replay_webhook(known["id"], parked["id"])
    until(lambda: poison in hook.taken, "replayed, and not told")
    twice = sum(len(ids) > 1 for ids in hook.taken.values())
    record("R22", "webhook away, slow, 429 with Retry-After, refusing for ever", times=4, messages=len(checker.submitted),
           lost=len(set(checker.submitted) - hook.taken.keys()), twice=twice)  # fmt: skip
    assert refused == len(RETRY_SCHEDULE) and not early and twice == 0
    assert waiting["attempts"][-1]["status"] == 429
    # Gone: nothing more is sent, the operator is told, and deliveries go on.
    hook.answer = lambda id: (410, {})
    last = checker.submit(b"<evidence/>")
    until(lambda: (last, 410) in hook.calls, "it was not told")
    until(lambda: checker.consumer.webhook(known["id"])["enabled"] is False, "it stays enabled")
    checker.submit(b"<evidence/>")
    checker.wait_acknowledged()
    checker.wait_delivered()
    assert '"webhook.disabled"' in pair.ee.log.read_text() and hook.calls[-1] == (last, 410)
    hook.close()
    checker.close()
    checker.judge()


def test_a_backend_that_dies_with_what_it_was_given(site):
    """R23: what it fetched and did not acknowledge comes again, marked, under the same delivery id; what it did not."""
    _, checker, _ = site
    for number in range(MESSAGES):
        checker.submit(b"<evidence>%d</evidence>" % number)
    checker.wait_acknowledged(300)
    seen: dict[str, list[tuple[str, bool]]] = collections.defaultdict(list)
    deaths, end = 0, time.monotonic() + 600
    while deaths < DEATHS:
        assert time.monotonic() < end, f"{deaths} deaths"
        for delivery in checker.consumer.claim(limit=50, lease=1):
            message = delivery["message"]
            checker.consumer.payload(message["id"], message["parts"][0]["cid"])
            checker.note("died", message_id=message["message_id"], redelivered=delivery["redelivered"])
            seen[message["message_id"]].append((delivery["delivery_id"], delivery["redelivered"]))
            deaths += 1
        time.sleep(0.1)
    checker.consume()
    checker.wait_delivered(120)
    time.sleep(3)
    checker.close()
    first = [found[0] for found in seen.values()]
    twice = sum(checker.acknowledged.count(id) > 1 for id in checker.submitted)
    record("R23", "backend dies between fetch and acknowledgement", times=deaths, messages=len(checker.submitted),
           lost=len(set(checker.submitted) - set(checker.acknowledged)), twice=twice)  # fmt: skip
    assert not any(again for _, again in first) and all(again for found in seen.values() for _, again in found[1:])
    assert all(len({delivery for delivery, _ in found}) == 1 for found in seen.values())
    # Whoever died with it, its next consumer knows.
    assert all(again for id, again in checker.delivered if id in seen)
    checker.judge()
