"""Chunk rows: large payloads, written in an open transaction and read back one by one."""

from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

from gateway.errors import StoreUnavailable
from gateway.stages import point
from gateway.store.api import NewPart, Viewer
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("message")


class ChunkWriter:
    """The chunks of one message, in the transaction that is to store it."""

    def __init__(self, id: UUID, transaction: Transaction) -> None:
        self._id, self._transaction = id, transaction
        self._written: Counter[int] = Counter()

    async def chunk(self, part: int, number: int, sealed: bytes) -> None:
        """Write chunk `number` of part `part`, both counted from 0."""
        await self._transaction.row(Q["put_chunk"], self._id, part, number, sealed)
        self._written[part] += 1
        point("IB17")

    def _check(self, id: UUID, parts: tuple[NewPart, ...]) -> None:
        """The parts promise exactly the chunks that were written; anything else is a mistake of ours."""
        promised = Counter({part.number: part.chunks for part in parts if part.chunks})
        if id != self._id or promised != self._written:
            raise StoreUnavailable("the chunks that were written are not those of the message")


class Payloads(Room):
    """Reading payloads."""

    async def chunks(
        self, message: UUID, part: int, *, first: int = 0, viewer: Viewer | None = None
    ) -> AsyncIterator[bytes]:
        """The sealed chunks of a part, in order, from number `first` to the last there is.

        Each is a statement of its own: a slow reader holds no connection.
        """
        number = first
        while (row := await self._row(viewer, Q["chunk"], message, part, number)) is not None:
            yield row["content"]
            number += 1
