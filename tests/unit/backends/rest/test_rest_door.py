"""Who comes in, what is refused at the head, what becomes of an exception."""

import asyncio
import re

import httpx
import pytest

from gateway.backends.rest import RestBackend
from gateway.backends.rest.operations import OPERATIONS
from gateway.errors import ConfigError, OutcomeUnknown
from gateway.plugin import Overloaded, StoreUnavailable
from tests.unit.backends.memory_msh import MemoryMsh
from tests.unit.backends.rest.conftest import refused

ROUTES = [(o.method, re.sub(r"\{.*?\}", "x", o.path)) for o in OPERATIONS]
ROUTES += [("GET", "/v1/version"), ("GET", "/openapi.json"), ("GET", "/problems/not-found"), ("GET", "/nowhere")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("authorization", [
    None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic dXNlcjpwYXNz", "token-alpha", "Bearer token-alpha x",
    "Bearer " + "a" * 600, "Bearer a\x00b", "Bearer ž",
])
async def test_no_route_without_a_valid_token(http, method, path, authorization):
    """[threats K05]: the plugin API has no unauthenticated mode."""
    http.headers.pop("authorization")
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    answer = await http.request(method, path, headers=headers)
    refused(answer, "unauthorized")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="gateway"')
    assert ("invalid_token" in answer.headers["www-authenticate"]) is (authorization is not None)


async def test_two_tokens_are_none(http):
    answer = await http.get("/v1/version", headers=[("Authorization", "Bearer token-alpha"), ("Authorization", "Bearer x")])
    refused(answer, "unauthorized")


async def test_a_token_in_the_query_is_not_looked_at(http):
    """[threats L07]"""
    http.headers.pop("authorization")
    refused(await http.get("/v1/version?access_token=token-alpha"), "unauthorized")


async def test_the_scheme_is_case_insensitive(http):
    assert (await http.get("/v1/version", headers={"Authorization": "bEARER token-alpha"})).status_code == 200


async def test_version(http):
    answer = await http.get("/v1/version")
    assert answer.json()["product"] == "oots-as4-gateway" and answer.json()["api"] == "v1"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["//v1/version", "/v1/version/", "/V1/version", "/@gw/v1/version", "/v1//version", "/"])
async def test_odd_paths_are_nowhere(http, path):
    """[threats H04]"""
    refused(await http.get(httpx.URL("http://gw").copy_with(raw_path=path.encode())), "not-found")


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("PUT", "/v1/messages", "GET, POST, HEAD"), ("DELETE", "/v1/messages/x", "GET, HEAD"),
    ("GET", "/v1/inbox/claim", "POST"), ("TRACE", "/v1/messages", "GET, POST, HEAD"),
])
async def test_methods(http, method, path, allow):
    answer = await http.request(method, path)
    refused(answer, "method-not-allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(("headers", "slug"), [
    pytest.param([(f"x-{n}", "1") for n in range(100)], "headers-too-large", id="100 lines more"),
    pytest.param([("x-long", "a" * 32_768)], "headers-too-large", id="32 kB"),
    pytest.param([("content-length", "5,5")], "bad-request", id="length 5,5"),
    pytest.param([("content-length", "+5")], "bad-request", id="length +5"),
    pytest.param([("content-length", "5"), ("content-length", "5")], "bad-request", id="two lengths"),
    pytest.param([("content-length", "5"), ("transfer-encoding", "chunked")], "bad-request", id="length and coding"),
    pytest.param([("content-encoding", "gzip")], "unsupported-media-type", id="gzip"),
])
async def test_heads_that_are_refused(http, headers, slug):
    """[threats H02, H04, H05]"""
    refused(await http.get("/v1/version", headers=[("Authorization", "Bearer token-alpha"), *headers]), slug)


async def test_long_addresses_are_refused(http):
    refused(await http.get("/v1/messages?action=" + "a" * 8192), "uri-too-long")


@pytest.mark.parametrize(("error", "slug"), [
    (StoreUnavailable("dsn=postgres://secret@db"), "store-unavailable"),
    (OutcomeUnknown("commit sent"), "store-unavailable"),
    (Overloaded("uploads"), "overloaded"),
    (ConfigError("secret path /etc/x"), "internal-error"),
    (RuntimeError("secret"), "internal-error"),
])
@pytest.mark.parametrize("where", ["authenticating", "inside"])
async def test_our_own_errors_say_nothing(http, msh, monkeypatch, error, slug, where):
    if where == "authenticating":
        msh.broken = error
    else:
        async def broken(*_):
            raise error
        monkeypatch.setattr(msh, "message", broken)
    answer = await http.get("/v1/messages/x")
    problem = refused(answer, slug)
    assert "detail" not in problem and "secret" not in answer.text
    assert ("retry-after" in answer.headers) is (answer.status_code == 503)


async def test_an_incident_is_in_the_log_under_its_trace_id(http, msh, caplog):
    msh.broken = RuntimeError("boom")
    given = "0af7651916cd43dd8448eb211c80319c"
    answer = await http.get("/v1/version", headers={"traceparent": f"00-{given}-b7ad6b7169203331-01"})
    assert refused(answer, "internal-error")["trace_id"] == given
    assert given in caplog.text


async def test_a_websocket_is_closed(backend):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    await backend.asgi({"type": "websocket", "path": "/v1/messages", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_dripping_body_is_cut_off(msh):
    """[threats H01]: some bytes at once, then nothing."""
    backend = RestBackend(msh, {"grace": 0.05})
    msh.client("alpha", "evidence")
    blocks, sent = [b'{"lim'], []

    async def receive():
        if blocks:
            return {"type": "http.request", "body": blocks.pop(), "more_body": True}
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", b"Bearer token-alpha"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/inbox/claim", "headers": headers, "query_string": b""}
    await asyncio.wait_for(backend.asgi(scope, receive, send), 5)
    assert sent[0]["status"] == 408


async def test_a_caller_that_does_not_read_is_cut_off(msh):
    """[threats H01]: the answer is never taken."""
    backend = RestBackend(msh, {"grace": 0.05})
    msh.client("alpha", "evidence")

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        await asyncio.Event().wait()

    headers = [(b"authorization", b"Bearer token-alpha")]
    scope = {"type": "http", "method": "GET", "path": "/v1/version", "headers": headers, "query_string": b""}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(backend.asgi(scope, receive, send), 5)


async def test_a_caller_that_leaves_gets_no_answer(backend, msh):
    msh.client("alpha", "evidence")
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", b"Bearer token-alpha"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": headers, "query_string": b""}
    await backend.asgi(scope, receive, send)
    assert sent == [] and msh.views == {}


def test_unknown_options_are_refused():
    import msgspec

    with pytest.raises(msgspec.ValidationError, match="tokn"):
        RestBackend(MemoryMsh(), {"tokn": 1})


