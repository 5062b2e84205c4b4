"""Submit: from a producer's wish to a frozen, durable message.

The leg is found, the header completed and checked as a peer would check it, each payload
compressed once, hashed and sealed; then one transaction stores message, parts and send job.
After that nothing of the message changes: every attempt sends the same MessageId,
Timestamp and octets.
"""

import hashlib
from datetime import UTC
from uuid import UUID

import msgspec

from gateway import log, metrics
from gateway.as4 import header, ns
from gateway.as4.compression import Deflater, should_compress
from gateway.as4.pmode import Leg
from gateway.as4.policy import check_properties
from gateway.as4.profiles import PROFILES
from gateway.as4.related import CONTENT_ID
from gateway.as4.units import AgreementRef, PartInfo, PartyId, Property, Service, UserMessage
from gateway.clock import milliseconds, new_message_id
from gateway.errors import EbmsError, SubmissionRefused, TooLarge
from gateway.keys.sealing import new_message_key
from gateway.msh.payloads import PayloadSealer
from gateway.msh.receive import INLINE_WORK
from gateway.msh.rooms import Rooms, new_id, party_key
from gateway.plugin import Caller, Content, PartSubmission, Submission
from gateway.stages import point, stage, timeline
from gateway.store.api import NewOutbound, NewPart, Stored, Submitting

#: Part properties that are the MSH's business and not the producer's [as4 4.1].
OWN_PROPERTIES = frozenset({ns.COMPRESSION_TYPE, ns.MIME_TYPE})


