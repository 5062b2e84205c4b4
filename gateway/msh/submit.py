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

from gateway import log, metrics, traces
from gateway.as4 import header, ns
from gateway.as4.outbound import messaging_text
from gateway.as4.pmode import Leg
from gateway.as4.policy import check_properties
from gateway.as4.profiles import PROFILES
from gateway.as4.related import CONTENT_ID
from gateway.as4.units import AgreementRef, PartInfo, PartyId, Property, Service, UserMessage
from gateway.clock import milliseconds, new_message_id
from gateway.errors import DiscoveryFailed, EbmsError, OutOfScope, RulesBroken, SubmissionRefused
from gateway.keys.sealing import new_message_key
from gateway.msh.advice import Adviser, Leading, document_view, leading_of
from gateway.msh.channels import channel_key
from gateway.msh.freezer import frozen
from gateway.msh.partners import HINTS
from gateway.msh.rooms import Agreements, Rooms, new_id, party_key
from gateway.oots.advice import Advice
from gateway.plugin import Caller, CheckedPart, Content, DryRun, PartSubmission, PropertyValue, Submission
from gateway.scope import FINAL_RECIPIENT, ORIGINAL_SENDER, names
from gateway.stages import point, stage, timeline
from gateway.store.api import Held, NewOutbound, NewPart, Stored, Submitting

#: Part properties that are the MSH's business and not the producer's [as4 4.1].
OWN_PROPERTIES = frozenset({ns.COMPRESSION_TYPE, ns.MIME_TYPE})


