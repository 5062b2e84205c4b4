"""What nobody asks for and somebody must do: erase what is no longer to be kept.

Runs in every process of the node that leads; the store works in small batches that skip what another process
holds, so that several may run at once.
"""

import random

from gateway import log, metrics
from gateway.errors import StoreUnavailable
from gateway.msh.duty import Duty
from gateway.msh.retention import erase
from gateway.msh.rooms import Rooms

INTERVAL = 30.0
#: Payloads go within a minute; whole messages, after a year, need not.
FORGET_INTERVAL = 600.0
#: What webhooks were told can be looked at, and sent again, for a week; what was given up for a month.
DELIVERED_NOTICES, PARKED_NOTICES = 7 * 86_400.0, 30 * 86_400.0
#: A certificate in quarantine that is not seen any more is forgotten, a decision on one a year after it was met last.
STRANGERS, DECISIONS = 90 * 86_400.0, 365 * 86_400.0
#: What an issuer said of a certificate that nobody shows any more.
REVOCATIONS = 30 * 86_400.0
#: Of one webhook; ten times as many of those that were given up.
KEPT_NOTICES = 1000


async def keep_house(rooms: Rooms, duty: Duty) -> None:
    """Loop until cancelled."""
    forgot = rooms.clock.monotonic()
    while True:
        # Spread, so that processes started together do not come together.
        await rooms.clock.sleep(INTERVAL * random.uniform(0.75, 1.25))  # noqa: S311
        if not duty.leads:
            continue
        try:
            whole = rooms.clock.monotonic() - forgot > FORGET_INTERVAL
            if whole:
                forgot = rooms.clock.monotonic()
            await _tidy(rooms, whole=whole)
            metrics.house_kept()
        except StoreUnavailable as error:
            log.event("store.unavailable", level="error", reason=str(error))


async def _tidy(rooms: Rooms, *, whole: bool) -> None:
    await erase(rooms.store, rooms.config.retention, whole=whole)
    await rooms.store.erase_uploads()
    await rooms.store.prune_notices(
        delivered_before=DELIVERED_NOTICES, parked_before=PARKED_NOTICES, keep=KEPT_NOTICES
    )
    await rooms.store.prune_strangers(waiting_before=STRANGERS, decided_before=DECISIONS)
    await rooms.store.prune_revocations(tried_before=REVOCATIONS)
