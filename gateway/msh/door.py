"""The plugin API made real: `plugin.Msh` on top of the verbs of this room and the store.

Scope is enforced here and in SQL: every look-up carries the caller's backend, and what is
not of that backend is `NotFound`, never "forbidden" [threats L01].
"""

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import msgspec

from gateway import log, plugin
from gateway.as4 import ns
from gateway.as4.compression import Inflater
from gateway.as4.units import PartyId, Property
from gateway.errors import DeliveryDelayed, NotFound, SendFailed
from gateway.msh.access import Access
from gateway.msh.advice import document_view
from gateway.msh.handling import Handling, cursor, read_cursor
from gateway.msh.holding import Holding
from gateway.msh.payloads import content
from gateway.msh.rooms import Rooms
from gateway.msh.spool import SpoolRoom
from gateway.msh.submit import Submitter
from gateway.msh.tokens import Tokens, fetcher
from gateway.msh.webhooks import WebhookDesk
from gateway.plugin import (
    AttemptView,
    Caller,
    Delivery,
    MessageView,
    PartView,
    PartyRef,
    PropertyValue,
    Submission,
    Submitted,
    Waiting,
)
from gateway.stages import Step, point
from gateway.store.api import Direction, Job, Message, MessageFilter, NewEvent, Part, Viewer, WaitingFilter
from gateway.transport.egress import EgressPolicy

MAX_LEASE = 3600.0
MAX_CLAIM = 100
#: Part properties a consumer does not see: compression is over when it gets the content [as4 4.1].
HIDDEN_PROPERTIES = frozenset({ns.COMPRESSION_TYPE})