class Submitter:
    """Takes submissions."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def submit(
        self, caller: Caller, wanted: Submission, content: Content, *, idempotency_key: str | None = None
    ) -> Stored:
        """Store a message for sending. Raises `SubmissionRefused`, `SubmissionConflict`,
        `TooLarge`, `StoreUnavailable`."""
        with timeline("outbound") as steps:
            agreements = self._rooms.agreements.value
            with stage("match"):
                leg = _leg(agreements.matcher, wanted)
            if not agreements.pmodes.is_self(leg.from_party.party_id):
                raise SubmissionRefused("that agreement sends from another party", field="from_party")
            with stage("validate"):
                header_ = self._header(leg, wanted)
            id, key = new_id(), new_message_key(self._rooms.entropy)
            log.message_id.set(header_.message_id)
            if not wanted.parts:
                new = self._new(id, key, header_, (), leg, caller, wanted, idempotency_key, agreements.pmodes.revision)
                with stage("store"):
                    stored = await self._rooms.store.submit_once(msgspec.structs.replace(new, steps=tuple(steps)))
            else:
                stored = await self._with_parts(
                    id, key, header_, leg, caller, wanted, content, idempotency_key, agreements.pmodes.revision, steps
                )
        point("OB02")
        if not stored.replayed:
            log.event("message.submitted", party=leg.to_party.party_id.value, action=leg.action, backend=caller.backend)
            metrics.message("outbound", leg.to_party.party_id.value, leg.action, "submitted")
        return stored

    async def _with_parts(
        self, id, key, header_: UserMessage, leg: Leg, caller, wanted, content, idempotency_key, revision, steps
    ) -> Stored:
        """Freeze the parts. The transaction opens with the first chunk that does not fit a row."""
        submitting: Submitting | None = None
        context = None
        parts: list[NewPart] = []
        total = 0
        try:
            with stage("package"):
                for number, part in enumerate(wanted.parts):
                    limit = self._rooms.config.limits.part
                    freezer = _Freezer(key, id, number, part, header_.parts[number], leg, limit)
                    async for block in content(number):
                        pieces = (
                            freezer.write(block)
                            if len(block) <= INLINE_WORK
                            else await self._rooms.cpu.run(freezer.write, block)
                        )
                        total += len(block)
                        if total > min(leg.max_message, self._rooms.config.limits.message):
                            raise TooLarge("the message is larger than the agreement allows")
                        for piece in pieces:
                            if submitting is None:
                                context = self._rooms.store.submitting(id)
                                submitting = await context.__aenter__()
                            await submitting.chunk(number, *piece)
                    made, pieces = freezer.finish()
                    if pieces and submitting is None:
                        context = self._rooms.store.submitting(id)
                        submitting = await context.__aenter__()
                    for piece in pieces:
                        await submitting.chunk(number, *piece)
                    parts.append(made)
            final = msgspec.structs.replace(header_, parts=tuple(part.info for part in parts))
            new = self._new(id, key, final, tuple(parts), leg, caller, wanted, idempotency_key, revision)
            with stage("store"):
                new = msgspec.structs.replace(new, steps=tuple(steps))
                if submitting is None:
                    return await self._rooms.store.submit_once(new)
                stored = await submitting.accept(new)
            done, context = context, None
            await done.__aexit__(None, None, None)
            return stored
        except BaseException as error:
            if context is not None:
                await context.__aexit__(type(error), error, error.__traceback__)
            raise

    def _new(
        self, id: UUID, key: bytes, message: UserMessage, parts: tuple[NewPart, ...], leg: Leg, caller: Caller,
        wanted: Submission, idempotency_key: str | None, revision: int,
    ) -> NewOutbound:  # fmt: skip
        return NewOutbound(
            id=id,
            tenant=party_key(message.from_party),
            receiver=party_key(message.to_party),
            user_message=message,
            fingerprint=_fingerprint(wanted, parts),
            parts=parts,
            wrapped_key=self._rooms.kek.wrap(key, str(id)),
            pmode_id=leg.pmode_id,
            pmode_revision=revision,
            backend=caller.backend,
            client=caller.id,
            idempotency_key=idempotency_key,
            deadline=wanted.deadline,
        )

    def _header(self, leg: Leg, wanted: Submission) -> UserMessage:
        """The complete header, judged by the rules a peer will apply."""
        host = self._rooms.config.node.host
        infos = []
        for number, part in enumerate(wanted.parts):
            cid = part.cid or f"part-{number + 1}-{self._rooms.entropy(8).hex()}@{host}"
            infos.append(_part_info(cid, part, number))
        if len({info.href for info in infos}) != len(infos):
            raise SubmissionRefused("two parts have the same cid", field="parts[].cid", hint="make every cid unique")
        message = UserMessage(
            message_id=wanted.message_id or new_message_id(host),
            timestamp=milliseconds(self._rooms.clock.now()),
            from_party=leg.from_party.party_id,
            from_role=leg.from_role,
            to_party=leg.to_party.party_id,
            to_role=leg.to_role,
            service=leg.service,
            action=leg.action,
            conversation_id=wanted.conversation_id
            if wanted.conversation_id is not None
            else new_message_id(host).partition("@")[0],
            ref_to_message_id=wanted.ref_to_message_id,
            mpc=leg.mpc,
            agreement_ref=leg.agreement,
            properties=tuple(Property(p.name, p.value, p.type) for p in wanted.properties),
            parts=tuple(infos),
        )
        try:
            header.check_sendable(message)
            check_properties(message, leg, PROFILES[leg.profile])
        except EbmsError as error:
            raise SubmissionRefused(
                f"{error.short_description}: {error}", field=error.where, hint="the partner would refuse this message"
            ) from None
        if wanted.deadline is not None and wanted.deadline.tzinfo is None:
            raise SubmissionRefused("the deadline has no time zone", field="deadline", hint="write it with Z")
        if wanted.deadline is not None and wanted.deadline.astimezone(UTC) <= self._rooms.clock.now():
            raise SubmissionRefused("the deadline has passed", field="deadline")
        return message


class _Freezer:
    """Compress, hash and seal the content of one part, block by block."""

    def __init__(
        self, key: bytes, message: UUID, number: int, wanted: PartSubmission, info: PartInfo, leg: Leg, limit: int
    ) -> None:
        self._number, self._info, self._mime_type = number, info, wanted.mime_type
        compress = leg.compress and should_compress(wanted.mime_type) if wanted.compress is None else wanted.compress
        self._deflater = Deflater() if compress else None
        self._limit = min(limit, leg.max_part)
        self._size = self._wire_size = 0
        self._content, self._wire = hashlib.sha256(), hashlib.sha256()
        self._sealer = PayloadSealer(key, message, number)

    def write(self, block: bytes) -> list[tuple[int, bytes]]:
        self._size += len(block)
        if self._size > self._limit:
            raise TooLarge(f"part {self._number + 1} is larger than the agreement allows ({self._limit} bytes)")
        self._content.update(block)
        return self._keep(self._deflater.feed(block) if self._deflater else block)

    def _keep(self, octets: bytes) -> list[tuple[int, bytes]]:
        self._wire_size += len(octets)
        self._wire.update(octets)
        return self._sealer.write(octets)

    def finish(self) -> tuple[NewPart, list[tuple[int, bytes]]]:
        pieces = self._keep(self._deflater.finish()) if self._deflater else []
        inline, rest = self._sealer.finish()
        properties = [*self._info.properties, Property(ns.MIME_TYPE, self._mime_type)]
        if self._deflater:
            properties.append(Property(ns.COMPRESSION_TYPE, ns.GZIP))
        info = msgspec.structs.replace(self._info, properties=tuple(properties))
        part = NewPart(
            number=self._number,
            info=info,
            cid=info.cid,
            mime_type=self._mime_type,
            size=self._size,
            sha256=self._content.digest(),
            compressed=self._deflater is not None,
            wire_size=self._wire_size,
            wire_digest=self._wire.digest(),
            inline=inline,
            chunks=self._sealer.count,
        )
        return part, [*pieces, *rest]


def _leg(matcher, wanted: Submission) -> Leg:
    """The one leg the submission means. Raises `SubmissionRefused` with the nearest names."""
    sender = wanted.from_party
    return matcher.outbound(
        to_party=PartyId(wanted.to_party.id, wanted.to_party.type),
        action=wanted.action,
        service=Service(wanted.service, wanted.service_type) if wanted.service is not None else None,
        from_party=PartyId(sender.id, sender.type) if sender else None,
        agreement=AgreementRef(wanted.agreement_ref, wanted.agreement_type) if wanted.agreement_ref else None,
    )


def _part_info(cid: str, part: PartSubmission, number: int) -> PartInfo:
    taken = next((p.name for p in part.properties if p.name in OWN_PROPERTIES), None)
    if taken:
        raise SubmissionRefused(
            f"part {number + 1} sets the property {taken}", field=f"parts[{number}].properties",
            hint="the gateway sets it from mime_type and the agreement",
        )  # fmt: skip
    if not part.mime_type.strip() or "/" not in part.mime_type:
        raise SubmissionRefused(f"part {number + 1} has no media type", field=f"parts[{number}].mime_type")
    if not CONTENT_ID.fullmatch(cid):
        raise SubmissionRefused(
            f"the cid of part {number + 1} has other characters than A-Z a-z 0-9 . _ @ -", field=f"parts[{number}].cid",
            hint="other characters break signatures at some partners; leave it out and the gateway makes one",
        )  # fmt: skip
    return PartInfo(
        href=f"cid:{cid}", properties=tuple(Property(p.name, p.value, p.type) for p in part.properties)
    )


def _fingerprint(wanted: Submission, parts: tuple[NewPart, ...]) -> bytes:
    """SHA-256 of what the producer asked for; generated values are not part of it."""
    digest = hashlib.sha256(msgspec.msgpack.encode(wanted))
    for part in parts:
        digest.update(part.sha256)
    return digest.digest()
