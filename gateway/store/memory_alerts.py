"""Alerts of the store in memory."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from msgspec.structs import replace

from gateway.clock import Clock
from gateway.errors import ClaimLost
from gateway.store.alerts import FUTURE, Alert, Due, NewAlert
from gateway.store.webhooks import Webhook


class MemoryAlerts:
    """The verbs of `store.alerts.Alerts`. Events, webhooks, jobs and clients are those of the whole store."""

    _clock: Clock
    _clients: dict[str, Any]
    _webhooks: dict[str, Webhook]
    _queue: Callable[..., Any]
    _events: list[tuple]

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str, int], datetime] = {}
        #: Alert, state, due time, error.
        self._alerts: dict[UUID, tuple[Alert, str, datetime, str]] = {}

    async def now(self) -> datetime:
        return self._clock.now()

    async def tell(self, due: Sequence[Due], say: Callable[[list[Due]], NewAlert]) -> list[Due]:
        now = self._clock.now()
        counts = {key for key, at in self._told.items() if at <= now + timedelta(seconds=FUTURE)}

        def new(d: Due) -> bool:
            return not any(key[:2] == (d.certificate, d.about) and key[2] <= d.threshold for key in counts)

        fresh = [d for d in due if not d.early and new(d)]
        if not fresh:
            return []
        reached = {(d.about, d.threshold) for d in fresh}
        fresh += [d for d in due if d.early and (d.about, d.threshold) in reached and new(d)]
        alert = say(fresh)
        self._told |= {(d.certificate, d.about, d.threshold): now for d in fresh}
        made = Alert(id=uuid4(), at=now, type=alert.type, data=alert.data, claim=uuid4(), attempt=0)
        self._events.append((len(self._events) + 1, now, made.type, None, None, dict(made.data)))
        self._alerts[made.id] = (made, "READY", now, "")
        for webhook in self._webhooks.values():
            owner = self._clients.get(webhook.client)
            if (
                not webhook.disabled and made.type in webhook.events
                and (owner is None or (not owner.revoked and owner.scope.unbounded))
            ):  # fmt: skip
                self._queue("notify", webhook.id, None, {**made.data, "id": str(made.id), "type": made.type})
        return fresh

    async def claim_alert(self, *, lease: float, newer: float) -> Alert | None:
        now = self._clock.now()
        for id, (alert, state, due_at, error) in sorted(self._alerts.items(), key=lambda item: item[1][2]):
            if state in ("READY", "CLAIMED") and due_at <= now and alert.at > now - timedelta(seconds=newer):
                claimed = replace(alert, claim=uuid4(), attempt=alert.attempt + 1)
                self._alerts[id] = (claimed, "CLAIMED", now + timedelta(seconds=lease), error)
                return claimed
        return None

    async def finish_alert(
        self, id: UUID, claim: UUID, *, state: Literal["DONE", "READY", "PARKED"], due_in: float = 0.0, error: str = ""
    ) -> None:
        alert, now_in, *_ = self._alerts.get(id, (None, "", None, ""))
        if alert is None or now_in != "CLAIMED" or alert.claim != claim:
            raise ClaimLost
        self._alerts[id] = (alert, state, self._clock.now() + timedelta(seconds=due_in), error)

    async def forget_alerts(self, *, alerts_before: float, told_before: float) -> int:
        now = self._clock.now()
        alerts = [id for id, (alert, *_) in self._alerts.items() if alert.at < now - timedelta(seconds=alerts_before)]
        told = [key for key, at in self._told.items() if at < now - timedelta(seconds=told_before)]
        for id in alerts:
            del self._alerts[id]
        for key in told:
            del self._told[key]
        return len(alerts) + len(told)
