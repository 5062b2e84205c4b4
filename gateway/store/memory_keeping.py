"""Numbers, legal holds, and forgetting, for the store in memory."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.errors import NotFound
from gateway.store.keeping import Census, Inbox, Issued, LegalHold, Queue, proof

GONE = ("PURGED", "FAILED", "ACKNOWLEDGED", "CANCELLED", "DELIVERED")


class MemoryKeeping:
    """Base of `MemoryStore`, whose messages and jobs it looks at."""

    def __init__(self) -> None:
        super().__init__()
        self._legal: dict[UUID, tuple[str, str, datetime]] = {}

    async def census(self) -> Census:
        now = self._clock.now()
        groups: dict[tuple[str, str], list[Any]] = {}
        inboxes: dict[str, list[Any]] = {}
        for job in self._jobs.values():
            if job.state == "DONE":
                continue
            groups.setdefault((job.kind, job.state), []).append(job)
            if (job.kind, job.state) == ("deliver", "READY"):
                inboxes.setdefault(job.queue, []).append(job)
        queues = tuple(
            Queue(
                kind=kind, state=state, jobs=len(jobs),
                later=sum(job.state == "READY" and job.due_at > now for job in jobs),
                oldest=_age(now, (j.created_at for j in jobs)),
                overdue=_age(now, (j.due_at for j in jobs)) if state == "READY" else None,
            )
            for (kind, state), jobs in groups.items()
        )  # fmt: skip
        return Census(
            now=now, standby=False, queues=queues,
            inboxes=tuple(
                Inbox(backend=name, waiting=len(jobs), oldest=_age(now, (j.created_at for j in jobs)))
                for name, jobs in inboxes.items()
            ),
        )  # fmt: skip

    async def hold_legally(self, messages: Sequence[UUID], *, reason: str, actor: str) -> int:
        for id in messages:
            if id not in self._messages:
                raise NotFound(f"there is no message {id}")
        done = [id for id in messages if id not in self._legal]
        self._legal.update({id: (reason, actor, self._clock.now()) for id in done})
        self._note_messages("messages.legal_hold", actor, done, reason=reason)
        return len(done)

    async def release_legally(self, messages: Sequence[UUID], *, reason: str, actor: str) -> int:
        done = [id for id in messages if self._legal.pop(id, None) is not None]
        self._note_messages("messages.legal_release", actor, done, reason=reason)
        return len(done)

    async def legal_holds(self) -> list[LegalHold]:
        return [
            LegalHold(
                id=id, message_id=self._messages[id].unit.message_id,
                conversation_id=self._messages[id].unit.conversation_id, reason=reason, actor=actor, at=at,
            )
            for id, (reason, actor, at) in sorted(self._legal.items(), key=lambda item: (item[1][2], item[0]))
        ]  # fmt: skip

    async def forget(self, *, settled_before: float, limit: int = 100) -> int:
        cut = self._clock.now() - timedelta(seconds=settled_before)
        gone = [
            m for m in sorted(self._messages.values(), key=lambda m: (m.created_at, m.id))
            if m.created_at < cut and (m.receipt_at or m.changed_at) < cut and m.wrapped_key is None
            and (m.state in GONE or (m.state == "RECEIVED" and m.backend is None)) and m.id not in self._legal
        ][:limit]  # fmt: skip
        ids = [m.id for m in gone]
        for id in ids:
            del self._messages[id]
        self._jobs = {id: job for id, job in self._jobs.items() if job.message not in ids}
        self._events = [event for event in self._events if event[3] not in ids]
        if gone:
            self._note_messages(
                "messages.forgotten", "retention", ids, oldest=gone[0].created_at.isoformat(),
                newest=gone[-1].created_at.isoformat(), proofs=[proof(m.unit.message_id) for m in gone],
            )  # fmt: skip
        return len(ids)

    async def receipts(
        self, *, since: datetime, after: tuple[datetime, UUID] | None = None, limit: int = 500
    ) -> list[Issued]:
        found = sorted(
            (m.receipt_at, m.id, m) for m in self._messages.values()
            if m.direction == "inbound" and m.receipt_at is not None and m.receipt_at >= since
            and (after is None or (m.receipt_at, m.id) > after)
        )  # fmt: skip
        return [
            Issued(id=id, message_id=m.unit.message_id, conversation_id=m.unit.conversation_id,
                   party=m.unit.from_party.value, action=m.unit.action, at=at, state=m.state)
            for at, id, m in found[:limit]
        ]  # fmt: skip

    def _note_messages(self, kind: str, actor: str, ids: Sequence[UUID], **detail: Any) -> None:
        if ids:
            facts = {"count": len(ids)} | detail
            if "proofs" not in detail:
                facts["messages"] = [str(id) for id in ids]
            self._append(kind, actor, str(len(ids)), facts)


def _age(now: datetime, moments: Any) -> float:
    return max(0.0, (now - min(moments)).total_seconds())
