"""The agreements of one process: the active revision in its `Cell`, earlier ones for messages in flight.

Every process looks every two seconds, and at once when the bell of agreements rings: it beats,
loads what is proposed beside what is in force, tests it on itself, and says how that went. The
look in which the last word is there makes the proposal active, in the database; every
process that sees it active then replaces its cell. What a message reads it reads once, so
no message ever sees half of a change.

A message goes on under the revision it began with. Earlier revisions are kept at hand, a few, and
read from the database when they are asked for, also by a process that never served them.

This process never serves what it has not tested. When the active revision cannot be loaded here
(it was active before this process could say so), the one before stays in force and the
process is not ready: `trouble` says why, and every look tries again.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from gateway import log, metrics
from gateway.errors import AgreementsUnavailable, ConfigError, GatewayError, StoreUnavailable
from gateway.keys.keyring import Keyring
from gateway.msh.rooms import Agreements, Cell, Cpu
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.toml import expanded
from gateway.stages import point
from gateway.store.agreements import BEAT, Beat, NewRevision, Revision
from gateway.store.api import Store

#: Earlier revisions at hand. Late receipts are understood for messages of these.
KEPT = 8
#: A revision that could not be loaded is not tried for so long.
FORGET = 30.0


class Candidate(NamedTuple):
    """A revision that was loaded and tested, with the keys it was tested with."""

    agreements: Agreements
    keyring: Keyring


class Revisions:
    """One a process. `test(agreements, keyring)` raises `GatewayError` for what this process cannot serve;
    `read_keyring` reads our keys anew; `base` is where references of agreements to secrets start from."""

    def __init__(
        self, store: Store, cell: Cell[Agreements], keyring: Cell[Keyring], cpu: Cpu, *,
        test: Callable[[Agreements, Keyring], None], read_keyring: Callable[[], Keyring], base: Path, node: str,
        place: str,
    ) -> None:  # fmt: skip
        self._store, self._cell, self._keyring, self._cpu = store, cell, keyring, cpu
        self._test, self._read_keyring, self._base = test, read_keyring, base
        self._id, self._node, self._place = uuid4(), node, place
        self._candidate: Candidate | None = None
        self._answered = 0
        self._older: OrderedDict[int, Agreements] = OrderedDict()
        self._lost: dict[int, float] = {}
        self._looking, self._loading = asyncio.Lock(), asyncio.Lock()
        #: Why this process does not serve the active revision; None when it does.
        self.trouble: str | None = None

    @property
    def number(self) -> int:
        """The revision in force in this process; 0 before there is one."""
        return self._cell.value.pmodes.revision

    # -- life -------------------------------------------------------------------------

    async def begin(self, files: Callable[[], Bundle]) -> None:
        """Serve the active revision; where there is none yet, `files` become the first. Raises `GatewayError`."""
        # From the first word on nothing becomes active without us.
        await self._store.beat(self._beat(fresh=True))
        try:
            revision = await self._store.active_agreements() or await self._first(files())
            if revision is not None:
                self._use(await self._load(revision))
        except BaseException:
            await self.leave()
            raise

    async def begin_with(self, files: Bundle) -> Revision | None:
        """`files` as the first revision, in a database that has none. The active one, whosever it is."""
        async with self._looking:
            revision = await self._first(files)
            if revision is not None and revision.number != self.number:
                await self._switch(revision.number)
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
        try:
            await self._store.leave(self._id)
        except GatewayError as error:
            log.event("store.unavailable", level="warning", reason=str(error))

    async def look(self) -> None:
        """Beat, answer what is proposed, follow what is active. Raises `StoreUnavailable`."""
        async with self._looking:
            standing = await self._store.beat(self._beat())
            active = standing.active
            if standing.proposed:
                active = await self._answer(standing.proposed) or active
            if active != self.number:
                await self._switch(active)

    async def _warm(self) -> None:
        """Have the last revisions at hand, for receipts of messages that were sent under them."""
        earlier = [r for r in await self._store.revisions(limit=4 * KEPT) if r.state == "SUPERSEDED"]
        for revision in reversed(earlier[: KEPT // 2]):
            await self.of(revision.number)

    # -- what is proposed ---------------------------------------------------------------

    async def _answer(self, number: int) -> int | None:
        """Say what we think of it, once; its number if it is active now."""
        if self._answered != number:
            revision = await self._store.revision(number)
            if revision is None:
                return None
            why = None
            try:
                self._candidate = await self._load(revision)
            except GatewayError as error:
                self._candidate, why = None, str(error)
                log.event("agreements.refused", level="warning", revision=number, reason=why)
            point("AG02")
            await self._store.acknowledge_revision(number, self._beat(), why)
            self._answered = number
            point("AG03")
        settled = await self._store.settle_revision(number)
        if settled.state == "REFUSED":
            self._candidate = None
        return number if settled.state == "ACTIVE" else None

    async def _switch(self, number: int) -> None:
        """Serve the active revision from now on; say so at once."""
        point("AG05")
        candidate, self._candidate = self._candidate, None
        try:
            if candidate is None or candidate.agreements.pmodes.revision != number:
                revision = await self._store.revision(number)
                if revision is None:
                    raise ConfigError(f"there is no revision {number}")
                candidate = await self._load(revision)
        except StoreUnavailable:
            raise
        except GatewayError as error:
            why = f"revision {number}: {error}"
            if why != self.trouble:
                self.trouble = why
                log.event("agreements.trouble", level="error", revision=number, reason=str(error))
                await self._store.beat(self._beat())
            return
        self._use(candidate)
        point("AG06")
        await self._store.beat(self._beat())

    def _use(self, candidate: Candidate) -> None:
        """In one step, without waiting: the next message reads the new cell, those under way keep what they read."""
        before = self._cell.value
        if before.pmodes.revision:
            self._keep(before.pmodes.revision, before)
        if candidate.keyring is not self._keyring.value:
            try:
                # Ours may have been read again since the test; then they are the newer ones.
                self._test(candidate.agreements, self._keyring.value)
            except GatewayError:
                self._keyring.value = candidate.keyring
        self._cell.value = candidate.agreements
        self.trouble = None
        metrics.agreements_revision(self.number)
        log.event("agreements.in_force", revision=self.number, legs=len(candidate.agreements.pmodes.legs))

    # -- loading ------------------------------------------------------------------------

    async def _load(self, revision: Revision) -> Candidate:
        """Decode, expand and test, in a thread. Raises `GatewayError`."""
        if revision.content is None or hashlib.sha256(revision.content).digest() != revision.sha256:
            raise ConfigError(f"revision {revision.number} is not what was written")
        bundle = Bundle.decode(revision.content, base=self._base, label=f"revision {revision.number}")
        return await self._cpu.run(self._made, bundle, revision.number)

    def _made(self, bundle: Bundle, number: int) -> Candidate:
        agreements = Agreements(expanded(bundle, revision=number))
        keyring = self._keyring.value
        try:
            self._test(agreements, keyring)
        except GatewayError as error:
            # Perhaps the keys for it lie there already and nobody has told us to read them.
            try:
                keyring = self._read_keyring()
            except GatewayError:
                raise error from None
            self._test(agreements, keyring)
        return Candidate(agreements, keyring)

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
        revision = await self._store.revision(number)
        if revision is None:
            raise ConfigError(f"there is no revision {number}")
        if hashlib.sha256(revision.content).digest() != revision.sha256:
            raise ConfigError(f"revision {number} is not what was written")
        bundle = Bundle.decode(revision.content, base=self._base, label=f"revision {number}")
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
        return Beat(id=self._id, node=self._node, place=self._place, revision=self.number, trouble=self.trouble,
                    fresh=fresh)  # fmt: skip
