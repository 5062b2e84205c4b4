"""The agreements of one process: the active revision in its `Cell`, earlier ones for messages in flight.

Every process looks every two seconds, and at once when the bell of agreements rings: it beats,
loads what is proposed beside what is in force, tests it on itself, and says how that went. The
look in which the last word is there makes the proposal active, in the database; every
process that sees it active then replaces its cell. What a message reads it reads once, so
no message ever sees half of a change. How that is done stands in `following`; the ring of our own keys
(`ring`) is followed in the same looks.

A message goes on under the revision it began with. Earlier revisions are kept at hand, a few, and
read from the database when they are asked for, also by a process that never served them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from gateway import log, metrics
from gateway.errors import AgreementsUnavailable, GatewayError, StoreUnavailable
from gateway.keys.keyring import Keyring
from gateway.msh.following import Following, intact
from gateway.msh.ring import OwnRing
from gateway.msh.rooms import Agreements, Cell, Cpu
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.toml import expanded
from gateway.store.agreements import BEAT, Beat, NewRevision, Revision, Standing
from gateway.store.api import Store

#: Earlier revisions at hand. Late receipts are understood for messages of these.
KEPT = 8
#: A revision that could not be loaded is not tried for so long.
FORGET = 30.0


class Candidate(NamedTuple):
    """A revision that was loaded and tested, with the key files it was tested with if they had to be read anew."""

    agreements: Agreements
    files: Keyring | None = None


class Revisions(Following):
    """One a process. `test(agreements, keyring)` raises `GatewayError` for what this process cannot serve; `ring` is
    followed in the same looks; `base` is where references of agreements to secrets start from."""

    topic = "agreements"

    def __init__(
        self, store: Store, cell: Cell[Agreements], ring: OwnRing, cpu: Cpu, *,
        test: Callable[[Agreements, Keyring], None], base: Path, node: str, place: str,
    ) -> None:  # fmt: skip
        super().__init__(store, self._beat)
        ring.join(self._beat, lambda keyring: test(cell.value, keyring))
        self.ring = ring
        self._cell, self._cpu, self._test, self._base = cell, cpu, test, base
        self._id, self._node, self._place = uuid4(), node, place
        self._older: OrderedDict[int, Agreements] = OrderedDict()
        self._lost: dict[int, float] = {}
        self._looking, self._loading = asyncio.Lock(), asyncio.Lock()

    @property
    def number(self) -> int:
        """The revision in force in this process; 0 before there is one."""
        return self._cell.value.pmodes.revision

    # -- life -------------------------------------------------------------------------

    async def begin(self, files: Callable[[], Bundle]) -> None:
        """Serve the active revision; where there is none yet, `files` become the first. Raises `GatewayError`."""
        # From the first word on nothing becomes active without us.
        standing = await self._store.beat(self._beat(fresh=True))
        try:
            # Its moment is waited for: this process has nothing older to serve.
            await asyncio.sleep(standing.ring_in)
            await self.ring.follow(standing.ring, 0.0)
            revision = await self._store.active_agreements() or await self._first(files())
            if revision is not None:
                self.use(await self.load(revision))
        except BaseException:
            await self.leave()
            raise

    async def begin_with(self, files: Bundle) -> Revision | None:
        """`files` as the first revision, in a database that has none. The active one, whosever it is."""
        async with self._looking:
            revision = await self._first(files)
            if revision is not None:
                await self.follow(revision.number, 0.0)
            return revision

    async def _first(self, files: Bundle) -> Revision | None:
        candidate = await self._cpu.run(self._made, files, 0)
        if not candidate.agreements.pmodes.legs:
            return None  # nothing is no revision: the folder is filled later
        return await self._store.begin_agreements(
            NewRevision(base=0, content=files.encode(), author=self._node, reason="the files at the first start")
        )

    async def keep(self) -> None:
        """Look until cancelled."""
        try:
            await self._warm()
        except GatewayError as error:
            log.event("store.unavailable", level="warning", reason=str(error))
        while True:
            try:
                await self.look()
                await self._store.wait_for_agreements(BEAT)
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
                await asyncio.sleep(1.0)
            except Exception as error:  # whatever it is, looking goes on
                log.event("incident", level="error", exc_info=error)
                await asyncio.sleep(1.0)

    async def leave(self) -> None:
        """This process ends: nobody waits for its word."""
        await self.stop()
        await self.ring.stop()
        try:
            await self._store.leave(self._id)
        except GatewayError as error:
            log.event("store.unavailable", level="warning", reason=str(error))

    async def look(self) -> None:
        """Beat, follow what is active, answer what is proposed. Raises `StoreUnavailable`."""
        async with self._looking:
            standing = await self._follow()
            if self.ring.waits:
                return  # what is proposed is tested with the keys that are about to be
            settled = bool(standing.proposed) and await self.answer(standing.proposed)
            if (standing.ring_proposed and await self.ring.answer(standing.ring_proposed)) or settled:
                await self._follow()

    async def _follow(self) -> Standing:
        standing = await self._store.beat(self._beat())
        await self.ring.follow(standing.ring, standing.ring_in)
        await self.follow(standing.active, standing.active_in)
        return standing

    async def _warm(self) -> None:
        """Have the last revisions at hand, for receipts of messages that were sent under them."""
        earlier = [r for r in await self._store.revisions(limit=4 * KEPT) if r.state == "SUPERSEDED"]
        for revision in reversed(earlier[: KEPT // 2]):
            await self.of(revision.number)

    # -- loading ------------------------------------------------------------------------

    async def load(self, revision: Revision) -> Candidate:
        """Decode, expand and test, in a thread. Raises `GatewayError`."""
        content = intact(revision, self.topic, revision.number)
        bundle = Bundle.decode(content, base=self._base, label=f"revision {revision.number}")
        return await self._cpu.run(self._made, bundle, revision.number)

    def _made(self, bundle: Bundle, number: int) -> Candidate:
        agreements = Agreements(expanded(bundle, revision=number))
        if self.ring.trouble is not None and not self.number:
            return Candidate(agreements)  # nothing can be tested, nothing is signed, and the process is not ready
        try:
            self._test(agreements, self.ring.keyring)
        except GatewayError as error:
            # Perhaps the keys for it lie there already and nobody has told us to read them.
            try:
                files = self.ring.read_files()
            except GatewayError:
                raise error from None
            self._test(agreements, self.ring.with_files(files))
            return Candidate(agreements, files)
        return Candidate(agreements)

    def use(self, candidate: Candidate) -> None:
        before = self._cell.value
        if before.pmodes.revision:
            self._keep(before.pmodes.revision, before)
        if candidate.files is not None:
            try:
                # Ours may have been read again since the test; then they are the newer ones.
                self._test(candidate.agreements, self.ring.keyring)
            except GatewayError:
                self.ring.take_files(candidate.files)
        self._cell.value = candidate.agreements
        metrics.agreements_revision(self.number)
        log.event("agreements.in_force", revision=self.number, legs=len(candidate.agreements.pmodes.legs))

    def refuses(self, number: int, why: str) -> None:
        log.event("agreements.refused", level="warning", revision=number, reason=why)

    def troubled(self, number: int, why: str) -> None:
        log.event("agreements.trouble", level="error", revision=number, reason=why)

    # -- earlier revisions --------------------------------------------------------------

    async def of(self, number: int) -> Agreements:
        """The agreements a message began with.

        Those in force where the revision is unknown, or an earlier one that cannot be loaded any
        more. Raises `AgreementsUnavailable` for a later one than ours that cannot be loaded here,
        and `StoreUnavailable`.
        """
        current = self._cell.value
        if number == current.pmodes.revision or number == 0:
            return current
        async with self._loading:
            if number in self._older:
                self._older.move_to_end(number)
                return self._older[number]
            if self._lost.get(number, 0.0) > time.monotonic():
                return self._instead(number, current)
            try:
                return await self._earlier(number)
            except StoreUnavailable:
                raise
            except GatewayError as error:
                self._lost[number] = time.monotonic() + FORGET
                log.event("agreements.unavailable", level="warning", revision=number, reason=str(error))
                return self._instead(number, current)

    @staticmethod
    def _instead(number: int, current: Agreements) -> Agreements:
        """What a message goes on under whose revision cannot be loaded. A later one is another process's to serve."""
        if number > current.pmodes.revision:
            raise AgreementsUnavailable(f"revision {number} cannot be loaded here")
        return current

    async def _earlier(self, number: int) -> Agreements:
        content = intact(await self._store.revision(number), self.topic, number)
        bundle = Bundle.decode(content, base=self._base, label=f"revision {number}")
        # Not tested: what has to be done under it is done with the keys there are.
        found = await self._cpu.run(lambda: Agreements(expanded(bundle, revision=number)))
        self._keep(number, found)
        return found

    def recent(self) -> tuple[Agreements, ...]:
        """What is in force, and the earlier revisions at hand."""
        return self._cell.value, *self._older.values()

    def _keep(self, number: int, agreements: Agreements) -> None:
        self._older[number] = agreements
        self._older.move_to_end(number)
        while len(self._older) > KEPT:
            self._older.popitem(last=False)

    def _beat(self, *, fresh: bool = False) -> Beat:
        return Beat(
            id=self._id, node=self._node, place=self._place, revision=self.number, trouble=self.trouble, fresh=fresh,
            ring=self.ring.number, ring_trouble=self.ring.trouble, kek=self.ring.kek,
        )  # fmt: skip