class Door(Handling, WebhookDesk):
    """`plugin.Msh` for all backends of this process."""

    def __init__(self, rooms: Rooms, submitter: Submitter, egress: EgressPolicy, spools: SpoolRoom) -> None:
        super().__init__(rooms)
        self._submitter, self._egress, self._spools = submitter, egress, spools
        tokens = Tokens(rooms.config.plugin.issuers, fetcher(rooms.client), rooms.clock)
        self._access = Access(rooms.store, rooms.clock, tokens)

    # -- callers ------------------------------------------------------------------

    async def authenticate(self, token: str, *, certificate: bytes | None = None) -> Caller:
        return await self._access.token(token, certificate)

    async def authenticate_password(self, login: str, password: str) -> Caller:
        return await self._access.password(login, password)

    async def authenticate_certificate(self, der: bytes) -> Caller:
        return await self._access.certificate(der)

    # -- messages -----------------------------------------------------------------

    async def submit(
        self, caller: Caller, submission: Submission, content: plugin.Content, *, idempotency_key: str | None = None
    ) -> Submitted:
        stored, advice = await self._submitter.submit(caller, submission, content, idempotency_key=idempotency_key)
        return Submitted(
            id=str(stored.id),
            message_id=stored.message_id,
            conversation_id=stored.conversation_id,
            state=stored.state,
            replayed=stored.replayed,
            findings=advice.findings,
        )

    async def validate(self, caller: Caller, submission: Submission, content: plugin.Content) -> plugin.DryRun:
        return await self._submitter.validate(caller, submission, content)

    async def message(self, caller: Caller, id: str) -> MessageView:
        return view(await self._find(caller, id))

    async def messages(self, caller: Caller, wanted: plugin.MessageFilter) -> tuple[list[MessageView], str | None]:
        limit = max(1, min(wanted.limit, 500))
        found = await self._store.messages(
            MessageFilter(
                direction=wanted.direction,
                state=wanted.state,
                conversation_id=wanted.conversation_id,
                message_id=wanted.message_id,
                service=wanted.service,
                action=wanted.action,
                partner=wanted.party,
                original_sender=wanted.original_sender,
                final_recipient=wanted.final_recipient,
                since=wanted.since,
                until=wanted.until,
                upwards=wanted.upwards,
                after=read_cursor(wanted.after),
                limit=limit + 1,
            ),
            viewer=_viewer(caller),
        )
        more = found[limit - 1] if len(found) > limit else None
        return [view(m) for m in found[:limit]], cursor(more.created_at, more.id) if more else None

    async def attempts(self, caller: Caller, id: str) -> list[AttemptView]:
        message = await self._find(caller, id)
        return [
            AttemptView(
                number=a.number, started_at=a.started_at, ended_at=a.ended_at, outcome=a.outcome,
                error_code=a.error_code, error_detail=a.error_detail, http_status=a.http_status,
            )
            for a in await self._store.attempts(message.id, viewer=_viewer(caller))
        ]  # fmt: skip

    async def trace(self, caller: Caller, id: str) -> list[Step]:
        message = await self._find(caller, id)
        steps = list(message.steps)
        for attempt in await self._store.attempts(message.id, viewer=_viewer(caller)):
            steps.extend(attempt.steps)
        return steps

    async def payload(
        self, caller: Caller, id: str, cid: str, *, start: int = 0
    ) -> tuple[PartView, AsyncIterator[bytes]]:
        message = await self._find(caller, id)
        part = next((p for p in message.parts if p.cid == cid), None)
        if part is None or message.wrapped_key is None:
            raise NotFound("no such payload, or it has been erased")
        return _part_view(part, True), self._content(message, part, start, _viewer(caller))

    async def _content(self, message: Message, part: Part, start: int, viewer: Viewer) -> AsyncIterator[bytes]:
        """What the producer gave or the consumer gets: never the compressed octets."""
        if message.direction == "inbound" or not part.compressed:
            async for block in content(self._store, self._rooms.kek, message, part, start=start, viewer=viewer):
                yield block
            return
        inflater, skip = Inflater(part.size, ratio=1 << 20), start
        async for block in content(self._store, self._rooms.kek, message, part, viewer=viewer):
            for plain in inflater.feed(block):
                if skip < len(plain):
                    yield bytes(plain[skip:])
                skip = max(0, skip - len(plain))

    async def _find(self, caller: Caller, id: str, *, direction: Direction | None = None) -> Message:
        try:
            found = await self._store.message(UUID(id), viewer=_viewer(caller))
        except ValueError:
            matches = await self._store.find(id, direction=direction, viewer=_viewer(caller))
            exact = [m for m in matches if m.user_message.message_id == id] or matches
            found = exact[0] if len(exact) == 1 else None
        if found is None or direction not in (None, found.direction):
            raise NotFound("no such message")
        return found

    # -- the inbox ----------------------------------------------------------------

    async def claim(self, caller: Caller, *, limit: int = 1, lease: float = 60.0) -> list[Delivery]:
        jobs = await self._store.claim(
            "deliver",
            queues=(caller.backend,),
            worker=caller.id,
            limit=max(1, min(limit, MAX_CLAIM)),
            lease=max(1.0, min(lease, MAX_LEASE)),
            scope=caller.scope,
        )
        if jobs:
            point("DL01")
        return [d for job in jobs if (d := await self._delivery(caller, job)) is not None]

    async def _delivery(self, caller: Caller, job: Job) -> Delivery | None:
        message = await self._store.message(job.message, viewer=_viewer(caller))
        if message is None:
            return None
        return delivery(job, message)

    async def waiting(self, caller: Caller, wanted: Waiting) -> list[str]:
        asked = msgspec.convert(msgspec.to_builtins(wanted), WaitingFilter)
        return await self._store.undelivered(asked, _viewer(caller))

    async def claim_message(self, caller: Caller, id: str, *, lease: float = 60.0) -> Delivery:
        message = await self._find(caller, id, direction="inbound")
        job = await self._store.claim_delivery(
            message.id, _viewer(caller), worker=caller.id, lease=max(1.0, min(lease, MAX_LEASE))
        )
        if job is None:
            raise NotFound("the message does not wait for delivery")
        point("DL01")
        return delivery(job, message)

    def hold(self, caller: Caller) -> Holding:
        config = self._rooms.config.limits
        return Holding(self._spools, f"client {caller.id}", limit=config.message, entropy=self._rooms.entropy)

    async def ack(self, caller: Caller, delivery_id: str, claim: str) -> None:
        job, token = await self._job(caller, delivery_id, claim)
        point("DL04")
        await self._store.finish_delivery(job.id, token, (NewEvent("message.delivered"),))
        point("DL05")
        log.event("message.delivered", backend=caller.backend)

    async def nack(self, caller: Caller, delivery_id: str, claim: str, *, retry_in: float = 0.0) -> None:
        job, token = await self._job(caller, delivery_id, claim)
        await self._store.release(job.id, token, due_in=max(0.0, min(retry_in, 86_400.0)), error="nack")

    async def extend(self, caller: Caller, delivery_id: str, claim: str, *, lease: float) -> datetime:
        job, token = await self._job(caller, delivery_id, claim)
        return await self._store.renew(job.id, token, max(1.0, min(lease, MAX_LEASE)))

    async def _job(self, caller: Caller, delivery_id: str, claim: str) -> tuple[Job, UUID]:
        try:
            id, token = UUID(delivery_id), UUID(claim)
        except ValueError:
            raise NotFound("no such delivery") from None
        job = await self._store.delivery(id, _viewer(caller))
        if job is None:
            raise NotFound("no such delivery")
        return job, token

    # -- going out ----------------------------------------------------------------

    async def post(
        self, url: str, body: bytes, headers: dict[str, str], *, timeout: float = 20.0
    ) -> tuple[int, dict[str, str], bytes]:
        return await self._rooms.client.post_small(url, body, headers, timeout=timeout)

    async def push(
        self, url: str, body: AsyncIterator[bytes], *, length: int, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        content_type = headers.get("Content-Type", "application/octet-stream")
        more = {name: value for name, value in headers.items() if name != "Content-Type"}
        try:
            answer = await self._rooms.client.post(
                url, content_type=content_type, content_length=length, body=body, partner=f"backend {url}", more=more
            )
        except SendFailed as error:
            raise DeliveryDelayed(str(error)) from None
        return answer.status, answer.headers, answer.body


# -- views ----------------------------------------------------------------------


def delivery(job: Job, message: Message) -> Delivery:
    """A claimed `deliver` job as a consumer sees it."""
    return Delivery(
        delivery_id=str(job.id),
        claim=str(job.claim),
        lease_until=job.lease_until,
        redelivered=job.attempt > 1,
        attempt=job.attempt,
        message=view(message),
    )


def view(message: Message) -> MessageView:
    """A stored message as its producer or consumer may see it."""
    unit = message.user_message
    return MessageView(
        id=str(message.id),
        direction=message.direction,
        state=message.state,
        message_id=unit.message_id,
        conversation_id=unit.conversation_id,
        timestamp=unit.timestamp,
        created_at=message.created_at,
        from_party=_party(unit.from_party, unit.from_role),
        to_party=_party(unit.to_party, unit.to_role),
        service=unit.service.value,
        service_type=unit.service.type,
        action=unit.action,
        ref_to_message_id=unit.ref_to_message_id,
        agreement_ref=unit.agreement_ref.value if unit.agreement_ref else None,
        agreement_type=unit.agreement_ref.type if unit.agreement_ref else None,
        mpc=unit.mpc,
        properties=_properties(unit.properties),
        parts=tuple(_part_view(p, message.wrapped_key is not None) for p in message.parts),
        backend=message.backend,
        attempts=message.attempts,
        next_attempt_at=message.next_attempt_at,
        held=message.held,
        error_code=message.error_code,
        error_detail=message.error_detail,
        receipt_at=message.receipt_at,
        findings=message.findings,
        document=document_view(message.document),
    )


def _party(party: PartyId, role: str) -> PartyRef:
    return PartyRef(party.value, party.type, role)


def _properties(properties: tuple[Property, ...]) -> tuple[PropertyValue, ...]:
    return tuple(PropertyValue(p.name, p.value, p.type) for p in properties)


def _part_view(part: Part, available: bool) -> PartView:
    return PartView(
        number=part.number,
        cid=part.cid,
        mime_type=part.mime_type,
        size=part.size,
        sha256=part.sha256.hex(),
        properties=_properties(tuple(p for p in part.info.properties if p.name not in HIDDEN_PROPERTIES)),
        available=available,
    )


def _viewer(caller: Caller) -> Viewer:
    return Viewer(caller.backend, caller.scope)
