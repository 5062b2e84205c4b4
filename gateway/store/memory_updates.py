"""The ledger of agreement updates of the store in memory."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.store.states import UPDATE_INBOUND, UPDATE_OUTBOUND
from gateway.store.updates import NewUpdate, Update, UpdateChange, UpdateDirection, UpdateState


class MemoryUpdates:
    """The verbs of `store.updates`. `_append` is the audit's."""

    _clock: Clock
    _append: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self._updates: dict[UUID, Update] = {}

    async def add_update(self, new: NewUpdate, audit: Any) -> tuple[Update, bool]:
        if (there := await self.update_of(new.direction, new.partner, new.reference)) is not None:
            return there, False
        now = self._clock.now()
        facts = {name: getattr(new, name) for name in NewUpdate.__struct_fields__}
        made = Update(**facts, state=new.state, created_at=now, changed_at=now, due_at=now)
        self._updates[made.id] = made
        self._append(audit.kind, audit.actor, audit.subject, audit.detail)
        return made, True

    async def update(self, id: UUID) -> Update | None:
        return self._updates.get(id)

    async def update_of(self, direction: UpdateDirection, partner: str, reference: str) -> Update | None:
        key = (direction, partner, reference)
        return next((u for u in self._updates.values() if (u.direction, u.partner, u.reference) == key), None)

    async def updates(
        self, *, direction: UpdateDirection | None = None, partner: str | None = None,
        states: tuple[UpdateState, ...] = (), limit: int = 100,
    ) -> list[Update]:  # fmt: skip
        found = [u for u in self._updates.values() if direction in (None, u.direction) and partner in (None, u.partner)
                 and (not states or u.state in states)]  # fmt: skip
        return sorted(found, key=lambda u: (u.created_at, u.id), reverse=True)[:limit]

    async def claim_updates(self, *, limit: int, lease: float) -> list[Update]:
        now = self._clock.now()
        due = sorted((u for u in self._updates.values() if u.due_at is not None and u.due_at <= now),
                     key=lambda u: (u.due_at, u.id))[:limit]  # fmt: skip
        for one in due:
            self._updates[one.id] = msgspec.structs.replace(
                one, claim=uuid4(), due_at=now + timedelta(seconds=lease), attempt=one.attempt + 1
            )
        return [self._updates[one.id] for one in due]

    async def change_update(
        self, id: UUID, change: UpdateChange, *, before: tuple[UpdateState, ...], claim: UUID | None = None,
        audit: Any = None,
    ) -> Update | None:  # fmt: skip
        known = self._updates.get(id)
        if known is None or known.state not in before or (claim is not None and known.claim != claim):
            return None
        table = UPDATE_INBOUND if known.direction == "inbound" else UPDATE_OUTBOUND
        if known.state != change.state and not any(c.before == known.state and c.after == change.state for c in table):
            raise StoreUnavailable(f"an update may not go from {known.state} to {change.state}")
        now = self._clock.now()
        given = {name: value for name in ("code", "detail", "actor", "answer", "answer_message_id", "message_id")
                 if (value := getattr(change, name)) is not None}  # fmt: skip
        self._updates[id] = made = msgspec.structs.replace(
            known, **given, state=change.state, changed_at=now, claim=None,
            attempt=known.attempt if known.state == change.state else 0,
            due_at=None if change.due_in is None else now + timedelta(seconds=change.due_in),
            answered_at=known.answered_at or now if change.answered else known.answered_at,
            receipted_at=known.receipted_at or now if change.receipted else known.receipted_at,
            late=known.late or change.late,
        )  # fmt: skip
        if audit is not None:
            self._append(audit.kind, audit.actor, audit.subject, audit.detail)
        return made
