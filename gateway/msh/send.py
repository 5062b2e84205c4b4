"""The outbound ladder: a claimed job becomes one attempt, and its answer a state.

    claimed → message read → signed and encrypted → attempt row committed → POST, streamed
    → answer judged → settled (attempt, state, events in one commit)

A retry keeps MessageId, Timestamp and the octets of the parts, so every attempt signs equal
digests [as4 4.2]. The attempt row stands before the socket opens: whatever happens after,
somebody knows that these octets may have arrived.
"""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import msgspec

from gateway import log, metrics
from gateway.as4.inbound import Opened
from gateway.as4.outbound import Draft, OutboundPart, Wire, secure
from gateway.as4.pmode import Leg
from gateway.as4.profiles import PROFILES
from gateway.as4.retry import next_wait
from gateway.as4.units import Reference
from gateway.errors import (
    CertificateRefused,
    ClaimLost,
    DiscoveryFailed,
    EbmsError,
    GatewayError,
    InvalidReceipt,
    KeyUnavailable,
    NotFound,
    PeerAnswered,
    RingUnavailable,
    SendFailed,
    SubmissionRefused,
)
from gateway.keys.trust import Use
from gateway.msh.outcome import FINAL_CODES, judge
from gateway.msh.payloads import content
from gateway.msh.rooms import INLINE_WORK, Agreements, Rooms
from gateway.msh.rotation import fingerprint, proof_of
from gateway.stages import Step, point, record, stage, timeline, trace
from gateway.store.api import AttemptResult, Job, Message, NewEvent, Part, Shutting

#: What the partner's side takes of an attempt.
ON_THE_LINE = ("connect", "send", "receipt")
#: Outcome of an attempt -> the stage it ended in, and at whose side the cause is. All else is ours.
WHOSE = {
    "error": ("receipt", "partner"), "unverified-error": ("receipt", "partner"),
    "invalid-receipt": ("receipt", "partner"), "discovery-failed": ("match", "network"),
    "connect-failed": ("connect", "network"), "send-failed": ("send", "network"),
    "receipt-failed": ("receipt", "network"),
}  # fmt: skip


