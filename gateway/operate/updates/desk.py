"""The gateway's own consumer of agreement updates. Delivery only notes what arrived.

A request becomes a row of the ledger, an answer changes the row of our request; what follows from it is `work`.
A message that is no document of an update, or about none, cannot be answered, for what would be answered cannot be
named: it has its receipt, is noted in log and audit, and is done with.
"""

import asyncio
import contextlib
from uuid import UUID, uuid4

from gateway import log
from gateway.as4.pmode import Party
from gateway.as4.updates.documents import Answer, Document, Request, UpdateError, UpdateRequest, UpdateResponse
from gateway.as4.updates.reading import read
from gateway.errors import DeliveryDelayed, DeliveryRefused, InvalidHeader, NotFound, StoreUnavailable
from gateway.log import printable
from gateway.msh.rooms import Rooms, party_key
from gateway.operate.updates import mail
from gateway.operate.updates.ledger import MAX_DETAIL, answer_id, audit_of, sha256
from gateway.operate.updates.work import UpdateWork
from gateway.plugin import Delivery, Event, WebhookTarget
from gateway.pmodes.updates import BACKEND
from gateway.stages import point
from gateway.store.api import AuditEntry, Message
from gateway.store.updates import NewUpdate, Update, UpdateChange, UpdateState

#: Seconds between two looks at what is due; where no partner has updates, there is hardly ever anything.
POLL, SELDOM = 2.0, 30.0
#: An answer may come before we have noted that the request is on its way.
EARLY = 2.0
#: Requests of one partner that may be undecided at once: whoever has its key must not bury the operator.
OPEN: tuple[UpdateState, ...] = ("RECEIVED", "WAITING", "APPROVED")
MAX_OPEN = 20


