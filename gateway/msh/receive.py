"""The inbound ladder: from the blocks of an HTTP body to a receipt, or to an Error signal.

    envelope read → opened (shape, terms, signature, header digests) → parts read
    → proven (decrypted, digests met, inflated) → accepted (agreement) → stored → receipt

The order is the one of the rejection contract [threats 1.0, 1.1]: nothing of a stranger is
decrypted, spooled or stored, and what is refused leaves nothing but one security event.
The receipt leaves only after the commit is durable.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import msgspec

from gateway import log, metrics
from gateway.as4 import ns, soap
from gateway.as4.inbound import Opened, PartLimits, PartProver, ProvenPart, Terms, open_envelope, prove
from gateway.as4.mime import EnvelopeReady, MessageReader, MimeLimits, PartBegins, PartData, PartEnds, cid_of_reference
from gateway.as4.outbound import secure_signal
from gateway.as4.pmode import Leg
from gateway.as4.policy import Accepted, accept
from gateway.as4.profiles import PROFILES
from gateway.as4.signals import error_for, receipt_for
from gateway.as4.units import MessageUnit, PullRequest, Reference, UserMessage
from gateway.as4.wss.decrypt import unwrap_content_key
from gateway.clock import milliseconds, new_message_id
from gateway.errors import (
    EbmsError,
    FeatureNotSupported,
    KeyUnavailable,
    MimeInconsistency,
    Other,
    Overloaded,
    PeerGone,
    ProcessingModeMismatch,
    StoreUnavailable,
    ValueInconsistent,
)
from gateway.keys.sealing import new_message_key
from gateway.msh.payloads import PayloadSealer
from gateway.msh.refusals import Refusals
from gateway.msh.rooms import Agreements, Rooms, new_id, party_key
from gateway.msh.signals import Signals
from gateway.msh.spool import Spool, SpoolRoom
from gateway.stages import Step, point, stage, timeline
from gateway.store.api import NewInbound, NewPart, Received, Receiving

#: Work on more octets than this leaves the loop for a thread [stack 3.4].
INLINE_WORK = 256 << 10

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


@dataclass
class _Progress:
    """How far a message came; what a refusal needs to answer and to note."""

    source: str
    envelope: bytes = b""
    unit: MessageUnit | None = None
    leg: Leg | None = None
    authenticated: bool = False


class Receiver:
    """Receives messages. One instance a process."""

    def __init__(self, rooms: Rooms, signals: Signals, refusals: Refusals, spools: SpoolRoom) -> None:
        self._rooms, self._signals, self._refusals, self._spools = rooms, signals, refusals, spools
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
        with timeline("inbound") as steps:
            try:
                return await self._climb(content_type, body, progress, steps)
            except PeerGone:
                raise
            except EbmsError as error:
                return await self._refuse(error, progress)
            except Overloaded as error:
                log.event("message.deferred", level="warning", reason=str(error), source=source)
                return Answer(503, retry_after=5)
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
                return Answer(503, retry_after=5)
            except KeyUnavailable as error:
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
            raise MimeInconsistency("no envelope", status=400)
        progress.envelope = first.octets
        opened = self._open(first, agreements, progress)
        if not isinstance(opened.unit, UserMessage):
            async for event in events:
                if isinstance(event, PartBegins):
                    raise MimeInconsistency("a signal with parts", where="MIME part")
            with stage("store"):
                await self._signals.take(opened)
            return Answer(204)
        message, leg = opened.unit, progress.leg
        log.message_id.set(message.message_id)
        partner = party_key(message.from_party)
        self._enter(partner)
        try:
            with Spool(self._spools, partner) as spool:
                with stage("read"):
                    await self._read_parts(events, opened, spool)
                return await self._prove_and_store(opened, leg, spool, agreements, steps)
        finally:
            self._leave(partner)

    # -- rung: Envelope → Opened ------------------------------------------------

    def _open(self, envelope: EnvelopeReady, agreements: Agreements, progress: _Progress) -> Opened:
        """Shape, terms, signature, header digests, in one call and one thread."""

        def choose(unit: MessageUnit) -> Terms:
            progress.unit = unit
            point("IB07")
            with stage("match"):
                if isinstance(unit, PullRequest):
                    raise FeatureNotSupported("no pull here", where="eb:PullRequest: this access point offers no pull")
                if not isinstance(unit, UserMessage):
                    return self._signals.terms(agreements)
                leg = agreements.matcher.find_leg(unit)
                if not agreements.pmodes.is_self(unit.to_party):
                    raise ProcessingModeMismatch("not addressed to us", where="eb:To/eb:PartyId")
                progress.leg = leg
                return Terms(profile=PROFILES[leg.profile], signers=leg.from_party.signing)

        point("IB06")
        with stage("verify"):
            now = self._rooms.clock.now()
            opened = open_envelope(
                envelope.octets, envelope.charset, choose=choose, trust=self._rooms.check_signer(now)
            )
        progress.authenticated = True
        return opened

    # -- reading the parts --------------------------------------------------------

    async def _read_parts(self, events: AsyncIterator, opened: Opened, spool: Spool) -> None:
        """Spool the parts the signature names. Anything else ends the reading at once."""
        async for event in events:
            match event:
                case PartBegins(cid=raw):
                    cid = cid_of_reference(raw, opened.promised) or raw
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
            raise MimeInconsistency("a part is missing", where="eb:PartInfo without MIME part")
        message: UserMessage = opened.unit
        keyring = self._rooms.keyring.value
        content_key = None
        if opened.promised:
            with stage("decrypt"):
                content_key = unwrap_content_key(opened, keyring.decryption_keys(message.to_party))
        id, key = new_id(), new_message_key(self._rooms.entropy)
        limits = PartLimits(
            content=min(leg.max_part, self._rooms.config.limits.decompressed),
            canonical=PROFILES[leg.profile].max_canonical_part,
        )
        prover = _Prover(opened, content_key, spool, limits, leg.max_message, key, id)
        if spool.size <= INLINE_WORK and (small := prover.run_small()) is not None:
            parts, proven_parts = small
            new = self._accepted(opened, leg, parts, proven_parts, id, key, agreements, steps)
            with stage("store"):
                received = await self._rooms.store.receive_once(new)
        else:
            with stage("store"):
                async with self._rooms.store.receiving(id) as receiving:
                    parts, proven_parts = await prover.run_large(receiving, self._rooms.cpu)
                    new = self._accepted(opened, leg, parts, proven_parts, id, key, agreements, steps)
                    received = await receiving.accept(new)
        return self._answer(received, new, opened, leg)

    def _accepted(
        self,
        opened: Opened,
        leg: Leg,
        parts: tuple[NewPart, ...],
        proven_parts: tuple[ProvenPart, ...],
        id: UUID,
        key: bytes,
        agreements: Agreements,
        steps: list[Step],
    ) -> NewInbound:
        """Judge the proven message by its agreement and make its receipt."""
        with stage("validate"):
            accepted: Accepted = accept(prove(opened, proven_parts), leg)
            message = accepted.user_message
        with stage("receipt"):
            receipt = self._receipt(opened.references, message, leg)
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
            findings=accepted.findings,
            steps=tuple(steps),
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
            key=self._rooms.keyring.value.signing_key(message.to_party, profile),
            token=leg.signature_token,
            entropy=self._rooms.entropy,
        )

    def _answer(self, received: Received, new: NewInbound, opened: Opened, leg: Leg) -> Answer:
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
            body = received.receipt if received.same_references else self._receipt(opened.references, message, leg)
        else:
            log.event("message.received", size=sum(p.size for p in new.parts), **facts)
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
        metrics.error(error.code, "verify" if error.uniform else "validate")
        if claim.kind in ("Receipt", "Error"):
            return Answer(400, close=True)  # a signal is never answered with an Error signal [as4 2.5]
        if isinstance(error, soap.SoapFault):
            return Answer(error.status, SOAP_CONTENT_TYPE, soap.fault(error.fault_code, error.wire), close=True)
        signal = error_for(
            error,
            ref_to=claim.message_id,
            message_id=new_message_id(self._rooms.config.node.host),
            now=milliseconds(self._rooms.clock.now()),
        )
        return Answer(error.status, SOAP_CONTENT_TYPE, self._sign_error(signal, progress.leg), close=True)

    def _sign_error(self, signal, leg: Leg | None) -> bytes:
        """Sign with the key of the addressed party, or of our only one; unsigned where there is none."""
        agreements = self._rooms.agreements.value
        if leg is None:
            ours = (leg for leg in agreements.pmodes.legs if agreements.pmodes.is_self(leg.to_party.party_id))
            leg = next(ours, None)
        key = None
        profile = PROFILES[leg.profile] if leg else next(iter(PROFILES.values()))
        if leg is not None:
            try:
                key = self._rooms.keyring.value.signing_key(leg.to_party.party_id, profile)
            except KeyUnavailable:
                key = None
        return secure_signal(
            signal,
            profile=profile,
            key=key,
            token=leg.signature_token if leg else "bst",
            entropy=self._rooms.entropy,
        )

    # -- bounds ---------------------------------------------------------------------

    def _enter(self, partner: str) -> None:
        busy = self._uploads.get(partner, 0)
        if busy >= self._rooms.config.limits.uploads_per_partner:
            raise Overloaded("too many messages of one partner at once")
        self._uploads[partner] = busy + 1

    def _leave(self, partner: str) -> None:
        self._uploads[partner] -= 1
        if not self._uploads[partner]:
            del self._uploads[partner]


class _Prover:
    """One pass over every part: decrypt, hash, inflate, seal. Nothing it made is visible before the end."""

    def __init__(
        self, opened: Opened, content_key: bytes | None, spool: Spool, limits: PartLimits, message: int,
        key: bytes, id: UUID,
    ) -> None:  # fmt: skip
        self._opened, self._content_key, self._spool = opened, content_key, spool
        self._limits, self._message = limits, message
        self._key, self._id = key, id
        self._order = [info.cid for info in opened.unit.parts]

    def run_small(self) -> tuple[tuple[NewPart, ...], tuple[ProvenPart, ...]] | None:
        """All parts inline, in this thread. None when a part turns out too large for its row."""
        made, proven = [], []
        for number, cid in enumerate(self._order):
            prover = self._prover(cid, proven)
            sealer = PayloadSealer(self._key, self._id, number)
            with stage("decrypt"):
                for block in self._spool.read(cid):
                    for plain in prover.feed(block):
                        if sealer.write(plain):
                            return None
                for plain in prover.finish():
                    if sealer.write(plain):
                        return None
            inline, rest = sealer.finish()
            if rest:
                return None
            proven.append(prover.proven)
            made.append(_new_part(number, prover.proven, inline, 0))
        return tuple(made), tuple(proven)

    async def run_large(self, receiving: Receiving, cpu) -> tuple[tuple[NewPart, ...], tuple[ProvenPart, ...]]:
        """Block by block in a thread; sealed chunks go into the open transaction."""
        made, proven = [], []
        for number, cid in enumerate(self._order):
            prover = self._prover(cid, proven)
            sealer = PayloadSealer(self._key, self._id, number)
            work = self._pieces(prover, sealer, cid)
            with stage("decrypt"):
                while (piece := await cpu.run(next, work, None)) is not None:
                    await receiving.chunk(number, *piece)
            inline, rest = sealer.finish()
            for piece in rest:
                await receiving.chunk(number, *piece)
            proven.append(prover.proven)
            made.append(_new_part(number, prover.proven, inline, sealer.count))
        return tuple(made), tuple(proven)

    def _prover(self, cid: str, before: list[ProvenPart]) -> PartProver:
        """For the next part: what is left of the message bounds it, too, so that many parts are no way round."""
        left = max(0, self._message - sum(part.size for part in before))
        limits = msgspec.structs.replace(self._limits, content=min(self._limits.content, left))
        return PartProver(self._opened, cid, self._content_key, limits)

    def _pieces(self, prover: PartProver, sealer: PayloadSealer, cid: str) -> Iterator[tuple[int, bytes]]:
        for block in self._spool.read(cid):
            for plain in prover.feed(block):
                yield from sealer.write(plain)
        for plain in prover.finish():
            yield from sealer.write(plain)


def _new_part(number: int, part: ProvenPart, inline: bytes | None, chunks: int) -> NewPart:
    return NewPart(
        number=number,
        info=part.info,
        cid=part.cid,
        mime_type=part.mime_type,
        size=part.size,
        sha256=part.sha256,
        compressed=part.compressed,
        wire_size=part.wire_size,
        wire_digest=part.wire_digest,
        inline=inline,
        chunks=chunks,
    )


async def _events(reader: MessageReader, body: AsyncIterator[bytes]) -> AsyncIterator:
    async for block in body:
        for event in reader.feed(block):
            yield event
    for event in reader.close():
        yield event


def fingerprint(message: UserMessage, parts: tuple[ProvenPart, ...]) -> bytes:
    """SHA-256 of what the message says: its header and the content of its parts."""
    digest = hashlib.sha256(msgspec.msgpack.encode(message))
    for part in parts:
        digest.update(part.cid.encode() + b"\0" + part.sha256)
    return digest.digest()


def references_digest(references: tuple[Reference, ...]) -> bytes:
    """SHA-256 of what was signed: every reference with its digest, in order."""
    digest = hashlib.sha256()
    for reference in references:
        digest.update(msgspec.msgpack.encode((reference.uri, reference.digest_method, reference.digest)))
    return digest.digest()

