"""A backend that is pushed to: processes die between claim, delivery and its note, or the backend is away."""

import http.server
import re
import threading
import time

import pytest

from tests.failover.pair import Checker, Pair
from tests.failover.table import record

pytestmark = [pytest.mark.failover, pytest.mark.slow]
ID = re.compile(rb"<[^>]*MessageId>([^<]+)<")


class Backend:
    """Implements the interface that Domibus calls, as far as taking messages goes."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, int]] = []
        self.answer = lambda id: 200
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = 200
                if b"submitRequest" in body:
                    id = ID.search(body)[1].decode()
                    status = backend.answer(id)
                    backend.calls.append((time.monotonic(), id, status))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/backend"

    def taken(self) -> set[str]:
        return {id for _, id, status in self.calls if status == 200}

    def wait(self, wanted: set[str], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not wanted <= self.taken():
            assert time.monotonic() < end, f"acknowledged to the sender and never delivered: {wanted - self.taken()}"
            time.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def backend():
    made = Backend()
    yield made
    made.close()


@pytest.fixture
def pair(folder, backend):
    """EE pushes what it receives to the backend; an attempt a second, for a minute."""
    found = Pair(folder)
    agreement = found.ee.folder / "pmodes" / "agreement.toml"
    agreement.write_text(agreement.read_text() + '\n[overrides.AP_LV_01]\nbackend = "register"\n')
    with found.ee.config.open("a") as config:
        config.write(f'[backends.register]\nkind = "soap_push"\nendpoint = "{backend.url}"\n'
                     'types = ["SUBMIT_MESSAGE"]\nretry = "1;60"\n')  # fmt: skip
    yield found
    found.stop()


def parked(node) -> int:
    """Deliveries that were given up, as the log of the node tells."""
    return node.log.read_text().count('"delivery.parked"')


def test_kills_between_claim_delivery_and_its_note(pair, folder, backend):
    struck = folder / "struck"
    pair.ee.start(GATEWAY_CRASH="DL01,DL04,DL05", GATEWAY_CRASH_ONCE=str(struck))
    pair.lv.start()
    checker = Checker(pair, folder / "checker.jsonl")
    end = time.monotonic() + 120
    while not struck.exists() or set(struck.read_text().split()) != {"DL01", "DL04", "DL05"}:
        assert time.monotonic() < end, struck.read_text() if struck.exists() else "nothing was struck"
        checker.submit(b"<evidence/>")
        time.sleep(0.5)
    checker.wait_acknowledged()
    backend.wait(set(checker.submitted))
    # What was under way at a kill comes again, and nothing else does: four hands, three kills.
    counts = {id: sum(call[1] == id for call in backend.calls) for id in checker.submitted}
    record("R01", "kill -9 at a point of a message's way", times=3, messages=len(counts), lost=sum(not n for n in counts.values()))
    assert sum(count - 1 for count in counts.values()) <= 12 and max(counts.values()) <= 4, counts
    checker.close()


def test_a_backend_that_is_away_and_a_gateway_that_is_killed_meanwhile(pair, folder, backend):
    away = True
    backend.answer = lambda id: 503 if away else 200
    pair.ee.start()
    pair.lv.start()
    checker = Checker(pair, folder / "checker.jsonl")
    for _ in range(5):
        checker.submit(b"<evidence/>")
    checker.wait_acknowledged()
    end = time.monotonic() + 60
    while {id for _, id, _ in backend.calls} != set(checker.submitted):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not backend.taken()
    pair.ee.kill()
    away = False
    pair.ee.start()
    backend.wait(set(checker.submitted))
    # What comes now is handed over as soon as it has its receipt.
    for _ in range(3):
        began, id = time.monotonic(), checker.submit(b"<more/>")
        backend.wait({id})
        assert time.monotonic() - began < 20  # milliseconds by rights; this machine may be busy with other tests
    assert parked(pair.ee) == 0
    checker.close()

