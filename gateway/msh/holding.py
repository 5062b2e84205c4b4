"""Content of a producer that comes in another order than the message needs it.

A SOAP envelope may name its payloads in any order, and with attachments they follow it. So
they wait here, sealed under a key that exists only in this object: what reaches the disk is
ciphertext in an unlinked file, and with the object the key is gone.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from gateway.errors import TooLarge
from gateway.keys.sealing import TAG_SIZE, new_message_key, open_chunk, seal_chunk
from gateway.msh.spool import Spool, SpoolRoom

CHUNK = 256 << 10
#: The key is made for one holding, so its contents need no other name than their place.
_ID = "held"


class Holding(AbstractAsyncContextManager):
    """`plugin.Held`. `limit` bounds the bytes of all contents together."""

    def __init__(self, room: SpoolRoom, owner: str, *, limit: int, entropy: Callable[[int], bytes]) -> None:
        self._spool, self._limit = Spool(room, owner), limit
        self._key = new_message_key(entropy)
        self._names: dict[str, int] = {}
        self._open: str | None = None
        self._held = bytearray()
        self._number = self._size = 0

    async def __aenter__(self) -> "Holding":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._spool.__exit__(*exc)
        self._held, self._key = bytearray(), b""

    async def write(self, name: str, block: bytes) -> None:
        if name != self._open:
            self._close()
            if name in self._names:
                raise ValueError("a name that was closed before")
            self._names[name] = len(self._names)
            self._open, self._number = name, 0
            self._spool.begin(name)
        self._size += len(block)
        if self._size > self._limit:
            raise TooLarge(f"the payloads are larger than {self._limit} bytes")
        self._held += block
        while len(self._held) >= CHUNK:
            self._seal(CHUNK)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        self._close()
        self._spool.seal()
        if name not in self._names:
            return
        part, sealed_size = self._names[name], CHUNK + TAG_SIZE
        held, number = bytearray(), 0
        for block in self._spool.read(name):
            held += block
            while len(held) >= sealed_size:
                yield self._opened(part, number, bytes(held[:sealed_size]))
                del held[:sealed_size]
                number += 1
        if held:
            yield self._opened(part, number, bytes(held))

    def _close(self) -> None:
        if self._held:
            self._seal(len(self._held))
        self._open = None

    def _seal(self, size: int) -> None:
        octets = bytes(self._held[:size])
        del self._held[:size]
        if self._spool.write(seal_chunk(self._key, _ID, self._names[self._open], self._number, octets)):
            self._spool.flush()
        self._number += 1

    def _opened(self, part: int, number: int, sealed: bytes) -> bytes:
        return open_chunk(self._key, _ID, part, number, sealed)

