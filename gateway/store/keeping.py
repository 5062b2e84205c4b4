"""What the store says of itself in numbers, how long it keeps what, and what it forgets.

A message that is forgotten leaves one thing: a digest of its MessageId in the audit chain, so
that it can be shown later that it was erased, and when, to somebody who knows the id already.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct


class Queue(Struct, frozen=True, kw_only=True):
    """Open jobs of one kind and state. `later`: so many of them wait for a time that has not come. Ages in
    seconds; `overdue` is how long the first of them has been due with nobody taking it, None where somebody has."""

    kind: str
    state: str
    jobs: int
    later: int
    oldest: float
    overdue: float | None


class Inbox(Struct, frozen=True, kw_only=True):
    """Deliveries that the consumer has not taken, and the seconds since the oldest came."""

    backend: str
    waiting: int
    oldest: float


class Census(Struct, frozen=True, kw_only=True):
    """The store at one moment; `now` is its clock."""

    now: datetime
    standby: bool
    queues: tuple[Queue, ...]
    inboxes: tuple[Inbox, ...]


class LegalHold(Struct, frozen=True, kw_only=True):
    """A message that is kept beyond its time."""

    id: UUID
    message_id: str
    conversation_id: str
    reason: str
    actor: str
    at: datetime


class Issued(Struct, frozen=True, kw_only=True):
    """A message we answered with a receipt. `party` is who sent it."""

    id: UUID
    message_id: str
    conversation_id: str
    party: str
    action: str
    at: datetime
    state: str


def proof(message_id: str) -> str:
    """What stays of a MessageId in the audit: SHA-256, 32 hexadecimal digits."""
    return hashlib.sha256(b"oots-as4-gateway erased\n" + message_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Keeping(Protocol):
    """The verbs. All raise `StoreUnavailable`."""

    async def census(self) -> Census: ...

    async def hold_legally(self, messages: Sequence[UUID], *, reason: str, actor: str) -> int:
        """Keep these messages, payloads as far as they are there, until they are let go; in one commit with its
        audit row. How many were not held before. Raises `NotFound` when one is not there."""
        ...

    async def release_legally(self, messages: Sequence[UUID], *, reason: str, actor: str) -> int:
        """Let go; what was held and is past its time is erased by the next `purge` and `forget`."""
        ...

    async def legal_holds(self) -> list[LegalHold]: ...

    async def forget(self, *, settled_before: float, limit: int = 100) -> int:
        """Erase messages that ended more than `settled_before` seconds ago: header, receipt, attempts, events
        and the knowledge of their ids. Only those whose payloads are erased, and none that is held or that
        its consumer has not taken. The audit gets their proofs in the same commit. At most `limit`; how many."""
        ...

    async def receipts(
        self, *, since: datetime, after: tuple[datetime, UUID] | None = None, limit: int = 500
    ) -> list[Issued]:
        """Oldest first; `after` is time and id of the last one of the page before."""
        ...
