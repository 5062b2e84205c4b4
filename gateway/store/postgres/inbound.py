"""Receiving: at most one stored message for a (tenant, sender, MessageId), whole or not at all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from gateway.errors import StoreUnavailable
from gateway.stages import point
from gateway.store.api import NewInbound, Received
from gateway.store.postgres import rows
from gateway.store.postgres.payloads import ChunkWriter
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("inbound")
#: A message that is known is found; it is not found only if it vanished in between, and nothing
#: deletes messages.
TRIES = 3


class Inbound(Room):
    """The verbs of `api.Store` for inbound messages."""

    async def receive_once(self, message: NewInbound) -> Received:
        """One statement and one round trip for a message that is new."""
        if any(part.chunks for part in message.parts):
            raise StoreUnavailable("chunks are written by `receiving`")
        for _ in range(TRIES):
            point("IB15")
            point("IB16")
            point("IB21")
            row = await self._pool.write(Q["receive"], *rows.inbound_columns(message))
            point("IB23")
            if row is not None:
                self._assured(row)
                self._bell.ring()
                return Received("stored", message.id, message.receipt)
            if (received := await self._duplicate(message)) is not None:
                return received
        raise StoreUnavailable("a known message cannot be found")

    @asynccontextmanager
    async def receiving(self, id: UUID) -> AsyncIterator["Receiving"]:
        async with self._pool.transaction(streaming=True) as transaction:
            point("IB15")
            yield Receiving(id, transaction, self)

    async def _duplicate(self, message: NewInbound) -> Received | None:
        """What is stored already, after the barrier write; None if nothing is."""
        row = await self._pool.write(
            Q["duplicate"], message.tenant, message.sender, message.user_message.message_id, message.fingerprint,
            message.references,
        )  # fmt: skip
        if row is None:
            return None
        if not row["same"]:
            return Received("conflict", row["id"], b"", False)
        self._assured(row)
        return Received("duplicate", row["id"], row["receipt"], row["same_references"])


class Receiving(ChunkWriter):
    """`api.Receiving`."""

    def __init__(self, id: UUID, transaction: Transaction, store: Inbound) -> None:
        super().__init__(id, transaction)
        self._store = store

    async def accept(self, message: NewInbound) -> Received:
        self._check(message.id, message.parts)
        point("IB16")
        row = await self._transaction.row(Q["receive"], *rows.inbound_columns(message))
        if row is None:
            await self._transaction.rollback()  # the chunks go
            received = await self._store._duplicate(message)
            if received is None:
                raise StoreUnavailable("a known message cannot be found")
            return received
        self._store._assured(row)
        point("IB21")
        await self._transaction.commit()
        point("IB23")
        self._store._bell.ring()
        return Received("stored", message.id, message.receipt)
