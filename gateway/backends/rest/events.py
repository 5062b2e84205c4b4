"""Hear what happens: /v1/events (server-sent events) and /v1/event-log (pages).

Both tell the same events, of the messages within the caller's scope and no others. The stream
begins now, or after the cursor that the browser's EventSource sends back as Last-Event-ID. It
ends when the client is revoked or its scope changes, when the gateway is about to stop, and
when nobody reads; whoever comes again with the last id misses nothing.
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import get_args

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.backends.rest.documents import EventLog, EventLogQuery, EventsQuery, EventType
from gateway.backends.rest.payloads import Stream
from gateway.backends.rest.problems import Place, Refused
from gateway.backends.rest.request import Request, answer
from gateway.plugin import GatewayError

#: Seconds in which a revoked token is noticed [threats L07].
RECHECK = 4.0
#: Milliseconds after which a client comes again.
COME_AGAIN = 2000
KNOWN = frozenset(get_args(EventType))


class _Events(Stream):
    """A stream that takes one of the client's places while it lasts."""

    def __init__(self, request: Request, blocks: AsyncIterator[bytes]) -> None:
        super().__init__(blocks, 200, {"X-Accel-Buffering": "no"}, "text/event-stream")
        self._slot = request.streams.slot(request.caller.id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            await super().__call__(scope, receive, send)


async def stream(request: Request) -> Response:
    """GET /v1/events"""
    asked = request.query(EventsQuery)
    after, types = request.single("last-event-id") or asked.after, _types(asked.types)
    if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise Refused("invalid-parameter", errors=(Place("#", "Last-Event-ID is none of ours"),))
    if request.method == "HEAD":
        return Response(b"", 200, media_type="text/event-stream")
    return _Events(request, _blocks(request, after, types))


async def page(request: Request) -> Response:
    """GET /v1/event-log"""
    asked = request.query(EventLogQuery)
    events, after, more = await request.msh.event_log(
        request.caller, after=asked.after, types=_types(asked.types), limit=asked.limit
    )
    return answer(EventLog(events=events, after=after, more=more))


async def _blocks(request: Request, after: str | None, types: tuple[str, ...]) -> AsyncIterator[bytes]:
    yield f"retry: {COME_AGAIN}\n\n".encode()
    last, checked = after, time.monotonic()
    async with aclosing(request.msh.follow(request.caller, after=after, types=types)) as events:
        async for cursor, event in events:
            if time.monotonic() - checked > RECHECK:
                if not await _still(request):
                    return
                checked = time.monotonic()
            if event is not None:
                data = msgspec.json.encode(event).decode()
                yield f"id: {cursor}\nevent: {event.type}\ndata: {data}\n\n".encode()
            elif cursor != last:
                # No event, but there is nothing more before this place: whoever comes again goes on from here.
                yield f"id: {cursor}\n: nothing new\n\n".encode()
            else:
                yield b": nothing new\n\n"
            last = cursor


async def _still(request: Request) -> bool:
    """Whether the caller would still be let in, as the same and with the same scope."""
    try:
        return await request.again() == request.caller
    except GatewayError:
        return False


def _types(text: str | None) -> tuple[str, ...]:
    types = tuple(dict.fromkeys(text.split(","))) if text else ()
    unknown = [kind for kind in types if kind not in KNOWN]
    if unknown:
        place = Place("#/types", f"there are no such events: {', '.join(unknown)[:200]}")
        raise Refused("invalid-parameter", errors=(place,))
    return types
