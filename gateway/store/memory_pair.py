"""`store.pair` in the memory of one process: several gateways may share one `MemoryStore`."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from gateway.clock import Clock
from gateway.errors import NotFound, StalePlan
from gateway.store.pair import LEASE, Lease, NodeState, Presence, Server, Turn


class MemoryPair:
    """Every verb runs without waiting in between. `_append` is the audit's."""

    _clock: Clock
    _append: Any

    def __init__(self) -> None:
        super().__init__()
        self._nodes: dict[str, tuple[UUID, NodeState]] = {}
        #: And of which instance.
        self._lease: tuple[Lease, UUID] | None = None

    async def report(self, presence: Presence) -> Turn:
        now = self._clock.now()
        known = self._nodes.get(presence.node)
        if known is not None and known[0] != presence.instance and self._alive(known[1]):
            return Turn(lease=self._now(), holds=False, drained=False, at=now, durability="on alone", name_taken=True)
        drained = known is not None and known[1].drained
        self._nodes[presence.node] = presence.instance, NodeState(
            name=presence.node, roles=presence.roles, trouble=presence.trouble, drained=drained, alive=True, seen_at=now
        )
        holds = presence.takes and not drained and self._eligible(presence) and self._take_lease(presence)
        return Turn(lease=self._now(), holds=holds, drained=drained, at=now, durability="on alone")

    def _eligible(self, presence: Presence) -> bool:
        others = (node for name, (_, node) in self._nodes.items() if name != presence.node)
        return presence.trouble is None or not any(
            node.trouble is None and not node.drained and self._alive(node) for node in others
        )

    def _take_lease(self, presence: Presence) -> bool:
        found = self._now()
        mine = self._lease is not None and (found.holder, self._lease[1]) == (presence.node, presence.instance)
        if found is not None and found.live and not mine:
            return False
        epoch = found.epoch if found and found.live else found.epoch + 1 if found else 1
        self._lease_to(presence.node, presence.instance, epoch)
        return True

    def _lease_to(self, name: str, instance: UUID, epoch: int) -> None:
        until = self._clock.now() + timedelta(seconds=LEASE)
        self._lease = Lease(holder=name, timeline=1, epoch=epoch, live=True, expires_at=until), instance

    def _now(self) -> Lease | None:
        if self._lease is None:
            return None
        found, _ = self._lease
        return msgspec.structs.replace(found, live=found.expires_at >= self._clock.now())

    def _alive(self, node: NodeState) -> bool:
        return node.alive and node.seen_at >= self._clock.now() - timedelta(seconds=LEASE)

    async def step_down(self, instance: UUID, *, gone: bool = False) -> None:
        if gone:
            for name, (own, node) in self._nodes.items():
                if own == instance:
                    self._nodes[name] = own, msgspec.structs.replace(node, alive=False)
        self._let_go(instance)

    def _let_go(self, instance: UUID) -> None:
        if self._lease is not None and self._lease[1] == instance:
            ended = self._clock.now() - timedelta(seconds=1)
            self._lease = msgspec.structs.replace(self._lease[0], expires_at=ended), instance

    async def lease(self) -> Lease | None:
        return self._now()

    async def nodes(self) -> list[NodeState]:
        return [
            msgspec.structs.replace(node, alive=self._alive(node)) for _, (_, node) in sorted(self._nodes.items())
        ]

    async def hand_over(self, to: str, *, holder: str | None, actor: str) -> Lease:
        found = self._now()
        if (now := found.holder if found and found.live else None) != holder:
            raise StalePlan(f"{now or 'nobody'} is active by now, not {holder or 'nobody'}")
        if to not in self._nodes:
            raise NotFound(f"there is no node {to}")
        self._lease_to(to, self._nodes[to][0], found.epoch + 1 if found else 1)
        made = self._now()
        self._append("pair.switchover", actor, to, {"from": holder, "epoch": made.epoch})
        return made

    async def set_drained(self, node: str, drained: bool, *, actor: str) -> bool:
        if node not in self._nodes:
            raise NotFound(f"there is no node {node}")
        instance, found = self._nodes[node]
        if found.drained == drained:
            return False
        self._nodes[node] = instance, msgspec.structs.replace(found, drained=drained)
        if drained:
            self._let_go(instance)
        self._append("pair.drained" if drained else "pair.undrained", actor, node, {})
        return True

    async def server(self) -> Server:
        return Server(version="memory", timeline=1, awaited="", durability="on alone")
