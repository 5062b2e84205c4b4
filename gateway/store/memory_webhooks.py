"""Webhooks of the store in memory."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from gateway.clock import Clock
from gateway.errors import ClaimLost, StoreUnavailable
from gateway.store.states import JOB, after
from gateway.store.webhooks import KEPT_ATTEMPTS, NOTICE_STATES, TOLD, Notice, NoticeAttempt, NoticeState, Webhook


class MemoryWebhooks:
    """The verbs of `store.webhooks.Webhooks`. Jobs, messages and clients are those of the whole store."""

    _clock: Clock
    _jobs: dict[UUID, Any]
    _clients: dict[str, Any]
    _messages: dict[UUID, Any]
    _held: Callable[..., Any]
    _queue: Callable[..., Any]
    _seen_by: Callable[..., bool]

    def __init__(self) -> None:
        super().__init__()
        self._webhooks: dict[str, Webhook] = {}

    async def add_webhook(self, webhook: Webhook) -> None:
        if webhook.id in self._webhooks:
            raise StoreUnavailable("the webhook is known already")
        self._webhooks[webhook.id] = webhook

    async def webhooks(self, *, backend: str | None = None, client: str | None = None) -> list[Webhook]:
        return [w for w in self._webhooks.values() if backend in (None, w.backend) and client in (None, w.client)]

    async def webhook(self, id: str) -> Webhook | None:
        found = self._webhooks.get(id)
        owner = self._clients.get(found.client) if found else None
        return None if owner is not None and owner.revoked else found

    async def change_webhook(
        self, id: str, client: str, *, url: str | None = None, events: Sequence[str] | None = None,
        disabled: bool | None = None,
    ) -> Webhook | None:  # fmt: skip
        given = {"url": url, "events": None if events is None else tuple(events), "disabled": disabled}
        return self._change_own(id, client, **{name: value for name, value in given.items() if value is not None})

    async def rotate_webhook(
        self, id: str, client: str, sealed_secret: bytes, *, replacing: bytes, previous: bytes, overlap: float
    ) -> Webhook | None:
        known, now = self._own(id, client), self._clock.now()
        if known is None or known.sealed_secret != replacing:
            return None
        until = max(known.previous_until or now, now + timedelta(seconds=overlap)) if overlap > 0 else now
        return self._change_own(
            id, client, sealed_secret=sealed_secret, sealed_previous=previous, previous_until=until
        )  # fmt: skip

    async def remove_webhook(self, id: str, client: str) -> bool:
        if self._own(id, client) is None:
            return False
        del self._webhooks[id]
        self._jobs = {key: job for key, job in self._jobs.items() if job.kind != "notify" or job.queue != id}
        return True

    async def disable_webhook(self, id: str) -> None:
        if id in self._webhooks:
            self._webhooks[id] = replace(self._webhooks[id], disabled=True)

    async def test_webhook(self, id: str, client: str, data: dict[str, Any]) -> UUID | None:
        return None if self._own(id, client) is None else self._queue("notify", id, None, dict(data)).id

    async def finish_notify(
        self, job_id: UUID, claim: UUID, attempt: NoticeAttempt = TOLD, *, due_in: float | None = None
    ) -> None:
        event = "finish" if attempt.outcome == "delivered" else "park" if due_in is None else "release"
        job = self._held(job_id, claim, event, kind="notify")
        if after(JOB, job.state, event) is None:
            raise ClaimLost
        job.state, job.claim, job.error, job.lost = after(JOB, job.state, event), None, attempt.detail or None, 0
        job.noted = (*job.noted, replace(attempt, at=self._clock.now()))[-KEPT_ATTEMPTS:]
        if due_in is not None and event == "release":
            job.due_at = self._clock.now() + timedelta(seconds=due_in)
            self._work.set()

    async def notices(
        self, webhook: str, client: str, *, state: NoticeState | None = None,
        after: tuple[datetime, UUID] | None = None, limit: int = 50,
    ) -> list[Notice]:  # fmt: skip
        if self._own(webhook, client) is None:
            return []
        found = [_notice(job) for job in self._jobs.values() if self._is_notice(job, webhook, client)]
        found.sort(key=lambda n: (n.created_at, n.id), reverse=True)
        return [
            n for n in found if state in (None, n.state) and (after is None or (n.created_at, n.id) < after)
        ][:limit]  # fmt: skip

    async def notice(self, id: UUID, webhook: str, client: str) -> Notice | None:
        job = self._jobs.get(id)
        if self._own(webhook, client) is None or job is None or not self._is_notice(job, webhook, client):
            return None
        return _notice(job)

    async def notify_again(self, id: UUID, webhook: str, client: str) -> bool:
        job = self._jobs.get(id)
        if await self.notice(id, webhook, client) is None:
            return False
        if job.state not in ("READY", "DONE", "PARKED") and job.due_at > self._clock.now():
            return False
        job.state, job.claim, job.attempt, job.error, job.due_at = "READY", None, 0, None, self._clock.now()
        job.lost = 0
        self._work.set()
        return True

    async def prune_notices(
        self, *, delivered_before: float, parked_before: float, keep: int, limit: int = 10_000
    ) -> int:
        now, gone, places = self._clock.now(), [], {}
        told = [job for job in self._jobs.values() if job.kind == "notify" and job.state in ("DONE", "PARKED")]
        for job in sorted(told, key=lambda job: (job.created_at, job.id), reverse=True):
            age, most = (delivered_before, keep) if job.state == "DONE" else (parked_before, 10 * keep)
            place = places[job.queue, job.state] = places.get((job.queue, job.state), 0) + 1
            if job.created_at < now - timedelta(seconds=age) or place > most:
                gone.append(job.id)
        for id in gone[:limit]:
            del self._jobs[id]
        return len(gone[:limit])

    # -- within -----------------------------------------------------------------------

    def _own(self, id: str, client: str) -> Webhook | None:
        known = self._webhooks.get(id)
        return known if known is not None and known.client == client else None

    def _change_own(self, id: str, client: str, **changes: Any) -> Webhook | None:
        known = self._own(id, client)
        if known is not None:
            self._webhooks[id] = known = replace(known, **changes)
        return known

    def _is_notice(self, job: Any, webhook: str, client: str) -> bool:
        if job.kind != "notify" or job.queue != webhook:
            return False
        return job.message is None or self._seen_by(self._clients.get(client), self._messages[job.message])


def _notice(job: Any) -> Notice:
    state = next(name for name, states in NOTICE_STATES.items() if job.state in states)
    return Notice(
        id=job.id, webhook=job.queue, state=state, message=job.message, created_at=job.created_at,
        due_at=job.due_at if state == "waiting" else None, data=dict(job.data), attempts=job.noted,
    )  # fmt: skip
