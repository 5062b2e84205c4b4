"""Read a request body, pulled block by block, with a deadline that a drip cannot beat.

Nothing is read before somebody asks for a block, so the sender is held back for as long as
the reader is busy. Only the time spent waiting for the sender counts against it: a slow
database does not cost a producer its upload.
"""

import asyncio
import time

from starlette.types import Receive

from gateway.backends.rest.limits import DRAIN_BYTES, DRAIN_SECONDS, RestOptions
from gateway.backends.rest.problems import Disconnected, Refused


class Body:
    """The body of one request; `complete` once its last byte has been handed out."""

    def __init__(self, receive: Receive, options: RestOptions) -> None:
        self._receive, self._options = receive, options
        self._waited, self._received = 0.0, 0
        self.complete = False

    async def block(self) -> bytes | None:
        """The next bytes, never empty; None at the end. Raises `Refused`, `Disconnected`."""
        while not self.complete:
            message = await self._next()
            if message["type"] == "http.disconnect":
                raise Disconnected("in the middle of the request body")
            self.complete = not message.get("more_body", False)
            block: bytes = message.get("body", b"")
            self._received += len(block)
            if block:
                return block
        return None

    async def _next(self) -> dict:
        allowed = self._options.grace + self._received / self._options.rate - self._waited
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(allowed, 0.0)):
                return await self._receive()
        except TimeoutError:
            raise Refused("body-too-slow") from None
        finally:
            self._waited += time.monotonic() - began

    async def whole(self, limit: int) -> bytes:
        """The body in memory. Raises `Refused` for more than `limit` bytes."""
        octets = bytearray()
        while (block := await self.block()) is not None:
            octets += block
            if len(octets) > limit:
                raise Refused("body-too-large")
        return bytes(octets)

    async def drain(self) -> None:
        """Read and drop what is left, within the limits of `limits.py`. Raises nothing of ours."""
        left = DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and (block := await self.block()) is not None:
                    left -= len(block)
        except (TimeoutError, Refused, Disconnected):
            pass
