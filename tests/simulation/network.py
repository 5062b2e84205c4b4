"""The way between access points: requests and answers are lost, doubled, cut, delayed and overtaken."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gateway.errors import PeerGone, SendFailed
from gateway.transport.exchange import Answer
from tests.simulation.faults import HERE, Faults, Life

#: (content type, body) -> (status, content type, body). Raises `ConnectionError`.
Listener = Callable[[str, bytes], Awaitable[tuple[int, str, bytes]]]
#: Seconds after which whoever waits for an answer gives up.
PATIENCE = 60.0


class Network:
    """Listeners by URL."""

    def __init__(self, faults: Faults) -> None:
        self.faults, self._listeners = faults, {}
        self._loose: set[asyncio.Task] = set()

    def listen(self, url: str, listener: Listener) -> None:
        self._listeners[url] = listener

    async def post(self, url: str, content_type: str, body: bytes) -> tuple[int, str, bytes]:
        """Raises `ConnectionError`; then the request may have arrived."""
        faults, listener = self.faults, self._listeners[url]
        await asyncio.sleep(faults.random.uniform(0.001, 0.2))
        if faults.is_away(url) or faults.strikes(faults.lose_request):
            raise ConnectionRefusedError("lost on the way there")
        if faults.strikes(faults.cut):
            body = body[: faults.random.randrange(len(body))]
            asyncio.get_running_loop().create_task(_ignored(listener(content_type, body)))
            raise ConnectionResetError("cut in the middle")
        if faults.strikes(faults.double):
            faults.note(f"a request to {url} goes twice")
            self._later(listener, content_type, body)
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await listener(content_type, body)
        except TimeoutError:
            raise ConnectionError("no answer") from None
        await asyncio.sleep(faults.random.uniform(0.001, 0.2))
        if faults.is_away(url) or faults.strikes(faults.lose_answer):
            faults.note(f"an answer of {url} is lost")
            raise ConnectionResetError("lost on the way back")
        return answer

    def _later(self, listener: Listener, content_type: str, body: bytes) -> None:
        async def again() -> None:
            await asyncio.sleep(self.faults.random.choice((0.0, 0.01, 1.0, 30.0)))
            await _ignored(listener(content_type, body))

        task = asyncio.get_running_loop().create_task(again())
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)


async def _ignored(call: Awaitable[Any]) -> None:
    try:
        await call
    except ConnectionError:
        pass


class Client:
    """`gateway.transport.client.Client` for one incarnation of a node, as far as messages are sent with it."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network, self._life = network, life

    async def post(
        self, endpoint: str, *, content_type: str, content_length: int, body: AsyncIterator[bytes], partner: str,
        **_: Any,
    ) -> Answer:  # fmt: skip
        octets = b"".join([block async for block in body])
        assert len(octets) == content_length
        await self._life.alive()
        try:
            status, kind, answer = await self._network.post(endpoint, content_type, octets)
        except ConnectionRefusedError as error:
            raise SendFailed(str(error), stage="connect") from None
        except ConnectionError as error:
            await self._life.alive()
            raise SendFailed(str(error), stage="receipt") from None
        await self._life.alive()
        return Answer(status, {"content-type": kind}, answer, {})

    def refresh(self) -> None:
        """There is no TLS here."""

    async def close(self) -> None: ...


async def serve(life: Life, application: Any, content_type: str, body: bytes) -> tuple[int, str, bytes]:
    """One POST to an ASGI application of a node. Raises `ConnectionError` when the node dies meanwhile."""
    blocks = [body[i : i + 8192] for i in range(0, len(body), 8192)] or [b""]
    events = [{"type": "http.request", "body": b, "more_body": i + 1 < len(blocks)} for i, b in enumerate(blocks)]
    sent: list[dict] = []
    gone = asyncio.get_running_loop().create_future()

    async def receive() -> dict:
        await life.alive()
        if not events:
            await gone
            return {"type": "http.disconnect"}
        return events.pop(0)

    async def send(event: dict) -> None:
        await life.alive()
        sent.append(event)

    scope = {
        "type": "http", "method": "POST", "path": "/as4", "client": ("192.0.2.1", 4711),
        "headers": [(b"content-type", content_type.encode())], "state": {},
    }  # fmt: skip
    await within(life, application(scope, receive, send))
    if not sent:
        raise ConnectionResetError("no answer")
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers.get("content-type", ""), b"".join(e.get("body", b"") for e in sent[1:])


async def within(life: Life, work: Awaitable[Any]) -> Any:
    """What a node does for somebody outside. Raises `ConnectionError` when it dies meanwhile."""
    token = HERE.set(life)
    try:
        task = asyncio.ensure_future(work)
    finally:
        HERE.reset(token)
    dying = asyncio.ensure_future(life.dead.wait())
    try:
        await asyncio.wait((task, dying), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        dying.cancel()
    if life.dead.is_set() or not task.done():
        raise ConnectionResetError("the node has died")
    try:
        return task.result()
    except PeerGone:
        raise ConnectionResetError("gone") from None
