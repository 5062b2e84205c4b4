"""What nobody asks for and somebody must do: erase what is no longer to be kept.

Runs in every process; the store works in small batches that skip what another process
holds, so that several may run at once.
"""

import random

from gateway import log, metrics
from gateway.errors import StoreUnavailable
from gateway.msh.retention import erase
from gateway.msh.rooms import Rooms

INTERVAL = 30.0
#: Payloads go within a minute; whole messages, after a year, need not.
FORGET_INTERVAL = 600.0
#: What webhooks were told can be looked at, and sent again, for a week; what was given up for a month.
DELIVERED_NOTICES, PARKED_NOTICES = 7 * 86_400.0, 30 * 86_400.0
#: Of one webhook; ten times as many of those that were given up.
KEPT_NOTICES = 1000


async def keep_house(rooms: Rooms) -> None:
    """Loop until cancelled."""
    forgot = rooms.clock.monotonic()
    while True:
        # Spread, so that processes started together do not come together.
        await rooms.clock.sleep(INTERVAL * random.uniform(0.75, 1.25))  # noqa: S311
        try:
            whole = rooms.clock.monotonic() - forgot > FORGET_INTERVAL
            if whole:
                forgot = rooms.clock.monotonic()
            await erase(rooms.store, rooms.config.retention, whole=whole)
            await rooms.store.erase_uploads()
            await rooms.store.prune_notices(
                delivered_before=DELIVERED_NOTICES, parked_before=PARKED_NOTICES, keep=KEPT_NOTICES
            )
            metrics.house_kept()
        except StoreUnavailable as error:
            log.event("store.unavailable", level="error", reason=str(error))
