"""Revisions of agreements and keys. Every change of one is made under the lock of the `agreement_watch` row."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import Record

from gateway.errors import NotFound, StalePlan
from gateway.stages import point
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
from gateway.store.chain import row_texts
from gateway.store.keys import Ring, moves
from gateway.store.postgres.keys import follow_ring, own_keys
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("agreement")
QA = load("audit")
#: Reading or writing a content of the largest size may take longer than other statements.
DEADLINE = 20.0


class Agreements(Room):
    """The verbs of `store.agreements`."""

    async def begin_agreements(self, new: NewRevision) -> Revision:
        async with self._pool.transaction(deadline=DEADLINE) as t:
            await self._watch(t)
            found = await t.row(Q["active"], "agreements")
            if found is not None:
                return _revision(found)
            made = msgspec.structs.replace(_revision(await self._write(t, "ACTIVE", new)), content=new.content)
            await _note(t, "activated", made.author, made, {"reason": made.reason, **new.notes})
            await t.commit()
        self._bell.ring_agreements()
        return made

    async def propose_revision(self, new: NewRevision) -> Revision:
        async with self._pool.transaction(deadline=DEADLINE) as t:
            await self._watch(t)
            standing = await t.row(Q["standing_of"], new.topic)
            again = await t.row(Q["proposed_again"], new.base, new.content, new.topic)
            if again is not None:
                return _revision(again)
            if standing["active"] != new.base:
                raise StalePlan(
                    f"{name_of(new.topic, standing['active'])} is active by now, the plan was made on {new.base}"
                )
            if standing["proposed"]:
                named = name_of(standing["proposed_topic"], standing["proposed"])
                raise StalePlan(f"{named} is being applied at this moment")
            if new.topic == "keys":
                moves(await own_keys(t), Ring.decode(new.content))
            made = _revision(await self._write(t, "PROPOSED", new))
            facts = {"base": made.base, "reason": made.reason, **new.notes}
            if made.restores is not None:
                facts["restores"] = made.restores
            await _note(t, "proposed", made.author, made, facts)
            await t.commit()
        self._bell.ring_agreements()
        return made

    async def acknowledge_revision(
        self, number: int, process: Beat, why: str | None, *, topic: Topic = "agreements"
    ) -> None:
        why = None if why is None else why[:2000]
        await self._pool.write(
            Q["acknowledge"], number, process.id, process.node, process.place, why is None, why and _plain(why), topic
        )

    async def settle_revision(self, number: int, *, topic: Topic = "agreements") -> Revision:
        async with self._pool.transaction(deadline=DEADLINE) as t:
            since = await self._watch(t)
            known = await t.row(Q["judge"], number, ALIVE, since, topic)
            if known is None:
                raise NotFound(f"no {name_of(topic, number)}")
            if known["state"] == "PROPOSED":
                await self._decide(t, known)
            settled = _revision(await t.row(Q["one"], number, topic))
            await t.commit()
        if known["state"] == "PROPOSED" != settled.state:
            self._bell.ring_agreements()
        return settled

    async def _decide(self, t: Transaction, known: Record) -> None:
        if known["refusals"]:
            await _refuse(t, known, "; ".join(known["refusals"]))
        elif known["active"] != known["base"]:
            await _refuse(t, known, f"{name_of(known['topic'], known['active'])} became active meanwhile")
        elif known["missing"] and known["expired"]:
            await _refuse(t, known, "no answer in time from " + ", ".join(known["missing"]))
        elif not known["missing"]:
            point("AG04")
            await t.row(Q["supersede"], known["topic"])
            await t.row(Q["settle"], known["number"], "ACTIVE", None, known["topic"])
            if known["topic"] == "keys":
                await follow_ring(t, known)
            await _note(t, "activated", known["author"], _Known(known), {"base": known["base"]})

    async def withdraw_revision(self, number: int, *, actor: str, why: str, topic: Topic = "agreements") -> Revision:
        async with self._pool.transaction(deadline=DEADLINE) as t:
            since = await self._watch(t)
            known = await t.row(Q["judge"], number, ALIVE, since, topic)
            if known is None:
                raise NotFound(f"no {name_of(topic, number)}")
            if known["state"] == "PROPOSED":
                await _refuse(t, known, why, actor=actor)
            settled = _revision(await t.row(Q["one"], number, topic))
            await t.commit()
        self._bell.ring_agreements()
        return settled

    async def active_agreements(self) -> Revision | None:
        return await self._active("agreements")

    async def active_ring(self) -> Revision | None:
        return await self._active("keys")

    async def _active(self, topic: Topic) -> Revision | None:
        row = await self._pool.row(Q["active"], topic)
        return None if row is None else _revision(row)

    async def revision(self, number: int, *, topic: Topic = "agreements") -> Revision | None:
        row = await self._pool.row(Q["one"], number, topic)
        return None if row is None else _revision(row)

    async def revisions(
        self, *, before: int | None = None, limit: int = 50, topic: Topic = "agreements"
    ) -> list[Revision]:
        return [_revision(row) for row in await self._pool.rows(Q["history"], before, limit, topic)]

    async def revision_of(self, sha256: bytes) -> Revision | None:
        row = await self._pool.row(Q["of_content"], sha256)
        return None if row is None else _revision(row)

    async def acknowledgements(self, number: int, *, topic: Topic = "agreements") -> list[Acknowledgement]:
        return [Acknowledgement(**row) for row in await self._pool.rows(Q["acknowledgements"], number, topic)]

    async def beat(self, process: Beat) -> Standing:
        async with self._pool.transaction() as t:
            await self._watch(t)
            await t.row(
                Q["beat"], process.id, process.node, process.place, process.revision,
                process.trouble and _plain(process.trouble[:2000]), process.fresh,
                process.ring, process.ring_trouble and _plain(process.ring_trouble[:2000]), process.kek,
            )  # fmt: skip
            standing = await t.row(Q["standing"])
            await t.commit()
        return Standing(**standing)

    async def leave(self, process: UUID) -> None:
        await self._pool.write(Q["leave"], process)
        self._bell.ring_agreements()

    async def processes(self) -> list[Process]:
        return [Process(**row) for row in await self._pool.rows(Q["processes"], ALIVE)]

    async def in_flight(self) -> list[Waiting]:
        return [Waiting(**row) for row in await self._pool.rows(Q["waiting"])]

    async def move_waiting(self, to: int, pmode_ids: tuple[str, ...], *, limit: int = 1000) -> int:
        moved = await self._pool.writes(Q["move_waiting"], to, list(pmode_ids), limit)
        if moved:
            self._bell.ring()
        return len(moved)

    async def wait_for_agreements(self, timeout: float) -> None:
        await self._bell.wait_for_agreements(timeout)

    @staticmethod
    async def _watch(t: Transaction) -> datetime:
        """The lock, and since when somebody has been looking."""
        return (await t.row(Q["watch"], ALIVE / 2))["watched_since"]

    @staticmethod
    async def _write(t: Transaction, state: str, new: NewRevision) -> Record:
        return await t.row(
            Q["write"], state, new.base, new.content, _plain(new.author), _plain(new.reason), new.restores,
            new.patience, new.topic, new.lead,
        )  # fmt: skip


class _Known:
    """What an audit entry names of a revision."""

    def __init__(self, known: Record) -> None:
        self.topic, self.number, self.sha256 = known["topic"], known["number"], known["sha256"]


async def _refuse(t: Transaction, known: Record, why: str, actor: str | None = None) -> None:
    await t.row(Q["settle"], known["number"], "REFUSED", _plain(why[:4000]), known["topic"])
    await _note(t, "refused", actor or known["author"], _Known(known), {"why": why[:4000]})


async def _note(t: Transaction, what: str, actor: str, revision: Any, facts: dict[str, Any]) -> None:
    """The audit entry, in the commit of what it tells of."""
    detail = {"sha256": revision.sha256.hex(), **facts}
    subject = name_of(revision.topic, revision.number)
    await t.row(QA["append"], *row_texts(f"{revision.topic}.{what}", actor, subject, detail))


def _revision(row: Record) -> Revision:
    return Revision(**row)


def _plain(text: str) -> str:
    """Without NUL and halves of surrogate pairs, which no database takes."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
