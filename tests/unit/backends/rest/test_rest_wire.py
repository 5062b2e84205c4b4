"""The door behind a real hypercorn: streaming, early refusals, broken downloads."""

import asyncio
import http.client
import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from gateway.backends.rest import RestBackend
from tests.unit.backends.listener import serving
from tests.unit.backends.memory_msh import MemoryMsh
from tests.unit.backends.rest.conftest import form

AUTH = {"Authorization": "Bearer token-alpha"}
FORM = {"Content-Type": "multipart/form-data; boundary=B0", "Idempotency-Key": "k"}


@pytest.fixture
def msh():
    msh = MemoryMsh(limit=100_000_000)
    msh.client("alpha", "evidence")
    return msh


@pytest.fixture
def address(msh):
    with serving(RestBackend(msh, {"grace": 1.0}).asgi) as url:
        yield urlsplit(url)


@pytest.fixture
def http_(address):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    yield connection
    connection.close()


def test_a_large_payload_both_ways(msh, http_):
    content = bytes(range(256)) * 40_000  # 10 MB
    meta = json.dumps({"to_party": {"id": "AP_LT"}, "action": "a", "parts": [{"mime_type": "text/plain"}]}).encode()
    body = form([("meta", {}, meta), ("any", {}, content)])
    http_.request("POST", "/v1/messages", (body[i : i + 50_000] for i in range(0, len(body), 50_000)), AUTH | FORM, encode_chunked=True)
    answer = http_.getresponse()
    submitted = json.loads(answer.read())
    assert answer.status == 202
    msh.block = 100_000
    cid = msh.views[submitted["id"]].parts[0].cid
    http_.request("GET", f"/v1/messages/{submitted['id']}/payloads/{cid}", headers=AUTH | {"Range": "bytes=1000-"})
    answer = http_.getresponse()
    assert answer.status == 206 and answer.read() == content[1000:]
    http_.request("HEAD", f"/v1/messages/{submitted['id']}/payloads/{cid}", headers=AUTH)
    answer = http_.getresponse()
    assert answer.read() == b"" and answer.headers["content-length"] == str(len(content))


def test_the_connection_survives_a_small_refusal(http_):
    for _ in range(3):
        http_.request("POST", "/v1/messages", b"x" * 100_000, {"Authorization": "Bearer wrong"})
        answer = http_.getresponse()
        assert answer.status == 401 and json.loads(answer.read())["code"] == "GW-1001"


def test_a_large_refusal_costs_one_answer(address):
    """A gigabyte is announced; the refusal comes after a megabyte, and the connection ends."""
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1_200_000)
        received = raw.recv(65_536)
    assert received.startswith(b"HTTP/1.1 401 ")


def test_expect_continue(address):
    """hypercorn itself says 100 before it asks us; the body then is read and dropped."""
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: gw\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert _until(raw, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        raw.sendall(b"123456789")
        assert _until(raw, b"GW-1001").startswith(b"HTTP/1.1 401 ")


def test_a_drip_gets_its_answer(msh, address):
    """[threats H01] by hand: headers, one byte, silence."""
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/inbox/claim HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer token-alpha\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert b"GW-1009" in _until(raw, b"GW-1009")


def test_a_download_that_breaks_shows(msh, http_):
    view = msh.receive("evidence", bytes(500_000))
    msh.fail_payload_at, msh.block = 200_000, 50_000
    http_.request("GET", f"/v1/messages/{view.id}/payloads/{view.parts[0].cid}", headers=AUTH)
    answer = http_.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead):
        answer.read()


def test_a_consumer_that_leaves_closes_the_source(msh, address):
    """A database cursor is behind the blocks; it must not be read to its end for nobody."""
    read, closed = [], threading.Event()
    blocks = msh._blocks

    async def watched(content, start):
        try:
            async for block in blocks(content, start):
                read.append(len(block))
                await asyncio.sleep(0)  # as a database driver would wait
                yield block
        finally:
            closed.set()

    msh._blocks, msh.block = watched, 100_000
    view = msh.receive("evidence", bytes(50_000_000))
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        path = f"/v1/messages/{view.id}/payloads/{view.parts[0].cid}"
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer token-alpha\r\n\r\n".encode())
        raw.recv(1000)
    assert closed.wait(10)
    assert sum(read) < 40_000_000


def _until(raw, mark):
    received = b""
    while mark not in received:
        block = raw.recv(65_536)
        if not block:
            break
        received += block
    return received
