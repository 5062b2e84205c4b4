"""POST something small and take a large answer while it arrives: real sockets, and partners that misbehave."""

import asyncio
import errno

import pytest

from gateway.errors import SendFailed, StoreUnavailable
from gateway.stages import timeline
from gateway.transport.client import Client, Timeouts
from gateway.transport.egress import EgressPolicy

QUICK = Timeouts(connect=2.0, idle=0.4, answer=0.4, rate=1e9)


@pytest.fixture
async def server():
    """`await server(behave)`: a URL; `behave(reader, writer)` is called once the request is read."""
    servers = []

    async def start(behave):
        async def serve(reader, writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            assert await reader.readexactly(length) == b"<ask/>"
            try:
                await behave(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/as4"

    yield start
    for one in servers:
        one.close()


@pytest.fixture
async def client():
    made = Client(EgressPolicy(allow_networks=("127.0.0.0/8",)), timeouts=QUICK)
    yield made
    await made.close()


def head(length, more=""):
    return f"HTTP/1.1 200 OK\r\nContent-Type: multipart/related\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def answering(*pieces):
    """A partner that says these pieces; a number is a pause in seconds."""
    async def behave(_reader, writer):
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
                continue
            writer.write(piece)
            await writer.drain()

    return behave


async def whole(answer):
    return answer.status, answer.headers["content-type"], b"".join([block async for block in answer.blocks])


async def ask(client, url, take=whole, most=1 << 30):
    return await client.fetch(url, content_type="application/soap+xml", body=b"<ask/>", partner="p", take=take, most=most)


async def test_the_answer_is_given_on_while_it_arrives(server, client):
    url = await server(answering(head(6), b"abc", 0.05, b"def"))
    with timeline("inbound") as steps:
        assert await ask(client, url) == (200, "multipart/related", b"abcdef")
    assert [step.stage for step in steps] == ["connect", "send", "receipt"]


async def test_it_is_never_held_whole(server, client):
    block, count = bytes(1 << 20), 40
    url = await server(answering(head(len(block) * count), *[block] * count))
    largest = 0

    async def take(answer):
        nonlocal largest
        size = 0
        async for piece in answer.blocks:
            largest, size = max(largest, len(piece)), size + len(piece)
        return size

    assert await ask(client, url, take) == len(block) * count
    assert largest <= 1 << 20


async def test_our_own_time_does_not_count(server, client):
    """A slow disk of ours is not a slow partner."""
    url = await server(answering(head(6), b"abc", b"def"))

    async def take(answer):
        await asyncio.sleep(0.6)
        return await whole(answer)

    assert (await ask(client, url, take))[2] == b"abcdef"


@pytest.mark.parametrize(("behave", "words"), [
    (answering(head(6), b"abc", 5.0), "too slowly"),
    (answering(5.0), "no answer came"),
    (answering(head(6), b"abc"), "broke off"),
    (answering(b"nonsense\r\n\r\n"), "."),
    (answering(head(10, "Content-Encoding: gzip\r\n"), bytes(10)), "compressed"),
    (answering(head(2000), bytes(2000)), "larger than"),
])
async def test_partners_that_misbehave(server, client, behave, words):
    url = await server(behave)
    with pytest.raises(SendFailed, match=words):
        await ask(client, url, most=1000)


async def test_a_drip_is_given_up(server, client):
    made = Client(EgressPolicy(allow_networks=("127.0.0.0/8",)),
                  timeouts=Timeouts(connect=2.0, idle=0.3, answer=2.0, rate=1000.0))  # fmt: skip
    url = await server(answering(head(100), *[piece for _ in range(50) for piece in (b"x", 0.05)]))
    with pytest.raises(SendFailed, match="too slowly"):
        await ask(made, url)
    await made.close()


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), OSError(errno.ENOSPC, "full"), TimeoutError("ours"), ValueError("odd")])
async def test_what_the_taker_raises_comes_out_as_it_is(server, client, error):
    url = await server(answering(head(3), b"abc"))

    async def take(answer):
        raise error

    with pytest.raises(type(error)) as raised:
        await ask(client, url, take)
    assert raised.value is error


async def test_a_taker_that_has_heard_enough(server, client):
    """What it does not read is not read, and the connection is not used again."""
    url = await server(answering(head(1 << 26), *[bytes(1 << 20)] * 64))

    async def take(answer):
        return answer.status

    for _ in range(2):
        assert await ask(client, url, take) == 200


async def test_an_endpoint_that_may_not_be_connected_to(client):
    with pytest.raises(SendFailed) as refused:
        await ask(client, "http://169.254.169.254/as4")
    assert refused.value.stage == "connect"
