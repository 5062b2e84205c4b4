"""Waiting for a proposal: until it is settled, and until every process serves it. The same for agreements and keys."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.errors import ConfigError, StoreUnavailable
from gateway.store.agreements import Process, Revision
from gateway.store.api import Store

POLL = 0.2
MAX_TEXT = 500

Look = Callable[[], Awaitable[None]]


def check_texts(**texts: str) -> None:
    """Refuse a reason or an author that is none. Raises `ConfigError`."""
    for name, text in texts.items():
        if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
            raise ConfigError(f"a {name} has 1 to {MAX_TEXT} printable characters", key=name)


async def settled(
    store: Store, revision: Revision, end: float, look: Look | None = None, told: Callable[[Any], None] | None = None
) -> Revision:
    """How the proposal ended; `end` is by the clock of the loop. A database that goes and comes back is waited for."""
    loop, said = asyncio.get_running_loop(), -1
    while True:
        try:
            if look is not None:
                await look()
            revision = await store.settle_revision(revision.number, topic=revision.topic)
            if revision.state != "PROPOSED":
                return revision
            words = await store.acknowledgements(revision.number, topic=revision.topic)
            if told and len(words) != said:
                said = len(words)
                told(words)
        except StoreUnavailable:
            if loop.time() > end:
                raise
        await asyncio.sleep(POLL)


async def followed(store: Store, revision: Revision, end: float, look: Look | None = None) -> tuple[Process, ...]:
    """The living processes that do not serve it; waits for those that are only a moment behind."""
    while True:
        try:
            if look is not None:
                await look()
            behind = tuple(p for p in await store.processes() if p.alive and _served(p, revision) < revision.number)
            if not any(_trouble(p, revision) is None for p in behind) or asyncio.get_running_loop().time() > end:
                return behind
        except StoreUnavailable:
            if asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(POLL)


def _served(process: Process, revision: Revision) -> int:
    return process.ring if revision.topic == "keys" else process.revision


def _trouble(process: Process, revision: Revision) -> str | None:
    return process.ring_trouble if revision.topic == "keys" else process.trouble
