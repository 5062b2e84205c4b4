"""What an operator asks and decides about nodes that share a database: who is active, and who is not to be.

Plans first, acts second. What is decided is written into the database, with its audit entry, and every
node hears of it at its next beat, within a second.
"""

import asyncio
import time

from msgspec import Struct

from gateway.errors import NotFound
from gateway.store.api import Store
from gateway.store.pair import Lease, NodeState, Server

#: Between two looks whether something has happened.
LOOK = 0.1


class Status(Struct, frozen=True, kw_only=True):
    """How the pair stands. `findings` are what is wrong, in words."""

    lease: Lease | None
    nodes: tuple[NodeState, ...]
    server: Server
    findings: tuple[str, ...]

    @property
    def active(self) -> str | None:
        """The node with the lease."""
        return self.lease.holder if self.lease and self.lease.live else None

    def node(self, name: str) -> NodeState:
        """Raises `NotFound`."""
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            known = ", ".join(node.name for node in self.nodes) or "none"
            raise NotFound(f"there is no node {name}; the nodes are: {known}")
        return found


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done, and what speaks against it. `nothing`: it is so already."""

    verb: str
    node: str
    before: str | None
    after: str | None
    objections: tuple[str, ...] = ()
    nothing: bool = False


async def status(store: Store, *, demand: str) -> Status:
    """How the pair stands; `demand` is `store.synchronous` of the configuration."""
    lease, nodes, server = await store.lease(), tuple(await store.nodes()), await store.server()
    return Status(lease=lease, nodes=nodes, server=server, findings=tuple(_findings(lease, nodes, server, demand)))


def _findings(lease: Lease | None, nodes: tuple[NodeState, ...], server: Server, demand: str) -> list[str]:
    found = []
    living = [node for node in nodes if node.alive]
    shared = any(node.roles == "active/active" for node in living)
    if not lease or not lease.live:
        found.append("no node is active" if not shared else "no node has the lease; retention waits for one")
    found += [f"{node.name} is not heard of" for node in nodes if not node.alive]
    found += [f"{node.name}: {node.trouble}" for node in living if node.trouble]
    found += [f"{node.name} is drained" for node in nodes if node.drained]
    if len({node.roles for node in living}) > 1:
        found.append("the nodes are configured for different pair.roles")
    if demand != "any" and server.durability.endswith(" alone"):
        found.append("no synchronous standby: what is committed is on one server alone")
    return found


def able(node: NodeState) -> str | None:
    """Why this node could not become active; None when it could."""
    if not node.alive:
        return "it is not heard of"
    return "it is drained" if node.drained else node.trouble


def switchover(found: Status, to: str | None) -> Plan:
    """Make `to` active, or the one other node that could be. Raises `NotFound`."""
    others = [node.name for node in found.nodes if node.name != found.active and able(node) is None]
    if to is None:
        if len(others) != 1:
            raise NotFound(
                f"say which of {', '.join(others)} is to be active" if others else "no other node could become active"
            )
        to = others[0]
    why = able(found.node(to))
    objections = (f"{to} could not work: {why}",) if why else ()
    return Plan(verb="switchover", node=to, before=found.active, after=to, objections=objections,
                nothing=to == found.active)  # fmt: skip


def drain(found: Status, node: str, drained: bool) -> Plan:
    """Take a node out of work, or put it back. Raises `NotFound`."""
    state = found.node(node)
    others = [other.name for other in found.nodes if other.name != node and able(other) is None]
    objections = ("no other node could work: partners are turned away until it is undrained",)
    return Plan(
        verb="drain" if drained else "undrain", node=node, before=found.active,
        after=found.active if not drained or found.active != node else others[0] if others else None,
        objections=() if others or not drained or state.drained else objections, nothing=state.drained == drained,
    )  # fmt: skip


async def carry_out(store: Store, plan: Plan, *, actor: str, patience: float) -> Lease | None:
    """Do what was planned and wait until it is so; the lease then. Raises `StalePlan` when another node is active by
    now, `TimeoutError` when nobody takes over within `patience` seconds: what was decided stands all the same."""
    given = None
    if plan.verb == "switchover":
        given = await store.hand_over(plan.node, holder=plan.before, actor=actor)
    else:
        await store.set_drained(plan.node, plan.verb == "drain", actor=actor)
    until = time.monotonic() + patience
    while not _done(plan, given, lease := await store.lease()):
        if time.monotonic() > until:
            raise TimeoutError(f"{plan.after} was not heard to be active within {patience:g} s; `gateway ha status`")
        await asyncio.sleep(LOOK)
    return lease


def _done(plan: Plan, given: Lease | None, lease: Lease | None) -> bool:
    """Whether the node that is to be active has said so itself."""
    if plan.verb == "undrain" or plan.after is None:
        return True
    if lease is None or not lease.live:
        return False
    if given is None:
        return lease.holder != plan.node
    return lease.holder == plan.node and lease.expires_at > given.expires_at
