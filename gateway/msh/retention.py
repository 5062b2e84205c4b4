"""Erasing what is no longer to be kept, in batches that leave room for others in between."""

from gateway import log, metrics
from gateway.config import Retention
from gateway.store.api import Store

#: Rounds of one call; whoever comes again in half a minute goes on. Eight batches are 800 messages.
ROUNDS = 8


async def erase(
    store: Store, retention: Retention, *, rounds: int | None = ROUNDS, whole: bool = True
) -> tuple[int, int]:
    """Erase payloads, then `whole` messages, whose time is over: how many of each. Without `rounds` until
    nothing is left to erase. Raises `StoreUnavailable`; what was erased before that is erased."""
    payloads = await _all(rounds, lambda: store.purge(
        delivered_before=retention.delivered_payloads, settled_before=retention.sent_payloads
    ))  # fmt: skip
    messages = await _all(rounds, lambda: store.forget(settled_before=retention.messages)) if whole else 0
    metrics.erased("payloads", payloads)
    metrics.erased("messages", messages)
    if payloads:
        log.event("payloads.erased", count=payloads)
    if messages:
        log.event("messages.forgotten", count=messages)
    return payloads, messages


async def _all(rounds: int | None, batch) -> int:
    total, done = 0, 0
    while done != rounds and (count := await batch()):
        total, done = total + count, done + 1
    return total
