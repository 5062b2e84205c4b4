"""Hypercorn made strict, and behind web/limits: raw clients against a real server [threats H01-H05, stack 4.2]."""

import asyncio
import contextlib
import re
import ssl
import time

import h11
import pytest

from gateway.cli.http import HEAD_BYTES, HttpServer, ServerSettings, check_head
from gateway.cli.listeners import open_listener
from gateway.web.limits import Limited, RequestLimits

POST = b"POST /as4 HTTP/1.1\r\nHost: x\r\n"


class Echo:
    """Answers with what it saw. `/slow` waits for a sign, `/early` answers without reading."""

    def __init__(self):
        self.seen, self.go, self.reading = [], asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.seen.append(scope)
        if scope["path"] == "/slow":
            await self.go.wait()
        octets, end = b"", "http.request"
        if scope["path"] != "/early":
            more = True
            while more:
                event = await receive()
                self.reading.set()
                octets += event.get("body", b"")
                end, more = event["type"], event.get("more_body", False)
        self.end = end
        if end == "http.disconnect":
            return
        body = b"%d" % len(octets) if scope["path"] != "/big" else b"x" * (8 << 20)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


class Served:
    def __init__(self, app, server, port):
        self.app, self.server, self.port = app, server, port
        self.closing = False


@pytest.fixture
async def serve():
    """`await serve(limits=…, settings=…, tls=…)` -> Served."""
    servers = []

    async def start(limits=None, settings=None, tls=None, app=None):
        sockets = open_listener("127.0.0.1:0", "as4.bind")
        served = Served(app or Echo(), None, sockets[0].getsockname()[1])
        limited = Limited(served.app, limits or RequestLimits(), closing=lambda: served.closing)
        served.server = HttpServer(limited, sockets, tls=tls, settings=settings)
        await served.server.start()
        servers.append((served.server, sockets))
        return served

    yield start
    for server, sockets in servers:
        await server.stop_accepting()
        await server.finish(0)
        for one in sockets:
            one.close()


async def test_a_plain_request_and_keep_alive(serve, connect):
    served = await serve()
    client = await connect(served.port)
    for _ in range(3):
        await client.send(POST + b"Content-Length: 3\r\n\r\nabc")
        status, headers, body = await client.answer()
        assert (status, body) == (200, b"3") and "server" not in headers and "connection" not in headers


async def test_chunked_bodies(serve, connect):
    served = await serve()
    client = await connect(served.port)
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await client.answer())[2] == b"5"


async def test_pipelined_requests_are_all_judged(serve, connect):
    served = await serve()
    client = await connect(served.port)
    good, bad = POST + b"Content-Length: 1\r\n\r\na", POST + b"Content-Length: 1,1\r\n\r\na"
    await client.send(good + good + bad + good)
    assert [(await client.answer())[0] for _ in range(3)] == [200, 200, 400]
    assert await client.closed() == b"" and len(served.app.seen) == 2


async def test_expect_continue(serve, connect):
    served = await serve()
    client = await connect(served.port)
    await client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n")
    await client.send(b"abc")
    assert (await client.answer())[2] == b"3"


