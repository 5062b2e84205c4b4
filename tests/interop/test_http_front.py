"""What HTTP libraries of other stacks do on the way in, through the real HTTP server."""

import asyncio
import contextlib
import socket

from gateway.as4.units import Receipt
from gateway.cli.http import HttpServer
from gateway.web.limits import Limited, RequestLimits
from tests.interop.foreign import foreign
from tests.interop.inside import inside  # noqa: F401 - the fixture lv
from tests.interop.test_tolerance import XML, pack
from tests.unit.wire import Raw


@contextlib.asynccontextmanager
async def listening(lv):
    """The gateway's AS4 application behind the HTTP engine and limits of a node."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(Limited(lv.gateway.as4, RequestLimits()), [listener])
    await server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        await server.stop_accepting()
        await server.finish(2.0)


def request(content_type: str, *headers: str) -> bytes:
    return "\r\n".join(["POST /as4 HTTP/1.1", "Host: lv.example", f"Content-Type: {content_type}", *headers, "\r\n"]).encode()


def chunks(octets: bytes, size: int = 1000) -> bytes:
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def message(lv) -> tuple[str, bytes]:
    return foreign(lv.peer, [pack(XML)])[0].out


async def receipt(lv, raw: Raw) -> None:
    status, headers, body = await raw.answer(30)
    assert status == 200
    assert isinstance(lv.peer.answer(status, headers["content-type"], body).unit, Receipt)


async def test_chunked_requests_and_keep_alive(lv):
    """phase4 sends chunked, without Content-Length, and uses the connection again."""
    async with listening(lv) as raw:
        for _ in range(2):
            content_type, octets = message(lv)
            await raw.send(request(content_type, "Transfer-Encoding: chunked") + chunks(octets))
            await receipt(lv, raw)


async def test_expect_100_continue(lv):
    """Apache's client waits for 100 before it sends the body."""
    async with listening(lv) as raw:
        content_type, octets = message(lv)
        await raw.send(request(content_type, f"Content-Length: {len(octets)}", "Expect: 100-continue"))
        async with asyncio.timeout(30):
            assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await raw.send(octets)
        await receipt(lv, raw)


async def test_headers_that_mean_nothing_here(lv):
    """SOAPAction of SOAP 1.1, MIME-Version of mail, a User-Agent, traces of proxies."""
    async with listening(lv) as raw:
        content_type, octets = message(lv)
        await raw.send(request(content_type, f"Content-Length: {len(octets)}", 'SOAPAction: ""', "MIME-Version: 1.0",
                               "User-Agent: phase4/4.5.4", "X-Forwarded-For: 192.0.2.1", "Via: 1.1 waf") + octets)
        await receipt(lv, raw)


async def test_a_long_content_type(lv):
    """Boundaries and start ids of some stacks are long: 4 KiB are taken."""
    async with listening(lv) as raw:
        content_type, octets = message(lv)
        content_type += '; action="' + "x" * 4000 + '"'
        await raw.send(request(content_type, f"Content-Length: {len(octets)}") + octets)
        await receipt(lv, raw)


async def test_http_compression_is_not_the_as4_feature(lv):
    """Content-Encoding of a request is refused before its body is read."""
    async with listening(lv) as raw:
        content_type, octets = message(lv)
        await raw.send(request(content_type, f"Content-Length: {len(octets)}", "Content-Encoding: gzip") + octets)
        assert (await raw.answer(30))[0] == 415
    assert await lv.nothing_stored()
