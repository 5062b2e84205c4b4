"""The one-file client against the real door on a real listener."""

import http.server
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import client as module
from gateway.backends.rest import RestBackend
from gateway.client import GatewayClient, GatewayProblem, Part
from gateway.plugin import StoreUnavailable
from tests.unit.backends.listener import serving
from tests.unit.backends.memory_msh import MemoryMsh


@pytest.fixture
def msh():
    return MemoryMsh(limit=50_000_000)


@pytest.fixture
def url(msh):
    with serving(RestBackend(msh, {}).asgi) as url:
        yield url


@pytest.fixture
def gateway(msh, url):
    return GatewayClient(url, msh.client("alpha", "evidence"), timeout=10)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    paused = []
    monkeypatch.setattr(module.time, "sleep", paused.append)
    return paused


def test_submit_and_follow(gateway, msh, tmp_path):
    file = tmp_path / "evidence.pdf"
    file.write_bytes(b"%PDF" + bytes(3_000_000))
    msh.after_submit = msh.settle
    sent = gateway.submit(
        "AP_LT", "ExecuteQueryRequest",
        [Part(b"<a/>", "application/x-ebrs+xml", cid="req@c1", properties={"k": "v"}, compress=True), file],
        properties=[{"name": "originalSender", "value": "c1", "type": "urn:t"}],
        from_party={"id": "AP_LV", "role": "r"}, service="urn:s", conversation_id="conv-1",
    )  # fmt: skip
    view = gateway.wait(sent["id"], timeout=5)
    assert view["state"] == "ACKNOWLEDGED" and view["conversation_id"] == "conv-1"
    assert view["from_party"] == {"id": "AP_LV", "role": "r"} and view["properties"][0]["type"] == "urn:t"
    assert [part["mime_type"] for part in view["parts"]] == ["application/x-ebrs+xml", "application/pdf"]
    assert view["parts"][0]["cid"] == "req@c1" and view["parts"][0]["properties"] == [{"name": "k", "value": "v"}]
    assert msh.contents[sent["id"], 1] == file.read_bytes()
    assert [step["stage"] for step in gateway.events(sent["id"])] == ["submit", "store"]
    assert gateway.message(sent["message_id"])["id"] == sent["id"]


def test_submit_and_wait_in_one(gateway, msh):
    msh.after_submit = msh.settle
    assert gateway.submit("AP_LT", "a", [b"x"], wait=5)["state"] == "ACKNOWLEDGED"


def test_waiting_has_an_end(gateway):
    sent = gateway.submit("AP_LT", "a")
    with pytest.raises(TimeoutError, match="SUBMITTED"):
        gateway.wait(sent["id"], timeout=0.05)


def test_a_dry_run_stores_nothing(gateway, msh, tmp_path):
    file = tmp_path / "evidence.pdf"
    file.write_bytes(b"%PDF" + bytes(300_000))
    found = gateway.validate("AP_LT", "a", [Part(b"<a/>", cid="req@c1"), file], properties={"k": "v"}, service="urn:s")
    assert [part["size"] for part in found["parts"]] == [4, file.stat().st_size] and found["valid"]
    assert not msh.views and not msh.keys
    with pytest.raises(GatewayProblem) as refused:
        gateway.validate("AP_XX", "a")
    assert refused.value.status == 422


def test_an_own_key_makes_a_restart_safe(gateway, msh):
    first = gateway.submit("AP_LT", "a", [b"x"], idempotency_key="order-17")
    again = gateway.submit("AP_LT", "a", [b"x"], idempotency_key="order-17")
    assert again["replayed"] and again["id"] == first["id"] and len(msh.views) == 1


def test_consume(gateway, msh):
    view = msh.receive("evidence", b"<evidence/>")
    (delivery,) = gateway.claim(limit=5, lease=30)
    assert gateway.payload(delivery["message"]["id"], delivery["message"]["parts"][0]["cid"]) == b"<evidence/>"
    assert gateway.extend(delivery, lease=120) == "2026-11-21T12:02:00Z"
    gateway.nack(delivery, retry_in=5)
    assert gateway.claim() == []
    msh.now += timedelta(seconds=5)
    (again,) = gateway.claim()
    gateway.ack(again)
    gateway.ack(again)
    assert gateway.message(view.id)["state"] == "DELIVERED"


def test_lists(gateway, msh):
    for n in range(5):
        msh.receive("evidence", str(n).encode())
    assert len(list(gateway.messages(limit=2, direction="inbound", state=None))) == 5
    assert list(gateway.messages(direction="outbound")) == []


def test_webhooks(gateway):
    target = gateway.add_webhook("https://b.example/e", ["message.received"])
    assert target["secret"] and gateway.webhooks()[0]["id"] == target["id"]
    gateway.remove_webhook(target["id"])
    assert gateway.webhooks() == []


def test_a_refusal_is_an_exception(gateway):
    with pytest.raises(GatewayProblem) as refused:
        gateway.submit("AP_XX", "a", [b"x"])
    problem = refused.value
    assert (problem.status, problem.code) == (422, "GW-2004")
    assert problem.problem["errors"][0]["pointer"] == "#/to_party/id" and "AP_EE" in problem.hint
    assert "GW-2004" in str(problem) and "no agreement with this party" in str(problem)


def test_a_wrong_token_and_the_language(url):
    with pytest.raises(GatewayProblem, match="piekļuves pilnvara") as refused:
        GatewayClient(url, "wrong", language="lv").claim()
    assert refused.value.status == 401 and "wrong" not in str(refused.value)


