"""Sealing payload content into the shape the store keeps, and opening it again.

A payload of up to 64 KiB sits sealed in its part row; a larger one becomes chunk rows of
512 KiB. Every piece is sealed under the message's own key and bound to its message, part
and number, so that rows cannot change places unnoticed [threats M06].
"""

from collections.abc import AsyncIterator
from uuid import UUID

from gateway.errors import NotFound
from gateway.keys.sealing import KeyEncryptionKey, open_chunk, seal_chunk
from gateway.stages import point
from gateway.store.api import Message, Part, Store, Viewer

INLINE = 64 << 10
CHUNK = 512 << 10  # 256 KiB-1 MiB a row is best [stack 6.5]


class PayloadSealer:
    """Cut the content of one part into sealed pieces. `write` returns those that are full."""

    def __init__(self, key: bytes, message: UUID, part: int) -> None:
        self._key, self._message, self._part = key, str(message), part
        self._held = bytearray()
        self.count = 0

    def write(self, block: bytes) -> list[tuple[int, bytes]]:
        """(number, sealed) for every chunk that became full."""
        self._held += block
        return [self._seal(CHUNK) for _ in range(len(self._held) // CHUNK)]

    def finish(self) -> tuple[bytes | None, list[tuple[int, bytes]]]:
        """The inline content if the payload was small, else None; and the last chunk."""
        if self.count == 0 and len(self._held) <= INLINE:
            return seal_chunk(self._key, self._message, self._part, 0, bytes(self._held)), []
        return None, [self._seal(CHUNK)] if self._held else []

    def _seal(self, size: int) -> tuple[int, bytes]:
        octets = bytes(self._held[:size])
        del self._held[:size]
        number = self.count
        self.count += 1
        return number, seal_chunk(self._key, self._message, self._part, number, octets)


async def content(
    store: Store, kek: KeyEncryptionKey, message: Message, part: Part, *, start: int = 0,
    viewer: Viewer | None = None,
) -> AsyncIterator[bytes]:  # fmt: skip
    """The stored octets of a part from byte `start`. Raises `NotFound` when they were purged."""
    if message.wrapped_key is None:
        raise NotFound("the payload has been erased")
    key = kek.unwrap(message.wrapped_key, str(message.id))
    if part.inline is not None:
        octets = open_chunk(key, str(message.id), part.number, 0, part.inline)
        if start < len(octets):
            yield octets[start:]
        return
    number, skip = divmod(start, CHUNK)
    async for sealed in store.chunks(message.id, part.number, first=number, viewer=viewer):
        octets = open_chunk(key, str(message.id), part.number, number, sealed)
        number += 1
        yield octets[skip:] if skip else octets
        skip = 0
        point("DL02")
    if number != part.chunks:
        raise NotFound("the payload has been erased")
