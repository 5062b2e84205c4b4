import json

import httpx
import pytest

from gateway.backends.rest import RestBackend
from tests.unit.backends.memory_msh import MemoryMsh

META = {
    "to_party": {"id": "AP_LT"},
    "action": "ExecuteQueryRequest",
    "properties": [{"name": "originalSender", "value": "urn:c1", "type": "urn:t"}],
    "parts": [{"mime_type": "application/x-ebrs+xml", "cid": "req@c1"}, {"mime_type": "application/pdf"}],
}


class Http(httpx.AsyncClient):
    """A producer or consumer with a token."""

    async def submit_form(self, meta, fields, *, key="key-1", query="", headers=None):
        """`fields`: (name, headers, content); `meta` may be bytes to be sent as they are."""
        octets = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
        body = form([("meta", {"Content-Type": "application/json"}, octets), *fields])
        sent = {"Content-Type": "multipart/form-data; boundary=B0", **({"Idempotency-Key": key} if key else {})}
        return await self.post("/v1/messages" + query, content=body, headers=sent | (headers or {}))


def form(fields, boundary="B0"):
    out = b""
    for name, headers, content in fields:
        lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"']
        lines += [f"{key}: {value}" for key, value in headers.items()]
        out += "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode()


@pytest.fixture
def msh() -> MemoryMsh:
    return MemoryMsh()


@pytest.fixture
def options() -> dict:
    return {}


@pytest.fixture
def backend(msh, options) -> RestBackend:
    return RestBackend(msh, options)


@pytest.fixture
def connect(msh, backend):
    """A client for a new token of a backend."""

    def make(name="alpha", of="evidence", **headers) -> Http:
        token = msh.client(name, of)
        transport = httpx.ASGITransport(backend.asgi, raise_app_exceptions=False)
        return Http(
            transport=transport, base_url="http://gw", headers={"Authorization": f"Bearer {token}"} | headers
        )

    return make


@pytest.fixture
def http(connect) -> Http:
    return connect()


@pytest.fixture
def meta() -> dict:
    return json.loads(json.dumps(META))


def refused(answer: httpx.Response, slug: str) -> dict:
    """The problem in `answer`, which must be of type `slug` and complete."""
    from gateway.backends.rest.problems import KINDS

    kind = KINDS[slug]
    assert answer.status_code == kind.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/problems/{slug}"
    assert (problem["status"], problem["code"]) == (kind.status, kind.code)
    assert (problem["stage"], problem["who"]) == (kind.stage, kind.who)
    assert problem["title"] and problem["hint"] and len(problem["trace_id"]) == 32
    assert answer.headers["x-content-type-options"] == "nosniff"
    return problem


@pytest.fixture
async def site(tmp_path):
    """A real gateway with the REST door (see `real.py`)."""
    from tests.unit.backends.rest.real import real

    async with real(tmp_path / "lv") as found:
        yield found