def test_a_refusal_in_the_middle_of_a_large_upload_is_read(url):
    with pytest.raises(GatewayProblem) as refused:
        GatewayClient(url, "wrong", attempts=1, timeout=10).submit("AP_LT", "a", [bytes(20_000_000)])
    assert refused.value.status == 401


def test_a_busy_gateway_is_asked_again_with_the_same_key(gateway, msh, no_pause):
    msh.broken = StoreUnavailable("switching")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            msh.broken = None

    module.time.sleep = sleep  # restored by the fixture
    sent = gateway.submit("AP_LT", "a", [b"x"])
    assert pauses == [5.0, 5.0]  # as Retry-After said
    assert len(msh.views) == 1 and sent["id"] in msh.views


def test_a_lost_answer_does_not_send_twice(msh, gateway, monkeypatch):
    """The gateway stored the message, the answer never came."""
    exchange, lost = GatewayClient._exchange, []

    def losing(self, *given):
        answer = exchange(self, *given)
        if not lost:
            lost.append(answer.read())
            raise ConnectionResetError
        return answer

    monkeypatch.setattr(GatewayClient, "_exchange", losing)
    sent = gateway.submit("AP_LT", "a", [b"x"])
    assert lost and sent["replayed"] and len(msh.views) == 1


@pytest.mark.parametrize(("call", "tries"), [
    (lambda g: g.claim(), 1), (lambda g: g.add_webhook("https://b.example"), 1),
    (lambda g: g.nack({"delivery_id": "d", "claim": "c"}), 1),
    (lambda g: g.ack({"delivery_id": "d", "claim": "c"}), 4), (lambda g: g.message("x"), 4),
    (lambda g: g.submit("AP_LT", "a"), 4),
])
def test_what_is_tried_again_when_the_connection_breaks(monkeypatch, call, tries):
    made = []

    def broken(self, *given):
        made.append(given)
        raise ConnectionResetError

    monkeypatch.setattr(GatewayClient, "_exchange", broken)
    with pytest.raises(ConnectionResetError):
        call(GatewayClient("http://127.0.0.1:1", "t"))
    assert len(made) == tries


def test_nobody_there_is_always_tried_again(no_pause):
    with pytest.raises(ConnectionRefusedError):
        GatewayClient("http://127.0.0.1:1", "t").claim()
    assert no_pause == [0.5, 1.0, 2.0]


def test_a_node_that_dies_while_it_is_connected_to_is_an_error_of_the_line(monkeypatch, no_pause):
    def reset(connection):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr("http.client.HTTPConnection.connect", reset)
    client = GatewayClient("http://127.0.0.1:1", "token", attempts=2)
    with pytest.raises(ConnectionResetError):
        client.submit("AP_EE_01", "ExecuteQueryRequest", [Part(b"<x/>", "application/octet-stream")])


def test_a_broken_download_goes_on(gateway, msh, tmp_path):
    content = bytes(range(256)) * 4000
    view = msh.receive("evidence", content)
    msh.fail_payload_at, msh.block = 600_000, 50_000
    copy = GatewayClient._copy
    broken = []

    def mend(answer, file, digest):
        whole = copy(answer, file, digest)
        broken.append(not whole)
        msh.fail_payload_at = None
        return whole

    gateway._copy = mend
    path = tmp_path / "evidence"
    assert gateway.save_payload(view.id, view.parts[0].cid, path) == len(content)
    assert path.read_bytes() == content and broken == [True, False]


def test_a_download_that_keeps_breaking(gateway, msh, tmp_path):
    view = msh.receive("evidence", bytes(200_000))
    msh.fail_payload_at = 100_000
    with pytest.raises(ConnectionError):
        gateway.payload(view.id, view.parts[0].cid)


def test_a_changed_payload_is_noticed(gateway, msh, tmp_path):
    view = msh.receive("evidence", b"evidence")
    msh.contents[view.id, 0] = b"3vidence"
    path = tmp_path / "evidence"
    with pytest.raises(ValueError, match="digest"):
        gateway.save_payload(view.id, view.parts[0].cid, path)
    assert not path.exists()


def test_an_answer_of_a_proxy():
    class Proxy(http.server.BaseHTTPRequestHandler):
        server_version = sys_version = "someproxy"

        def do_GET(self):
            self.send_response(502)
            self.end_headers()
            self.wfile.write(b"<html>bad gateway</html>")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(GatewayProblem, match="HTTP 502 from someproxy"):
            GatewayClient(f"http://127.0.0.1:{server.server_port}", "t").message("x")
        thread.join()


@pytest.mark.parametrize("url", ["gateway:8444", "ftp://gateway", "", "http://"])
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError):
        GatewayClient(url, "t")


def test_control_characters_do_not_reach_the_wire(gateway):
    for part in (Part(b"", "text/plain\r\nX: y"), Part(b"", "text/plain", cid="a\nb")):
        with pytest.raises(ValueError):
            gateway.submit("AP_LT", "a", [part])


def test_the_client_is_one_file_of_the_standard_library():
    import ast
    import sys

    tree = ast.parse(Path(module.__file__).read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    # Python has no ed25519: whoever verifies with a public key brings the library, nobody else needs it.
    top = {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"cryptography"}
    assert not any(name.startswith("cryptography") for name in top)
