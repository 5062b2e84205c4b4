"""The nodes that share the database, and the lease of the active one."""

from uuid import UUID

from asyncpg import Record

from gateway.errors import NotFound, StalePlan
from gateway.store.chain import row_texts
from gateway.store.pair import LEASE, Lease, NodeState, Presence, Server, Standby, Turn
from gateway.store.postgres.room import Room
from gateway.store.postgres.sql import load

Q = load("pair")
QA = load("audit")


class Pair(Room):
    """The verbs of `store.pair`."""

    async def report(self, presence: Presence) -> Turn:
        async with self._pool.transaction() as t:
            me = await t.row(
                Q["report"], presence.node, presence.instance, presence.roles, presence.trouble, LEASE
            )
            held = None
            if me is not None and presence.takes and not me["drained"]:
                held = await t.row(Q["hold"], presence.node, presence.instance, LEASE, presence.trouble is None)
            found = held or await t.row(Q["lease"])
            if me is not None:
                await t.commit()
            else:
                me = await t.row(Q["unreported"])
        return Turn(
            lease=_lease(found), holds=held is not None, drained=me["drained"], at=me["at"],
            durability=me["durability"], name_taken=me["name_taken"],
        )  # fmt: skip

    async def step_down(self, instance: UUID, *, gone: bool = False) -> None:
        async with self._pool.transaction() as t:
            # Node before lease, as everywhere.
            if gone:
                await t.row(Q["gone"], instance)
                await t.row(Q["forget"])
            await t.row(Q["let_go"], instance)
            await t.commit()

    async def lease(self) -> Lease | None:
        return _lease(await self._pool.row(Q["lease"]))

    async def nodes(self) -> list[NodeState]:
        return [NodeState(**row) for row in await self._pool.rows(Q["nodes"], LEASE)]

    async def hand_over(self, to: str, *, holder: str | None, actor: str) -> Lease:
        async with self._pool.transaction() as t:
            found = _lease(await t.row(Q["lock_lease"]))
            if (now := found.holder if found and found.live else None) != holder:
                raise StalePlan(f"{now or 'nobody'} is active by now, not {holder or 'nobody'}")
            made = _lease(await t.row(Q["hand_over"], to, LEASE))
            if made is None:
                raise NotFound(f"there is no node {to}")
            facts = {"from": holder, "epoch": made.epoch}
            await t.row(QA["append"], *row_texts("pair.switchover", actor, to, facts))
            await t.commit()
        return made

    async def set_drained(self, node: str, drained: bool, *, actor: str) -> bool:
        async with self._pool.transaction() as t:
            changed = await t.row(Q["set_drained"], node, drained)
            if changed is None:
                if all(row["name"] != node for row in await t.rows(Q["nodes"], LEASE)):
                    raise NotFound(f"there is no node {node}")
                return False
            if drained:
                await t.row(Q["let_go"], changed["instance"])
            kind = "pair.drained" if drained else "pair.undrained"
            await t.row(QA["append"], *row_texts(kind, actor, node, {}))
            await t.commit()
        return True

    async def server(self) -> Server:
        row = await self._pool.row(Q["server"])
        standbys = await self._pool.rows(Q["standbys"])
        return Server(**row, standbys=tuple(Standby(**standby) for standby in standbys))


def _lease(row: Record | None) -> Lease | None:
    return None if row is None else Lease(**row)
