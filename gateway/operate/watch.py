"""The watch: looks at everything that has an end, and tells what is due. One process of each node runs it.

What was told before is decided by the database, and so is what time it is: a node whose clock is wrong must not tell
the end of everything. Where the clocks of node and database differ, or time has made a jump, nothing is told until they
agree again and have kept still for a while.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from gateway import log, metrics
from gateway.errors import StoreUnavailable
from gateway.keys.keyring import Keyring
from gateway.msh.rooms import Rooms
from gateway.operate import expiry
from gateway.operate.alerting import Hook
from gateway.operate.watched import Source, Watched, everything, ours
from gateway.stages import point
from gateway.store.alerts import Due

#: Between two looks, and between two looks for alerts of another node, in seconds.
INTERVAL, ALERTS = 600.0, 15.0
#: The first look comes when the start is over.
FIRST = 5.0
#: Clocks that differ more than this are wrong; NTP keeps them within a second.
SKEW = 3600.0
#: So long a clock that jumped must run evenly before it is believed.
SETTLE = 900.0
#: What is known of our own certificates is good for so long.
KNOWN = 30.0
#: Alerts are kept for a quarter of a year; what was told of a certificate longer than it lives.
KEEP_ALERTS, KEEP_TOLD = 90 * 86_400.0, 3 * 366 * 86_400.0


class Watch:
    """`keep` is the loop; `look` one round of it."""

    def __init__(self, rooms: Rooms, hook: Hook, sources: Sequence[Source] = ()) -> None:
        """`sources` add what the keyring and the agreements do not know."""
        self._rooms, self._hook, self._sources = rooms, hook, tuple(sources)
        self._last: tuple[datetime, float] | None = None
        self._doubted_until = float("-inf")

    async def keep(self) -> None:
        """Loop until cancelled."""
        clock, due_at = self._rooms.clock, self._rooms.clock.monotonic() + FIRST
        while True:
            await clock.sleep(min(ALERTS, max(due_at - clock.monotonic(), 0.1)))
            try:
                if clock.monotonic() >= due_at:
                    due_at = clock.monotonic() + INTERVAL
                    await self.look()
                await self._hook.run()
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
            except Exception as error:
                # One certificate that nobody has thought of must not end the watch over all others.
                log.event("incident", level="error", exc_info=error)

    async def look(self) -> list[Due]:
        """Metrics of everything, and what is told now for the first time. Raises `StoreUnavailable`."""
        rooms = self._rooms
        watched = await rooms.cpu.run(
            everything, rooms.config, rooms.keyring.value, rooms.agreements.value.pmodes
        )
        for source in self._sources:
            watched += await source()
        watched = list(dict.fromkeys(watched))
        metrics.certificates(
            ("us" if w.ours else w.owner, w.use, w.id[:12], w.not_before.timestamp(), w.not_after.timestamp())
            for w in watched
        )
        now = await rooms.store.now()
        if not self._believed(now):
            return []
        told = await rooms.store.tell(expiry.judge(watched, now), expiry.say)
        if told:
            point("AL01")
        for due in told:
            _tell(due)
        await rooms.store.forget_alerts(alerts_before=KEEP_ALERTS, told_before=KEEP_TOLD)
        return told

    def _believed(self, now: datetime) -> bool:
        """Whether it may be as late as the database says."""
        mono, before = self._rooms.clock.monotonic(), self._last
        self._last = (now, mono)
        skew = (self._rooms.clock.now() - now).total_seconds()
        if before is not None:
            jump = (now - before[0]).total_seconds() - (mono - before[1])
            if abs(jump) > SKEW:
                self._doubted_until = mono + SETTLE
                log.event("clock.jumped", level="error", seconds=round(jump))
        if abs(skew) > SKEW:
            log.event("clock.differs", level="error", seconds=round(skew))
            return False
        return mono >= self._doubted_until


def _tell(due: Due) -> None:
    facts, missing, over = due.facts, due.about == "successor", due.threshold == 0
    log.event(
        "cert.missing" if missing else "cert.expired" if over else "cert.due",
        level={"info": "info", "warning": "warning", "critical": "error"}[expiry.severity([due])],
        owner=", ".join(facts["owners"]), use=", ".join(facts["uses"]), certificate_sha256=due.certificate,
        subject=facts["subject"], not_after=facts["not_after"], days=facts["days"], threshold=due.threshold,
    )  # fmt: skip


class OwnCertificates:
    """Whether what we sign with and serve TLS with is still good; a partner's that is over concerns that partner.

    Files are read in a thread. Who asks while they are read anew gets what was read before, at today's time."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms, self._until = rooms, 0.0
        self._keyring: Keyring | None = None
        self._found: list[Watched] = []
        self._reading: asyncio.Task[None] | None = None

    async def __call__(self) -> tuple[bool, str]:
        """The verdict, and what it says."""
        rooms, keyring = self._rooms, self._rooms.keyring.value
        if keyring is not self._keyring:
            await self._read(keyring)
        elif rooms.clock.monotonic() >= self._until and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(keyring), name="own certificates")
        return expiry.health(self._found, rooms.clock.now())

    async def _read(self, keyring: Keyring) -> None:
        rooms = self._rooms
        self._found = await rooms.cpu.run(ours, rooms.config, keyring, rooms.agreements.value.pmodes)
        self._keyring, self._until = keyring, rooms.clock.monotonic() + KNOWN