async def test_http_1_0_ends_with_its_answer(serve, connect):
    served = await serve()
    client = await connect(served.port)
    await client.send(b"POST /as4 HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
    assert (await client.answer())[0] == 200
    assert await client.closed() == b""


REFUSED = {
    "CL and TE": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "TE and CL": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "two equal CL": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two CL": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "CL list": (POST + b"Content-Length: 3,3\r\n\r\nabc", 400),
    "CL +3": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "CL -1": (POST + b"Content-Length: -1\r\n\r\nabc", 400),
    "CL 0x3": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "CL empty": (POST + b"Content-Length:\r\n\r\nabc", 400),
    "CL too long": (POST + b"Content-Length: " + b"9" * 19 + b"\r\n\r\nabc", 400),
    "TE gzip": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "TE twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "TE xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "TE with vertical tab": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "blank before colon": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "bare LF": (b"POST /as4 HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc", 400),
    "one bare LF": (POST + b"X: y\nContent-Length: 3\r\n\r\nabc", 400),
    "folded line": (POST + b"X: y\r\n z\r\nContent-Length: 3\r\n\r\nabc", 400),
    "folded first line": (b"POST /as4 HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "NUL": (POST + b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two hosts": (POST + b"Host: y\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two content types": (POST + b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 3\r\n\r\nabc", 400),
    "no host": (b"POST /as4 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
    "header without colon": (POST + b"nonsense\r\n\r\n", 400),
    "chunk size nonsense": (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", None),
    "Content-Encoding gzip": (POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415),
    "Content-Encoding br": (POST + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", 415),
    "h2c upgrade": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 400),
    "prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/3.7": (b"GET / HTTP/3.7\r\nHost: x\r\n\r\n", 505),
    "65 kB header": (POST + b"X: " + b"y" * 65_000 + b"\r\n\r\n", 431),
    "33 kB of headers": (POST + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(33)) + b"\r\n", 431),
    "101 header lines": (POST + b"".join(b"X-%d: y\r\n" % n for n in range(100)) + b"\r\n", 431),
    "endless header": (POST + b"X: " + b"y" * 500_000, 431),
    "1 MB request line": (b"POST /" + b"a" * 1_000_000, 431),
    "9 kB request line": (b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 414),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_what_is_ambiguous_or_too_much_is_refused_once(serve, connect, case):
    octets, status = REFUSED[case]
    served = await serve()
    client = await connect(served.port)
    with contextlib.suppress(ConnectionError):
        await client.send(octets)
    raw = await client.closed()
    if status is not None:
        head, _, body = raw.partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status and b"connection: close" in head.lower()
        assert len(body) < 100 and len(re.findall(rb"HTTP/1.1 \d", raw)) == 1
        assert served.app.seen == []
    else:
        assert len(re.findall(rb"HTTP/1.1 \d", raw)) <= 1
        await asyncio.sleep(0.05)
        assert served.app.end == "http.disconnect"


async def test_websockets_are_refused(serve, connect):
    served = await serve()
    client = await connect(served.port)
    await client.send(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert (await client.closed()).startswith(b"HTTP/1.1 403") and served.app.seen == []


def boundary(size):
    """A request whose header lines, as ASGI shows them with ': ' and CRLF, take `size` bytes."""
    rest = size - len(b"host: x\r\n") - len(b"content-length: 0\r\n") - 5
    return POST + b"Content-Length: 0\r\nx: " + b"y" * rest + b"\r\n\r\n"


@pytest.mark.parametrize(("request_", "status"), [
    (boundary(32_767), 200), (boundary(32_768), 200), (boundary(32_769), 431),
    (POST + b"Content-Length: 0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(98)) + b"\r\n", 200),
    (POST + b"Content-Length: 0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(99)) + b"\r\n", 431),
    (b"POST /" + b"a" * (8192 - 16) + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 200),
    (b"POST /" + b"a" * (8192 - 15) + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 414),
], ids=["header n-1", "header n", "header n+1", "lines n", "lines n+1", "request line n", "request line n+1"])  # fmt: skip
async def test_limits_hold_exactly(serve, connect, request_, status):
    client = await connect((await serve()).port)
    await client.send(request_)
    assert (await client.answer())[0] == status


@pytest.mark.parametrize(("length", "status"), [(99, 200), (100, 200), (101, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_bounded(serve, connect, length, status, chunked):
    served = await serve(RequestLimits(body=100))
    client = await connect(served.port)
    if chunked:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (length, b"x" * length))
    else:
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % length + b"x" * length)
    assert (await client.answer())[0] == status
    # By its length it is refused before anybody is asked.
    assert len(served.app.seen) == (0 if status == 413 and not chunked else 1)


async def test_a_drip_is_cut_off(serve, connect):
    served = await serve(RequestLimits(grace=0.3, rate=1000))
    client = await connect(served.port)
    await client.send(POST + b"Content-Length: 100000\r\n\r\n")
    began = time.monotonic()

    async def drip():
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(b"x" * 5)
                await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    status, headers, _ = await client.answer()
    assert status == 408 and headers["connection"] == "close" and 0.25 < time.monotonic() - began < 1.5
    await client.closed()
    dripping.cancel()
    assert served.app.end == "http.disconnect"


async def test_a_steady_sender_and_a_slow_application_are_not(serve, connect):
    served = await serve(RequestLimits(grace=0.2, rate=1000))
    client = await connect(served.port)
    await client.send(POST + b"Content-Length: 600\r\n\r\n")
    for _ in range(6):
        await client.send(b"x" * 100)
        await asyncio.sleep(0.08)
    assert (await client.answer())[2] == b"600"
    await client.send(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    await asyncio.sleep(0.5)
    served.app.go.set()
    assert (await client.answer())[0] == 200


async def test_the_deadline_of_a_body_ends_also_a_fast_one(serve, connect):
    served = await serve(RequestLimits(grace=10, body_deadline=0.2))
    client = await connect(served.port)
    await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
    assert (await client.answer())[0] == 408


async def test_an_early_answer_can_be_read_by_who_writes_first(serve, connect):
    served = await serve()
    client = await connect(served.port)
    size = 20 << 20
    await client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(20):
        await client.send(b"x" * (1 << 20))
    assert (await client.answer())[0] == 200


async def test_slow_heads_are_cut_off_on_new_and_on_used_connections(serve, connect):
    served = await serve(settings=ServerSettings(header_deadline=0.3, keep_alive=30))
    silent, dripping, used = [await connect(served.port) for _ in range(3)]
    await used.send(POST + b"Content-Length: 0\r\n\r\n")
    await used.answer()
    await asyncio.sleep(0.4)  # a used connection may rest …
    await used.send(b"POST /as4 HT")  # … but once it begins, it goes on
    for _ in range(10):
        with contextlib.suppress(ConnectionError, RuntimeError):  # RuntimeError: uvloop, when it is closed
            await dripping.send(b"G")
        await asyncio.sleep(0.05)
    for client in (silent, dripping, used):
        assert b"200" not in await client.closed(timeout=1)


async def test_rested_connections_are_closed(serve, connect):
    served = await serve(settings=ServerSettings(header_deadline=10, keep_alive=0.2))
    client = await connect(served.port)
    await client.send(POST + b"Content-Length: 0\r\n\r\n")
    await client.answer()
    assert await client.closed(timeout=2) == b""


async def test_who_does_not_read_our_answer_is_cut_off(serve, connect):
    served = await serve(settings=ServerSettings(write_deadline=0.3))
    client = await connect(served.port, limit=1024)
    await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(1.0)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with asyncio.timeout(5):
            await client.reader.readexactly(8 << 20)


async def test_connections_are_bounded(serve, connect):
    served = await serve(settings=ServerSettings(connections=2))
    first, second = await connect(served.port), await connect(served.port)
    await asyncio.sleep(0.05)
    third = await connect(served.port)
    assert await third.closed() == b""
    for client in (first, second):
        await client.send(POST + b"Content-Length: 0\r\n\r\n")
        assert (await client.answer())[0] == 200


# -- the end --------------------------------------------------------------------


async def test_uploads_finish_and_resting_connections_are_closed(serve, connect):
    served = await serve()
    upload, resting = await connect(served.port), await connect(served.port)
    await resting.send(POST + b"Content-Length: 0\r\n\r\n")
    await resting.answer()
    await upload.send(POST + b"Content-Length: 6\r\n\r\nabc")
    await served.app.reading.wait()
    await served.server.stop_accepting()
    assert await resting.closed(timeout=1) == b""
    finishing = asyncio.create_task(served.server.finish(10))
    await asyncio.sleep(0.2)
    assert not finishing.done()
    await upload.send(b"def")
    assert (await upload.answer())[2] == b"6"
    assert await asyncio.wait_for(finishing, 2) == 0


async def test_uploads_that_do_not_finish_are_cut(serve, connect):
    served = await serve()
    upload = await connect(served.port)
    await upload.send(POST + b"Content-Length: 6\r\n\r\nabc")
    await served.app.reading.wait()
    await served.server.stop_accepting()
    assert await served.server.finish(0.2) == 1
    assert b"200" not in await upload.closed()


async def test_a_request_on_its_way_is_still_answered(serve, connect):
    served = await serve()
    client = await connect(served.port)
    await asyncio.sleep(0.05)
    await served.server.stop_accepting()
    await client.send(POST + b"Content-Length: 3\r\n\r\nabc")
    assert (await client.answer())[2] == b"3"
    assert await client.closed(timeout=1) == b""


async def test_answers_say_goodbye_while_draining(serve, connect):
    served = await serve()
    served.closing = True
    client = await connect(served.port)
    await client.send(POST + b"Content-Length: 3\r\n\r\nabc")
    assert (await client.answer())[1]["connection"] == "close"
    assert await client.closed(timeout=1) == b""


# -- TLS ------------------------------------------------------------------------


async def test_the_clients_certificate_is_in_the_scope(serve, connect, pki):
    pair = pki.pair("client-a", usage="client")
    served = await serve(tls=lambda: pki.server_context(client_ca=pki.ca))
    for context, expected in ((pki.client_context(pair), True), (pki.client_context(), False)):
        client = await connect(served.port, context)
        await client.send(POST + b"Content-Length: 0\r\n\r\n")
        assert (await client.answer())[0] == 200
        seen = served.app.seen[-1]["state"]["tls"]
        der = ssl.PEM_cert_to_DER_cert(pair.read_text().partition("-----END PRIVATE KEY-----\n")[2])
        assert (seen["peer_der"] == der) is expected and seen["version"] == "TLSv1.3"


async def test_only_http_1_1_is_offered(serve, connect, pki):
    served = await serve(tls=pki.server_context)
    context = pki.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = await connect(served.port, context)
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_the_next_handshake_has_the_new_certificate(serve, connect, pki):
    current = [pki.server_context("old")]
    served = await serve(tls=lambda: current[0])
    context = pki.client_context()

    async def subject():
        client = await connect(served.port, context)
        return dict(pair[0] for pair in client.writer.get_extra_info("peercert")["subject"])["commonName"]

    assert await subject() == "old"
    current[0] = pki.server_context("new")
    assert await subject() == "new"


async def test_plain_http_on_a_tls_port_hurts_nobody(serve, connect, pki):
    served = await serve(tls=pki.server_context, settings=ServerSettings(handshake=0.3))
    plain, silent = await connect(served.port), await connect(served.port)
    await plain.send(POST)
    await plain.closed()
    await silent.closed(timeout=2)
    client = await connect(served.port, pki.client_context())
    await client.send(POST + b"Content-Length: 0\r\n\r\n")
    assert (await client.answer())[0] == 200


# -- the head alone ---------------------------------------------------------------


@pytest.mark.parametrize("head", [POST + b"\r\n", b"\r\n" + POST + b"\r\n", POST, b"", b"P", POST + b"X:y\r\nX-Y: \x80\tz\r\n\r\nbody\n"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_good_heads_pass_whatever_the_cuts(head, step):
    for end in range(0, len(head) + step, step):
        check_head(head[:end])


@pytest.mark.parametrize("case", [k for k, (_, status) in REFUSED.items() if status == 400 and k not in (
    "h2c upgrade", "TLS to a plain port", "HTTP/0.9", "no host", "CL too long", "TE with vertical tab")])  # fmt: skip
def test_bad_heads_are_refused_as_soon_as_they_are_complete(case):
    octets = REFUSED[case][0]
    with pytest.raises(h11.RemoteProtocolError):
        for end in range(len(octets) + 1):
            check_head(octets[:end])


def test_a_head_that_never_ends_is_not_collected():
    check_head(b"x" * HEAD_BYTES)
    with pytest.raises(h11.RemoteProtocolError) as refusal:
        check_head(b"x" * (HEAD_BYTES + 1))
    assert refusal.value.error_status_hint == 431
