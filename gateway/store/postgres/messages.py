"""Reading messages, attempts and events; erasing what is no longer to be kept."""

from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.as4.units import UserMessage
from gateway.stages import point
from gateway.store.api import Attempt, Conversation, Direction, Message, MessageFilter, Numbers, Told, Viewer
from gateway.store.postgres import rows
from gateway.store.postgres.audit import note
from gateway.store.postgres.keeping import not_held
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("message")
QP = load("pull")

#: States that only one direction has. It need not be asked for, but there is an index for it.
DIRECTION_OF = {
    "RECEIVED": "inbound", "DELIVERED": "inbound", "SUBMITTED": "outbound", "WAITING_FOR_RETRY": "outbound",
    "READY_TO_PULL": "outbound", "WAITING_FOR_RECEIPT": "outbound",
}  # fmt: skip
#: A prefix shorter than this is no search, it is a guess.
PREFIX = 8
#: No text that begins with a prefix comes after the prefix and this.
LAST = "\U0010ffff"
#: Chunk rows erased in one transaction: half a gigabyte, which takes a second or two.
BATCH_CHUNKS = 1000
BATCH_DEADLINE = 60.0


class Messages(Room):
    """The verbs of `api.Store` for reading and retention."""

    async def message(self, id: UUID, *, viewer: Viewer | None = None) -> Message | None:
        row = await self._row(viewer, Q["message"], id)
        return None if row is None else rows.message(row)

    async def find(
        self, message_id: str, *, direction: Direction | None = None, viewer: Viewer | None = None
    ) -> list[Message]:
        if not rows.storable(message_id):
            return []
        beyond = message_id + LAST if len(message_id) >= PREFIX else message_id
        found = await self._rows(viewer, Q["find"], message_id, beyond, *id_range(message_id), direction)
        messages = [await self.message(row["id"], viewer=viewer) for row in found]
        return [message for message in messages if message is not None]

    async def messages(self, wanted: MessageFilter, *, viewer: Viewer | None = None) -> list[Message]:
        direction = wanted.direction or DIRECTION_OF.get(wanted.state)
        texts = (wanted.backend, direction, wanted.state, wanted.conversation_id, wanted.message_id,
                 wanted.action, wanted.partner)  # fmt: skip
        more = (wanted.service, wanted.original_sender, wanted.final_recipient)
        if not rows.storable(*texts, *more):
            return []
        after = wanted.after or (None, None)
        found = await self._rows(
            viewer, Q["messages"], *texts, *after, wanted.limit, *more, wanted.since, wanted.until, wanted.upwards,
            planned=True,
        )  # fmt: skip
        return [rows.message(row) for row in found]

    async def conversations(
        self, *, viewer: Viewer, after: tuple[datetime, UUID] | None = None, limit: int = 50
    ) -> list[Conversation]:
        found = await self._rows(viewer, Q["conversations"], *(after or (None, None)), limit)
        return [Conversation(**dict(row.items())) for row in found]

    async def asked(
        self, request_id: str, *, direction: Direction, tenant: str, partner: str
    ) -> list[UserMessage]:
        if not rows.storable(request_id):
            return []
        found = await self._pool.rows(Q["asked"], request_id, direction, tenant, partner)
        return [rows.header(row["header"]) for row in found]

    async def attempts(self, message: UUID, *, viewer: Viewer | None = None) -> list[Attempt]:
        return [rows.attempt(row) for row in await self._rows(viewer, Q["attempts"], message)]

    async def events(
        self, *, viewer: Viewer | None = None, message: UUID | None = None, after: int = 0, limit: int = 100
    ) -> list[tuple[int, datetime, str, UUID | None, dict[str, Any]]]:
        if message is not None:
            found = await self._rows(viewer, Q["events_of_message"], message, after, limit)
        else:
            found = await self._rows(viewer, Q["events"], after, limit)
        return [rows.event(row) for row in found]

    async def event_numbers(self, after: int | None, *, limit: int = 10_000) -> Numbers:
        row = await self._pool.row(Q["event_numbers"], after, limit)
        return Numbers(row["after"], tuple(row["numbers"]), row["oldest"], row["next"])

    async def told(
        self, *, viewer: Viewer, after: int, upto: int, types: tuple[str, ...] = (), limit: int = 100
    ) -> list[Told]:
        found = await self._rows(viewer, Q["told"], after, upto, list(types), limit)
        return [rows.told(row) for row in found]

    async def purge(self, *, delivered_before: float, settled_before: float, limit: int = 100) -> int:
        erased = 0
        while erased < limit:
            done = await self._purge(delivered_before, settled_before, limit - erased)
            if not done:
                break
            erased += done
        await self._pool.write(Q["erase_duplicates"], limit)
        await self._pool.write(QP["erase_requests"], 10 * limit)
        return erased

    async def _purge(self, delivered_before: float, settled_before: float, limit: int) -> int:
        """One bounded batch in one transaction."""
        async with self._pool.transaction(deadline=BATCH_DEADLINE) as t:
            found = await t.rows(Q["expired"], delivered_before, settled_before, limit, BATCH_CHUNKS)
            ids = [row["id"] for row in await not_held(t, found)]
            if not ids:
                return 0
            await t.row(Q["erase"], ids)
            point("MT01")
            for statement in ("erase_inline", "erase_chunks", "erase_jobs", "erase_keys"):
                await t.row(Q[statement], ids)
            await note(t, "messages.payloads_erased", "retention", ids)
            await t.commit()
        return len(ids)


def id_range(prefix: str) -> tuple[UUID | None, UUID | None]:
    """The lowest and highest id whose text begins with `prefix`; none if it cannot be one or is too short."""
    digits = prefix.replace("-", "").lower()
    if len(prefix) < PREFIX or len(digits) > 32 or not set(digits) <= set("0123456789abcdef"):
        return None, None
    low, high = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    return (low, high) if str(low).startswith(prefix.lower()) else (None, None)
