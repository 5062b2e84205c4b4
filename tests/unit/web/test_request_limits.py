"""web/limits as pure ASGI, without a server: what an application sees, whoever runs it."""

import asyncio

import pytest

from gateway.web import limits
from gateway.web.limits import Limited, RequestLimits


class Call:
    """One request to an application."""

    def __init__(self, app, headers=(), blocks=(b"",), http_version="1.1", path=b"/as4", query=b"", **options):
        self.scope = {
            "type": "http", "http_version": http_version, "method": "POST", "path": path.decode(), "raw_path": path,
            "query_string": query, "headers": list(headers), "client": ("192.0.2.1", 1),
        }  # fmt: skip
        self.blocks, self.sent, self.stalls = list(blocks), [], False
        self.limited = Limited(app, RequestLimits(**options))

    async def receive(self):
        if not self.blocks:
            await asyncio.sleep(3600)
        block = self.blocks.pop(0)
        if block is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": block, "more_body": bool(self.blocks)}

    async def send(self, event):
        self.sent.append(event)

    async def run(self):
        await self.limited(self.scope, self.receive, self.send)
        starts = [e for e in self.sent if e["type"] == "http.response.start"]
        assert len(starts) <= 1
        return starts[0]["status"] if starts else None


async def swallow(scope, receive, send):
    while (event := await receive())["type"] == "http.request" and event["more_body"]:
        pass
    if event["type"] == "http.disconnect":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(("headers", "status"), [
    ([], 200),
    ([(b"content-length", b"0")], 200),
    ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], 400),
    ([(b"content-length", b"1"), (b"content-length", b"1")], 400),
    ([(b"content-length", b"1,1")], 400),
    ([(b"content-length", b"+1")], 400),
    ([(b"content-length", b" 1")], 400),
    ([(b"content-length", "١".encode())], 400),
    ([(b"content-length", b"9" * 16)], 400),
    ([(b"content-length", b"1001")], 413),
    ([(b"content-encoding", b"gzip")], 415),
    ([(b"content-encoding", b"identity")], 200),
    ([(b"upgrade", b"h2c")], 400),
    ([(b"http2-settings", b"AAMA")], 400),
    ([(b"x", b"y")] * 101, 431),
    ([(b"x", b"y" * 33_000)], 431),
])  # fmt: skip
async def test_heads(headers, status):
    assert await Call(swallow, headers, body=1000).run() == status


@pytest.mark.parametrize(("version", "status"), [("1.0", 200), ("1.1", 200), ("2", 505), ("2.0", 505), ("3", 505), ("0.9", 505)])
async def test_versions(version, status):
    assert await Call(swallow, http_version=version).run() == status


async def test_the_query_counts_as_part_of_the_request_line():
    assert await Call(swallow, query=b"x" * 9000).run() == 414


async def test_a_client_that_goes_gets_no_answer():
    assert await Call(swallow, blocks=[b"abc", None]).run() is None


async def test_the_application_sees_the_client_go_when_the_body_is_too_slow_or_too_large():
    ends = []

    async def app(scope, receive, send):
        while (event := await receive())["type"] == "http.request":
            pass
        ends.append(event["type"])
        assert (await receive())["type"] == "http.disconnect"

    call = Call(app, blocks=[b"x" * 600, b"x" * 600, b""], body=1000)
    assert await call.run() == 413
    assert next(e for e in call.sent if e["type"] == "http.response.start")["headers"][-1] == (b"connection", b"close")
    assert ends == ["http.disconnect"]


async def test_an_answer_that_has_begun_is_not_begun_again():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass

    call = Call(app, blocks=[b"x" * 600, b"x" * 600, b""], body=1000)
    assert await call.run() == 200 and len(call.sent) == 1


async def test_what_is_still_coming_is_heard_out_before_an_early_answer_ends():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    call = Call(app, blocks=[b"x"] * 50)
    assert await call.run() == 403
    assert call.blocks == [] and [e.get("more_body", False) for e in call.sent[1:]] == [True, False]


async def test_but_not_for_ever(monkeypatch):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    monkeypatch.setattr(limits, "DROP_BYTES", 100)
    call = Call(app, blocks=[b"x" * 10] * 50)
    await call.run()
    assert len(call.blocks) == 40
    monkeypatch.setattr(limits, "DROP_SECONDS", 0.05)
    call = Call(app, blocks=[b"x", b"x"])
    original = call.receive

    async def stalling():
        return await original() if len(call.blocks) == 2 else await asyncio.sleep(3600)

    call.receive = stalling
    async with asyncio.timeout(2):
        assert await call.run() == 403


async def test_refusals_are_logged_with_a_bound(monkeypatch):
    lines = []
    monkeypatch.setattr(limits.log, "event", lambda name, **fields: lines.append((name, fields)))
    call = Call(swallow, http_version="2")
    for _ in range(50):
        call.blocks, call.sent = [b""], []
        await call.run()
    assert limits.LINES <= len(lines) <= 3 * limits.LINES
    assert lines[0] == ("request.refused", {"level": "warning", "status": 505, "source": "192.0.2.1", "suppressed_before": None})


async def test_websockets_are_closed_and_lifespan_passes():
    sent = []

    async def send(event):
        sent.append(event)

    await Limited(swallow, RequestLimits())({"type": "websocket"}, None, send)
    assert sent[0]["type"] == "websocket.close"
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    await Limited(app, RequestLimits())({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
