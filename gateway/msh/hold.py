"""Hold: messages that the partner fetches, handed out one by one [as4 4.6].

    PullRequest proven → its channel is the signer's → not seen before → the oldest message that
    is ready, claimed → signed and encrypted → attempt row committed → streamed as the answer

What is handed out waits for its receipt, which comes in a request of its own (`signals`). If
none comes in time the message is ready again, with the same MessageId and the same octets
of its parts, until the agreement's patience ends (EBMS:0301). Every step is a state in the
store, so a process may die between any two of them.

A stranger learns nothing: whose signature is not a partner's gets the same answer whatever
channel it names. A partner that names a channel which is not its own gets the same answer
whether that channel exists or not. A PullRequest that comes a second time finds nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from gateway import log, metrics
from gateway.as4.outbound import Wire
from gateway.as4.retry import spread_wait
from gateway.as4.units import PullRequest
from gateway.errors import (
    ClaimLost,
    GatewayError,
    PeerGone,
    SendFailed,
    StoreUnavailable,
    ValueInconsistent,
    ValueNotRecognized,
)
from gateway.msh.channels import Channel, party_key
from gateway.msh.rooms import Agreements, Rooms
from gateway.msh.rotation import fingerprint
from gateway.msh.send import Sender, classify
from gateway.stages import point, record, stage
from gateway.store.api import Job, LapseResult, Message, NewEvent

#: A PullRequest is taken so long before and after its Timestamp, and only its first copy: what is
#: older than the store remembers must be refused by its age. Clocks of partners are minutes off at most.
FRESH = 600.0
#: Claim of a message between the look for it and the commit that hands it out.
LEASE = 9.0
#: What is due within so many seconds is waited for; the loops look by themselves after five.
SOON = 6.0
#: Messages looked at for one PullRequest: those that cannot be sent at all are given up on the way.
TRIES = 10


class Handover:
    """A message on its way to who pulled it. `close` it, whether or not its octets were read;
    `closed` is called then."""

    def __init__(self, rooms: Rooms, sender: Sender, job: Job, message: Message, wire: Wire, within: float) -> None:
        self._rooms, self._sender, self._job, self._message, self._wire = rooms, sender, job, message, wire
        self._within = within
        self.closed: Callable[[], None] = lambda: None
        self.content_type, self.length = wire.content_type, wire.content_length

    async def blocks(self) -> AsyncIterator[bytes]:
        """The octets, while the time for the receipt is put off: it begins when they are through."""
        keeper = asyncio.create_task(self._keep())
        try:
            first = True
            async for block in self._sender.body(self._message, self._wire):
                if block:
                    yield block
                if first:
                    first = False
                    point("HD03")
            await self._put_off()
        except Exception as error:
            # Too late for an answer. The connection breaks off, and the message is there for the next PullRequest.
            log.event("incident", level="error", exc_info=error)
            raise PeerGone from None
        finally:
            keeper.cancel()

    def close(self) -> None:
        """Once or more often."""
        closed, self.closed = self.closed, lambda: None
        closed()

    async def _keep(self) -> None:
        while True:
            await self._rooms.clock.sleep(max(self._within / 3, 0.1))
            await self._put_off()

    async def _put_off(self) -> None:
        # Acknowledged already, or ready for another: then there is nothing to put off.
        with contextlib.suppress(ClaimLost, StoreUnavailable):
            await self._rooms.store.renew(self._job.id, self._job.claim, self._within)


class Holder:
    """Hands out held messages and looks after them. One instance a process."""

    def __init__(self, rooms: Rooms, sender: Sender) -> None:
        self._rooms, self._sender = rooms, sender
        #: Set when a receipt is overdue before somebody would look.
        self.due = asyncio.Event()

    async def hand_out(self, request: PullRequest, signer: bytes, agreements: Agreements) -> Handover | Channel:
        """The next message for an authentic PullRequest; one of its channels when there is none.

        Raises `ValueNotRecognized` for a channel that is not the signer's, `ValueInconsistent`
        for a Timestamp that is not of now, `KeyUnavailable`, `StoreUnavailable`.
        """
        channels = agreements.channels.authorised(request.mpc, signer)
        if not channels:
            raise ValueNotRecognized("not a channel of the signer", where="eb:PullRequest/@mpc")
        if abs((self._rooms.clock.now() - request.timestamp).total_seconds()) > FRESH:
            raise ValueInconsistent("a PullRequest of another time", where="eb:MessageInfo/eb:Timestamp")
        await self._rooms.sightings.signed(channels[0].puller, signer)
        partner = channels[0].puller.party_id
        if not await self._rooms.store.note_pull_request(party_key(partner), request.message_id):
            # Somebody who listens could else take messages out of turn, until their retries are used up.
            log.event("pull.repeated", level="warning", party=partner.value)
            return channels[0]
        for channel in channels:
            if (found := await self._next(channel)) is not None:
                metrics.pull("held", partner.value, "message")
                return found
        metrics.pull("held", partner.value, "empty")
        return channels[0]

    async def _next(self, channel: Channel) -> Handover | None:
        """The oldest message on the channel that can be sent."""
        for _ in range(TRIES):
            job = await self._rooms.store.claim_held(channel.key, worker=self._rooms.node, lease=LEASE)
            if job is None:
                return None
            point("HD01")
            with contextlib.suppress(ClaimLost):  # cancelled, or acknowledged late, at this very moment
                if (found := await self._handed_out(job)) is not None:
                    return found
        return None

    async def _handed_out(self, job: Job) -> Handover | None:
        """The claimed message, ready to go; None when it never can and was given up."""
        message = await self._rooms.store.message(job.message)
        log.message_id.set(message.user_message.message_id)
        waited = (self._rooms.clock.now() - message.changed_at).total_seconds()
        record("wait", self._rooms.clock.now().timestamp() - max(waited, 0), max(waited, 0))
        leg = await self._sender.leg(message)
        try:
            if leg is None:
                raise SendFailed("the agreement this message was submitted under is gone", temporary=False)
            if message.deadline and message.deadline <= self._rooms.clock.now():
                raise SendFailed("the deadline of the message has passed", temporary=False)
            await self._sender.check_recipient(message, leg)
            wire = await self._rooms.with_keys(self._sender.secured, message, leg)
        except GatewayError as error:
            code, detail, final, _ = classify(error)
            if not final:
                await self._rooms.store.release(job.id, job.claim, due_in=_left(job))
                raise
            await self._give_up(job, message, code, detail)
            return None
        within = spread_wait(leg.retry, message.attempts, self._rooms.entropy)
        with stage("store"):
            await self._rooms.store.hand_out(
                job, node=self._rooms.node, references=wire.references, receipt_within=within,
                envelope=wire.envelope, signer=fingerprint(wire.signer),
            )  # fmt: skip
        if within < SOON:
            asyncio.get_running_loop().call_later(within + 0.002, self.due.set)
        point("HD02")
        facts = {"party": message.user_message.to_party.value, "action": message.user_message.action}
        log.event("message.handed_out", attempt=message.attempts + 1, **facts)
        return Handover(self._rooms, self._sender, job, message, wire, within)

    # -- when their time comes --------------------------------------------------------

    async def review(self, job: Job) -> None:
        """A held message is due: its receipt did not come, nobody came for it, or who had claimed it died."""
        message = await self._rooms.store.message(job.message)
        if message is None:
            return
        log.message_id.set(message.user_message.message_id)
        left, leg = _left(job), await self._sender.leg(message)
        if message.state == "READY_TO_PULL":
            if left > 0:
                await self._rooms.store.release(job.id, job.claim, due_in=left)
                return
            await self._give_up(job, message, "EBMS:0301", "nobody pulled the message in time")
            return
        count = message.attempts
        if left <= 0 or leg is None or count > leg.retry.count:
            await self._give_up(job, message, "EBMS:0301", f"no receipt; the message was pulled {count} times")
            return
        code, detail = "EBMS:0301", "pulled, and no receipt came in time"
        await self._rooms.store.lapse(job, LapseResult(
            state="READY_TO_PULL", due_in=left, error_code=code, error_detail=detail,
            events=(NewEvent("message.retrying", {"code": code, "attempt": count}),),
        ))  # fmt: skip
        party = message.user_message.to_party.value
        log.event("message.retrying", level="warning", code=code, reason=detail, party=party,
                  action=message.user_message.action)  # fmt: skip
        metrics.retry(party)

    async def isolate(self, job: Job, why: str) -> None:
        """The message fails without being handed out again, until it is resent [reliability R24]."""
        message = await self._rooms.store.message(job.message)
        if message is not None:
            log.message_id.set(message.user_message.message_id)
            await self._give_up(job, message, "EBMS:0004", why)

    async def _give_up(self, job: Job, message: Message, code: str, detail: str) -> None:
        await self._rooms.store.lapse(job, LapseResult(
            state="FAILED", error_code=code, error_detail=detail,
            events=(NewEvent("message.failed", {"code": code, "attempt": message.attempts}),),
        ))  # fmt: skip
        unit = message.user_message
        log.event("message.failed", level="error", code=code, reason=detail, party=unit.to_party.value,
                  action=unit.action)  # fmt: skip
        metrics.message("outbound", unit.to_party.value, unit.action, "failed")


def _left(job: Job) -> float:
    """Seconds until the agreement's patience with the message ends, by the clock of the store."""
    return float(job.data.get("left", 0.0))
