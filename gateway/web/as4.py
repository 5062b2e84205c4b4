"""The AS4 listener: POST /as4 and its aliases, as a pure ASGI application.

It only counts and streams: the ladder is in `msh/receive.py`. How many messages are taken
in at once is bounded; beyond that a peer gets 503 with Retry-After before a byte of its
body is read, and AS4's own retry turns that into latency.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from gateway.errors import PeerGone
from gateway.msh.receive import Answer, Receiver
from gateway.stages import point


class As4App:
    """ASGI application of the AS4 listener."""

    def __init__(self, receiver: Receiver, *, paths: Sequence[str], concurrent: int,
                 accepting: Callable[[], bool] = lambda: True) -> None:  # fmt: skip
        self._receiver, self._paths = receiver, frozenset(paths)
        self._free, self._accepting = concurrent, accepting

    async def __call__(self, scope: dict, receive: Callable[[], Awaitable[dict]], send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].rstrip("/") not in self._paths:
            await _answer(send, Answer(404))
            return
        if scope["method"] != "POST":
            await _answer(send, Answer(405), (b"allow", b"POST"))
            return
        if self._free <= 0 or not self._accepting():
            await _answer(send, Answer(503, retry_after=5), (b"connection", b"close"))
            return
        self._free -= 1
        try:
            point("IB01")
            headers = {name.lower(): value for name, value in scope["headers"]}
            content_type = headers.get(b"content-type", b"").decode("latin-1")
            source = (scope.get("client") or ("-",))[0]
            body = _Body(receive)
            try:
                answer = await self._receiver.receive(content_type, body.blocks(), source)
            except PeerGone:
                return
            # What is left of a body that was answered half-way is not worth reading.
            close = () if body.finished and not answer.close else ((b"connection", b"close"),)
            if answer.handover is not None:
                with contextlib.suppress(PeerGone):
                    await _hand_over(send, receive, answer)
            else:
                await _answer(send, answer, *close)
            point("IB26")
        finally:
            self._free += 1


class _Body:
    """The request body as blocks."""

    def __init__(self, receive: Callable[[], Awaitable[dict]]) -> None:
        self._receive = receive
        self.finished = False

    async def blocks(self) -> AsyncIterator[bytes]:
        while not self.finished:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise PeerGone
            self.finished = not event.get("more_body", False)
            if block := event.get("body", b""):
                yield block


async def _hand_over(send, receive, answer: Answer) -> None:
    """Stream a message that was pulled; stop when nobody is there to take it any more."""
    handover = answer.handover
    # After the request's last octet only the end of the connection can come.
    gone = asyncio.ensure_future(receive())
    blocks = handover.blocks()
    try:
        headers = [
            (b"content-length", str(handover.length).encode()),
            (b"content-type", answer.content_type.encode()),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for block in blocks:
            if gone.done():
                raise PeerGone
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await blocks.aclose()
        handover.close()


async def _answer(send, answer: Answer, *extra: tuple[bytes, bytes]) -> None:
    headers = [(b"content-length", str(len(answer.body)).encode()), *extra]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode()))
    if answer.retry_after is not None:
        headers.append((b"retry-after", str(answer.retry_after).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
