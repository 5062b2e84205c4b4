"""The payloads of a submission, frozen: compressed once, hashed, and sealed for the store.

After this the octets of a part never change: every attempt sends and signs the same ones. A dry run goes the
same way with nothing sealed and nothing kept.
"""

import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from gateway.as4 import ns
from gateway.as4.compression import Deflater, should_compress
from gateway.as4.pmode import Leg
from gateway.as4.units import PartInfo, Property, UserMessage
from gateway.errors import TooLarge
from gateway.msh.advice import Leading
from gateway.msh.payloads import PayloadSealer
from gateway.msh.rooms import INLINE_WORK, Rooms
from gateway.plugin import Content, PartSubmission, Submission
from gateway.store.api import NewPart

#: (part, number of the chunk, sealed octets).
Piece = tuple[int, int, bytes]


async def frozen(
    rooms: Rooms,
    wanted: Submission,
    message: UserMessage,
    leg: Leg,
    content: Content,
    *,
    seal: tuple[bytes, UUID] | None,
    leading: Leading | None = None,
) -> AsyncIterator[Piece | NewPart]:
    """Read every payload once, in order: the sealed chunks of a part that fits no row, then the part.

    `seal` is the message's key and row id; None: nothing is sealed. `leading` gets to see the first
    payload. Raises `TooLarge`, and what `content` raises.
    """
    total, most = 0, min(leg.max_message, rooms.config.limits.message)
    for number, part in enumerate(wanted.parts):
        sealer = PayloadSealer(*seal, number) if seal is not None else None
        freezer = Freezer(number, part, message.parts[number], leg, sealer, rooms.config.limits.part)
        async for block in content(number):
            total += len(block)
            if total > most:
                raise TooLarge("the message is larger than the agreement allows")
            if number == 0 and leading is not None:
                leading.keep(block)
            pieces = (
                freezer.write(block) if len(block) <= INLINE_WORK else await rooms.cpu.run(freezer.write, block)
            )
            for piece in pieces:
                yield number, *piece
        made, pieces = freezer.finish()
        for piece in pieces:
            yield number, *piece
        yield made


class Freezer:
    """Compress, hash and seal the content of one part, block by block."""

    def __init__(
        self, number: int, wanted: PartSubmission, info: PartInfo, leg: Leg, sealer: PayloadSealer | None, limit: int
    ) -> None:
        self._number, self._info, self._mime_type = number, info, wanted.mime_type
        compress = leg.compress and should_compress(wanted.mime_type) if wanted.compress is None else wanted.compress
        self._deflater = Deflater() if compress else None
        self._limit = min(limit, leg.max_part)
        self._size = self._wire_size = 0
        self._content, self._wire = hashlib.sha256(), hashlib.sha256()
        self._sealer = sealer

    def write(self, block: bytes) -> list[tuple[int, bytes]]:
        """Take a block; the sealed chunks that became full. Raises `TooLarge`."""
        self._size += len(block)
        if self._size > self._limit:
            raise TooLarge(f"part {self._number + 1} is larger than the agreement allows ({self._limit} bytes)")
        self._content.update(block)
        return self._keep(self._deflater.feed(block) if self._deflater else block)

    def _keep(self, octets: bytes) -> list[tuple[int, bytes]]:
        self._wire_size += len(octets)
        self._wire.update(octets)
        return self._sealer.write(octets) if self._sealer is not None else []

    def finish(self) -> tuple[NewPart, list[tuple[int, bytes]]]:
        """The part with its final properties, and the last chunks."""
        pieces = self._keep(self._deflater.finish()) if self._deflater else []
        inline, rest = self._sealer.finish() if self._sealer is not None else (None, [])
        properties = [*self._info.properties, Property(ns.MIME_TYPE, self._mime_type)]
        if self._deflater:
            properties.append(Property(ns.COMPRESSION_TYPE, ns.GZIP))
        info = msgspec.structs.replace(self._info, properties=tuple(properties))
        part = NewPart(
            number=self._number,
            info=info,
            cid=info.cid,
            mime_type=self._mime_type,
            size=self._size,
            sha256=self._content.digest(),
            compressed=self._deflater is not None,
            wire_size=self._wire_size,
            wire_digest=self._wire.digest(),
            inline=inline,
            chunks=self._sealer.count if self._sealer is not None else 0,
        )
        return part, [*pieces, *rest]
