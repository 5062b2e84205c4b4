"""One exchange whose answer is a message: it is handed on block by block, never held.

A PullRequest is small and its answer may be a gigabyte [as4 4.6]. The phases of the request
are those of `exchange`; from the head of the answer on, only the time spent waiting for the
partner counts, so that a slow disk of ours is not taken for a slow partner.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp

from gateway.errors import SendFailed
from gateway.transport.exchange import Exchange, Timeouts, lower


class Incoming(NamedTuple):
    """An answer that is arriving. Header names are in lower case; `blocks` can be read once."""

    status: int
    headers: dict[str, str]
    blocks: AsyncIterator[bytes]


#: Takes an answer; what it returns or raises is the caller's.
Take = Callable[[Incoming], Awaitable[Any]]


class Fetch(Exchange):
    """An exchange that gives its answer to `take`; at most `most` octets of it."""

    def __init__(self, host: str, length: int, timeouts: Timeouts, *, take: Take, most: int) -> None:
        super().__init__(host, length, timeouts)
        self._take, self._most = take, most
        self.taken: Any = None
        self.refusal: Exception | None = None

    async def _answer(self, response: aiohttp.ClientResponse) -> None:
        if self._complete:
            self._enter("receipt")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise SendFailed(f"{self._host}: the answer is compressed although we did not offer that", stage="receipt")
        self._deadline(None)
        try:
            self.taken = await self._take(Incoming(response.status, lower(response.headers), self._blocks(response)))
        except SendFailed:
            raise
        except Exception as error:
            # Not the connection's fault, though it may be an OSError: kept apart from what `run` explains.
            self.refusal = error
        if not response.content.at_eof():
            response.close()  # what is left of it is not worth reading

    async def _blocks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        received, waited = 0, 0.0
        while True:
            limits = self._timeouts
            allowed = min(limits.idle, limits.idle + received / limits.rate - waited)
            began = loop.time()
            try:
                async with asyncio.timeout(max(allowed, 0.0)):
                    block = await response.content.readany()
            except TimeoutError:
                said = f"{self._host}: it gives the message too slowly, or not at all"
                raise SendFailed(said, stage="read") from None
            except (aiohttp.ClientError, OSError) as error:
                raise SendFailed(f"{self._host}: the answer broke off: {type(error).__name__}", stage="read") from None
            waited += loop.time() - began
            if not block:
                return
            received += len(block)
            if received > self._most:
                raise SendFailed(f"{self._host}: the answer is larger than {self._most} bytes", stage="read")
            yield block