class Sender:
    """Carries out send jobs."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        circuit = rooms.config.circuit
        self._shutting = Shutting(circuit.failures, circuit.first, circuit.longest)
        #: Time of the database and of our monotonic clock at the first claim.
        self._anchor: tuple[datetime, float] | None = None

    async def send(self, job: Job) -> None:
        """One attempt. Never raises for what a message or a peer can cause."""
        point("OB03")
        message = await self._rooms.store.message(job.message)
        if message is None:
            return
        log.message_id.set(message.user_message.message_id)
        trace.set(message.trace)
        try:
            with timeline("outbound") as steps:
                await self._attempt(job, message, steps)
        except ClaimLost:
            log.event("claim.lost", level="warning", kind=job.kind)

    async def isolate(self, job: Job, why: str) -> None:
        """The message fails without another attempt, until it is resent [reliability R24]."""
        message = await self._rooms.store.message(job.message)
        if message is None:
            return
        log.message_id.set(message.user_message.message_id)
        facts = {"code": "EBMS:0004", "attempt": message.attempts}
        result = AttemptResult(state="FAILED", outcome="isolated", error_code="EBMS:0004", error_detail=why,
                               events=(NewEvent("message.failed", facts),))  # fmt: skip
        number = await self._rooms.store.begin_attempt(job, node=self._rooms.node, references=())
        await self._rooms.store.finish_attempt(job, number, result)
        self._tell(message, result)

    async def _attempt(self, job: Job, message: Message, steps: list[Step]) -> None:
        waited = (self._rooms.clock.now() - (message.next_attempt_at or message.created_at)).total_seconds()
        record("wait", self._rooms.clock.now().timestamp() - max(waited, 0), max(waited, 0))
        leg = await self.leg(message)
        number: int | None = None
        signer: bytes | None = None
        try:
            if leg is None:
                raise SendFailed("the agreement this message was submitted under is gone", temporary=False)
            over = message.deadline is not None and message.deadline <= self._now(job, message)
            if job.shut and not over and leg.retry.window > self._waited(job, message):
                # The clock says that it is over, and it is not: the clock has jumped.
                await self._rooms.store.release(job.id, job.claim, due_in=leg.retry.max, error="its partner is shut")
                return
            if job.shut:
                raise SendFailed("the partner does not answer, and is not tried any more", stage="wait")
            if over:
                raise SendFailed("the deadline of the message has passed", temporary=False, stage="wait")
            if leg.to_party.pattern:
                leg = await self._found(message, leg)
            await self.check_recipient(message, leg)
            wire = await self._rooms.with_keys(self.secured, message, leg)
            signer = fingerprint(wire.signer)
            before = await self._rooms.store.attempts(message.id) if message.attempts else ()
            earlier = [attempt.references for attempt in before]
            number = await self._rooms.store.begin_attempt(
                job, node=self._rooms.node, references=wire.references, envelope=wire.envelope, signer=signer
            )
            point("OB04")
            signed = [wire.references, *(r for r in earlier if r != wire.references)]
            receipt, status = await self._exchange(message, leg, wire, signed)
        except (GatewayError, OSError) as error:
            if isinstance(error, ClaimLost | RingUnavailable):
                raise  # nothing was tried; another process may have the keys
            if isinstance(error, InvalidReceipt) and leg is not None:
                await self._rooms.sightings.refused(leg.to_party, error.stranger)
            proof = proof_of(error)
            # During a rotation a message that is refused for its certificate can be signed with another one.
            spared = proof is not None and await self._rooms.rotation.spares(message.user_message.to_party, signer)
            result = self._failed(error, message, leg, job, steps, spared=spared)
            result = msgspec.structs.replace(result, refusal=proof)
        else:
            result = AttemptResult(
                state="ACKNOWLEDGED",
                outcome="acknowledged",
                http_status=status,
                receipt=receipt,
                steps=tuple(steps),
                events=(NewEvent("message.acknowledged"),),
                answered=True,
            )
        if number is None:
            number = await self._rooms.store.begin_attempt(job, node=self._rooms.node, references=())
        with stage("settle"):
            changed = await self._rooms.store.finish_attempt(
                job, number, msgspec.structs.replace(result, shutting=self._shutting)
            )
        self._tell(message, result)
        if result.refusal is not None:
            self._rooms.rotation.tell(message.user_message.to_party, signer, result.error_code, result.refusal)
        elif result.state == "ACKNOWLEDGED":
            self._rooms.rotation.uses(message.user_message.to_party, signer, "sign")
        party = message.user_message.to_party.value
        if changed == "shut":
            log.event("partner.shut", level="error", party=party)
        elif changed == "open":
            log.event("partner.open", party=party)

    # -- the pieces -----------------------------------------------------------------

    async def leg(self, message: Message) -> Leg | None:
        """The leg this message was submitted under, of its revision: by its id, or by its header if ids were renamed.
        Raises `StoreUnavailable`."""
        agreements, present = await self._rooms.revisions.of(message.pmode_revision), self._rooms.agreements.value
        # Both legs of a two-way exchange have one id.
        sender = message.user_message.from_party
        legs = [leg for leg in agreements.pmodes.legs if leg.pmode_id == message.pmode_id]
        leg = next((leg for leg in legs if leg.from_party.party_id == sender), None)
        if leg is None:
            try:
                leg = agreements.matcher.find_leg(message.user_message)
            except (EbmsError, SubmissionRefused):
                return None
        return leg if agreements is present else _with_present_pins(leg, present)

    async def _found(self, message: Message, leg: Leg) -> Leg:
        """The leg with the receiver it has now: known from the submission, asked for again before every retry.

        Raises `DiscoveryFailed`, also when another party serves the participant by now: the header names
        the one it was, and does not change.
        """
        unit = message.user_message
        named = self._rooms.agreements.value.matcher.named
        with stage("match"):
            return await self._rooms.partners.found(
                leg, unit.properties, unit.to_party, named=named, fresh=message.attempts > 0
            )

    async def check_recipient(self, message: Message, leg: Leg) -> None:
        """The certificate we encrypt to is not revoked, as far as the policy asks. Raises `CertificateRefused`."""
        recipient, revocations = leg.to_party.encryption if message.parts else None, self._rooms.revocations
        if recipient is None:
            return
        if leg.discovery is None:
            await revocations.check_of(recipient, leg.to_party)
        else:
            await revocations.check_path(self._path(recipient, leg, "encrypt"), leg.to_party.trust.revocation)

    def _path(self, certificate: bytes, leg: Leg, use: Use) -> tuple[bytes, ...]:
        """The path of a certificate of a party that was discovered. Raises `CertificateRefused`."""
        party = leg.to_party
        return self._rooms.paths.check(certificate, (), party.trust, use=use, party_id=party.party_id.value)

    async def _check_signer(self, opened: Opened, leg: Leg) -> None:
        """Who signed an answer holds a certificate that is not revoked. Raises `InvalidReceipt`."""
        revocations = self._rooms.revocations
        try:
            if leg.discovery is None or opened.voucher is not None:
                await revocations.check_opened(opened, leg.to_party)
            else:
                await revocations.check_path(self._path(opened.signer, leg, "sign"), leg.to_party.trust.revocation)
        except CertificateRefused as refused:
            raise InvalidReceipt(f"the signer's certificate is refused: {refused}") from None

    def secured(self, message: Message, leg: Leg) -> Wire:
        """Signed and with a content key for the recipient; no payload is read for it."""
        profile = PROFILES[leg.profile]
        unit = message.user_message
        key = self._rooms.keyring.value.signing_key(unit.from_party, profile, partner=unit.to_party)
        recipient = leg.to_party.encryption if message.parts else None
        if recipient is not None and leg.discovery is None:
            # Never encrypt to a certificate that is expired or not meant for it [threats E14]. One that was
            # discovered has just been judged, by its path.
            self._rooms.check_pinned(recipient, "encrypt", self._rooms.clock.now())
        elif recipient is None and message.parts:
            raise KeyUnavailable("the agreement has no encryption certificate of the partner")
        draft = Draft(
            user_message=unit,
            parts=tuple(_outbound_part(part) for part in message.parts),
        )
        return secure(
            draft,
            profile=profile,
            key=key,
            recipient=recipient,
            signature_token=leg.signature_token,
            encryption_token=leg.encryption_token,
            entropy=self._rooms.entropy,
        )

    async def _exchange(
        self, message: Message, leg: Leg, wire: Wire, signed: list[tuple[Reference, ...]]
    ) -> tuple[bytes, int]:
        if leg.to_party.endpoint is None:
            raise SendFailed("the agreement has no endpoint of the partner", temporary=False, stage="connect")
        answer = await self._rooms.client.post(
            leg.to_party.endpoint,
            content_type=wire.content_type,
            content_length=wire.content_length,
            body=self.body(message, wire),
            partner=message.partner,
            ca=leg.to_party.tls_ca,
            purpose="as4" if leg.discovery is None else "discovered",
        )
        point("OB12")
        with stage("receipt"):
            now = self._rooms.clock.now()
            try:
                opened = judge(
                    answer,
                    leg=leg,
                    message_id=message.user_message.message_id,
                    signed=signed,
                    trust=self._rooms.check_signer(now)
                    if leg.discovery is None
                    else self._rooms.paths.signer(leg.to_party, now),
                    vouch=self._rooms.paths.voucher(now),
                )
            except PeerAnswered as answered:
                if answered.opened is not None:
                    await self._check_signer(answered.opened, leg)
                raise
            await self._check_signer(opened, leg)
        point("OB13")
        if opened.voucher is None:
            await self._rooms.sightings.signed(leg.to_party, opened.signer)
        return opened.envelope, answer.status

    async def body(self, message: Message, wire: Wire) -> AsyncIterator[bytes]:
        """The octets of the request, parts decrypted from the store and encrypted for the peer as they go."""
        yield wire.root
        for index, part in enumerate(message.parts):
            sealer = wire.sealer(index)
            yield wire.part_head(index)
            async for block in content(self._rooms.store, self._rooms.kek, message, part):
                if len(block) > INLINE_WORK:
                    yield await self._rooms.cpu.run(sealer.update, block)
                else:
                    yield sealer.update(block)
            yield sealer.finish()
        yield wire.epilogue

    def _failed(
        self, error: Exception, message: Message, leg: Leg | None, job: Job, steps: list[Step], *, spared: bool
    ) -> AttemptResult:
        """Retry or give up, and with which code [as4 4.2]. One that is `spared` is not given up for its code alone."""
        code, detail, final, outcome = classify(error)
        final = final and not spared
        wait = None
        if not final and leg is not None:
            wait = next_wait(
                leg.retry, retries_made=message.attempts, elapsed=self._waited(job, message),
                entropy=self._rooms.entropy,
            )
            if wait is not None and message.deadline is not None:
                left = (message.deadline - self._now(job, message)).total_seconds()
                wait = wait if wait <= left else None
        facts = {"code": code, "attempt": message.attempts + 1}
        if wait is not None:
            return AttemptResult(
                state="WAITING_FOR_RETRY", outcome=outcome, retry_in=wait, error_code=code, error_detail=detail,
                steps=tuple(steps), events=(NewEvent("message.retrying", {**facts, "in": round(wait, 1)}),),
                answered=answered(error),
            )  # fmt: skip
        if not final:
            detail = f"no receipt after {message.attempts + 1} attempts; last: {code} {detail}"
            code = "EBMS:0301"
        return AttemptResult(
            state="FAILED", outcome=outcome, error_code=code, error_detail=detail,
            steps=tuple(steps), events=(NewEvent("message.failed", {**facts, "code": code}),),
            answered=answered(error),
        )  # fmt: skip

    def _now(self, job: Job, message: Message) -> datetime:
        """The time by which a message is given up: the database's, as it was at the claim, and not later than our
        monotonic clock makes it from the first claim on. No clock can jump and end somebody's patience [I12]."""
        mono = self._rooms.clock.monotonic()
        if self._anchor is None:
            self._anchor = job.at, mono
        first, began = self._anchor
        steady = first + timedelta(seconds=mono - began)
        return min(job.at, steady) if message.created_at <= steady else job.at  # submitted after the jump

    def _waited(self, job: Job, message: Message) -> float:
        """Seconds since the message was submitted."""
        return (self._now(job, message) - message.created_at).total_seconds()

    def _tell(self, message: Message, result: AttemptResult) -> None:
        unit = message.user_message
        facts = {"party": unit.to_party.value, "action": unit.action}
        if result.state != "ACKNOWLEDGED":
            self._count_failure(result)
        if result.state == "ACKNOWLEDGED":
            metrics.reached(unit.to_party.value, sum(s.seconds for s in result.steps if s.stage in ON_THE_LINE))
            log.event("message.acknowledged", **facts)
            seconds = (self._rooms.clock.now() - message.created_at).total_seconds()
            metrics.message("outbound", unit.to_party.value, unit.action, "acknowledged", seconds)
        elif result.state == "FAILED":
            log.event("message.failed", level="error", code=result.error_code, reason=result.error_detail, **facts)
            metrics.message("outbound", unit.to_party.value, unit.action, "failed")
        else:
            log.event("message.retrying", level="warning", code=result.error_code, reason=result.error_detail,
                      retry_in=round(result.retry_in, 1), **facts)  # fmt: skip
            metrics.retry(unit.to_party.value)

    @staticmethod
    def _count_failure(result: AttemptResult) -> None:
        where, who = WHOSE.get(result.outcome or "", ("settle", "us"))
        metrics.error(result.error_code or "EBMS:0004", where, who)


