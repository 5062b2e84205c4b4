"""Whether this node works: the lease of the active node, as one process sees it.

Once a second every process reports to the database. That report is a durable commit like the one
a receipt stands on, so it is also the proof that there can be receipts at all. One of the
processes that report for a node renews the node's lease; the others find it renewed.

A process acts on the lease for two thirds of its time, by the monotonic clock from the moment
it asked: one that was stopped and goes on believes nothing of before. Nothing but calm rests
on it all the same; claim tokens and unique keys decide [reliability 5.2].

A node with a database of its own (`alone`) has nobody to agree with, and reports nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal
from uuid import UUID

from gateway import log, metrics
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.log import printable
from gateway.store.api import Store
from gateway.store.pair import BEAT, TRUSTED, Presence, Roles, Turn

#: A report that takes longer has failed. Less than TRUSTED, so that one that fails is noticed in time.
PATIENCE = 1.5
#: Seconds between our clock and the database's beyond which certificates and timestamps are judged wrongly.
SKEW = 60.0
#: Beats between two looks at the server and its standbys.
LOOK = 10
#: Letting the lease go must not hold up the end of a process.
FAREWELL = 2.0
#: Who gives way in order goes on saying that messages may come here until the other one has reported, which is a beat,
#: and a load balancer has seen that twice: else there is a second in which it has nobody to send to.
LINGER = BEAT + 1.5

Demand = Literal["any", "preferred", "required"]
Role = Literal["active", "passive"]


async def _fit() -> str | None:
    """Of a process that nobody has examined."""
    return None


class Duty:
    """One a process."""

    def __init__(
        self, store: Store, clock: Clock, *, node: str, instance: UUID | None = None,
        roles: Roles = "active/passive", demand: Demand = "any",
    ) -> None:  # fmt: skip
        self._store, self._clock = store, clock
        self._fit: Callable[[], Awaitable[str | None]] = _fit
        self._node, self._instance, self._roles, self._demand = node, instance, roles, demand
        self._turn: Turn | None = None
        self._trusted_until = self._lingers_until = float("-inf")
        self._highest = (0, 0)
        self._leaving = False
        self._degraded = self._was_working = False
        self._failure = "it has not reported yet"
        #: Set while the process works; who waits for work waits for it.
        self.on = asyncio.Event()
        #: Seconds our clock was ahead of the database's, and what both our clocks said at that moment.
        self._skew, self._told_at = 0.0, (self._clock.now(), self._clock.monotonic())
        if self.alone:
            self.on.set()

    def watch(self, fit: Callable[[], Awaitable[str | None]]) -> None:
        """`fit()` says what keeps the process from working, or None."""
        self._fit = fit

    @property
    def alone(self) -> bool:
        """A database of its own, so no other node."""
        return self._instance is None

    @property
    def fresh(self) -> bool:
        """A durable commit was made a moment ago."""
        return self.alone or self._clock.monotonic() < self._trusted_until

    @property
    def leads(self) -> bool:
        """This node has the lease: it does what one node is enough for."""
        return self.alone or (self.fresh and self._turn.holds and not self._leaving)

    @property
    def working(self) -> bool:
        """This process claims work, and the load balancer is to send messages here."""
        return self.why_not() is None

    @property
    def role(self) -> Role:
        """What this node is, whether or not it can work at this moment."""
        return "active" if self.alone or self._roles == "active/active" or self.leads else "passive"

    def why_not(self) -> str | None:
        """Why this node is not to work; None when it is."""
        if self._leaving:
            return "it leaves"
        if self.alone:
            return None
        if (trouble := self.trouble()) is not None:
            return trouble
        if (wrong := self.clock_wrong()) is not None:
            return wrong  # certificates and deadlines would be judged by it, once and for all
        if self.role == "passive":
            lease = self._turn.lease
            return f"passive: {lease.holder} is active" if lease and lease.live else "passive: nobody is active"
        return None

    def why_unready(self) -> str | None:
        """Why no messages are to be sent here; None when they may come. Who gave way a moment ago is still ready."""
        lingers = self.fresh and self._clock.monotonic() < self._lingers_until and not self._weak()
        return None if lingers else self.why_not()

    def _linger(self) -> None:
        # With both active the load balancer has somebody else already.
        if self._roles == "active/passive":
            self._lingers_until = self._clock.monotonic() + LINGER

    def trouble(self) -> str | None:
        """What is wrong, for a node of either role."""
        if self.alone:
            return None
        if not self.fresh:
            return self._failure
        if self._turn.name_taken:
            return f"another living node is called {self._node}: give every node its own node.name"
        if self._turn.drained:
            return f"drained: `gateway ha undrain {self._node}` ends that"
        return self.weakness() if self._demand == "required" else None

    def weakness(self) -> str | None:
        """Why a commit is not kept by two servers, where that is asked for."""
        if self._demand == "any" or self._turn is None or not self._turn.durability.endswith(" alone"):
            return None
        return "no synchronous standby: what is committed is on one server alone"

    def clock_wrong(self) -> str | None:
        """Our clock against the database's."""
        if self.alone:
            return None
        wall, mono = self._told_at
        # Of this moment: our clock may have jumped since the last report.
        skew = self._skew + (self._clock.now() - wall).total_seconds() - (self._clock.monotonic() - mono)
        return f"{skew:+.0f} s off the database's clock" if abs(skew) > SKEW else None

    # -- life -------------------------------------------------------------------------

    async def keep(self) -> None:
        """Report until cancelled. A process that is alone returns."""
        number = 0
        while not self.alone:
            began = self._clock.monotonic()
            await self.beat()
            if number % LOOK == 0:
                await self._look()
            number += 1
            await self._clock.sleep(max(BEAT - (self._clock.monotonic() - began), 0.1))

    async def beat(self) -> None:
        """Report once. Never raises for what the database does."""
        trouble = await self._fit()
        asked, wall = self._clock.monotonic(), self._clock.now()
        presence = Presence(
            node=self._node, instance=self._instance, roles=self._roles,
            trouble=None if trouble is None else printable(trouble, 500),
            takes=trouble is None and not self._leaving and not self._weak(),
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                turn = await self._store.report(presence)
        except TimeoutError:
            self._failure = f"no durable commit within {PATIENCE:g} s"
        except GatewayError as error:
            self._failure = f"no durable commit: {error}"
        else:
            took = self._clock.monotonic() - asked
            self._skew, self._told_at = (wall - turn.at).total_seconds() + took / 2, (wall, asked)
            metrics.commit(took)
            was_working = self.working
            self._hear(turn, asked)
            if was_working and self._gave_way():
                self._linger()
        self._tell()

    def _weak(self) -> bool:
        """A commit that only one server keeps is no reason to become active. The first report has to be tried."""
        return self._demand == "required" and self._turn is not None and self.fresh and self.weakness() is not None

    def _hear(self, turn: Turn, asked: float) -> None:
        token = turn.lease.token if turn.lease else self._highest
        if token[0] < self._highest[0]:
            # A primary that was replaced and does not know: what it says of the lease is of the past.
            self._failure = f"the database went back from timeline {self._highest[0]} to {token[0]}"
            return
        self._highest = max(self._highest, token)
        self._turn, self._trusted_until = turn, asked + TRUSTED
        self._failure = "the last durable commit is too long ago"

    def _gave_way(self) -> bool:
        """By an operator's word, and not because something failed."""
        lease = self._turn.lease
        handed = self._turn.drained or (lease is not None and lease.live and not self._turn.holds)
        return handed and self.fresh and not self._turn.name_taken

    def _tell(self) -> None:
        working = self.working
        if working:
            self.on.set()
        else:
            self.on.clear()
        metrics.pair(active=working, leads=self.leads)
        if working != self._was_working:
            self._was_working = working
            lease = self._turn.lease if self._turn else None
            log.event("node.active" if working else "node.passive", reason=self.why_not(),
                      epoch=lease.epoch if lease else None)  # fmt: skip
        if (weakness := self.weakness()) is not None and not self._degraded:
            log.event("store.degraded", level="error", reason=weakness)
        elif weakness is None and self._degraded:
            log.event("store.restored")
        self._degraded = weakness is not None

    async def _look(self) -> None:
        """The server and its standbys, for the metrics."""
        try:
            async with asyncio.timeout(PATIENCE):
                server = await self._store.server()
        except (TimeoutError, GatewayError):
            return
        lags = {standby.name: standby.lag for standby in server.standbys if standby.lag is not None}
        metrics.replication(lags, durable=not server.durability.endswith(" alone"))

    async def step_down(self) -> None:
        """This process ends soon: the lease goes first, so that another node has it while this one still answers. When
        it returns, this one has been ready long enough."""
        if self.alone:
            self._leaving = True
            self.on.clear()
            return
        if self.leads and self.working:
            self._linger()
        self._leaving = True
        self.on.clear()
        await self._leave(gone=False)
        await self._clock.sleep(max(0.0, self._lingers_until - self._clock.monotonic()))

    async def leave(self) -> None:
        """The node is gone in order."""
        if not self.alone:
            self._leaving = True
            await self._leave(gone=True)

    async def _leave(self, *, gone: bool) -> None:
        try:
            async with asyncio.timeout(FAREWELL):
                await self._store.step_down(self._instance, gone=gone)
        except (TimeoutError, GatewayError) as error:
            log.event("store.unavailable", level="warning", reason=str(error) or f"no answer within {FAREWELL:g} s")
