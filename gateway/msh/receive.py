"""The inbound ladder: from the blocks of an HTTP body to a receipt, or to an Error signal.

    envelope read → opened (shape, terms, signature, header digests) → parts read
    → proven (decrypted, digests met, inflated) → accepted (agreement) → stored → receipt

The order is the one of the rejection contract [threats 1.0, 1.1]: nothing of a stranger is
decrypted, spooled or stored, and what is refused leaves nothing but one security event.
The receipt leaves only after the commit is durable.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple
from uuid import UUID

from gateway import log, metrics
from gateway.as4 import ns, soap
from gateway.as4.inbound import Opened, PartLimits, ProvenPart, Terms, Unauthenticated, open_envelope, prove
from gateway.as4.mime import ContentIds, EnvelopeReady, MessageReader, MimeLimits, PartBegins, PartData, PartEnds
from gateway.as4.outbound import secure_signal
from gateway.as4.pmode import Leg, Party
from gateway.as4.policy import Accepted, accept
from gateway.as4.profiles import PROFILES
from gateway.as4.signals import error_for, receipt_for
from gateway.as4.units import Error, MessageUnit, PullRequest, Reference, UserMessage
from gateway.as4.wss.decrypt import recipient_key, unwrap_content_key
from gateway.clock import milliseconds, new_message_id
from gateway.errors import (
    CertificateRefused,
    EbmsError,
    EmptyMessagePartitionChannel,
    FailedAuthentication,
    KeyUnavailable,
    MimeInconsistency,
    Other,
    Overloaded,
    PeerAnswered,
    PeerGone,
    ProcessingModeMismatch,
    RingUnavailable,
    StoreUnavailable,
    ValueInconsistent,
)
from gateway.keys.sealing import new_message_key
from gateway.msh.advice import Adviser, Leading, leading_of
from gateway.msh.channels import Channel, channel_key
from gateway.msh.hold import Handover, Holder
from gateway.msh.partners import terms_for
from gateway.msh.proving import Prover, fingerprint, references_digest
from gateway.msh.refusals import Refusals
from gateway.msh.rooms import INLINE_WORK, Agreements, Rooms, new_id, party_key
from gateway.msh.rotation import fingerprint as certificate_name
from gateway.msh.signals import Signals
from gateway.msh.spool import Spool, SpoolRoom
from gateway.stages import Step, point, record, stage, timeline
from gateway.store.api import NewInbound, NewPart, Received

SOAP_CONTENT_TYPE = f"{ns.SOAP_MEDIA_TYPE}; charset=UTF-8"


class Answer(NamedTuple):
    """What goes back on the HTTP connection. `close`: and then the connection ends.

    A refusal always ends it: whether a message was refused before its last octet was read or
    after would tell its causes apart [threats 1.0].
    """

    status: int
    content_type: str | None = None
    body: bytes = b""
    retry_after: int | None = None
    close: bool = False
    #: In place of `body`, a message that was pulled.
    handover: Handover | None = None


class Pulled(NamedTuple):
    """What a PullRequest of ours was answered with.

    `taken`: a message is stored, or was before. `refused`: with the Error signal that says so to the
    partner, None where there is nobody to say it to. `empty`: nothing waits on the channel.
    """

    outcome: Literal["taken", "refused", "empty"]
    signal: bytes | None = None


@dataclass
class _Progress:
    """How far a message came; what a refusal needs to answer and to note."""

    source: str
    channel: Channel | None = None
    envelope: bytes = b""
    unit: MessageUnit | None = None
    leg: Leg | None = None
    authenticated: bool = False


class Receiver:
    """Receives messages. One instance a process."""

    def __init__(
        self, rooms: Rooms, signals: Signals, holder: Holder, refusals: Refusals, spools: SpoolRoom
    ) -> None:
        self._rooms, self._signals, self._holder = rooms, signals, holder
        self._refusals, self._spools = refusals, spools
        self._adviser = Adviser(rooms)
        limits = rooms.config.limits
        self._mime_limits = MimeLimits(
            envelope=limits.envelope, parts=limits.parts, part=limits.part, message=limits.message
        )
        self._uploads: dict[str, int] = {}

    async def receive(self, content_type: str, body: AsyncIterator[bytes], source: str) -> Answer:
        """Take one HTTP request body. `source` is the address of the connection, for the log.

        Every outcome is an `Answer`; only `PeerGone` is raised, when nobody is left to read one.
        """
        progress = _Progress(source)
        log.message_id.set(None)  # of the request before on this connection
        with timeline("inbound") as steps:
            try:
                return await self._climb(content_type, body, progress, steps)
            except PeerGone:
                raise
            except EbmsError as error:
                return await self._refuse(error, progress)
            except Overloaded as error:
                metrics.error("EBMS:0004", "read", "us")
                log.event("message.deferred", level="warning", reason=str(error), source=source)
                return Answer(503, retry_after=5)
            except StoreUnavailable as error:
                metrics.error("EBMS:0004", "store", "us")
                log.event("store.unavailable", level="error", reason=str(error))
                return Answer(503, retry_after=5)
            except KeyUnavailable as error:
                metrics.error("EBMS:0004", "receipt", "us")
                log.event("key.unavailable", level="error", reason=str(error))
                return Answer(503, retry_after=30)
            except Exception as error:
                incident = self._rooms.entropy(6).hex()
                log.event("incident", level="error", incident=incident, exc_info=error)
                return await self._refuse(Other(f"incident {incident}", where=f"incident {incident}"), progress)

    async def _climb(
        self, content_type: str, body: AsyncIterator[bytes], progress: _Progress, steps: list[Step]
    ) -> Answer:
        agreements = self._rooms.agreements.value
        reader = MessageReader(content_type, limits=self._mime_limits)
        events = _events(reader, body)
        with stage("read"):
            first = await anext(events, None)
        if not isinstance(first, EnvelopeReady):
            raise MimeInconsistency("no envelope", where="SOAP envelope", status=400)
        progress.envelope = first.octets
        opened = self._open(first, agreements, progress)
        if not isinstance(opened.unit, UserMessage):
            await _nothing_more(events)
            with self._entered(hashlib.sha256(opened.signer).hexdigest()):
                await self._check_revocation(opened, agreements)
            if isinstance(opened.unit, PullRequest):
                return await self._hand_out(opened, agreements)
            with stage("store"):
                await self._signals.take(opened)
            return Answer(204)
        return await self._take(opened, progress.leg, events, agreements, steps)

    async def _hand_out(self, opened: Opened, agreements: Agreements) -> Answer:
        """Answer an authentic PullRequest with a message, or with the warning that there is none [as4 4.6]."""
        request: PullRequest = opened.unit
        partner = hashlib.sha256(opened.signer).hexdigest()
        self._enter(partner)
        answered = False
        try:
            found = await self._holder.hand_out(request, opened.signer, agreements)
            if isinstance(found, Handover):
                found.closed = partial(self._leave, partner)
                answered = True
                return Answer(200, found.content_type, handover=found)
        finally:
            if not answered:
                self._leave(partner)
        empty = EmptyMessagePartitionChannel("no message")
        signal = await self._rooms.with_keys(self._error_signal, empty, request.message_id, found.leg)
        return Answer(200, SOAP_CONTENT_TYPE, signal)

    async def pulled(
        self, channel: Channel, content_type: str, body: AsyncIterator[bytes], source: str, asked: float
    ) -> Pulled:
        """Take what a PullRequest on `channel`, sent at `asked` (Unix seconds), was answered with.

        A message climbs the ladder of one that is pushed; what is refused leaves as little.
        Raises `PeerAnswered` for another error than an empty channel, `StoreUnavailable`,
        `KeyUnavailable`, `Overloaded`, and what `body` raises.
        """
        progress = _Progress(source, channel)
        with timeline("inbound") as steps:
            record("pull", asked, self._rooms.clock.now().timestamp() - asked)
            try:
                return await self._climb_pulled(content_type, body, progress, steps)
            except EbmsError as error:
                answer = await self._refuse(error, progress)
                return Pulled("refused", answer.body if isinstance(progress.unit, UserMessage) else None)

    async def _climb_pulled(
        self, content_type: str, body: AsyncIterator[bytes], progress: _Progress, steps: list[Step]
    ) -> Pulled:
        agreements = self._rooms.agreements.value
        events = _events(MessageReader(content_type, limits=self._mime_limits), body)
        with stage("read"):
            first = await anext(events, None)
        if not isinstance(first, EnvelopeReady):
            raise MimeInconsistency("no envelope", where="SOAP envelope")
        progress.envelope = first.octets
        opened = self._open(first, agreements, progress)
        if isinstance(opened.unit, UserMessage):
            await self._take(opened, progress.leg, events, agreements, steps)
            return Pulled("taken")
        await _nothing_more(events)
        if isinstance(opened, Opened):
            await self._check_revocation(opened, agreements)
        fault = opened.unit.errors[0]
        if fault.code == EmptyMessagePartitionChannel.code:
            # Unsigned it says no more than silence would; products leave it unsigned [as4 4.4].
            return Pulled("empty")
        raise PeerAnswered(
            fault.code, fault.description or fault.short_description or "", authenticated=isinstance(opened, Opened)
        )

    async def _take(
        self, opened: Opened, leg: Leg, events: AsyncIterator, agreements: Agreements, steps: list[Step]
    ) -> Answer:
        """The upper rungs, for a message whose signature is right."""
        message: UserMessage = opened.unit
        log.message_id.set(message.message_id)
        partner = party_key(message.from_party)
        with self._entered(partner):
            # Who waits for an answer about its certificate is counted with its partner: others have their room.
            await self._check_revocation(opened, agreements, leg.from_party)
            with Spool(self._spools, partner) as spool:
                with stage("read"):
                    await self._read_parts(events, opened, spool)
                return await self._prove_and_store(opened, leg, spool, agreements, steps)

    async def _check_revocation(self, opened: Opened, agreements: Agreements, party: Party | None = None) -> None:
        """The signer's certificate is not revoked, as far as its agreement asks. Raises `FailedAuthentication`."""
        try:
            await self._rooms.revocations.check_opened(opened, party or agreements.pinned.get(opened.signer))
        except CertificateRefused as refused:
            raise FailedAuthentication(f"the signer's certificate is refused: {refused}") from None

    # -- rung: Envelope → Opened ------------------------------------------------

    def _open(
        self, envelope: EnvelopeReady, agreements: Agreements, progress: _Progress
    ) -> Opened | Unauthenticated:
        """Shape, terms, signature, header digests, in one call and one thread. Only the answer to a
        PullRequest may be an Error that nobody signed."""
        channel = progress.channel

        def choose(unit: MessageUnit) -> Terms:
            progress.unit = unit
            point("IB07")
            with stage("match"):
                if not isinstance(unit, UserMessage):
                    if channel is None:
                        return self._signals.terms(agreements)
                    if isinstance(unit, Error):
                        return Terms(profile=PROFILES[channel.leg.profile], signers=channel.holder.signing)
                    raise ProcessingModeMismatch("no answer to a PullRequest", where="eb:SignalMessage")
                leg = agreements.matcher.find_leg(unit)
                if (channel_key(leg) if leg.pulled else None) != (channel and channel.key):
                    raise ProcessingModeMismatch("pushed and pulled do not mix", where="eb:UserMessage/@mpc")
                if not agreements.pmodes.is_self(unit.to_party):
                    raise ProcessingModeMismatch("not addressed to us", where="eb:To/eb:PartyId")
                progress.leg = leg
                return terms_for(leg.profile, leg.from_party, unit.from_party)

        point("IB06")
        with stage("verify"):
            now = self._rooms.clock.now()
            opened = open_envelope(
                envelope.octets, envelope.charset, choose=choose, trust=self._rooms.check_signer(now),
                vouch=self._rooms.paths.voucher(now), allow_unsigned=channel is not None, strangers=True,
            )  # fmt: skip
        progress.authenticated = True
        return opened

    # -- reading the parts --------------------------------------------------------

    async def _read_parts(self, events: AsyncIterator, opened: Opened, spool: Spool) -> None:
        """Spool the parts the signature names. Anything else ends the reading at once."""
        known = ContentIds(opened.promised)
        async for event in events:
            match event:
                case PartBegins(cid=raw):
                    cid = known.find(raw) or raw
                    if cid not in opened.promised:
                        raise MimeInconsistency("a part that no PartInfo names", where="MIME part without eb:PartInfo")
                    if cid in spool.cids:
                        raise MimeInconsistency("two parts with one Content-ID", where="Content-ID")
                    spool.begin(cid)
                    point("IB03")
                case PartData(block=block):
                    if spool.write(block):
                        await self._rooms.cpu.run(spool.flush)
                case PartEnds():
                    pass
        spool.seal()
        point("IB05")

    # -- rung: Opened → Proven → Accepted → stored ---------------------------------

    async def _prove_and_store(
        self, opened: Opened, leg: Leg, spool: Spool, agreements: Agreements, steps: list[Step]
    ) -> Answer:
        missing = opened.promised.keys() - spool.cids
        if missing:
            number = next(n for n, info in enumerate(opened.unit.parts, 1) if info.cid in missing)
            raise MimeInconsistency("a part is missing", where=f"eb:PartInfo[{number}] without MIME part")
        message: UserMessage = opened.unit
        keyring = self._rooms.keyring.value
        content_key, ours = None, ()
        if opened.promised:
            with stage("decrypt"):
                ours = keyring.decryption_keys(message.to_party)
                content_key = await self._rooms.with_keys(unwrap_content_key, opened, ours)
        id, key = new_id(), new_message_key(self._rooms.entropy)
        limits = PartLimits(
            content=min(leg.max_part, self._rooms.config.limits.decompressed),
            canonical=PROFILES[leg.profile].max_canonical_part,
        )
        leading = leading_of(leg)
        prover = Prover(opened, content_key, spool, limits, leg.max_message, key, id, leading)
        if spool.size <= INLINE_WORK and (small := prover.run_small()) is not None:
            parts, proven_parts = small
            new = await self._accepted(opened, leg, parts, proven_parts, leading, id, key, agreements, steps)
            with stage("store"):
                received = await self._rooms.store.receive_once(new)
        else:
            with stage("store"):
                async with self._rooms.store.receiving(id) as receiving:
                    parts, proven_parts = await prover.run_large(receiving, self._rooms.cpu)
                    new = await self._accepted(opened, leg, parts, proven_parts, leading, id, key, agreements, steps)
                    received = await receiving.accept(new)
        answer = await self._answer(received, new, opened, leg)
        if content_key is not None:
            key = ours[0] if len(ours) == 1 else recipient_key(opened.encrypted_key, ours)
            self._rooms.rotation.uses(message.from_party, certificate_name(key.certificate), "decrypt")
        if opened.voucher is not None:
            await self._rooms.partners.seen(
                message.from_party, opened.signer, by=leg.from_party.name, pmode=leg.pmode_id, how="received"
            )
        else:
            await self._rooms.sightings.signed(leg.from_party, opened.signer)
        if leg.pulled and received.outcome == "duplicate":
            # The partner had no receipt of it yet: it goes out once more.
            fresh = None if received.same_references else answer.body
            await self._rooms.store.answer_again(received.id, channel_key(leg), fresh)
        return answer

    async def _accepted(
        self,
        opened: Opened,
        leg: Leg,
        parts: tuple[NewPart, ...],
        proven_parts: tuple[ProvenPart, ...],
        leading: Leading | None,
        id: UUID,
        key: bytes,
        agreements: Agreements,
        steps: list[Step],
    ) -> NewInbound:
        """Judge the proven message by its agreement, take advice, and make its receipt."""
        with stage("validate"):
            accepted: Accepted = accept(prove(opened, proven_parts), leg)
            message = accepted.user_message
        advice = await self._adviser.advise(message, leg, leading, "inbound")
        with stage("receipt"):
            receipt = await self._rooms.with_keys(self._receipt, opened.references, message, leg)
        return NewInbound(
            id=id,
            tenant=party_key(message.to_party),
            sender=party_key(message.from_party),
            user_message=message,
            fingerprint=fingerprint(message, proven_parts),
            references=references_digest(opened.references),
            envelope=opened.envelope,
            signer=opened.signer,
            receipt=receipt,
            parts=parts,
            wrapped_key=self._rooms.kek.wrap(key, str(id)),
            pmode_id=leg.pmode_id,
            pmode_revision=agreements.pmodes.revision,
            backend=None if message.is_test else leg.backend,
            findings=(*accepted.findings, *advice.findings),
            document=advice.document,
            request_id=advice.request_id,
            steps=tuple(steps),
            answer_to=channel_key(leg) if leg.pulled else None,
        )

    def _receipt(self, references: tuple[Reference, ...], message: UserMessage, leg: Leg) -> bytes:
        point("IB14")
        profile = PROFILES[leg.profile]
        receipt = receipt_for(
            references,
            ref_to=message.message_id,
            message_id=new_message_id(self._rooms.config.node.host),
            now=milliseconds(self._rooms.clock.now()),
        )
        return secure_signal(
            receipt,
            profile=profile,
            key=self._rooms.keyring.value.signing_key(message.to_party, profile, partner=message.from_party),
            token=leg.signature_token,
            entropy=self._rooms.entropy,
        )

    async def _answer(self, received: Received, new: NewInbound, opened: Opened, leg: Leg) -> Answer:
        message = new.user_message
        facts = {"party": message.from_party.value, "action": message.action}
        if received.outcome == "conflict":
            # G02: the id is taken by another content. No receipt covers the new octets.
            log.event("message.conflict", level="warning", **facts)
            raise ValueInconsistent("MessageId used for another content", where="eb:MessageInfo/eb:MessageId")
        if received.outcome == "duplicate":
            log.event("message.duplicate", **facts)
            metrics.duplicate(message.from_party.value)
            # Signed again by the sender (Domibus makes new ids for each attempt): same content,
            # other references, so the stored receipt would not match what he holds in hand.
            body = received.receipt
            if not received.same_references:
                body = await self._rooms.with_keys(self._receipt, opened.references, message, leg)
        else:
            found = " ".join(dict.fromkeys(finding.rule for finding in new.findings))
            log.event("message.received", size=sum(p.size for p in new.parts), findings=found or None, **facts)
            seconds = self._rooms.clock.now().timestamp() - new.steps[0].started
            metrics.message("inbound", message.from_party.value, message.action, "received", seconds)
            metrics.payload_bytes("inbound", sum(p.size for p in new.parts))
            body = received.receipt
        point("IB24")
        return Answer(200, SOAP_CONTENT_TYPE, body)

    # -- refusal ------------------------------------------------------------------

    async def _refuse(self, error: EbmsError, progress: _Progress) -> Answer:
        """One security event, one Error signal; nothing else remains."""
        unit = progress.unit
        if unit is not None:
            claim = soap.Claim(unit.message_id, type(unit).__name__)
        else:
            claim = soap.claim(progress.envelope) if progress.envelope else soap.Claim(None, None)
        await self._refusals.note(
            error,
            source=progress.source,
            claimed=claim.message_id,
            envelope=progress.envelope,
            party=unit.from_party.value if isinstance(unit, UserMessage) else None,
        )
        if isinstance(error, FailedAuthentication) and isinstance(unit, UserMessage) and progress.leg is not None:
            await self._rooms.sightings.refused(progress.leg.from_party, error.stranger)
        ours = error.temporary or isinstance(error, Other)
        metrics.error(error.code, "verify" if error.uniform else "validate", "us" if ours else "partner")
        if claim.kind in ("Receipt", "Error"):
            return Answer(400, close=True)  # a signal is never answered with an Error signal [as4 2.5]
        if isinstance(error, soap.SoapFault):
            reason = f"{error.wire} {error.where}" if error.where else error.wire
            return Answer(error.status, SOAP_CONTENT_TYPE, soap.fault(error.fault_code, reason), close=True)
        claimed = unit if isinstance(unit, UserMessage) else None
        signal = await self._rooms.with_keys(
            self._error_signal, error, claim.message_id, progress.leg, claimed
        )
        return Answer(error.status, SOAP_CONTENT_TYPE, signal, close=True)

    def _error_signal(
        self, error: EbmsError, ref_to: str | None, leg: Leg | None, claimed: UserMessage | None = None
    ) -> bytes:
        """Signed with the key of our party of that leg, or of the one that `claimed` names, or of our only
        one; unsigned where there is none."""
        signal = error_for(
            error,
            ref_to=ref_to,
            message_id=new_message_id(self._rooms.config.node.host),
            now=milliseconds(self._rooms.clock.now()),
        )
        pmodes = self._rooms.agreements.value.pmodes
        leg = leg or self._rooms.agreements.value.matcher.answering(claimed)
        key = None
        profile = PROFILES[leg.profile] if leg else next(iter(PROFILES.values()))
        if leg is not None:
            receiving = pmodes.is_self(leg.to_party.party_id)
            us, them = (leg.to_party, leg.from_party) if receiving else (leg.from_party, leg.to_party)
            partner = claimed.from_party if claimed else them.party_id
            with contextlib.suppress(KeyUnavailable, RingUnavailable):
                key = self._rooms.keyring.value.signing_key(us.party_id, profile, partner=partner)
        sign = partial(
            secure_signal, signal, profile=profile, token=leg.signature_token if leg else "bst",
            entropy=self._rooms.entropy,
        )  # fmt: skip
        try:
            return sign(key=key)
        except KeyUnavailable:  # its token has gone
            return sign(key=None)

    # -- bounds ---------------------------------------------------------------------

    @contextlib.contextmanager
    def _entered(self, partner: str) -> Iterator[None]:
        self._enter(partner)
        try:
            yield
        finally:
            self._leave(partner)

    def _enter(self, partner: str) -> None:
        busy = self._uploads.get(partner, 0)
        if busy >= self._rooms.config.limits.uploads_per_partner:
            raise Overloaded("too many messages of one partner at once")
        self._uploads[partner] = busy + 1

    def _leave(self, partner: str) -> None:
        self._uploads[partner] -= 1
        if not self._uploads[partner]:
            del self._uploads[partner]


async def _nothing_more(events: AsyncIterator) -> None:
    """Read a signal to its end."""
    async for event in events:
        if isinstance(event, PartBegins):
            raise MimeInconsistency("a signal with parts", where="MIME part")


async def _events(reader: MessageReader, body: AsyncIterator[bytes]) -> AsyncIterator:
    async for block in body:
        for event in reader.feed(block):
            yield event
    for event in reader.close():
        yield event