def _with_present_pins(leg: Leg, present: Agreements) -> Leg:
    """A leg of an earlier revision whose partner may sign as the one in force says, too: it may have changed since."""
    partner = present.party(leg.to_party.party_id)
    if partner is None or set(partner.signing) <= set(leg.to_party.signing):
        return leg
    signing = tuple(dict.fromkeys((*leg.to_party.signing, *partner.signing)))
    return msgspec.structs.replace(
        leg, to_party=msgspec.structs.replace(leg.to_party, signing=signing, next=partner.next)
    )


def _outbound_part(part: Part) -> OutboundPart:
    return OutboundPart(
        info=part.info,
        cid=part.cid,
        content_type=signing_content_type(part.mime_type, part.compressed),
        wire_size=part.wire_size,
        wire_digest=part.wire_digest,
    )


def signing_content_type(mime_type: str, compressed: bool) -> str:
    """The media type a part bears when it is signed.

    Compressed parts are application/gzip. Uncompressed XML and text go as octet-stream, so
    that nobody canonicalises them: the digest is over the octets in every stack, while the
    real type stands in the signed MimeType property [as4 3.6].
    """
    if compressed:
        return "application/gzip"
    kind = mime_type.split(";")[0].strip().lower()
    if kind.startswith("text/") or kind.endswith(("+xml", "/xml")):
        return "application/octet-stream"
    return kind