class Submitter:
    """Takes submissions."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms, self._adviser = rooms, Adviser(rooms)

    async def submit(
        self, caller: Caller, wanted: Submission, content: Content, *, idempotency_key: str | None = None
    ) -> tuple[Stored, Advice]:
        """Store a message for sending; and what the rules of its community say about it. Raises
        `SubmissionRefused`, `RulesBroken`, `SubmissionConflict`, `TooLarge`, `StoreUnavailable`."""
        with timeline("outbound") as steps:
            agreements = self._rooms.agreements.value
            leg, header_ = await self._prepared(caller, agreements, wanted)
            id, key = new_id(), new_message_key(self._rooms.entropy)
            log.message_id.set(header_.message_id)
            if not wanted.parts:
                advice = await self._advised(header_, leg, None)
                new = self._new(
                    id, key, header_, (), leg, caller, wanted, idempotency_key, agreements.pmodes.revision, advice
                )
                with stage("store"):
                    stored = await self._rooms.store.submit_once(msgspec.structs.replace(new, steps=tuple(steps)))
            else:
                stored, advice = await self._with_parts(
                    id, key, header_, leg, caller, wanted, content, idempotency_key, agreements.pmodes.revision, steps
                )
        point("OB02")
        if not stored.replayed:
            log.event("message.submitted", party=leg.to_party.party_id.value, action=leg.action, backend=caller.backend)
            metrics.message("outbound", leg.to_party.party_id.value, leg.action, "submitted")
        return stored, advice

    async def validate(self, caller: Caller, wanted: Submission, content: Content) -> DryRun:
        """What `submit` would make of this, with nothing stored. Raises as `submit` does."""
        with timeline("outbound"):
            leg, message = await self._prepared(caller, self._rooms.agreements.value, wanted)
            leading = leading_of(leg)
            with stage("package"):
                made = frozen(self._rooms, wanted, message, leg, content, seal=None, leading=leading)
                parts = [part async for part in made if isinstance(part, NewPart)]
            message = msgspec.structs.replace(message, parts=tuple(part.info for part in parts))
            advice = await self._advised(message, leg, leading)
        return DryRun(
            valid=all(finding.severity != "fatal" for finding in advice.findings),
            pmode=leg.pmode_id,
            profile=leg.profile,
            rules=leg.rules,
            line=advice.line,
            findings=advice.findings,
            parts=tuple(
                CheckedPart(
                    cid=part.cid, mime_type=part.mime_type, size=part.size, sha256=part.sha256.hex(),
                    compressed=part.compressed, wire_size=part.wire_size,
                )
                for part in parts
            ),
            document=document_view(advice.document),
            header=messaging_text(message),
        )  # fmt: skip

    async def _prepared(
        self, caller: Caller, agreements: Agreements, wanted: Submission
    ) -> tuple[Leg, UserMessage]:
        """The leg a submission means and its header, judged as a peer would.

        Where the receiver is discovered, it is here: whoever cannot be found is told to the producer at once
        [as4 6.9 (80)]. Raises `SubmissionRefused`, and `DiscoveryFailed` for what may be better later.
        """
        with stage("match"):
            leg = _leg(agreements.matcher, wanted)
            if leg.to_party.pattern:
                leg = await self._found(leg, wanted, agreements)
        if not agreements.pmodes.is_self(leg.from_party.party_id):
            raise SubmissionRefused("that agreement sends from another party", field="from_party")
        with stage("validate"):
            message = self._header(leg, wanted)
            _check_scope(caller, message)
            return leg, message

    async def _found(self, leg: Leg, wanted: Submission, agreements: Agreements) -> Leg:
        properties = _properties(wanted.properties, "properties")
        to_party = wanted.to_party and PartyId(wanted.to_party.id, wanted.to_party.type)
        try:
            return await self._rooms.partners.found(leg, properties, to_party, named=agreements.matcher.named)
        except DiscoveryFailed as failure:
            if failure.temporary:
                raise
            raise SubmissionRefused(
                f"the receiver cannot be discovered: {failure}",
                field="properties" if leg.discovery.participant == "finalRecipient" else "to_party",
                hint=HINTS.get(failure.reason, ""),
            ) from None

    async def _with_parts(
        self, id, key, header_: UserMessage, leg: Leg, caller, wanted, content, idempotency_key, revision, steps
    ) -> tuple[Stored, Advice]:
        """Freeze the parts. The transaction opens with the first chunk that does not fit a row."""
        submitting: Submitting | None = None
        context = None
        parts: list[NewPart] = []
        leading = leading_of(leg)
        try:
            with stage("package"):
                async for made in frozen(self._rooms, wanted, header_, leg, content, seal=(key, id), leading=leading):
                    if isinstance(made, NewPart):
                        parts.append(made)
                        continue
                    if submitting is None:
                        context = self._rooms.store.submitting(id)
                        submitting = await context.__aenter__()
                    await submitting.chunk(*made)
            final = msgspec.structs.replace(header_, parts=tuple(part.info for part in parts))
            advice = await self._advised(final, leg, leading)
            new = self._new(id, key, final, tuple(parts), leg, caller, wanted, idempotency_key, revision, advice)
            with stage("store"):
                new = msgspec.structs.replace(new, steps=tuple(steps))
                if submitting is None:
                    return await self._rooms.store.submit_once(new), advice
                stored = await submitting.accept(new)
            done, context = context, None
            await done.__aexit__(None, None, None)
            return stored, advice
        except BaseException as error:
            if context is not None:
                await context.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _advised(self, message: UserMessage, leg: Leg, leading: Leading | None) -> Advice:
        """The advice about what would be sent. Raises `RulesBroken` where the agreement wants it obeyed."""
        advice = await self._adviser.advise(message, leg, leading, "outbound")
        fatal = [finding for finding in advice.findings if finding.severity == "fatal"]
        if fatal and leg.rules == "refuse":
            rules = ", ".join(dict.fromkeys(finding.official or finding.rule for finding in fatal))
            raise RulesBroken(
                f"the agreement refuses what breaks the rules of {leg.profile}: {rules}", findings=advice.findings
            )
        return advice

    def _new(
        self, id: UUID, key: bytes, message: UserMessage, parts: tuple[NewPart, ...], leg: Leg, caller: Caller,
        wanted: Submission, idempotency_key: str | None, revision: int, advice: Advice,
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
            findings=advice.findings,
            document=advice.document,
            request_id=advice.request_id,
            held=Held(channel_key(leg), self._patience(leg, wanted)) if leg.pulled else None,
            patience=None if leg.pulled else self._patience(leg, wanted),
            trace=traces.mine(),
        )

    def _patience(self, leg: Leg, wanted: Submission) -> float:
        """For how long a message is tried; one that the partner fetches is kept as long."""
        patience = leg.retry.window
        if wanted.deadline is not None:
            patience = min(patience, (wanted.deadline - self._rooms.clock.now()).total_seconds())
        return max(patience, 0.0)

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
            properties=_properties(wanted.properties, "properties"),
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


def _check_scope(caller: Caller, message: UserMessage) -> None:
    """Raises `OutOfScope`."""
    corners = {p.name: names(p.value, p.type) for p in reversed(message.properties)}
    to = message.to_party
    within = caller.scope.covers(
        "outbound", partner=names(to.value, to.type), service=message.service.value, action=message.action,
        original_sender=corners.get(ORIGINAL_SENDER, ()), final_recipient=corners.get(FINAL_RECIPIENT, ()),
    )  # fmt: skip
    if not within:
        raise OutOfScope("this client may not send that")


def _leg(matcher, wanted: Submission) -> Leg:
    """The one leg the submission means. Raises `SubmissionRefused` with the nearest names."""
    sender = wanted.from_party
    return matcher.outbound(
        to_party=PartyId(wanted.to_party.id, wanted.to_party.type) if wanted.to_party else None,
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
    return PartInfo(href=f"cid:{cid}", properties=_properties(part.properties, f"parts[{number}].properties"))


def _properties(wanted: tuple[PropertyValue, ...], field: str) -> tuple[Property, ...]:
    """Properties as they go on the wire. An empty type says nothing, here as there; white space around a
    value or type would not arrive."""
    for number, found in enumerate(wanted):
        for name, text in (("value", found.value), ("type", found.type or "")):
            if text != text.strip(" \t\r\n"):
                raise SubmissionRefused(
                    f"white space around the {name} of a property would not arrive", field=f"{field}[{number}].{name}",
                )  # fmt: skip
    return tuple(Property(p.name, p.value, p.type or None) for p in wanted)


def _fingerprint(wanted: Submission, parts: tuple[NewPart, ...]) -> bytes:
    """SHA-256 of what the producer asked for; generated values are not part of it."""
    digest = hashlib.sha256(msgspec.msgpack.encode(wanted))
    for part in parts:
        digest.update(part.sha256)
    return digest.digest()
