"""Numbers that nobody counts as they happen: what waits in the store, how the store is, how much room there is.

One process of a node looks, four times a minute, and its gauges stand for the node. A look is three
statements that count open jobs; with a million of them it takes a while, and comes more rarely. It never
decides anything.
"""

import contextlib
import os
import random
from pathlib import Path

from gateway import log, metrics
from gateway.errors import GatewayError, StoreUnavailable
from gateway.msh.rooms import Rooms, party_key
from gateway.store.keeping import Census

INTERVAL = 15.0
#: Looking takes at most this share of the time.
SHARE = 0.02
#: The whole chain is read and hashed anew once a day, and at the start.
AUDIT_INTERVAL = 86_400.0


async def keep_count(rooms: Rooms) -> None:
    """Loop until cancelled."""
    audited = None
    metrics.house_kept()  # a node that never gets to it is late from its start on
    while True:
        began = rooms.clock.monotonic()
        try:
            await look(rooms)
            took = rooms.clock.monotonic() - began
            if audited is None or began - audited > AUDIT_INTERVAL:
                metrics.audit_broken("whole", not await check_audit(rooms))
                audited = began
        except StoreUnavailable as error:
            log.event("store.unavailable", level="warning", reason=str(error))
            took = 0.0
        except Exception as error:  # whatever it is, looking goes on
            log.event("incident", level="error", exc_info=error)
            took = 0.0
        await rooms.clock.sleep(max(INTERVAL, took / SHARE) * random.uniform(0.75, 1.25))  # noqa: S311


async def look(rooms: Rooms) -> None:
    """One look. A store that cannot be asked is a number, too."""
    for place, path in (("data", Path(rooms.config.data.folder)), ("spool", Path(rooms.config.data.folder) / "spool")):
        with contextlib.suppress(OSError):
            room = await rooms.cpu.run(os.statvfs, path)
            metrics.disk(place, room.f_bavail / room.f_blocks if room.f_blocks else 0.0)
    asked = rooms.clock.now()
    try:
        found = await rooms.store.census()
        shut = {c.partner for c in await rooms.store.circuits() if c.shut_until is not None}
    except GatewayError:
        metrics.store(up=False)
        return
    answered = rooms.clock.now()
    metrics.store(up=True, standby=found.standby)
    # The store's clock was read somewhere between the two; what lies within is no skew.
    skew = max((found.now - answered).total_seconds(), (asked - found.now).total_seconds(), 0.0)
    metrics.clock_skew(skew)
    partners = {party_key(p.party_id): p.party_id.value for p in rooms.agreements.value.pmodes.parties}
    metrics.parties_up(name for key, name in partners.items() if key in shut)
    tell(found)


def tell(census: Census) -> None:
    """The numbers of a census as gauges."""
    metrics.backlog({f"{queue.kind}.{queue.state}": queue.jobs for queue in census.queues})
    metrics.ages({
        queue.kind: max(other.oldest for other in census.queues if other.kind == queue.kind and other.state != "PARKED")
        for queue in census.queues if queue.state != "PARKED"
    }, {queue.kind: queue.overdue for queue in census.queues if queue.overdue is not None})  # fmt: skip
    metrics.inboxes({inbox.backend: (inbox.waiting, inbox.oldest) for inbox in census.inboxes})
    metrics.in_flight(_in_flight(census))


def _in_flight(census: Census) -> dict[tuple[str, str], int]:
    """(direction, state) -> messages. `due`: to be taken now; `later`: between two attempts, or held for who pulls."""
    found: dict[tuple[str, str], int] = {}
    for queue in census.queues:
        direction = {"send": "outbound", "hold": "outbound", "deliver": "inbound"}.get(queue.kind)
        if direction is None or queue.state == "PARKED":
            continue
        parts = {"due": queue.jobs - queue.later, "later": queue.later} if queue.state == "READY" else {
            "held" if queue.state == "HELD" else "active": queue.jobs}  # fmt: skip
        for state, count in parts.items():
            found[direction, state] = found.get((direction, state), 0) + count
    return found


async def check_audit(rooms: Rooms) -> bool:
    """Whether the audit chain holds. Raises `StoreUnavailable`."""
    misfit = await rooms.store.verify_audit()
    if misfit is not None:
        log.event("audit.broken", level="error", number=misfit)
    return misfit is None