def answered(error: Exception) -> bool | None:
    """What the end of an attempt says of the partner: it speaks AS4, it does not answer, or nothing."""
    match error:
        case PeerAnswered() | InvalidReceipt():
            return True
        case SendFailed(temporary=True, stage="connect" | "send" | "receipt"):
            return False
        case _:
            return None


def classify(error: Exception) -> tuple[str, str, bool, str]:
    """(code, detail, final, outcome) of what ended an attempt."""
    match error:
        case PeerAnswered(code=code, authenticated=True):
            return code, str(error), code in FINAL_CODES, "error"
        case PeerAnswered(code=code):
            return code, f"unverified answer: {error}", False, "unverified-error"
        case InvalidReceipt():
            return "EBMS:0302", str(error), False, "invalid-receipt"
        case SendFailed(temporary=temporary):
            return "EBMS:0005", str(error), not temporary, f"{error.stage}-failed"
        case DiscoveryFailed(temporary=True):
            return "EBMS:0005", f"the receiver cannot be discovered now: {error}", False, "discovery-failed"
        case DiscoveryFailed():
            return "EBMS:0010", f"the receiver cannot be discovered: {error}", True, "discovery-failed"
        case CertificateRefused(reason="revocation-unknown"):
            return "EBMS:0101", f"its encryption certificate cannot be used now: {error}", False, "certificate"
        case CertificateRefused():
            return "EBMS:0101", f"the partner's encryption certificate is refused: {error}", True, "certificate"
        case KeyUnavailable():
            return "EBMS:0004", str(error), False, "no-key"
        case NotFound():
            return "EBMS:0004", str(error), True, "payload-gone"
        case EbmsError():
            return error.code, str(error), not error.temporary, "refused-here"
        case _:
            return "EBMS:0004", f"{type(error).__name__}: {error}", False, "incident"


