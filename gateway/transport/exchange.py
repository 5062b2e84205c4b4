"""One exchange with a partner: its phases, their deadlines, and what is recorded of them.

The phases are stages of the message: connect (name, TCP, TLS), send (the body), receipt
(waiting for the answer). One deadline moves along with them.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
from msgspec import Struct
from yarl import URL

from gateway import stages
from gateway.errors import SendFailed, SubmissionRefused
from gateway.stages import point
from gateway.transport.failures import explain

#: A receipt has some 10 kB; the limit of the envelope we accept elsewhere [threats 1.5].
ANSWER_BYTES = 1 << 20


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds. `idle` is the longest pause within the body, `answer` from its end to the answer's.

    240 s: what Domibus and others wait for a receipt is 60 to 240 s; ours are the longest.
    """

    connect: float = 30.0
    idle: float = 240.0
    answer: float = 240.0
    #: Bytes a second; a body that is slower on average is given up.
    rate: float = 8000.0


class Answer(NamedTuple):
    """What a partner answered. Header names are in lower case; of a repeated one the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: Seconds: dns, connect (TCP and TLS), send, wait. Without dns and connect on a reused connection.
    timings: dict[str, float]
    #: The TLS version and cipher suite of the connection, None without TLS.
    tls: str | None = None


class Response(aiohttp.ClientResponse):
    """An answer that knows with which TLS it came: at its end the connection may be gone already."""

    tls: str | None = None

    async def start(self, connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        if transport is not None and (tls := transport.get_extra_info("ssl_object")) is not None:
            self.tls = f"{tls.version()} {tls.cipher()[0]}"
        return await super().start(connection)


class Exchange:
    """One POST: its phases, their deadlines, and what is recorded of them."""

    def __init__(self, host: str, length: int, timeouts: Timeouts) -> None:
        self._host, self._length, self._timeouts = host, length, timeouts
        self._began, self._wall = time.perf_counter(), time.time()
        self._marks: dict[str, float] = {}
        self._phase = "connect"
        self._phases: list[tuple[str, float, float, str | None]] = []
        self._phase_began = self._began
        self._limit: asyncio.Timeout | None = None
        self._failure: Exception | None = None
        self._complete = False

    async def run(
        self, session: aiohttp.ClientSession, url: URL, headers: dict[str, str], body: AsyncIterator[bytes]
    ) -> Answer:
        point("OB08")
        try:
            async with asyncio.timeout(self._timeouts.connect) as self._limit:
                async with session.post(
                    url, data=self._watched(body), headers=headers, allow_redirects=False, trace_request_ctx=self
                ) as response:
                    answer = await self._answer(response)
                    if not self._complete:
                        response.close()  # answered before it had everything: that is its last word
            self._enter("done")
            return answer
        except BaseException as error:
            self._close_phase(type(self._failure or error).__name__)
            if self._failure is not None and isinstance(error, aiohttp.ClientError | OSError):
                raise self._failure from None
            if isinstance(error, TimeoutError):
                raise SendFailed(self._too_slow(), stage=self._phase) from None
            if isinstance(error, SubmissionRefused):  # by the resolver
                raise SendFailed(str(error), stage="connect") from None
            if isinstance(error, aiohttp.ClientError | OSError):
                raise SendFailed(explain(self._host, error), stage=self._phase) from None
            raise
        finally:
            if hasattr(body, "aclose"):
                with contextlib.suppress(RuntimeError):
                    await body.aclose()

    async def _answer(self, response: Response) -> Answer:
        if self._complete:
            self._enter("receipt")  # it may be quicker than our own loop
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise SendFailed(f"{self._host}: the answer is compressed although we did not offer that", stage="receipt")
        octets = await read(response, ANSWER_BYTES)
        if len(octets) > ANSWER_BYTES:
            raise SendFailed(f"{self._host}: the answer is larger than {ANSWER_BYTES >> 20} MiB", stage="receipt")
        self._marks["answered"] = time.perf_counter()
        return Answer(response.status, lower(response.headers), octets, self._timings(), response.tls)

    async def _watched(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body as it is, each block moving the deadline."""
        sent = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeouts.idle + self._length / self._timeouts.rate
        try:
            async for block in body:
                if sent + len(block) > self._length:
                    raise ValueError(f"the body is longer than the {self._length} bytes announced")
                if not block:
                    continue
                self._deadline(min(loop.time() + self._timeouts.idle, end))
                first, sent = not sent, sent + len(block)
                self._complete = sent == self._length
                yield block
                if first:
                    point("OB09")
            if sent != self._length:
                raise ValueError(f"the body has {sent} bytes, announced were {self._length}")
        except Exception as error:
            self._failure = error
            raise
        self._complete = True
        self._enter("receipt")
        self._deadline(loop.time() + self._timeouts.answer)
        # Two turns of the loop from here it has handed to the kernel what the partner's window admits.
        # Not waited for in this place, where aiohttp would take us for a body that still goes on.
        loop.call_soon(loop.call_soon, self._sent)

    def _sent(self) -> None:
        try:
            point("OB10")
        except Exception as struck:  # by a test: end the exchange with it
            self._failure = struck
            self._deadline(asyncio.get_running_loop().time())

    def _deadline(self, when: float | None) -> None:
        with contextlib.suppress(RuntimeError):  # it is over already
            self._limit.reschedule(when)

    # -- phases ---------------------------------------------------------------------

    def connected(self) -> None:
        """A connection is there, new or reused."""
        self.mark("connected")
        self._enter("send")
        self._deadline(asyncio.get_running_loop().time() + self._timeouts.idle)

    def mark(self, name: str) -> None:
        self._marks[name] = time.perf_counter()

    def _enter(self, phase: str) -> None:
        if self._phase not in (phase, "done"):
            self._close_phase(None)
            self._phase = phase

    def _close_phase(self, error: str | None) -> None:
        now = time.perf_counter()
        self._phases.append((self._phase, self._phase_began, now - self._phase_began, error))
        self._phase_began = now

    def tell(self) -> None:
        """Record what was measured, in the task of the message."""
        for phase, began, seconds, error in self._phases:
            if phase in stages.STAGES:
                stages.record(phase, self._wall + began - self._began, seconds, error)

    def _timings(self) -> dict[str, float]:
        marks, timings = self._marks, {}
        if "dns_start" in marks and "dns_end" in marks:
            timings["dns"] = marks["dns_end"] - marks["dns_start"]
        if "connect_start" in marks and "connected" in marks:
            timings["connect"] = marks["connected"] - marks["connect_start"] - timings.get("dns", 0.0)
        for phase, _, seconds, _ in self._phases:
            if phase == "send":
                timings["send"] = seconds
        timings["wait"] = marks["answered"] - self._phase_began
        return timings

    def _too_slow(self) -> str:
        limits = self._timeouts
        return {
            "connect": f"{self._host}: no connection within {limits.connect:g} s; a firewall may drop the packets",
            "send": f"{self._host}: it takes the message too slowly, or not at all",
        }.get(self._phase, f"{self._host}: the message is sent, but no answer came within {limits.answer:g} s")


def tracing() -> aiohttp.TraceConfig:
    """Marks in the exchange that is handed along with the request (webhooks hand none)."""

    def marks(name: str):
        async def on(_session, context, _params) -> None:
            if isinstance(exchange := context.trace_request_ctx, Exchange):
                exchange.mark(name)

        return on

    async def connected(_session, context, _params) -> None:
        if isinstance(exchange := context.trace_request_ctx, Exchange):
            exchange.connected()

    config = aiohttp.TraceConfig()
    config.on_dns_resolvehost_start.append(marks("dns_start"))
    config.on_dns_resolvehost_end.append(marks("dns_end"))
    config.on_connection_create_start.append(marks("connect_start"))
    config.on_connection_create_end.append(connected)
    config.on_connection_reuseconn.append(connected)
    return config


async def read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or a little more than `most` bytes of it; the rest is not read and the connection not kept."""
    octets = bytearray()
    async for block in response.content.iter_any():
        octets += block
        if len(octets) > most:
            response.close()
            break
    return bytes(octets)


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
