"""What `/readyz` and the lease stand on: can this process really take messages and answer them.

    fit       keys sign, our certificates are not over, the active agreements are served, the spool has room, the clock
              is right
    duty      a durable commit of a moment ago, as a receipt needs it; the role of the node
    ready     all of it, and not draining

An answer is at most a second old, and none waits for the database of a pair: its state is
what the last report said (`duty.py`).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.as4.profiles import PROFILES
from gateway.errors import GatewayError, KeyUnavailable
from gateway.msh.duty import Duty
from gateway.msh.rooms import Rooms

#: Check, whether it is well, and what it says.
Check = tuple[str, bool, str]
Verdict = tuple[bool, list[Check]]

T = TypeVar("T")

#: An answer is good for this long, and a test signature [reliability 5.7].
CACHE, SIGNED = 1.0, 30.0
#: An answer of the store, of a token or of a disk takes at most this.
PATIENCE = 1.5
#: Of the disk of the spool so much has to be free, or room for the largest message.
FREE = 0.1
#: Files that can still be made there.
INODES = 1000


class Patience:
    """Work of a thread that may hang: one at a time. Who asks again meanwhile waits for that one."""

    def __init__(self) -> None:
        self._work: asyncio.Future | None = None

    async def __call__(self, begin: Callable[[], Awaitable[T]]) -> T:
        """What `begin()` comes to. Raises `TimeoutError` when that is not known within `PATIENCE`."""
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(begin())
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self._work)


class Health:
    """One a process. `draining()` says whether the process ends."""

    def __init__(
        self, rooms: Rooms, duty: Duty, spool: Path, *, draining: Callable[[], bool],
        certificates: Callable[[], Awaitable[tuple[bool, str]]],
    ) -> None:  # fmt: skip
        """`certificates` says whether ours are still good."""
        self._rooms, self._duty, self._spool, self._draining = rooms, duty, spool, draining
        self._certificates = certificates
        self._found: Verdict = (False, [])
        self._until = float("-inf")
        self._asking = asyncio.Lock()
        self._signed_with: tuple[object, object] = (None, None)
        self._signed_until = float("-inf")
        self._unsigned: str | None = None
        self._signing, self._reading, self._disk = Patience(), Patience(), Patience()

    async def fit(self) -> str | None:
        """What keeps this process from working, apart from the database; None when nothing does."""
        return next((f"{name}: {text}" for name, ok, text in await self._own() if not ok), None)

    async def ready(self) -> Verdict:
        """Whether messages are to be sent here, and each check."""
        async with self._asking:  # those who ask at once share one answer
            now = self._rooms.clock.monotonic()
            if now >= self._until:
                self._found = await self._judged()
                # That of a pair costs nothing, and is to be as new as its last report.
                self._until = self._rooms.clock.monotonic() + (CACHE if self._duty.alone else 0.0)
            return self._found

    async def role(self) -> tuple[str, Verdict]:
        """What this node is, and whether it could do that: a passive one is well when it could become active."""
        _, checks = await self.ready()
        passing = {"role"} if self._duty.trouble() is None else set()
        return self._duty.role, (all(ok for name, ok, _ in checks if name not in passing), checks)

    def forget(self) -> None:
        """The next answer is a new one."""
        self._until = float("-inf")

    async def _judged(self) -> Verdict:
        draining = self._draining()
        checks = [("draining", not draining, "draining" if draining else "taking work"), await self._store()]
        if not self._duty.alone:
            why = self._duty.why_unready()
            checks.append(("role", why is None, why or self._duty.role))
            weakness = self._duty.weakness()
            # Known and shown; whether it is borne, the role says.
            checks.append(("durability", True, f"degraded: {weakness}" if weakness else "as demanded"))
        checks += await self._own()
        return all(ok for _, ok, _ in checks), checks

    async def _store(self) -> Check:
        if not self._duty.alone:
            trouble = None if self._duty.fresh else self._duty.trouble()
            return "store", trouble is None, trouble or "a durable commit was made a moment ago"
        try:
            async with asyncio.timeout(PATIENCE):
                health = await self._rooms.store.health()
        except (GatewayError, TimeoutError) as error:
            return "store", False, str(error) or f"no answer within {PATIENCE:g} s"
        return "store", health.writable, f"PostgreSQL {health.version}{'' if health.writable else ', read-only'}"

    async def _own(self) -> list[Check]:
        clock = self._duty.clock_wrong()
        return [
            await self._keys(), await self._not_over(), self._agreements(), await self._room(),
            ("clock", clock is None, clock or "right"),
        ]  # fmt: skip

    async def _keys(self) -> Check:
        """A test signature with every key of ours; made anew when the keys or the agreements are others."""
        ring = self._rooms.revisions.ring
        if ring.trouble is not None:
            return "keys", False, ring.trouble
        present = self._rooms.agreements.value.pmodes, self._rooms.keyring.value
        now = self._rooms.clock.monotonic()
        others = any(known is not found for known, found in zip(self._signed_with, present, strict=True))
        if others or now >= self._signed_until or self._unsigned is not None:
            self._unsigned = await self._sign()
            self._signed_with, self._signed_until = present, now + SIGNED
        found = f"signing works, ring {ring.number}" if ring.number else "signing works"
        return "keys", self._unsigned is None, self._unsigned or found

    async def _sign(self) -> str | None:
        """What is wrong with a signature. One that hangs in a token is waited for again, not asked for again."""
        try:
            await self._signing(lambda: self._rooms.with_keys(self._sign_once))
        except KeyUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"no signature within {PATIENCE:g} s"
        return None

    def _sign_once(self) -> None:
        """With every key that signs for us. Raises `KeyUnavailable`."""
        pmodes, keyring = self._rooms.agreements.value.pmodes, self._rooms.keyring.value
        for party in pmodes.selves:
            for name in {leg.profile for leg in pmodes.legs if leg.from_party == party}:
                keyring.signing_key(party.party_id, PROFILES[name]).sign(b"ready")

    async def _not_over(self) -> Check:
        try:
            return "certificates", *await self._reading(self._certificates)
        except TimeoutError:
            return "certificates", False, f"their files cannot be read within {PATIENCE:g} s"

    def _agreements(self) -> Check:
        """A process that cannot serve the active revision takes no messages under the one before."""
        revisions = self._rooms.revisions
        return "agreements", revisions.trouble is None, revisions.trouble or f"revision {revisions.number}"

    async def _room(self) -> Check:
        try:
            disk = await self._disk(lambda: self._rooms.cpu.run(os.statvfs, self._spool))
        except TimeoutError:  # it is an OSError, too
            return "spool", False, f"its disk does not answer within {PATIENCE:g} s"
        except OSError as error:
            return "spool", False, f"{self._spool.name}: {error.strerror}"
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        if free < min(total * FREE, self._rooms.config.limits.message):
            return "spool", False, f"only {free >> 20} MiB are free on its disk"
        if disk.f_files and disk.f_favail < INODES:
            return "spool", False, f"only {disk.f_favail} files can still be made on its disk"
        return "spool", True, f"{free >> 20} MiB free"