class UpdateDesk:
    """One a process; a `plugin.Backend` by its shape, with the rooms at its back."""

    name, pushes, asgi = BACKEND, True, None

    def __init__(self, rooms: Rooms, work: UpdateWork) -> None:
        self._rooms, self._store, self.work = rooms, rooms.store, work
        self._wake = asyncio.Event()

    # -- what a backend has ---------------------------------------------------------------

    async def run(self) -> None:
        """Work on what is due, until cancelled."""
        while True:
            try:
                while await self.work.round():
                    pass
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
            except Exception as error:  # whatever it is, the others go on
                log.event("incident", level="error", exc_info=error)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL if self._rooms.agreements.value.updates else SELDOM):
                    await self._wake.wait()

    async def deliver(self, delivery: Delivery) -> None:
        """Note what arrived. Raises `DeliveryDelayed`; what can never be read is noted and done with."""
        message = await self._store.message(UUID(delivery.message.id))
        if message is None:
            return
        try:
            octets = await mail.document_of(self._rooms, message)
            charset = message.user_message.parts[0].value_of("CharacterSet")
            await self._note(message, read(octets, charset=charset), octets)
        except (InvalidHeader, DeliveryRefused, NotFound) as error:
            where = getattr(error, "where", None)
            await self._put_aside(message, f"{where}: {error}" if where else str(error))
        self._wake.set()

    async def notify(self, target: WebhookTarget, event: Event) -> int | None:
        return None

    def retry_in(self, attempt: int) -> float | None:
        """What cannot be noted now is tried for as long as the database is away."""
        return min(2.0 ** min(attempt, 9), 300.0)

    # -- what arrives ---------------------------------------------------------------------

    async def _note(self, message: Message, document: Document, octets: bytes) -> None:
        unit = message.user_message
        asks = isinstance(document, Request)
        if unit.action not in (mail.REQUEST_ACTIONS if asks else mail.ANSWER_ACTIONS):
            raise DeliveryRefused(f"a document that does not go with the action {printable(unit.action, 80)}")
        partner = self._rooms.agreements.value.party(unit.from_party)
        if partner is None or partner.updates is None:
            raise DeliveryRefused("the agreement with the partner does not have updates any more")
        if asks:
            await self._request(message, document, octets, partner)
        else:
            await self._answer(message, document, octets, partner)

    async def _request(self, message: Message, document: Request, octets: bytes, partner: Party) -> None:
        new = self._new(message, document, octets, partner)
        waiting = await self._store.updates(direction="inbound", partner=new.partner, states=OPEN, limit=MAX_OPEN)
        if len(waiting) == MAX_OPEN and all(one.reference != new.reference for one in waiting):
            raise DeliveryRefused(f"{MAX_OPEN} requests of the partner wait already")
        point("AU01")
        row, fresh = await self._store.add_update(new, audit_of("update.received", new, partner.name))
        point("AU02")
        if fresh:
            log.event("update.received", party=partner.name, kind=row.kind, update=row.id)
        elif row.document != octets:
            raise DeliveryRefused(f"the id of another request, {row.id}")
        elif row.message_id != new.message_id:
            log.event("update.repeated", party=partner.name, update=row.id)
            await self._answer_again(row, new.message_id)

    def _new(self, message: Message, document: Request, octets: bytes, partner: Party) -> NewUpdate:
        unit = message.user_message
        ours = self._rooms.agreements.value.party(unit.to_party)
        facts = {"kind": "termination"}
        if isinstance(document, UpdateRequest):
            facts = {"kind": "update", "updated": document.updated.value, "activate_by": document.activate_by,
                     "certificates": tuple(sha256(u.certificate) for u in document.updates)}  # fmt: skip
        return NewUpdate(
            id=uuid4(), direction="inbound", partner=party_key(unit.from_party), party=partner.name,
            ours=ours.name if ours else "", reference=document.id, document=octets, message_id=unit.message_id,
            conversation_id=unit.conversation_id, current=document.current.value, respond_by=document.respond_by,
            signer=sha256(message.signer or b""), **facts,
        )  # fmt: skip

    async def _answer_again(self, row: Update, message_id: str) -> None:
        """The same request in another message: who asks again may have missed the answer."""
        if row.state in ("TAKEN", "REFUSED") and row.answered_at is not None and row.due_at is None:
            fresh = answer_id(row, message_id, self._rooms.config.node.host)
            change = UpdateChange(state=row.state, due_in=0.0, answer_message_id=fresh, message_id=message_id)
            await self._store.change_update(row.id, change, before=(row.state,))

    async def _answer(self, message: Message, document: Answer, octets: bytes, partner: Party) -> None:
        row = await self._asked(message, document)
        errors: tuple[UpdateError, ...] = getattr(document, "errors", ())
        state: UpdateState = "REJECTED" if errors else "ACCEPTED"
        if row.state in ("ACCEPTED", "REJECTED"):
            level = "info" if row.state == state else "warning"
            log.event("update.repeated", level=level, party=partner.name, update=row.id, state=row.state, said=state)
            return
        said = "; ".join(" ".join(filter(None, (e.short, e.description))) for e in errors)
        change = UpdateChange(
            state=state, due_in=None if errors else 0.0, answer=octets, answered=True, late=row.state == "TIMED_OUT",
            answer_message_id=message.user_message.message_id, code=printable(errors[0].code, 64) if errors else None,
            detail=printable(said, MAX_DETAIL) if said else None,
        )  # fmt: skip
        audit = audit_of(f"update.{state.lower()}", row, partner.name, code=change.code, why=change.detail)
        point("AU06")
        if await self._store.change_update(row.id, change, before=(row.state,), audit=audit) is None:
            raise DeliveryDelayed("somebody else changes the request at this moment", retry_after=EARLY)
        log.event(
            "update.answered", level="warning" if errors else "info", party=partner.name, update=row.id, state=state,
            code=change.code, reason=change.detail, late=change.late or None,
        )  # fmt: skip

    async def _asked(self, message: Message, document: Answer) -> Update:
        """The request of ours that an answer is to. Raises `DeliveryRefused`, `DeliveryDelayed`."""
        partner = party_key(message.user_message.from_party)
        row = await self._store.update_of("outbound", partner, document.reference)
        if row is None:
            raise DeliveryRefused(f"an answer to no request of ours, {printable(document.reference, 80)}")
        asked = read(row.document)
        kind = "update" if isinstance(document, UpdateResponse) else "termination"
        same = kind == row.kind and document.current.value == asked.current.value
        if not same or (kind == "update" and document.updated.value != asked.updated.value):
            raise DeliveryRefused(f"an answer that does not fit request {row.id}")
        if row.state == "PREPARED":
            raise DeliveryDelayed("the request is being sent at this moment", retry_after=EARLY)
        return row

    async def _put_aside(self, message: Message, why: str) -> None:
        unit = message.user_message
        log.event("update.unusable", level="warning", party=unit.from_party.value, reason=why)
        await self._store.audit(AuditEntry(
            kind="update.unusable", actor=printable(party_key(unit.from_party), 255), subject=unit.message_id,
            detail={"why": printable(why, MAX_DETAIL)},
        ))  # fmt: skip
