"""`store.agreements` in the memory of one process; the other half of `MemoryStore`."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from gateway.errors import NotFound, StalePlan
from gateway.store.agreements import (
    ALIVE,
    Acknowledgement,
    Beat,
    NewRevision,
    Process,
    Revision,
    Standing,
    Topic,
    Waiting,
    name_of,
)
from gateway.store.keys import Ring, moves
from gateway.store.memory_keys import MemoryKeys

_OPEN = ("READY", "CLAIMED", "ATTEMPT_OPEN", "HELD")


class MemoryAgreements(MemoryKeys):
    """Every verb runs without waiting in between. `_append` is the audit's, `_messages` and `_jobs` are the store's."""

    _messages: dict[UUID, Any]
    _jobs: dict[UUID, Any]

    def __init__(self) -> None:
        super().__init__()
        self._revisions: dict[tuple[Topic, int], Revision] = {}
        self._leads: dict[tuple[Topic, int], float] = {}
        self._words: dict[tuple[Topic, int, UUID], Acknowledgement] = {}
        self._processes: dict[UUID, tuple[Beat, datetime, datetime]] = {}
        self._watched: tuple[datetime, datetime] | None = None
        self._news = asyncio.Event()

    async def begin_agreements(self, new: NewRevision) -> Revision:
        active = self._in("ACTIVE")
        if active is not None:
            return active
        made = self._write("ACTIVE", new)
        self._note("activated", made.author, made, {"reason": made.reason, **new.notes})
        return made

    async def propose_revision(self, new: NewRevision) -> Revision:
        self._watch()
        active = self._in("ACTIVE", new.topic)
        proposed = self._in("PROPOSED", "agreements") or self._in("PROPOSED", "keys")
        if proposed is not None and (proposed.topic, proposed.base, proposed.content) == (
            new.topic, new.base, new.content,
        ):  # fmt: skip
            return _listed(proposed)
        number = active.number if active else 0
        if new.base != number:
            raise StalePlan(f"{name_of(new.topic, number)} is active by now, the plan was made on {new.base}")
        if proposed is not None:
            raise StalePlan(f"{name_of(proposed.topic, proposed.number)} is being applied at this moment")
        if new.topic == "keys":
            moves(self._own_keys.values(), Ring.decode(new.content))
        made = self._write("PROPOSED", new)
        facts = {"base": made.base, "reason": made.reason, **new.notes}
        self._note("proposed", made.author, made,
                   facts if made.restores is None else {**facts, "restores": made.restores})  # fmt: skip
        return _listed(made)

    async def acknowledge_revision(
        self, number: int, process: Beat, why: str | None, *, topic: Topic = "agreements"
    ) -> None:
        word = Acknowledgement(
            process=process.id, node=process.node, place=process.place, why=why and why[:2000], at=self._clock.now()
        )
        self._words.setdefault((topic, number, process.id), word)

    async def settle_revision(self, number: int, *, topic: Topic = "agreements") -> Revision:
        since, revision = self._watch(), self._numbered(topic, number)
        if revision.state == "PROPOSED":
            self._decide(revision, since)
        return self._revisions[topic, number]

    def _decide(self, revision: Revision, since: datetime) -> None:
        now, place = self._clock.now(), (revision.topic, revision.number)
        active = self._in("ACTIVE", revision.topic)
        words = [word for (*of, _), word in self._words.items() if tuple(of) == place]
        refusals = sorted(f"{word.node} {word.place}: {word.why}" for word in words if word.why is not None)
        said = {word.process for word in words if word.why is None}
        early = now - timedelta(seconds=ALIVE)
        missing = sorted(
            f"{beat.node} {beat.place}" for beat, _, seen in self._processes.values()
            if (seen > early or since > early) and beat.id not in said
        )  # fmt: skip
        if refusals:
            self._refuse(revision, "; ".join(refusals))
        elif (active.number if active else 0) != revision.base:
            named = name_of(revision.topic, active.number if active else 0)
            self._refuse(revision, f"{named} became active meanwhile")
        elif missing and revision.expires_at < now:
            self._refuse(revision, "no answer in time from " + ", ".join(missing))
        elif not missing:
            if revision.topic == "keys":
                self._follow_ring(revision)
            if active is not None:
                self._revisions[active.topic, active.number] = msgspec.structs.replace(active, state="SUPERSEDED")
            self._revisions[place] = msgspec.structs.replace(
                revision, state="ACTIVE", settled_at=now, effective_at=now + timedelta(seconds=self._leads[place])
            )
            self._note("activated", revision.author, revision, {"base": revision.base})
            self._news.set()

    async def withdraw_revision(self, number: int, *, actor: str, why: str, topic: Topic = "agreements") -> Revision:
        self._watch()
        revision = self._numbered(topic, number)
        if revision.state == "PROPOSED":
            self._refuse(revision, why, actor)
        return self._revisions[topic, number]

    async def active_agreements(self) -> Revision | None:
        return self._in("ACTIVE")

    async def active_ring(self) -> Revision | None:
        return self._in("ACTIVE", "keys")

    async def revision(self, number: int, *, topic: Topic = "agreements") -> Revision | None:
        return self._revisions.get((topic, number))

    async def revisions(
        self, *, before: int | None = None, limit: int = 50, topic: Topic = "agreements"
    ) -> list[Revision]:
        found = [r for r in self._revisions.values() if r.topic == topic and (before is None or r.number < before)]
        return [_listed(r) for r in sorted(found, key=lambda r: -r.number)[:limit]]

    async def revision_of(self, sha256: bytes) -> Revision | None:
        found = [
            r for r in self._revisions.values()
            if r.topic == "agreements" and r.sha256 == sha256 and r.state in ("ACTIVE", "SUPERSEDED")
        ]  # fmt: skip
        return _listed(max(found, key=lambda r: r.number)) if found else None

    async def acknowledgements(self, number: int, *, topic: Topic = "agreements") -> list[Acknowledgement]:
        found = [word for (*of, _), word in self._words.items() if of == [topic, number]]
        return sorted(found, key=lambda word: (word.node, word.place, word.at))

    async def beat(self, process: Beat) -> Standing:
        self._watch()
        now = self._clock.now()
        old = now - timedelta(hours=1)
        self._processes = {
            id: known for id, known in self._processes.items()
            if id == process.id or not ((process.fresh and _place(known[0]) == _place(process)) or known[2] < old)
        }  # fmt: skip
        began = self._processes[process.id][1] if process.id in self._processes else now
        self._processes[process.id] = (process, began, now)
        return Standing(*self._stand("agreements"), *self._stand("keys"))

    async def leave(self, process: UUID) -> None:
        self._processes.pop(process, None)
        self._news.set()

    async def processes(self) -> list[Process]:
        early = self._clock.now() - timedelta(seconds=ALIVE)
        found = [
            Process(id=beat.id, node=beat.node, place=beat.place, revision=beat.revision, trouble=beat.trouble,
                    started_at=began, seen_at=seen, alive=seen > early, ring=beat.ring, ring_trouble=beat.ring_trouble,
                    kek=beat.kek)
            for beat, began, seen in self._processes.values()
        ]  # fmt: skip
        return sorted(found, key=lambda p: (p.node, p.place, p.started_at))

    async def in_flight(self) -> list[Waiting]:
        counts: Counter[tuple[str, str, int]] = Counter()
        oldest: dict[tuple[str, str, int], datetime] = {}
        for message, _ in self._in_flight():
            key = (message.partner, message.pmode_id, message.pmode_revision)
            counts[key] += 1
            oldest[key] = min(oldest.get(key, message.created_at), message.created_at)
        return [
            Waiting(partner=key[0], pmode_id=key[1], revision=key[2], count=counts[key], oldest=oldest[key])
            for key in sorted(counts)
        ]

    async def move_waiting(self, to: int, pmode_ids: tuple[str, ...], *, limit: int = 1000) -> int:
        moved = 0
        for message, job in self._in_flight():
            if moved == limit:
                break
            if message.pmode_id in pmode_ids and message.pmode_revision != to:
                message.pmode_revision = to
                if job.kind == "send" and job.state == "READY":
                    job.due_at = self._clock.now()
                moved += 1
        return moved

    async def wait_for_agreements(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        self._news.clear()

    # -- within -----------------------------------------------------------------------

    def _take_active(self, message: Any) -> None:
        """What an operator sends again goes by today's agreements."""
        active = self._in("ACTIVE")
        if active is not None:
            message.pmode_revision = active.number

    def _in_flight(self) -> list[tuple[Any, Any]]:
        return [
            (self._messages[job.message], job) for job in self._jobs.values()
            if job.kind in ("send", "hold") and job.state in _OPEN
        ]  # fmt: skip

    def _watch(self) -> datetime:
        now = self._clock.now()
        at, since = self._watched or (now, now)
        self._watched = (now, now if at < now - timedelta(seconds=ALIVE / 2) else since)
        return self._watched[1]

    def _in(self, state: str, topic: Topic = "agreements") -> Revision | None:
        return next((r for r in self._revisions.values() if (r.topic, r.state) == (topic, state)), None)

    def _stand(self, topic: Topic) -> tuple[int, int, float]:
        active, proposed = self._in("ACTIVE", topic), self._in("PROPOSED", topic)
        waits = max(0.0, (active.effective_at - self._clock.now()).total_seconds()) if active else 0.0
        return active.number if active else 0, proposed.number if proposed else 0, waits

    def _numbered(self, topic: Topic, number: int) -> Revision:
        revision = self._revisions.get((topic, number))
        if revision is None:
            raise NotFound(f"no {name_of(topic, number)}")
        return revision

    def _write(self, state: Any, new: NewRevision) -> Revision:
        now, number = self._clock.now(), 1 + sum(topic == new.topic for topic, _ in self._revisions)
        settled = now if state == "ACTIVE" else None
        self._leads[new.topic, number] = new.lead
        self._revisions[new.topic, number] = made = Revision(
            topic=new.topic, number=number, state=state, base=new.base, content=new.content,
            sha256=hashlib.sha256(new.content).digest(), author=new.author, reason=new.reason, restores=new.restores,
            created_at=now, expires_at=now + timedelta(seconds=new.patience), settled_at=settled, effective_at=settled,
        )  # fmt: skip
        self._news.set()
        return made

    def _refuse(self, revision: Revision, why: str, actor: str | None = None) -> None:
        self._revisions[revision.topic, revision.number] = msgspec.structs.replace(
            revision, state="REFUSED", refusal=why[:4000], settled_at=self._clock.now()
        )
        self._note("refused", actor or revision.author, revision, {"why": why[:4000]})
        self._news.set()

    def _note(self, what: str, actor: str, revision: Revision, facts: dict[str, Any]) -> None:
        subject = name_of(revision.topic, revision.number)
        self._append(f"{revision.topic}.{what}", actor, subject, {"sha256": revision.sha256.hex(), **facts})


def _listed(revision: Revision) -> Revision:
    return msgspec.structs.replace(revision, content=None)


def _place(beat: Beat) -> tuple[str, str]:
    return beat.node, beat.place
