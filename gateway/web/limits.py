"""What every request must keep before and while somebody works on it.

A pure ASGI wrapper round the applications of the AS4 and the plugin listener. It refuses
what is ambiguous or too much by the head alone (431, 414, 400, 415, 413), so that two
programs in a row never read two different requests [threats H02-H05], and gives the
sender of a body a deadline that a drip cannot beat [threats H01]: ten seconds of grace,
then a rate; only the time spent waiting for the sender counts, so that a slow database
does not cost a partner its upload.

An application whose request is cut off sees `http.disconnect`, as if the client had gone:
it cleans up and says nothing, and the refusal is answered here, and closes the connection.

Whoever answers before the whole body was read (a refused signature, a wrong path): what is
still coming is read and dropped, within bounds, before the answer ends. Closing at once would
reset the connection, and a partner that writes first and reads then would never see why.

How bytes become a head is the HTTP engine's business (`cli/http.py` makes ours strict).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from gateway import log

Scope = dict
Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: After an early answer so much is read and dropped, for so long: a message of OOTS has 50 MB at most.
DROP_BYTES = 64 << 20
DROP_SECONDS = 10.0
#: After a head that was refused the rest is not even sure to be a body.
SHORT_DROP_SECONDS = 0.5
#: Lines a second about refusals; the rest is counted [threats 1.5].
LINES = 10

REASONS = {
    400: b"the request is ambiguous\n",
    408: b"the body came too slowly\n",
    413: b"the body is too large\n",
    414: b"the request line is too long\n",
    415: b"a Content-Encoding is not accepted\n",
    431: b"the header is too large\n",
    505: b"only HTTP/1.0 and HTTP/1.1 are spoken here\n",
}


class RequestLimits(Struct, frozen=True, kw_only=True):
    """Bytes, lines, seconds, bytes a second [threats 1.5]."""

    header_bytes: int = 32 << 10
    header_lines: int = 100
    request_line: int = 8 << 10
    #: The largest body, or None. Somewhat more than what the application bears, which answers better.
    body: int | None = None
    #: All the waiting for one body together, whatever its rate.
    body_deadline: float = 3600.0
    grace: float = 10.0
    rate: float = 8000.0


class Limited:
    """`app` behind `limits`. While `closing()` is true every answer ends its connection."""

    def __init__(self, app: App, limits: RequestLimits, *, closing: Callable[[], bool] = lambda: False) -> None:
        self._app, self._limits, self._closing = app, limits, closing
        self._second, self._lines, self._unwritten = 0, 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._limits)
        answer = _Answer(send, body, self._closing)
        body.refusal = self._judge(scope)
        if body.refusal is None:
            await self._app(scope, body, answer)
        if body.refusal is not None and not answer.started:
            self._note(body.refusal, (scope.get("client") or ("-",))[0])
            await _refuse(answer, body.refusal)

    def _judge(self, scope: Scope) -> int | None:
        """The status to refuse a head with."""
        limits = self._limits
        if scope["http_version"] not in ("1.0", "1.1"):
            return 505
        # Method, blanks, "HTTP/1.1", and the query string with its question mark.
        if len(scope["raw_path"]) + len(scope["query_string"]) + len(scope["method"]) + 11 > limits.request_line:
            return 414
        size, lengths, chunked, encoded, status = 0, [], False, False, None
        headers = scope["headers"]
        for name, value in headers:
            size += len(name) + len(value) + 4
            match name:
                case b"content-length":
                    lengths.append(value)
                case b"transfer-encoding":
                    chunked = True
                case b"content-encoding":
                    encoded = value.strip().lower() not in (b"", b"identity")
                case b"upgrade" | b"http2-settings":
                    status = 400
        if len(headers) > limits.header_lines or size > limits.header_bytes:
            return 431
        if (lengths and chunked) or len(lengths) > 1 or (lengths and not _is_number(lengths[0])):
            return 400
        if encoded:
            return 415
        if limits.body is not None and lengths and int(lengths[0]) > limits.body:
            return 413
        return status

    def _note(self, status: int, source: str) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES:
            self._unwritten += 1
            return
        before, self._unwritten = self._unwritten, 0
        log.event("request.refused", level="warning", status=status, source=source, suppressed_before=before or None)


def _is_number(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 15


class _Body:
    """`receive` with a deadline and a size."""

    def __init__(self, receive: Receive, limits: RequestLimits) -> None:
        self._receive, self._limits = receive, limits
        self._waited, self._received = 0.0, 0
        self.ended = False
        self.refusal: int | None = None

    async def __call__(self) -> dict:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self.ended:  # nothing but the end of the connection can come; that may take its time
            return await self._receive()
        limits = self._limits
        allowed = min(limits.grace + self._received / limits.rate, limits.body_deadline) - self._waited
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(allowed, 0.0)):
                event = await self._receive()
        except TimeoutError:
            self.ended = True
            return self._cut(408)
        self._waited += time.monotonic() - began
        self._see(event)
        if limits.body is not None and self._received > limits.body:
            return self._cut(413)
        return event

    def _see(self, event: dict) -> None:
        self._received += len(event.get("body", b""))
        self.ended = event["type"] != "http.request" or not event.get("more_body", False)

    def _cut(self, status: int) -> dict:
        self.refusal = status
        return {"type": "http.disconnect"}

    async def drop(self) -> None:
        """Read what is on its way, within bounds."""
        enough = self._received + DROP_BYTES
        short = self.refusal is not None and self.refusal not in (413, 415)
        try:
            async with asyncio.timeout(SHORT_DROP_SECONDS if short else DROP_SECONDS):
                while not self.ended and self._received < enough:
                    self._see(await self._receive())
        except TimeoutError:
            return


class _Answer:
    """`send` that knows whether the answer has begun, hears the body out before it ends, and
    says goodbye while the gateway drains."""

    def __init__(self, send: Send, body: _Body, closing: Callable[[], bool]) -> None:
        self._send, self._body, self._closing = send, body, closing
        self.started = False

    async def __call__(self, event: dict) -> None:
        if event["type"] == "http.response.start":
            self.started = True
            if self._closing():
                headers = [(n, v) for n, v in event.get("headers", ()) if n.lower() != b"connection"]
                event = {**event, "headers": [*headers, (b"connection", b"close")]}
        elif not event.get("more_body", False) and not self._body.ended:
            await self._send({**event, "more_body": True})
            await self._body.drop()
            event = {"type": "http.response.body", "body": b""}
        await self._send(event)


async def _refuse(answer: _Answer, status: int) -> None:
    text = REASONS[status]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await answer({"type": "http.response.start", "status": status, "headers": headers})
    await answer({"type": "http.response.body", "body": text})
