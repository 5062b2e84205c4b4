"""From spooled parts to content that is proven and sealed, and the digests that tell messages apart.

One pass over every part: decrypt, hash, inflate, seal. Small messages are made in the thread of
the loop, large ones block by block in another, their chunks going into an open transaction.
"""

import hashlib
from collections.abc import Iterator
from uuid import UUID

import msgspec

from gateway.as4.inbound import Opened, PartLimits, PartProver, ProvenPart
from gateway.as4.units import Reference, UserMessage
from gateway.msh.advice import Leading
from gateway.msh.payloads import PayloadSealer
from gateway.msh.spool import Spool
from gateway.stages import stage
from gateway.store.api import NewPart, Receiving


class Prover:
    """The parts of one message. Nothing it made is visible before the end."""

    def __init__(
        self, opened: Opened, content_key: bytes | None, spool: Spool, limits: PartLimits, message: int,
        key: bytes, id: UUID, leading: Leading | None,
    ) -> None:  # fmt: skip
        self._opened, self._content_key, self._spool = opened, content_key, spool
        self._limits, self._message = limits, message
        self._key, self._id, self._leading = key, id, leading
        self._order = [info.cid for info in opened.unit.parts]

    def run_small(self) -> tuple[tuple[NewPart, ...], tuple[ProvenPart, ...]] | None:
        """All parts inline, in this thread. None when a part turns out too large for its row."""
        made, proven = [], []
        for number, cid in enumerate(self._order):
            prover = self._prover(cid, proven)
            sealer = PayloadSealer(self._key, self._id, number)
            with stage("decrypt"):
                for plain in self._plain(prover, cid):
                    if sealer.write(plain):
                        return None
            inline, rest = sealer.finish()
            if rest:
                return None
            proven.append(prover.proven)
            made.append(_new_part(number, prover.proven, inline, 0))
        return tuple(made), tuple(proven)

    async def run_large(self, receiving: Receiving, cpu) -> tuple[tuple[NewPart, ...], tuple[ProvenPart, ...]]:
        """Block by block in a thread; sealed chunks go into the open transaction."""
        made, proven = [], []
        for number, cid in enumerate(self._order):
            prover = self._prover(cid, proven)
            sealer = PayloadSealer(self._key, self._id, number)
            work = self._pieces(prover, sealer, cid)
            with stage("decrypt"):
                while (piece := await cpu.run(next, work, None)) is not None:
                    await receiving.chunk(number, *piece)
            inline, rest = sealer.finish()
            for piece in rest:
                await receiving.chunk(number, *piece)
            proven.append(prover.proven)
            made.append(_new_part(number, prover.proven, inline, sealer.count))
        return tuple(made), tuple(proven)

    def _prover(self, cid: str, before: list[ProvenPart]) -> PartProver:
        """For the next part: what is left of the message bounds it, too, so that many parts are no way round."""
        left = max(0, self._message - sum(part.size for part in before))
        limits = msgspec.structs.replace(self._limits, content=min(self._limits.content, left))
        return PartProver(self._opened, cid, self._content_key, limits)

    def _pieces(self, prover: PartProver, sealer: PayloadSealer, cid: str) -> Iterator[tuple[int, bytes]]:
        for plain in self._plain(prover, cid):
            yield from sealer.write(plain)

    def _plain(self, prover: PartProver, cid: str) -> Iterator[bytes]:
        """The content of a part, as it becomes readable. Of the first one the adviser keeps some."""
        leading = self._leading if cid == self._order[0] else None
        if leading is not None:
            leading.begin()
        for block in self._spool.read(cid):
            for plain in prover.feed(block):
                if leading is not None:
                    leading.keep(plain)
                yield plain
        for plain in prover.finish():
            if leading is not None:
                leading.keep(plain)
            yield plain


def _new_part(number: int, part: ProvenPart, inline: bytes | None, chunks: int) -> NewPart:
    return NewPart(
        number=number,
        info=part.info,
        cid=part.cid,
        mime_type=part.mime_type,
        size=part.size,
        sha256=part.sha256,
        compressed=part.compressed,
        wire_size=part.wire_size,
        wire_digest=part.wire_digest,
        inline=inline,
        chunks=chunks,
    )


def fingerprint(message: UserMessage, parts: tuple[ProvenPart, ...]) -> bytes:
    """SHA-256 of what the message says: its header and the content of its parts.

    When it says it was made is left out: phase4 stamps a message anew each time it secures it [as4 4.2].
    """
    digest = hashlib.sha256(msgspec.msgpack.encode(msgspec.structs.replace(message, timestamp=None)))
    for part in parts:
        digest.update(part.cid.encode() + b"\0" + part.sha256)
    return digest.digest()


def references_digest(references: tuple[Reference, ...]) -> bytes:
    """SHA-256 of what was signed: every reference with its digest, in order."""
    digest = hashlib.sha256()
    for reference in references:
        digest.update(msgspec.msgpack.encode((reference.uri, reference.digest_method, reference.digest)))
    return digest.digest()

