"""How one process follows one topic of revisions: test what is proposed, say so, serve what is active.

The agreements and the ring of our own keys change in the same way, and this is it; `revisions` beats and
looks for both. This process never serves what it has not tested. When the active revision cannot be
loaded here (it was active before this process could say so), the one before stays in force and the
process is not ready: `trouble` says why, and every look tries again.
"""

import asyncio
import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from gateway.errors import ConfigError, GatewayError, StoreUnavailable
from gateway.stages import point
from gateway.store.agreements import Beat, Revision, Topic, name_of
from gateway.store.api import Store


class Following(ABC):
    """One topic in one process. `beat` is what it says of itself."""

    topic: Topic

    def __init__(self, store: Store, beat: Callable[[], Beat]) -> None:
        self._store, self._beat = store, beat
        self._candidate: Any = None
        self._candidate_number = self._answered = 0
        self._switching: asyncio.Task[None] | None = None
        #: Why this process does not serve the active revision; None when it does.
        self.trouble: str | None = None

    # -- what is different for each topic ---------------------------------------------

    @property
    @abstractmethod
    def number(self) -> int:
        """The revision in force in this process; 0 before there is one."""

    @abstractmethod
    async def load(self, revision: Revision) -> Any:
        """What it takes to serve a revision, tested. Raises `GatewayError`."""

    @abstractmethod
    def use(self, candidate: Any) -> None:
        """Serve it, in one step, without waiting: the next message reads it, those under way keep what they read."""

    @abstractmethod
    def refuses(self, number: int, why: str) -> None:
        """This process cannot serve what is proposed: tell the log."""

    @abstractmethod
    def troubled(self, number: int, why: str) -> None:
        """Nor what is active."""

    # -- the same for all -------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a revision is active that takes effect in a moment."""
        return self._switching is not None and not self._switching.done()

    async def answer(self, number: int) -> bool:
        """Say what we think of a proposal, once; whether it is settled now."""
        if self._answered != number:
            revision = await self._store.revision(number, topic=self.topic)
            if revision is None:
                return False
            why = None
            try:
                self._candidate, self._candidate_number = await self.load(revision), number
            except GatewayError as error:
                self._candidate, why = None, str(error)
                self.refuses(number, why)
            point("AG02")
            await self._store.acknowledge_revision(number, self._beat(), why, topic=self.topic)
            self._answered = number
            point("AG03")
        settled = await self._store.settle_revision(number, topic=self.topic)
        if settled.state == "REFUSED":
            self._candidate = None
        return settled.state != "PROPOSED"

    async def follow(self, number: int, seconds: float) -> None:
        """Serve the active revision when its moment comes, in `seconds`; say so at once."""
        if number == self.number or self.waits:
            return
        point("AG05")
        candidate, self._candidate = self._candidate, None
        try:
            if candidate is None or self._candidate_number != number:
                revision = await self._store.revision(number, topic=self.topic)
                if revision is None:
                    raise ConfigError(f"there is no {name_of(self.topic, number)}")
                candidate = await self.load(revision)
        except StoreUnavailable:
            raise
        except GatewayError as error:
            why = f"{name_of(self.topic, number)}: {error}"
            if why != self.trouble:
                self.trouble = why
                self.troubled(number, str(error))
                await self._store.beat(self._beat())
            return
        # By our own clock from here on: it goes as fast as the database's, wherever it stands.
        self._switching = asyncio.create_task(self._switch(candidate, asyncio.get_running_loop().time() + seconds))
        if seconds <= 0:
            await self._switching

    async def _switch(self, candidate: Any, at: float) -> None:
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        self.use(candidate)
        self.trouble = None
        point("AG06")
        with contextlib.suppress(StoreUnavailable):  # the next look says it
            await self._store.beat(self._beat())

    async def stop(self) -> None:
        """The process ends; what is to take effect later does not."""
        if self._switching is not None:
            self._switching.cancel()
            await asyncio.gather(self._switching, return_exceptions=True)


def intact(revision: Revision | None, topic: Topic, number: int) -> bytes:
    """The content of a revision, as it was written. Raises `ConfigError`."""
    if revision is None:
        raise ConfigError(f"there is no {name_of(topic, number)}")
    if revision.content is None or hashlib.sha256(revision.content).digest() != revision.sha256:
        raise ConfigError(f"{name_of(topic, number)} is not what was written")
    return revision.content
