"""Our own keys. What is in use changes with a ring; both take the lock of the `agreement_watch` row."""

from typing import Any

from asyncpg import Record

from gateway.errors import NotFound, NotPossible
from gateway.store.agreements import ALIVE
from gateway.store.chain import row_texts
from gateway.store.keys import Chosen, NewKey, OwnKey, Ring, changes, moves
from gateway.store.postgres.pool import Transaction
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("key")
QA = load("audit")
QR = load("agreement")


class Keys(Room):
    """The verbs of `store.keys`. Those of rings are in `agreements`."""

    async def add_key(self, new: NewKey, *, author: str) -> OwnKey:
        async with self._pool.transaction() as t:
            await t.row(QR["watch"], ALIVE / 2)
            there = await t.row(Q["there"], new.certificate, new.public)
            if there is not None:
                raise NotPossible(f"this is key {there['id']} already")
            await t.row(
                Q["add"], new.id, new.party, new.algorithm, new.public, new.sealed, new.token, new.certificate,
                list(new.chain), author, list(new.uses),
            )  # fmt: skip
            made = await self._one(t, new.id)
            await note(t, "key.added", author, made, {"uses": list(new.uses), "algorithm": new.algorithm})
            await t.commit()
        return made

    async def complete_key(self, id: str, certificate: bytes, chain: tuple[bytes, ...], *, actor: str) -> OwnKey:
        async with self._pool.transaction() as t:
            await t.row(QR["watch"], ALIVE / 2)
            key = await self._one(t, id)
            there = await t.row(Q["there"], certificate, b"")
            if there is not None:
                raise NotPossible(f"this is the certificate of key {there['id']} already")
            if key.retired or await t.row(Q["complete"], id, certificate, list(chain)) is None:
                raise NotPossible(f"key {id} has its certificate" if not key.retired else f"key {id} was dropped")
            made = await self._one(t, id)
            await note(t, "key.completed", actor, made, {})
            await t.commit()
        return made

    async def drop_key(self, id: str, *, actor: str, why: str) -> OwnKey:
        async with self._pool.transaction() as t:
            await t.row(QR["watch"], ALIVE / 2)
            key = await self._one(t, id)
            standing = await t.row(QR["standing_of"], "keys")
            if standing["proposed_topic"] == "keys":
                raise NotPossible(f"ring {standing['proposed']} is being applied at this moment")
            if set(key.states.values()) != {"PLANNED"}:
                raise NotPossible(f"key {id} is not PLANNED for all its uses; it is retired use by use")
            await t.row(Q["drop"], id)
            await t.row(Q["destroy"])
            await note(t, "key.dropped", actor, key, {"why": why})
            dropped = await self._one(t, id)
            await t.commit()
        return dropped

    async def own_keys(self) -> list[OwnKey]:
        return [_key(row) for row in await self._pool.rows(Q["all"])]

    async def chosen(self) -> list[Chosen]:
        return [Chosen(**row) for row in await self._pool.rows(Q["chosen"])]

    @staticmethod
    async def _one(t: Transaction, id: str) -> OwnKey:
        found = next((key for key in await own_keys(t) if key.id == id), None)
        if found is None:
            raise NotFound(f"no key {id}")
        return found


async def own_keys(t: Transaction) -> list[OwnKey]:
    """Every key, within a transaction."""
    return [_key(row) for row in await t.rows(Q["all"])]


async def follow_ring(t: Transaction, ring: Record) -> None:
    """States, choices and private parts as the ring that becomes active has them, each with its audit entry."""
    wanted, keys = Ring.decode(ring["content"]), await own_keys(t)
    by_id, why = {key.id: key for key in keys}, {"ring": ring["number"], "reason": ring["reason"]}
    for move in moves(keys, wanted):
        await t.row(Q["move"], *move)
        facts = {"use": move.use, "from": move.before, "to": move.after, **why}
        await note(t, "key.moved", ring["author"], by_id[move.key], facts)
    gone, new = changes([Chosen(**row) for row in await t.rows(Q["chosen"])], wanted.choices)
    for choice in gone:
        await t.row(Q["unchoose"], choice.party, choice.partner, choice.key)
        await note(t, "key.unchosen", ring["author"], by_id[choice.key], {"partner": choice.partner, **why})
    for choice in new:
        await t.row(Q["choose"], choice.party, choice.partner, choice.key, choice.why)
        facts = {"partner": choice.partner, "why": choice.why, **why}
        await note(t, "key.chosen", ring["author"], by_id[choice.key], facts)
    await t.row(Q["destroy"])


async def note(t: Transaction, kind: str, actor: str, key: OwnKey, facts: dict[str, Any]) -> None:
    """An audit entry about one key, under its fingerprint."""
    detail = {"key": key.id, "party": key.party or "", **facts}
    await t.row(QA["append"], *row_texts(kind, actor, key.fingerprint, detail))


def _key(row: Record) -> OwnKey:
    facts, uses = dict(row), row["uses"]
    return OwnKey(**facts | {
        "chain": tuple(row["chain"]), "uses": tuple(uses), "states": dict(zip(uses, row["states"], strict=True)),
        "since": dict(zip(uses, row["since"], strict=True)),
    })  # fmt: skip
