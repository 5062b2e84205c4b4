"""The part of the Store protocol about nodes that share a database: who lives, and who is active.

One lease decides which node is active. It is for calm, never for correctness: unique keys and
claim tokens sort out what two active nodes do [reliability 5.2]. It is a row, so it survives a
change of the primary; its token is (timeline, epoch), because a server that was promoted without
the last commits may give an epoch a second time. All times are the database's.

A node is known by its name and by the instance of its data folder. A name that another
living instance has is refused: two nodes that are called the same would both be active.
"""

from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

#: Seconds. Whoever has the lease renews it at every beat, and stops acting on it at `TRUSTED`.
LEASE, BEAT, TRUSTED = 3.0, 1.0, 2.0

Roles = Literal["active/passive", "active/active"]


class Presence(Struct, frozen=True, kw_only=True):
    """What a process says of its node. `trouble`: what keeps it from working well; it has the lease then only while no
    better node lives. `takes`: whether it wants the lease at all."""

    node: str
    instance: UUID
    roles: Roles = "active/passive"
    trouble: str | None = None
    takes: bool = True


class Lease(Struct, frozen=True, kw_only=True):
    """Who has the lease. Not `live`: it ran out, or was let go."""

    holder: str
    timeline: int
    epoch: int
    live: bool
    expires_at: datetime

    @property
    def token(self) -> tuple[int, int]:
        """Grows with every change of hands."""
        return self.timeline, self.epoch


class Turn(Struct, frozen=True, kw_only=True):
    """What a process hears when it reports. `at` is the database's clock. `durability` is what the commit of the report
    waited for: the setting, and `alone` where no standby was asked."""

    lease: Lease | None
    holds: bool
    drained: bool
    at: datetime
    durability: str
    #: Another living instance has our name.
    name_taken: bool = False


class NodeState(Struct, frozen=True, kw_only=True):
    """A node that was heard of; not `alive` when that is too long ago, or it left in order."""

    name: str
    roles: str
    trouble: str | None
    drained: bool
    alive: bool
    seen_at: datetime


class Standby(Struct, frozen=True, kw_only=True):
    """A server that follows. Texts are empty and `lag` (octets) None where we may not know."""

    name: str
    state: str
    sync: str
    lag: int | None


class Server(Struct, frozen=True, kw_only=True):
    """The server that takes writes. `awaited` are the standbys that its commits wait for, as it is configured."""

    version: str
    timeline: int
    awaited: str
    durability: str
    sees_standbys: bool = True
    standbys: tuple[Standby, ...] = ()


class Pair(Protocol):
    """Every verb that changes something is one commit. All raise `StoreUnavailable`."""

    async def report(self, presence: Presence) -> Turn:
        """This node lives; take or renew the lease if it wants that, is not drained, and may."""
        ...

    async def step_down(self, instance: UUID, *, gone: bool = False) -> None:
        """Let the lease go, if this instance has it. `gone`: and the node has left."""
        ...

    async def lease(self) -> Lease | None: ...

    async def nodes(self) -> list[NodeState]: ...

    async def hand_over(self, to: str, *, holder: str | None, actor: str) -> Lease:
        """The lease goes to node `to`, with an audit entry. Raises `StalePlan` when it is not `holder`'s (None:
        nobody's), `NotFound` when there is no such node."""
        ...

    async def set_drained(self, node: str, drained: bool, *, actor: str) -> bool:
        """Whether a node is to work; a drained one lets the lease go. With an audit entry. False: nothing
        changed. `NotFound`."""
        ...

    async def server(self) -> Server:
        """The server that takes our writes, and who follows it."""
        ...
