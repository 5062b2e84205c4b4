"""`store.agreements` in the memory of one process; the other half of `MemoryStore`."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from gateway.clock import Clock
from gateway.errors import NotFound, StalePlan
from gateway.store.agreements import ALIVE, Acknowledgement, Beat, NewRevision, Process, Revision, Standing, Waiting

_OPEN = ("READY", "CLAIMED", "ATTEMPT_OPEN", "HELD")


class MemoryAgreements:
    """Every verb runs without waiting in between. `_append` is the audit's, `_messages` and `_jobs` are the store's."""

    _clock: Clock
    _messages: dict[UUID, Any]
    _jobs: dict[UUID, Any]

    def __init__(self) -> None:
        self._revisions: dict[int, Revision] = {}
        self._words: dict[tuple[int, UUID], Acknowledgement] = {}
        self._processes: dict[UUID, tuple[Beat, datetime, datetime]] = {}
        self._watched: tuple[datetime, datetime] | None = None
        self._news = asyncio.Event()

    async def begin_agreements(self, new: NewRevision) -> Revision:
        active = self._in("ACTIVE")
        if active is not None:
            return active
        made = self._write("ACTIVE", new)
        self._note("agreements.activated", made.author, made, {"reason": made.reason, **new.notes})
        return made

    async def propose_agreements(self, new: NewRevision) -> Revision:
        self._watch()
        active, proposed = self._in("ACTIVE"), self._in("PROPOSED")
        if proposed is not None and (proposed.base, proposed.content) == (new.base, new.content):
            return _listed(proposed)
        number = active.number if active else 0
        if new.base != number:
            raise StalePlan(f"revision {number} is active by now, the plan was made on {new.base}")
        if proposed is not None:
            raise StalePlan(f"revision {proposed.number} is being applied at this moment")
        made = self._write("PROPOSED", new)
        facts = {"base": made.base, "reason": made.reason, **new.notes}
        self._note("agreements.proposed", made.author, made,
                   facts if made.restores is None else {**facts, "restores": made.restores})  # fmt: skip
        return _listed(made)

    async def acknowledge_agreements(self, number: int, process: Beat, why: str | None) -> None:
        word = Acknowledgement(
            process=process.id, node=process.node, place=process.place, why=why and why[:2000], at=self._clock.now()
        )
        self._words.setdefault((number, process.id), word)

    async def settle_agreements(self, number: int) -> Revision:
        since, revision = self._watch(), self._numbered(number)
        if revision.state == "PROPOSED":
            self._decide(revision, since)
        return self._revisions[number]

    def _decide(self, revision: Revision, since: datetime) -> None:
        now, number = self._clock.now(), revision.number
        active = self._in("ACTIVE")
        words = [word for (of, _), word in self._words.items() if of == number]
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
            self._refuse(revision, f"revision {active.number if active else 0} became active meanwhile")
        elif missing and revision.expires_at < now:
            self._refuse(revision, "no answer in time from " + ", ".join(missing))
        elif not missing:
            if active is not None:
                self._revisions[active.number] = msgspec.structs.replace(active, state="SUPERSEDED")
            self._revisions[number] = msgspec.structs.replace(revision, state="ACTIVE", settled_at=now)
            self._note("agreements.activated", revision.author, revision, {"base": revision.base})
            self._news.set()

    async def withdraw_agreements(self, number: int, *, actor: str, why: str) -> Revision:
        self._watch()
        revision = self._numbered(number)
        if revision.state == "PROPOSED":
            self._refuse(revision, why, actor)
        return self._revisions[number]

    async def active_agreements(self) -> Revision | None:
        return self._in("ACTIVE")

    async def revision(self, number: int) -> Revision | None:
        return self._revisions.get(number)

    async def revisions(self, *, before: int | None = None, limit: int = 50) -> list[Revision]:
        found = [r for r in self._revisions.values() if before is None or r.number < before]
        return [_listed(r) for r in sorted(found, key=lambda r: -r.number)[:limit]]

    async def revision_of(self, sha256: bytes) -> Revision | None:
        found = [r for r in self._revisions.values() if r.sha256 == sha256 and r.state in ("ACTIVE", "SUPERSEDED")]
        return _listed(max(found, key=lambda r: r.number)) if found else None

    async def acknowledgements(self, number: int) -> list[Acknowledgement]:
        found = [word for (of, _), word in self._words.items() if of == number]
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
        active, proposed = self._in("ACTIVE"), self._in("PROPOSED")
        return Standing(active.number if active else 0, proposed.number if proposed else 0)

    async def leave(self, process: UUID) -> None:
        self._processes.pop(process, None)
        self._news.set()

    async def processes(self) -> list[Process]:
        early = self._clock.now() - timedelta(seconds=ALIVE)
        found = [
            Process(id=beat.id, node=beat.node, place=beat.place, revision=beat.revision, trouble=beat.trouble,
                    started_at=began, seen_at=seen, alive=seen > early)
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

    def _in(self, state: str) -> Revision | None:
        return next((r for r in self._revisions.values() if r.state == state), None)

    def _numbered(self, number: int) -> Revision:
        revision = self._revisions.get(number)
        if revision is None:
            raise NotFound(f"no revision {number}")
        return revision

    def _write(self, state: Any, new: NewRevision) -> Revision:
        now, number = self._clock.now(), len(self._revisions) + 1
        self._revisions[number] = made = Revision(
            number=number, state=state, base=new.base, content=new.content,
            sha256=hashlib.sha256(new.content).digest(), author=new.author, reason=new.reason, restores=new.restores,
            created_at=now, expires_at=now + timedelta(seconds=new.patience),
            settled_at=now if state == "ACTIVE" else None,
        )  # fmt: skip
        self._news.set()
        return made

    def _refuse(self, revision: Revision, why: str, actor: str | None = None) -> None:
        self._revisions[revision.number] = msgspec.structs.replace(
            revision, state="REFUSED", refusal=why[:4000], settled_at=self._clock.now()
        )
        self._note("agreements.refused", actor or revision.author, revision, {"why": why[:4000]})
        self._news.set()

    def _note(self, kind: str, actor: str, revision: Revision, facts: dict[str, Any]) -> None:
        self._append(kind, actor, f"revision {revision.number}", {"sha256": revision.sha256.hex(), **facts})


def _listed(revision: Revision) -> Revision:
    return msgspec.structs.replace(revision, content=None)


def _place(beat: Beat) -> tuple[str, str]:
    return beat.node, beat.place
