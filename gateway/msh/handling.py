"""The verbs of `plugin.Msh` beside submitting and the inbox: what a backend asks about a message and has
done with it, conversations, events, partners, uploads. `Door` is made of them.
"""

import base64
import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway import log
from gateway.errors import NotPossible, SubmissionRefused
from gateway.msh import directory
from gateway.msh.evidence import Evidence, header_view
from gateway.msh.feed import Feed
from gateway.msh.rooms import Rooms
from gateway.msh.uploads import Uploads
from gateway.plugin import (
    Caller,
    ConversationView,
    Event,
    HeaderView,
    MessageView,
    PartyView,
    ReceiptView,
    SecurityView,
    UploadView,
)
from gateway.store.api import Direction, Message, NewEvent, Told, Viewer

#: More digits than any number of an event has.
NUMBER_DIGITS = 18


class Handling:
    """Base of `Door`."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms, self._store = rooms, rooms.store
        self._evidence, self._uploads = Evidence(rooms), Uploads(rooms)
        self._feed = Feed(rooms.store, rooms.clock)

    def drain(self) -> None:
        """Who follows events is let go, to come again elsewhere."""
        self._feed.close()

    @abstractmethod
    async def message(self, caller: Caller, id: str) -> MessageView: ...

    @abstractmethod
    async def _find(self, caller: Caller, id: str, *, direction: Direction | None = None) -> Message: ...

    # -- done with a message --------------------------------------------------------

    async def redeliver(self, caller: Caller, id: str) -> bool:
        message = await self._find(caller, id, direction="inbound")
        log.message_id.set(message.user_message.message_id)
        done = await self._store.redeliver(message.id, (NewEvent("message.redelivered", {"by": caller.id}),))
        if done:
            log.event("message.redelivered", backend=caller.backend)
        return done

    async def resend(self, caller: Caller, id: str) -> MessageView:
        view = await self._done(
            caller, id, "message.resent", self._store.requeue,
            "only what is FAILED or waits to be sent can be sent again, with its payloads still there", "outbound",
        )  # fmt: skip
        log.event("message.resent", backend=caller.backend)
        return view

    async def cancel(self, caller: Caller, id: str) -> MessageView:
        view = await self._done(
            caller, id, "message.cancelled", self._store.cancel,
            "only what waits to be sent can be cancelled, and not while an attempt is running", "outbound",
        )  # fmt: skip
        log.event("message.cancelled", backend=caller.backend)
        return view

    async def suspend(self, caller: Caller, id: str) -> MessageView:
        view = await self._done(
            caller, id, "message.held", self._store.suspend,
            "only what waits can be held, and not while somebody is at it",
        )  # fmt: skip
        log.event("message.held", backend=caller.backend)
        return view

    async def resume(self, caller: Caller, id: str) -> MessageView:
        view = await self._done(caller, id, "message.released", self._store.resume, "the message is not held")
        log.event("message.released", backend=caller.backend)
        return view

    async def _done(
        self, caller: Caller, id: str, event: str, verb: Callable[..., Awaitable[bool]], unless: str,
        direction: Direction | None = None,
    ) -> MessageView:  # fmt: skip
        message = await self._find(caller, id)
        log.message_id.set(message.user_message.message_id)
        said = (NewEvent(event, {"by": caller.id}),)
        if direction not in (None, message.direction) or not await verb(message.id, said):
            raise NotPossible(unless, state=message.state)
        return await self.message(caller, str(message.id))

    # -- evidence ---------------------------------------------------------------------

    async def header(self, caller: Caller, id: str) -> HeaderView:
        return header_view((await self._find(caller, id)).user_message)

    async def wire(self, caller: Caller, id: str, which: Literal["request", "response"]) -> bytes | None:
        message = await self._find(caller, id)
        return message.receipt if which == "response" else await self._evidence.envelope(message, _viewer(caller))

    async def security(self, caller: Caller, id: str) -> SecurityView | None:
        return await self._evidence.security(await self._find(caller, id), _viewer(caller))

    async def receipt(self, caller: Caller, id: str) -> ReceiptView | None:
        return await self._evidence.receipt(await self._find(caller, id), _viewer(caller))

    # -- conversations, events, partners ------------------------------------------------

    async def conversations(
        self, caller: Caller, *, after: str | None = None, limit: int = 50
    ) -> tuple[list[ConversationView], str | None]:
        limit = max(1, min(limit, 500))
        found = await self._store.conversations(viewer=_viewer(caller), after=read_cursor(after), limit=limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        return [
            ConversationView(
                conversation_id=c.conversation_id, messages=c.messages, began_at=c.began_at, changed_at=c.changed_at,
                newest=str(c.newest),
            )
            for c in found[:limit]
        ], cursor(last.changed_at, last.newest) if last else None  # fmt: skip

    async def follow(
        self, caller: Caller, *, after: str | None = None, types: tuple[str, ...] = ()
    ) -> AsyncIterator[tuple[str, Event | None]]:
        async with aclosing(self._feed.follow(_viewer(caller), after=_number(after), types=types)) as events:
            async for number, told in events:
                yield str(number), None if told is None else _event(told)

    async def event_log(
        self, caller: Caller, *, after: str | None = None, types: tuple[str, ...] = (), limit: int = 100
    ) -> tuple[list[Event], str, bool]:
        found, upto, more = await self._feed.page(
            _viewer(caller), after=_number(after) or 0, types=types, limit=max(1, min(limit, 500))
        )
        return [_event(told) for told in found], str(upto), more

    async def parties(self, caller: Caller) -> list[PartyView]:
        return directory.partners(self._rooms.agreements.value.pmodes, caller)

    # -- uploads ----------------------------------------------------------------------

    async def begin_upload(
        self, caller: Caller, *, size: int, sha256: str | None = None, idempotency_key: str | None = None
    ) -> UploadView:
        return await self._uploads.begin(caller, size, sha256, idempotency_key)

    async def upload(self, caller: Caller, id: str) -> UploadView:
        return await self._uploads.one(caller, id)

    async def write_upload(
        self, caller: Caller, id: str, blocks: AsyncIterator[bytes], *, offset: int,
        digest: tuple[Literal["sha-256", "sha-512"], bytes] | None = None,
    ) -> UploadView:  # fmt: skip
        return await self._uploads.write(caller, id, blocks, offset=offset, digest=digest)

    async def upload_content(self, caller: Caller, id: str) -> AsyncIterator[bytes]:
        return await self._uploads.content(caller, id)

    async def drop_upload(self, caller: Caller, id: str) -> None:
        await self._uploads.drop(caller, id)


def _viewer(caller: Caller) -> Viewer:
    return Viewer(caller.backend, caller.scope)


def _event(told: Told) -> Event:
    data = {**told.data, "message_id": told.message_id, "conversation_id": told.conversation_id}
    return Event(id=str(told.id), type=told.type, at=told.at, subject=str(told.message), data=data)


def cursor(moment: datetime, id: UUID) -> str:
    """A place in a list that is ordered by time and id, opaque to who gets it."""
    text = json.dumps([moment.isoformat(), str(id)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str | None) -> tuple[datetime, UUID] | None:
    """The place a cursor means. Raises `SubmissionRefused`."""
    if text is None:
        return None
    try:
        moment, id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        place = datetime.fromisoformat(moment), UUID(id)
        if place[0].tzinfo is None:
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise SubmissionRefused("the cursor is not one of ours", field="after") from None
    return place


def _number(text: str | None) -> int | None:
    """The place in the log of events that a cursor means. Raises `SubmissionRefused`."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS):
        raise SubmissionRefused("the cursor is not one of ours", field="after")
    return int(text)
