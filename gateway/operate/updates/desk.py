"""The gateway's own consumer of agreement updates: takes what arrives, and does what the ledger says is due.

Delivery only notes: a request becomes a row, an answer changes the row of our request. All else is work on rows that
are due, claimed by one process at a time; each step is one commit and may be done twice. So it does not matter
where a process dies: the row is due again, and whoever has it next goes on.

    theirs   RECEIVED   judge (`rule`)                → APPROVED | WAITING | REFUSED
             WAITING    RespondBy passed               → REFUSED
             APPROVED   stage (`staging`)              → TAKEN | REFUSED
             TAKEN, REFUSED   write the answer, then hand it to sending
    ours     PREPARED   hand the request to sending    → SENT
             SENT       look for receipt and time      → UNDELIVERED | TIMED_OUT
             ACCEPTED   take the new name of the agreement, where its messages carry one
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4, uuid5

from gateway import log
from gateway.as4.pmode import Party
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    CERTIFICATE_REJECTED,
    OTHER,
    RESPOND_BY_MISSED,
    Answer,
    Document,
    Request,
    TerminationException,
    TerminationRequest,
    TerminationResponse,
    UpdateError,
    UpdateException,
    UpdateRefused,
    UpdateRequest,
    UpdateResponse,
)
from gateway.as4.updates.reading import read
from gateway.as4.updates.writing import write
from gateway.errors import (
    CertificateRefused,
    ConfigError,
    DeliveryDelayed,
    DeliveryRefused,
    GatewayError,
    InvalidHeader,
    NotFound,
    NotPossible,
    StoreUnavailable,
    SubmissionRefused,
)
from gateway.log import printable
from gateway.msh.rooms import Rooms, party_key
from gateway.msh.submit import Submitter
from gateway.operate.updates import mail
from gateway.operate.updates.rule import Next, Verdict, judge, judge_termination, names_of
from gateway.operate.updates.staging import Stager
from gateway.plugin import Delivery, Event, WebhookTarget
from gateway.pmodes.updates import BACKEND
from gateway.stages import point
from gateway.store.api import AuditEntry, Message
from gateway.store.updates import NewUpdate, Update, UpdateChange, UpdateState

POLL = 2.0
#: Longer than a step takes. Staging waits for every process; two that stage the same do no harm.
LEASE = 60.0
#: Until we look again whether our request was receipted.
LOOK = 10.0
#: Until something is tried again that failed for reasons of the day, and how often.
AGAIN, TRIES = 15.0, 40
#: An answer may come before we have noted that the request is on its way.
EARLY = 2.0
#: Requests of one partner that may be undecided at once: whoever has its key must not bury the operator.
OPEN: tuple[UpdateState, ...] = ("RECEIVED", "WAITING", "APPROVED")
MAX_OPEN = 20
#: Why something was refused, in the ledger and to the partner.
MAX_DETAIL = 400


class UpdateDesk:
    """One a process; a `plugin.Backend` by its shape, with the rooms at its back."""

    name, pushes, asgi = BACKEND, True, None

    def __init__(self, rooms: Rooms, submitter: Submitter, stager: Stager) -> None:
        self._rooms, self._store = rooms, rooms.store
        self._submitter, self._stager = submitter, stager
        self._wake = asyncio.Event()

    # -- what a backend has ---------------------------------------------------------------

    async def run(self) -> None:
        """Work on what is due, until cancelled."""
        while True:
            try:
                while await self.work():
                    pass
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
            except Exception as error:  # whatever it is, the others go on
                log.event("incident", level="error", exc_info=error)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()

    async def deliver(self, delivery: Delivery) -> None:
        """Note what arrived. Raises `DeliveryDelayed`; what can never be read is noted and done with."""
        message = await self._store.message(UUID(delivery.message.id))
        if message is None:
            return
        try:
            octets = await mail.document_of(self._rooms, message)
            document = read(octets, charset=message.user_message.parts[0].value_of("CharacterSet"))
            await self._note(message, document, octets)
        except (InvalidHeader, DeliveryRefused, NotFound) as error:
            where = getattr(error, "where", None)
            await self._unusable(message, f"{where}: {error}" if where else str(error))
        self._wake.set()

    async def notify(self, target: WebhookTarget, event: Event) -> int | None:
        return None

    def retry_in(self, attempt: int) -> float | None:
        """What cannot be noted now is tried for as long as the database is away."""
        return min(2.0**attempt, 300.0)

    # -- what arrives ---------------------------------------------------------------------

    async def _note(self, message: Message, document: Document, octets: bytes) -> None:
        unit = message.user_message
        is_request = isinstance(document, Request)
        if unit.action not in (mail.REQUEST_ACTIONS if is_request else mail.ANSWER_ACTIONS):
            raise DeliveryRefused(f"a document that does not go with the action {printable(unit.action, 80)}")
        partner = self._rooms.agreements.value.party(unit.from_party)
        if partner is None or partner.updates is None:
            raise DeliveryRefused("the agreement with the partner does not have updates any more")
        if is_request:
            await self._request(message, document, octets, partner)
        else:
            await self._answer(message, document, octets, partner)

    async def _request(self, message: Message, document: Request, octets: bytes, partner: Party) -> None:
        unit = message.user_message
        update = isinstance(document, UpdateRequest)
        certificates = [_sha256(u.certificate) for u in document.updates] if update else []
        ours = self._rooms.agreements.value.party(unit.to_party)
        new = NewUpdate(
            id=uuid4(), direction="inbound", kind="update" if update else "termination", partner=party_key(unit.from_party),
            party=partner.name, ours=ours.name if ours else "", reference=document.id, document=octets,
            message_id=unit.message_id, conversation_id=unit.conversation_id, current=document.current.value,
            updated=document.updated.value if update else None, certificates=tuple(certificates),
            signer=_sha256(message.signer or b""), respond_by=document.respond_by,
            activate_by=document.activate_by if update else None,
        )  # fmt: skip
        waiting = await self._store.updates(direction="inbound", partner=new.partner, states=OPEN, limit=MAX_OPEN)
        if len(waiting) == MAX_OPEN and all(one.reference != new.reference for one in waiting):
            raise DeliveryRefused(f"{MAX_OPEN} requests of the partner wait already")
        point("AU01")
        row, fresh = await self._store.add_update(new, self._audit("update.received", new, new.signer or ""))
        point("AU02")
        if fresh:
            log.event("update.received", party=partner.name, kind=row.kind, update=row.id)
        elif row.document != octets:
            raise DeliveryRefused(f"the id of another request, {row.id}")
        elif row.message_id != unit.message_id:
            log.event("update.repeated", party=partner.name, update=row.id)
            await self._answer_again(row, unit.message_id)

    async def _answer_again(self, row: Update, message_id: str) -> None:
        """The same request in another message: who asks again may have missed the answer."""
        if row.state in ("TAKEN", "REFUSED") and row.answered_at is not None and row.due_at is None:
            change = UpdateChange(state=row.state, due_in=0.0, answer_message_id=self._id(row, message_id),
                                  message_id=message_id)  # fmt: skip
            await self._store.change_update(row.id, change, before=(row.state,))

    async def _answer(self, message: Message, document: Answer, octets: bytes, partner: Party) -> None:
        row = await self._store.update_of("outbound", party_key(message.user_message.from_party), document.reference)
        if row is None:
            raise DeliveryRefused(f"an answer to no request of ours, {printable(document.reference, 80)}")
        asked = read(row.document)
        kind = "update" if isinstance(document, UpdateResponse) else "termination"
        same = kind == row.kind and document.current.value == asked.current.value
        if not same or (kind == "update" and document.updated.value != asked.updated.value):
            raise DeliveryRefused(f"an answer that does not fit request {row.id}")
        if row.state == "PREPARED":
            raise DeliveryDelayed("the request is being sent at this moment", retry_after=EARLY)
        errors: tuple[UpdateError, ...] = getattr(document, "errors", ())
        state: UpdateState = "REJECTED" if errors else "ACCEPTED"
        if row.state in ("ACCEPTED", "REJECTED"):
            log.event("update.repeated", level="info" if row.state == state else "warning", party=partner.name,
                      update=row.id, state=row.state, said=state)  # fmt: skip
            return
        late = row.state == "TIMED_OUT"
        said = "; ".join(filter(None, (" ".join(filter(None, (e.short, e.description))) for e in errors)))
        change = UpdateChange(
            state=state, due_in=None if errors else 0.0, answer=octets, answer_message_id=message.user_message.message_id,
            answered=True, late=late, code=printable(errors[0].code, 64) if errors else None,
            detail=printable(said, MAX_DETAIL) if said else None,
        )  # fmt: skip
        audit = self._audit("update.accepted" if state == "ACCEPTED" else "update.rejected", row, row.partner, code=change.code)
        point("AU06")
        done = await self._store.change_update(row.id, change, before=(row.state,), audit=audit)
        if done is None:
            raise DeliveryDelayed("somebody else changes the request at this moment", retry_after=EARLY)
        log.event("update.answered", level="warning" if errors else "info", party=partner.name, update=row.id, state=state,
                  code=change.code, reason=change.detail, late=late or None)  # fmt: skip

    async def _unusable(self, message: Message, why: str) -> None:
        """A message that is no document of an update, or about none: receipted, noted, done with. Nobody can be
        answered: what would be answered cannot be named."""
        unit = message.user_message
        log.event("update.unusable", level="warning", party=unit.from_party.value, reason=why)
        await self._store.audit(AuditEntry(
            kind="update.unusable", actor=printable(party_key(unit.from_party), 255), subject=unit.message_id,
            detail={"why": printable(why, MAX_DETAIL)},
        ))  # fmt: skip

    # -- what is due ----------------------------------------------------------------------

    async def work(self) -> int:
        """One round over what is due; how many rows it was. Raises `StoreUnavailable`."""
        rows = await self._store.claim_updates(limit=8, lease=LEASE)
        for row in rows:
            try:
                await self._do(row)
            except StoreUnavailable:
                raise
            except (GatewayError, OSError) as error:
                await self._again(row, error)
        return len(rows)

    async def _do(self, row: Update) -> None:
        steps: dict[tuple[str, str], Callable[[Update], Awaitable[None]]] = {
            ("inbound", "RECEIVED"): self._judge, ("inbound", "WAITING"): self._lapse, ("inbound", "APPROVED"): self._stage,
            ("inbound", "TAKEN"): self._reply, ("inbound", "REFUSED"): self._reply,
            ("outbound", "PREPARED"): self._send, ("outbound", "SENT"): self._look, ("outbound", "ACCEPTED"): self._rename,
        }  # fmt: skip
        if (step := steps.get((row.direction, row.state))) is not None:
            await step(row)
        else:
            await self._change(row, UpdateChange(state=row.state))

    async def _again(self, row: Update, error: Exception) -> None:
        log.event("update.delayed", level="warning", party=row.party, update=row.id, state=row.state, reason=str(error))
        due_in = AGAIN * min(row.attempt, 20)
        if row.attempt < TRIES:
            await self._change(row, UpdateChange(state=row.state, due_in=due_in, detail=printable(str(error), MAX_DETAIL)))
        elif row.state in ("RECEIVED", "APPROVED"):
            await self._refuse(row, UpdateRefused(OTHER, "it could not be carried out"), str(error))
        elif row.state == "PREPARED":
            await self._change(row, UpdateChange(state="UNDELIVERED", detail=printable(str(error), MAX_DETAIL)))
        else:
            await self._change(row, UpdateChange(state=row.state, detail=printable(str(error), MAX_DETAIL)))

    # -- theirs

    async def _judge(self, row: Update) -> None:
        try:
            verdict = await self._verdict(row)
        except UpdateRefused as refused:
            await self._refuse(row, refused)
            return
        if verdict.reasons:
            why = printable("; ".join(verdict.reasons), MAX_DETAIL)
            # At RespondBy the partner is owed an answer, whoever has to give it.
            due = None if row.respond_by is None else (row.respond_by - self._rooms.clock.now()).total_seconds()
            waits = UpdateChange(state="WAITING", due_in=due, detail=why)
            if await self._change(row, waits, audit=self._audit("update.waiting", row, self._rooms.node, why=why)):
                log.event("update.waiting", level="warning", party=row.party, update=row.id, reason=why)
            return
        done = UpdateChange(state="APPROVED", due_in=0.0, actor="rule", detail="a renewal, and nothing else")
        await self._change(row, done, audit=self._audit("update.approved", row, "rule"))

    async def _verdict(self, row: Update) -> Verdict:
        """Raises `UpdateRefused`; and `DeliveryDelayed` for what this process cannot know yet."""
        agreements = self._rooms.agreements.value
        party = self._party(row)
        kept = await self._store.updates(partner=row.partner, states=("TAKEN", "ACCEPTED"), limit=1000)
        names = names_of(agreements.pmodes, party, [u.updated for u in kept if u.updated])
        found = await self._store.find(row.message_id, direction="inbound")
        carried = next((m.user_message.agreement_ref for m in found if m.user_message.message_id == row.message_id
                        and m.partner == row.partner), None)  # fmt: skip
        request, now = read(row.document), self._rooms.clock.now()
        if isinstance(request, TerminationRequest):
            followed = [u.current for u in kept if u.kind == "update"]
            return judge_termination(request, party, names=names, followed=followed, carried=carried, now=now)
        return judge(
            request, party, pmodes=agreements.pmodes, names=names, carried=carried, now=now, allow=self._rooms.config.trust
        )

    async def _lapse(self, row: Update) -> None:
        await self._refuse(row, UpdateRefused(RESPOND_BY_MISSED, "nobody decided before RespondBy"))

    async def _stage(self, row: Update) -> None:
        """Carry out what was approved. It is judged once more: days may have gone by."""
        request = read(row.document)
        author = row.actor or self._rooms.node
        if isinstance(request, UpdateRequest):
            try:
                next = await self._still(row, request)
                point("AU03")
                await self._stager.stage(
                    row.party, next, request.updated, author=author,
                    reason=f"agreement update {row.id} of {row.party}: {row.detail or ''}"[:MAX_DETAIL],
                )
            except UpdateRefused as refused:
                await self._refuse(row, refused)
                return
            except (ConfigError, CertificateRefused, NotPossible) as error:
                await self._refuse(row, UpdateRefused(CERTIFICATE_REJECTED, "it cannot be used in the agreement"), str(error))
                return
        point("AU04")
        audit = self._audit("update.taken", row, author)
        if await self._change(row, UpdateChange(state="TAKEN", due_in=0.0), audit=audit):
            log.event("update.taken", party=row.party, update=row.id, actor=author)

    async def _still(self, row: Update, request: UpdateRequest) -> tuple[Next, ...]:
        """The certificates to stage; also where they are staged already, by somebody who died before he said so."""
        party = self._party(row)
        try:
            return (await self._verdict(row)).next
        except UpdateRefused:
            wanted = {u.certificate for u in request.updates}
            pinned = {*party.signing, party.encryption, party.next_encryption}
            if not wanted <= pinned:
                raise
            return ()

    async def _refuse(self, row: Update, refused: UpdateRefused, detail: str | None = None) -> None:
        why = printable(detail or refused.detail, MAX_DETAIL)
        answer = self._exception(row, refused)
        change = UpdateChange(state="REFUSED", due_in=0.0, code=refused.why[0], detail=why, answer=answer,
                              answer_message_id=self._id(row, row.message_id))  # fmt: skip
        audit = self._audit("update.refused", row, row.actor or self._rooms.node, code=refused.why[0], why=why)
        if await self._change(row, change, audit=audit):
            log.event("update.refused", level="warning", party=row.party, update=row.id, code=refused.why[0], reason=why)

    async def _reply(self, row: Update) -> None:
        """Write the answer, once; then hand it to sending, under a MessageId that stays."""
        if row.answer is None:
            change = UpdateChange(state=row.state, due_in=0.0, answer=self._document(row),
                                  answer_message_id=row.answer_message_id or self._id(row, row.message_id))  # fmt: skip
            await self._change(row, change)
            return
        await mail.send_answer(self._submitter, row, self._ours(row), self._party(row))
        point("AU05")
        await self._change(row, UpdateChange(state=row.state, answered=True))

    def _document(self, row: Update) -> bytes:
        request = read(row.document)
        if row.state == "REFUSED":  # by an operator, who does not write documents
            return self._exception(row, UpdateRefused((row.code or OTHER[0], _short(row.code)), row.detail or ""))
        facts = {"id": str(uuid5(row.id, "answer")), "reference": request.id, "created_at": row.changed_at,
                 "current": request.current}  # fmt: skip
        if isinstance(request, TerminationRequest):
            return write(TerminationResponse(**facts))
        return write(UpdateResponse(**facts, updated=request.updated))

    def _exception(self, row: Update, refused: UpdateRefused) -> bytes:
        request = read(row.document)
        facts = {"id": str(uuid5(row.id, "answer")), "reference": request.id, "created_at": self._rooms.clock.now(),
                 "current": request.current, "errors": (refused.error,)}  # fmt: skip
        if isinstance(request, TerminationRequest):
            return write(TerminationException(**facts))
        return write(UpdateException(**facts, updated=request.updated))

    # -- ours

    async def _send(self, row: Update) -> None:
        try:
            await mail.send_request(self._submitter, row, self._ours(row), self._party(row))
        except SubmissionRefused as refused:
            change = UpdateChange(state="UNDELIVERED", detail=printable(str(refused), MAX_DETAIL))
            await self._change(row, change, audit=self._audit("update.undelivered", row, self._rooms.node))
            log.event("update.undelivered", level="error", party=row.party, update=row.id, reason=str(refused))
            return
        point("AU07")
        if await self._change(row, UpdateChange(state="SENT", due_in=LOOK), audit=self._audit(
                "update.sent", row, row.actor or self._rooms.node)):  # fmt: skip
            log.event("update.sent", party=row.party, update=row.id)

    async def _look(self, row: Update) -> None:
        """Whether the partner has it, and whether the time for its answer is over."""
        now = self._rooms.clock.now()
        if row.respond_by is not None and row.respond_by <= now:
            if await self._change(row, UpdateChange(state="TIMED_OUT"), audit=self._audit(
                    "update.timed_out", row, self._rooms.node)):  # fmt: skip
                log.event("update.timed_out", level="error", party=row.party, update=row.id)
            return
        left = LOOK if row.respond_by is None else (row.respond_by - now).total_seconds()
        if row.receipted_at is not None:
            await self._change(row, UpdateChange(state="SENT", due_in=None if row.respond_by is None else left))
            return
        message = next(iter(m for m in await self._store.find(row.message_id, direction="outbound")
                            if m.user_message.message_id == row.message_id), None)  # fmt: skip
        state = message.state if message is not None else None
        if state in ("FAILED", "CANCELLED"):
            why = printable(f"{message.error_code or ''} {message.error_detail or ''}".strip(), MAX_DETAIL)
            change = UpdateChange(state="UNDELIVERED", code=message.error_code, detail=why)
            if await self._change(row, change, audit=self._audit("update.undelivered", row, self._rooms.node, why=why)):
                log.event("update.undelivered", level="error", party=row.party, update=row.id, reason=why)
            return
        receipted = state in ("ACKNOWLEDGED", "PURGED")
        await self._change(row, UpdateChange(state="SENT", due_in=min(LOOK, left) if not receipted else left,
                                             receipted=receipted))  # fmt: skip

    async def _rename(self, row: Update) -> None:
        """The partner will send under the new name from now on, where names are sent."""
        if row.kind == "update":
            request = read(row.document)
            try:
                await self._stager.stage(
                    row.party, (), request.updated, author=row.actor or self._rooms.node,
                    reason=f"agreement update {row.id}, accepted by {row.party}",
                )
            except (ConfigError, NotPossible) as error:
                log.event("update.delayed", level="error", party=row.party, update=row.id, reason=str(error))
        await self._change(row, UpdateChange(state="ACCEPTED"))

    # -- small ----------------------------------------------------------------------------

    async def _change(self, row: Update, change: UpdateChange, *, audit: AuditEntry | None = None) -> Update | None:
        """Under the claim on the row; None: another process has it by now."""
        return await self._store.change_update(row.id, change, before=(row.state,), claim=row.claim, audit=audit)

    def _party(self, row: Update) -> Party:
        """The partner of a row as it is agreed now. Raises `ConfigError`."""
        for party in self._rooms.agreements.value.pmodes.parties:
            if party_key(party.party_id) == row.partner and party.updates is not None:
                return party
        raise ConfigError(f"the agreement with {row.party} does not have updates any more")

    def _ours(self, row: Update) -> Party:
        """Raises `ConfigError`."""
        for party in self._rooms.agreements.value.pmodes.selves:
            if party.name == row.ours:
                return party
        raise ConfigError(f"{row.ours} is no party of ours any more")

    def _id(self, row: NewUpdate, about: str) -> str:
        """The MessageId of the answer to the message `about`."""
        return f"{uuid5(row.id, about)}@{self._rooms.config.node.host}"

    def _audit(self, kind: str, row: NewUpdate, actor: str, **more: Any) -> AuditEntry:
        return audit_of(kind, row, actor, **more)


def audit_of(kind: str, row: NewUpdate, actor: str, **more: Any) -> AuditEntry:
    """What the audit says of a step: who, which partner, which certificates."""
    detail = {
        "update": str(row.id), "direction": row.direction, "kind": row.kind, "reference": printable(row.reference, 255),
        "certificates_sha256": list(row.certificates), "signer_sha256": row.signer, **more,
    }  # fmt: skip
    return AuditEntry(kind=kind, actor=printable(actor, 255), subject=row.party,
                      detail={name: value for name, value in detail.items() if value is not None})  # fmt: skip


def _short(code: str | None) -> str:
    from gateway.as4.updates import documents

    pairs = (value for value in vars(documents).values() if isinstance(value, tuple) and len(value) == 2)
    return next((short for number, short in pairs if number == code), OTHER[1])


def _sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


__all__ = ["AgreementRef", "UpdateDesk", "audit_of"]
