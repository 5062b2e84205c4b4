"""What nobody asks for and somebody must do: erase what is no longer to be kept.

Runs in every process; the store works in small batches that skip what another process
holds, so that several may run at once.
"""

import random

from gateway import log, metrics
from gateway.errors import StoreUnavailable
from gateway.msh.rooms import Rooms

INTERVAL = 30.0


async def keep_house(rooms: Rooms) -> None:
    """Loop until cancelled."""
    retention = rooms.config.retention
    while True:
        # Spread, so that processes started together do not come together.
        await rooms.clock.sleep(INTERVAL * random.uniform(0.75, 1.25))  # noqa: S311
        try:
            erased = await rooms.store.purge(
                delivered_before=retention.delivered_payloads, settled_before=retention.sent_payloads
            )
            metrics.backlog(await rooms.store.backlog())
        except StoreUnavailable as error:
            log.event("store.unavailable", level="error", reason=str(error))
            continue
        if erased:
            log.event("payloads.erased", count=erased)
