"""Judge a message by the rules of its community, beside the way of the message and never in it.

What is said here is stored with the message and told to people and backends. On the way in it decides
nothing: the receipt goes out whatever it says, and whatever goes wrong here is a finding like any
other. On the way out an agreement may ask that fatal findings hold a submission back
(`Leg.rules`); that is `submit`'s business.

Bounds: the leading document is kept up to `oots.advice.MAX_DOCUMENT` while it passes by; a large one is
read in a thread; all together has `SECONDS`, and a look into the store `PATIENCE`.
"""

import asyncio
from typing import Any

import msgspec

from gateway import log
from gateway.as4 import ns
from gateway.as4.pmode import Leg
from gateway.as4.profiles import PROFILES
from gateway.as4.units import UserMessage
from gateway.errors import GatewayError
from gateway.msh.rooms import Rooms, party_key
from gateway.oots.advice import MAX_DOCUMENT, Advice, Reading, judge, not_judged, read
from gateway.oots.headers import kind_of
from gateway.plugin import DocumentView
from gateway.stages import stage
from gateway.store.api import Direction

#: What is read on the loop: this much takes a millisecond, a hop to a thread a tenth of one.
INLINE = 32 << 10
#: Seconds for everything. Reading the worst document takes a tenth of one.
SECONDS = 2.0
#: Seconds for the store to find a request.
PATIENCE = 0.5


class Leading:
    """The leading document as it passes by: as much of it as is ever judged."""

    def __init__(self) -> None:
        self.octets = bytearray()

    def begin(self) -> None:
        """The document passes by (again)."""
        self.octets = bytearray()

    def keep(self, block: bytes) -> None:
        """Take a block. One octet beyond the limit is kept, and tells that it was passed."""
        self.octets += block[: MAX_DOCUMENT + 1 - len(self.octets)]


def leading_of(leg: Leg) -> Leading | None:
    """Where the first part of a message on this leg is to be kept; None when nobody would judge it."""
    return Leading() if PROFILES[leg.profile].rules and not leg.is_internal else None


def document_view(facts: dict[str, Any] | None) -> DocumentView | None:
    """What a producer or consumer is told of a leading document. Facts of another release may be shaped otherwise."""
    try:
        return None if facts is None else msgspec.convert(facts, DocumentView)
    except msgspec.ValidationError:
        return None


class Adviser:
    """Advises on messages. One instance a process."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def advise(self, message: UserMessage, leg: Leg, leading: Leading | None, direction: Direction) -> Advice:
        """The advice about a message; never raises. Without rules for the leg there is none.

        `direction` is the message's own.
        """
        if PROFILES[leg.profile].rules is None or leg.is_internal:
            return Advice()
        try:
            with stage("advise"):
                async with asyncio.timeout(SECONDS):
                    return await self._advise(message, leading, direction)
        except TimeoutError:
            return Advice((not_judged("it took too long"),))
        except Exception as error:  # a mistake of ours must not cost a message
            log.event("advice.failed", level="error", exc_info=error)
            return Advice((not_judged("an error of the gateway"),))

    async def _advise(self, message: UserMessage, leading: Leading | None, direction: Direction) -> Advice:
        reading = Reading()
        if leading is not None and message.parts:
            charset = message.parts[0].value_of(ns.CHARACTER_SET)
            octets = bytes(leading.octets)
            leading.begin()
            if len(octets) <= INLINE:
                reading = read(octets, charset=charset)
            else:
                reading = await self._rooms.cpu.run(lambda: read(octets, charset=charset))
        return judge(message, reading, requests=await self._requests(message, reading, direction))

    async def _requests(
        self, message: UserMessage, reading: Reading, direction: Direction
    ) -> list[UserMessage] | None:
        """Messages that brought the request this one brings or answers; None when nobody can say.

        For a request of ours nobody looks: a producer that lost our answer submits the same one again.
        An answer is found by nothing but the id of the request document: RefToMessageId does not
        count in OOTS, and a conversation may hold any number of requests [oots 2.5].
        """
        kind = kind_of(message)
        request_id = reading.index.request_id if reading.index is not None else None
        if request_id is None or kind not in ("Q", "R", "E") or (kind, direction) == ("Q", "outbound"):
            return None
        of = direction
        if kind != "Q":
            of = "outbound" if direction == "inbound" else "inbound"
        ours, theirs = message.to_party, message.from_party
        if direction == "outbound":
            ours, theirs = theirs, ours
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._rooms.store.asked(
                    request_id, direction=of, tenant=party_key(ours), partner=party_key(theirs)
                )
        except (GatewayError, TimeoutError):
            return None
