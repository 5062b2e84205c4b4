"""Pull: fetch the messages that partners hold for us, and send their receipts back [as4 4.6].

One job stands for one channel, and who has it claimed asks: so one puller at a time asks on a
channel, however many processes and nodes there are. While messages come it asks again at
once; when the channel is empty it rests for as long as the agreement says, and after a failure
longer each time. What is fetched climbs the same ladder as a message that was pushed.

The receipt goes in a request of its own. Its job is written in the commit that stores the
message, so no death of a process keeps it back; if the partner hands the message out again
all the same, the receipt goes once more.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway import log, metrics
from gateway.as4 import ns
from gateway.as4.media_type import bare_type
from gateway.as4.outbound import SOAP_CONTENT_TYPE, secure_signal
from gateway.as4.pmode import Leg
from gateway.as4.profiles import PROFILES
from gateway.as4.retry import next_wait
from gateway.as4.units import PullRequest
from gateway.clock import milliseconds, new_message_id
from gateway.errors import CertificateRefused, EbmsError, KeyUnavailable, Overloaded, PeerAnswered, SendFailed
from gateway.msh.channels import Channel, party_key
from gateway.msh.receive import Pulled, Receiver
from gateway.msh.rooms import Agreements, Rooms
from gateway.stages import point
from gateway.store.api import Job, Message
from gateway.transport.client import Incoming

#: Messages of one channel in a row, before others may have the hands that pull.
ROUND = 50
#: Refused messages in a row after which a channel rests: whoever sends nothing else is not to keep us busy.
REFUSED = 3
#: The longest rest after failures, unless the agreement itself asks for a longer one.
LONGEST_REST = 900.0
#: What is due within so many seconds is waited for; the loops look by themselves after five.
SOON = 6.0
_TYPES = (ns.SOAP_MEDIA_TYPE, "multipart/related")
#: Spent on the head and the boundaries of an answer, beyond the octets of its parts.
SLACK = 1 << 20


class Puller:
    """Carries out pull and receipt jobs. One instance a process."""

    def __init__(self, rooms: Rooms, receiver: Receiver) -> None:
        self._rooms, self._receiver = rooms, receiver
        self._opened: Agreements | None = None
        #: Set when a channel is due again before somebody would look, and when a receipt is to be sent.
        self.due, self.answers = asyncio.Event(), asyncio.Event()

    async def channels(self) -> tuple[str, ...]:
        """The channels we pull from now. Those that are new get their job. Raises `StoreUnavailable`."""
        agreements = self._rooms.agreements.value
        queues = tuple(agreements.channels.pulled)
        if agreements is not self._opened:
            await self._rooms.store.open_channels(queues)
            self._opened = agreements
        return queues

    # -- pulling ----------------------------------------------------------------------

    async def pull(self, job: Job, *, more: Callable[[], bool] = lambda: True) -> None:
        """One round on a channel, while `more()`. Never raises for what a partner can cause."""
        point("PL01")
        channel = self._rooms.agreements.value.channels.pulled.get(job.queue)
        if channel is None:  # the agreement is gone since
            await self._rooms.store.rest(job.id, job.claim, due_in=LONGEST_REST)
            return
        rest, error = channel.leg.pull_every, None
        party = channel.holder.party_id.value
        try:
            if await self._round(channel, more):
                rest = 0.0
        except (SendFailed, PeerAnswered, EbmsError, KeyUnavailable, CertificateRefused, Overloaded) as failure:
            error = str(failure)
            rest = min(rest * 2.0 ** min(job.attempt, 30), max(rest, LONGEST_REST))
            log.event("pull.failed", level="warning", party=party, mpc=channel.mpc, reason=error,
                      retry_in=round(rest, 1))  # fmt: skip
            metrics.pull("fetched", party, "failed")
        await self._rooms.store.rest(job.id, job.claim, due_in=rest, error=error)
        _soon(self.due, rest)

    async def _round(self, channel: Channel, more: Callable[[], bool]) -> bool:
        """Ask until the channel is empty. Whether there may be more."""
        refused = 0
        for _ in range(ROUND):
            if not more():
                break
            pulled = await self._ask(channel)
            self.answers.set()
            metrics.pull("fetched", channel.holder.party_id.value, pulled.outcome)
            if pulled.outcome == "empty":
                return False
            if pulled.signal is not None:
                await self._tell(channel, pulled.signal)
            refused = refused + 1 if pulled.outcome == "refused" else 0
            if refused == REFUSED:
                return False
        return True

    async def _ask(self, channel: Channel) -> Pulled:
        """One PullRequest, and what it is answered with."""
        leg, now = channel.leg, self._rooms.clock.now()
        profile = PROFILES[leg.profile]
        request = PullRequest(new_message_id(self._rooms.config.node.host), milliseconds(now), channel.mpc)
        puller, holder = channel.puller.party_id, channel.holder.party_id
        key = self._rooms.keyring.value.signing_key(puller, profile, partner=holder)
        sign = partial(secure_signal, profile=profile, key=key, token=leg.signature_token, entropy=self._rooms.entropy)
        octets = await self._rooms.with_keys(sign, request)
        return await self._rooms.client.fetch(
            channel.holder.endpoint,
            content_type=SOAP_CONTENT_TYPE,
            body=octets,
            partner=party_key(channel.holder.party_id),
            ca=channel.holder.tls_ca,
            most=self._rooms.config.limits.message + SLACK,
            take=partial(self._take, channel, now.timestamp()),
        )

    async def _take(self, channel: Channel, asked: float, answer: Incoming) -> Pulled:
        point("PL02")
        content_type = answer.headers.get("content-type", "")
        if bare_type(content_type) not in _TYPES:
            raise SendFailed(
                f"HTTP {answer.status} without an AS4 answer (content type {content_type[:80]!r}): "
                "a proxy or another program answered", stage="receipt",
            )  # fmt: skip
        source = channel.holder.endpoint
        return await self._receiver.pulled(channel, content_type, answer.blocks, source, asked)

    async def _tell(self, channel: Channel, signal: bytes) -> None:
        """Tell the partner that a message was refused. Once: if it does not arrive the message comes again."""
        try:
            await self._post(channel.leg, signal)
        except (SendFailed, OSError) as error:
            log.event("error.unsent", level="warning", party=channel.holder.party_id.value, reason=str(error))

    # -- receipts ---------------------------------------------------------------------

    async def answer(self, job: Job) -> None:
        """Send the receipt of a pulled message. Never raises for what a partner can cause."""
        point("PL03")
        message = await self._rooms.store.message(job.message)
        if message is None or message.receipt is None:
            await self._rooms.store.park(job.id, job.claim, error="there is no receipt")
            return
        log.message_id.set(message.user_message.message_id)
        party = message.user_message.from_party.value
        leg = await self._leg(message)
        if leg is None:
            await self._rooms.store.park(job.id, job.claim, error="the agreement this message came under is gone")
            return
        fresh = job.data.get("receipt")
        try:
            await self._post(leg, message.receipt if fresh is None else fresh.encode())
        except (SendFailed, OSError) as error:
            wait = next_wait(leg.retry, retries_made=job.attempt - 1, elapsed=0.0, entropy=self._rooms.entropy)
            log.event("receipt.unsent", level="warning" if wait is not None else "error", party=party,
                      reason=str(error), retry_in=None if wait is None else round(wait, 1))  # fmt: skip
            if wait is None:
                await self._rooms.store.park(job.id, job.claim, error=str(error))
            else:
                await self._rooms.store.release(job.id, job.claim, due_in=wait, error=str(error))
                _soon(self.answers, wait)
            return
        point("PL04")
        await self._rooms.store.finish_receipt(job.id, job.claim)
        log.event("receipt.sent", party=party)

    async def _leg(self, message: Message) -> Leg | None:
        """The leg the message was pulled on: as it is now, for where the partner is; else as it was then."""
        for agreements in (self._rooms.agreements.value, await self._rooms.revisions.of(message.pmode_revision)):
            for leg in agreements.pmodes.legs:
                if leg.pmode_id == message.pmode_id and leg.pulled:
                    return leg
        return None

    async def _post(self, leg: Leg, signal: bytes) -> None:
        """POST a signal to where the message came from. Raises `SendFailed` unless it is taken."""
        holder = leg.from_party
        answer = await self._rooms.client.post(
            holder.endpoint,
            content_type=SOAP_CONTENT_TYPE,
            content_length=len(signal),
            body=_once(signal),
            partner=party_key(holder.party_id),
            ca=holder.tls_ca,
        )
        if not 200 <= answer.status < 300:
            raise SendFailed(f"HTTP {answer.status} to our signal", stage="receipt")


async def _once(octets: bytes):
    yield octets


def _soon(event: asyncio.Event, seconds: float) -> None:
    """Set `event` then; for later times a look every few seconds will do."""
    if seconds < SOON:
        asyncio.get_running_loop().call_later(seconds + 0.002, event.set)
