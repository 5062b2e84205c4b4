"""What the two offices of the demo sent and took, so that somebody else can compare.

Thread-safe. Digests are of the octets the business software itself had in its hands, taken
before submitting and after downloading: the gateways are not asked.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeVar

from msgspec import Struct

from gateway.client import GatewayClient
from gateway.errors import GatewayError

T = TypeVar("T")


class DemoFailed(GatewayError):
    """The demo could not show what it promises."""


class Sent(Struct, frozen=True, kw_only=True):
    """A message an office submitted. `id` is its gateway's own, `digests` by content id."""

    direction: str
    action: str
    id: str
    message_id: str
    size: int
    digests: Mapping[str, str]
    client: GatewayClient


class Taken(Struct, frozen=True, kw_only=True):
    """A message an office claimed, downloaded and acknowledged. `view` is the MessageView."""

    message_id: str
    digests: Mapping[str, str]
    view: Mapping[str, Any]
    document: bytes


class Ledger:
    """The books of one demo. `pulse` is called now and then while somebody waits; what it raises
    ends the waiting."""

    def __init__(self, pulse: Callable[[], None] = lambda: None) -> None:
        self._pulse = pulse
        self._changed = threading.Condition()
        self._sent: list[Sent] = []
        self._taken: dict[str, Taken] = {}
        self._trouble: str | None = None

    def note_sent(self, sent: Sent) -> None:
        with self._changed:
            self._sent.append(sent)
            self._changed.notify_all()

    def note_taken(self, taken: Taken) -> None:
        with self._changed:
            self._taken[taken.message_id] = taken
            self._changed.notify_all()

    def note_trouble(self, text: str) -> None:
        """An office cannot go on; whoever waits is told."""
        with self._changed:
            self._trouble = self._trouble or text
            self._changed.notify_all()

    def sent(self, direction: str, number: int, *, until: float) -> Sent:
        """The n-th message sent in a direction, waiting for it until the monotonic time `until`.

        Order holds within a direction only: an answer may be on its way before the call that
        submitted the question has returned. Raises `DemoFailed`.
        """
        return self._wait(lambda: self._nth(direction, number), until)

    def _nth(self, direction: str, number: int) -> Sent | None:
        return next(islice((one for one in self._sent if one.direction == direction), number, None), None)

    def taken(self, message_id: str, *, until: float) -> Taken:
        """The message as the other side took it. Raises `DemoFailed`."""
        return self._wait(lambda: self._taken.get(message_id), until)

    def _wait(self, find: Callable[[], T | None], until: float) -> T:
        with self._changed:
            while (found := find()) is None:
                self._pulse()
                left = until - time.monotonic()
                if self._trouble is not None:
                    raise DemoFailed(self._trouble)
                if left <= 0:
                    raise DemoFailed(self._explained())
                self._changed.wait(min(left, 0.5))
            return found

    def _explained(self) -> str:
        """One sentence about what is missing: what the sending gateway says of the last message."""
        waiting = [sent for sent in self._sent if sent.message_id not in self._taken]
        if not waiting:
            return "no further message came within the time"
        last = waiting[-1]
        try:
            view = last.client.message(last.id)
        except Exception as error:
            return f"{last.action} {last.direction} did not arrive, and its gateway does not answer: {error}"
        why = f": {view['error_code']} {view.get('error_detail', '')}" if view.get("error_code") else ""
        return f"{last.action} {last.direction} did not arrive in time and is {view['state']}{why}"


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
