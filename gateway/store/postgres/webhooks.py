"""Webhooks, and the notices they are sent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record
from msgspec import json
from msgspec.structs import replace

from gateway.errors import ClaimLost
from gateway.store.postgres import rows
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load
from gateway.store.states import JOB, before
from gateway.store.webhooks import KEPT_ATTEMPTS, NOTICE_STATES, TOLD, Notice, NoticeAttempt, NoticeState, Webhook

Q = load("webhook")


class Webhooks(Room):
    """The verbs of `store.webhooks.Webhooks`."""

    async def add_webhook(self, webhook: Webhook) -> None:
        await self._pool.write(
            Q["add_webhook"], webhook.id, webhook.backend, webhook.url, webhook.sealed_secret, webhook.events,
            webhook.disabled, webhook.client, webhook.sealed_previous, webhook.previous_until,
        )  # fmt: skip

    async def webhooks(self, *, backend: str | None = None, client: str | None = None) -> list[Webhook]:
        return [_webhook(row) for row in await self._pool.rows(Q["webhooks"], backend, client)]

    async def webhook(self, id: str) -> Webhook | None:
        return _maybe(await self._pool.row(Q["webhook"], id))

    async def change_webhook(
        self, id: str, client: str, *, url: str | None = None, events: Sequence[str] | None = None,
        disabled: bool | None = None,
    ) -> Webhook | None:  # fmt: skip
        if not rows.storable(id, client, url):
            return None
        wanted = None if events is None else list(events)
        return _maybe(await self._pool.write(Q["change_webhook"], id, client, url, wanted, disabled))

    async def rotate_webhook(
        self, id: str, client: str, sealed_secret: bytes, *, replacing: bytes, previous: bytes, overlap: float
    ) -> Webhook | None:
        if not rows.storable(id, client):
            return None
        return _maybe(
            await self._pool.write(Q["rotate_webhook"], id, client, sealed_secret, overlap, previous, replacing)
        )

    async def remove_webhook(self, id: str, client: str) -> bool:
        return rows.storable(id, client) and await self._pool.write(Q["remove_webhook"], id, client) is not None

    async def disable_webhook(self, id: str) -> None:
        await self._pool.write(Q["disable_webhook"], id)

    async def test_webhook(self, id: str, client: str, data: dict[str, Any]) -> UUID | None:
        if not rows.storable(id, client):
            return None
        row = await self._pool.write(Q["test_webhook"], id, client, rows.text(data))
        self._bell.ring()
        return row["id"] if row else None

    async def finish_notify(
        self, job_id: UUID, claim: UUID, attempt: NoticeAttempt = TOLD, *, due_in: float | None = None
    ) -> None:
        done = attempt.outcome == "delivered"
        event, state = ("finish", "DONE") if done else ("park", "PARKED") if due_in is None else ("release", "READY")
        row = await self._pool.write(
            Q["finish_notify"], job_id, claim, state, rows.text(replace(attempt, at=None)), before(JOB, event),
            due_in or 0.0, attempt.detail or None, KEPT_ATTEMPTS,
        )  # fmt: skip
        if row is None:
            raise ClaimLost
        if state == "READY":
            self._bell.ring()

    async def notices(
        self, webhook: str, client: str, *, state: NoticeState | None = None,
        after: tuple[datetime, UUID] | None = None, limit: int = 50,
    ) -> list[Notice]:  # fmt: skip
        if not rows.storable(webhook, client):
            return []
        states = [s for name, some in NOTICE_STATES.items() if state in (None, name) for s in some]
        found = await self._pool.rows(Q["notices"], webhook, client, states, *(after or (None, None)), limit)
        return [_notice(row) for row in found]

    async def notice(self, id: UUID, webhook: str, client: str) -> Notice | None:
        if not rows.storable(webhook, client):
            return None
        row = await self._pool.row(Q["notice"], id, webhook, client)
        return None if row is None else _notice(row)

    async def notify_again(self, id: UUID, webhook: str, client: str) -> bool:
        if not rows.storable(webhook, client):
            return False
        done = await self._pool.write(Q["notify_again"], id, webhook, client, ["READY", "DONE", "PARKED"]) is not None
        if done:
            self._bell.ring()
        return done

    async def prune_notices(
        self, *, delivered_before: float, parked_before: float, keep: int, limit: int = 10_000
    ) -> int:
        gone = await self._pool.writes(Q["prune_notices"], delivered_before, parked_before, keep, limit)
        return len(gone) + len(await self._pool.writes(Q["drop_orphans"]))


def _maybe(row: Record | None) -> Webhook | None:
    return None if row is None else _webhook(row)


def _webhook(row: Record) -> Webhook:
    return Webhook(**dict(row) | {"events": tuple(row["events"])})


def _notice(row: Record) -> Notice:
    state = next(name for name, states in NOTICE_STATES.items() if row["state"] in states)
    return Notice(
        id=row["id"], webhook=row["queue"], state=state, message=row["message"], created_at=row["created_at"],
        due_at=row["due_at"] if state == "waiting" else None, data=rows.detail(row["data"]),
        attempts=msgspec.convert(_decoded(row["attempts"]), tuple[NoticeAttempt, ...]),
    )  # fmt: skip


def _decoded(value: Any) -> Any:
    return json.decode(value) if isinstance(value, str | bytes) else value
