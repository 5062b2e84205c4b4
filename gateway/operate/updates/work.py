"""What the ledger of agreement updates says is due, done a step at a time.

Rows that are due are claimed by one process at a time; each step is one commit and may be done twice. So it does not
matter where a process dies: the row is due again, and whoever has it next goes on.

    theirs   RECEIVED   judge (`rule`)                → APPROVED | WAITING | REFUSED
             WAITING    RespondBy passed               → REFUSED
             APPROVED   stage (`staging`)              → TAKEN | REFUSED
             TAKEN, REFUSED   write the answer, then hand it to sending
    ours     PREPARED   hand the request to sending    → SENT
             SENT       look for receipt and time      → UNDELIVERED | TIMED_OUT
             ACCEPTED   take the new name of the agreement, where its messages carry one
"""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway import log
from gateway.as4.pmode import Party
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    CERTIFICATE_REJECTED,
    OTHER,
    RESPOND_BY_MISSED,
    TerminationRequest,
    UpdateRefused,
    UpdateRequest,
)
from gateway.as4.updates.reading import read
from gateway.errors import (
    CertificateRefused,
    ConfigError,
    GatewayError,
    NotPossible,
    StoreUnavailable,
    SubmissionRefused,
)
from gateway.log import printable
from gateway.msh.rooms import Rooms, party_key
from gateway.msh.submit import Submitter
from gateway.operate.updates import mail
from gateway.operate.updates.ledger import MAX_DETAIL, answer_id, answered, audit_of, refused
from gateway.operate.updates.rule import Next, Verdict, judge, judge_termination, names_of
from gateway.operate.updates.staging import Stager
from gateway.stages import point
from gateway.store.api import AuditEntry, Direction, Message
from gateway.store.updates import Update, UpdateChange, UpdateState

#: Longer than a step takes. Staging waits for every process; two that stage the same do no harm.
LEASE = 20.0
#: Rows claimed in one round.
ROUND = 8
#: Seconds until we look again whether our request was receipted.
LOOK = 5.0
#: Seconds until something is tried again that failed for reasons of the day, times the attempt; and how often.
AGAIN, TRIES = 15.0, 40


class UpdateWork:
    """One a process."""

    def __init__(self, rooms: Rooms, submitter: Submitter, stager: Stager) -> None:
        self._rooms, self._store = rooms, rooms.store
        self._submitter, self._stager = submitter, stager
        self._steps: dict[tuple[str, UpdateState], Callable[[Update], Awaitable[None]]] = {
            ("inbound", "RECEIVED"): self._judge,
            ("inbound", "WAITING"): self._lapse,
            ("inbound", "APPROVED"): self._stage,
            ("inbound", "TAKEN"): self._reply,
            ("inbound", "REFUSED"): self._reply,
            ("outbound", "PREPARED"): self._send,
            ("outbound", "SENT"): self._look,
            ("outbound", "ACCEPTED"): self._rename,
        }

    async def round(self) -> int:
        """Do what is due; how many rows it was. Raises `StoreUnavailable`."""
        rows = await self._store.claim_updates(limit=ROUND, lease=LEASE)
        for row in rows:
            try:
                await self._steps.get((row.direction, row.state), self._rest)(row)
            except StoreUnavailable:
                raise
            except (GatewayError, OSError) as error:
                await self._again(row, error)
        return len(rows)

    async def _rest(self, row: Update) -> None:
        """Nothing is left to be done."""
        await self._change(row, row.state)

    async def _again(self, row: Update, error: Exception) -> None:
        """Later, for a day or so; then what is left undone is visible in the ledger, and owed answers are given."""
        why = printable(str(error), MAX_DETAIL)
        facts = {"party": row.party, "update": row.id, "state": row.state, "reason": why}
        log.event("update.delayed", level="warning", **facts)
        if row.attempt < TRIES:
            await self._change(row, row.state, due_in=AGAIN * row.attempt, detail=why)
        elif row.state in ("RECEIVED", "APPROVED"):
            await self._refuse(row, UpdateRefused(OTHER, "it could not be carried out"), why)
        elif row.state == "PREPARED":
            await self._undelivered(row, None, why)
        else:
            await self._change(row, row.state, detail=why)

    # -- theirs ---------------------------------------------------------------------------

    async def _judge(self, row: Update) -> None:
        try:
            verdict = await self._verdict(row)
        except UpdateRefused as why:
            await self._refuse(row, why)
            return
        if not verdict.reasons:
            audit, why = audit_of("update.approved", row, "rule"), "a renewal, and nothing else"
            await self._change(row, "APPROVED", due_in=0.0, actor="rule", detail=why, audit=audit)
            return
        why = printable("; ".join(verdict.reasons), MAX_DETAIL)
        # At RespondBy the partner is owed an answer, whoever has to give it.
        left = None if row.respond_by is None else (row.respond_by - self._rooms.clock.now()).total_seconds()
        audit = audit_of("update.waiting", row, self._rooms.node, why=why)
        if await self._change(row, "WAITING", due_in=left, detail=why, audit=audit):
            log.event("update.waiting", level="warning", party=row.party, update=row.id, reason=why)

    async def _verdict(self, row: Update) -> Verdict:
        """Raises `UpdateRefused`."""
        agreements, party = self._rooms.agreements.value, self._party(row)
        kept = await self._store.updates(partner=row.partner, states=("TAKEN", "ACCEPTED"), limit=1000)
        names = names_of(agreements.pmodes, party, [u.updated for u in kept if u.updated])
        message = await self._message(row, "inbound")
        carried: AgreementRef | None = message.user_message.agreement_ref if message else None
        request, now = read(row.document), self._rooms.clock.now()
        if isinstance(request, TerminationRequest):
            followed = [u.current for u in kept if u.kind == "update"]
            return judge_termination(request, party, names=names, followed=followed, now=now)
        return judge(
            request, party, pmodes=agreements.pmodes, names=names, carried=carried, now=now,
            allow=self._rooms.config.trust,
        )  # fmt: skip

    async def _lapse(self, row: Update) -> None:
        await self._refuse(row, UpdateRefused(RESPOND_BY_MISSED, "nobody decided before RespondBy"))

    async def _stage(self, row: Update) -> None:
        """Carry out what was approved. It is judged once more: days may have gone by."""
        request, author = read(row.document), row.actor or self._rooms.node
        if isinstance(request, UpdateRequest):
            try:
                next = await self._still(row, request)
                point("AU03")
                reason = f"agreement update {row.id}: {row.detail or row.party}"
                await self._stager.stage(row.party, next, request.updated, author=author, reason=reason)
            except UpdateRefused as why:
                await self._refuse(row, why)
                return
            except (ConfigError, CertificateRefused, NotPossible) as error:
                why = UpdateRefused(CERTIFICATE_REJECTED, "it cannot be used in the agreement")
                await self._refuse(row, why, str(error))
                return
        point("AU04")
        if await self._change(row, "TAKEN", due_in=0.0, audit=audit_of("update.taken", row, author)):
            log.event("update.taken", party=row.party, update=row.id, actor=author)

    async def _still(self, row: Update, request: UpdateRequest) -> tuple[Next, ...]:
        """The certificates to stage; none where somebody staged them who died before he said so."""
        try:
            return (await self._verdict(row)).next
        except UpdateRefused:
            party = self._party(row)
            if {u.certificate for u in request.updates} <= {*party.signing, party.encryption, party.next_encryption}:
                return ()
            raise

    async def _refuse(self, row: Update, why: UpdateRefused, detail: str | None = None) -> None:
        code, said = why.why[0], printable(detail or why.detail, MAX_DETAIL)
        audit = audit_of("update.refused", row, row.actor or self._rooms.node, code=code, why=said)
        answer = refused(row, why, at=self._rooms.clock.now())
        done = await self._change(
            row, "REFUSED", due_in=0.0, code=code, detail=said, answer=answer, answer_message_id=self._answer_id(row),
            audit=audit,
        )  # fmt: skip
        if done:
            log.event("update.refused", level="warning", party=row.party, update=row.id, code=code, reason=said)

    async def _reply(self, row: Update) -> None:
        """Write the answer, once; then hand it to sending, under a MessageId that stays."""
        if row.answer is None:
            await self._change(
                row, row.state, due_in=0.0, answer=answered(row), answer_message_id=self._answer_id(row)
            )
            return
        await mail.send_answer(self._submitter, row, self._ours(row), self._party(row))
        point("AU05")
        await self._change(row, row.state, answered=True)

    # -- ours -----------------------------------------------------------------------------

    async def _send(self, row: Update) -> None:
        try:
            await mail.send_request(self._submitter, row, self._ours(row), self._party(row))
        except SubmissionRefused as error:
            await self._undelivered(row, None, str(error))
            return
        point("AU07")
        audit = audit_of("update.sent", row, row.actor or self._rooms.node)
        if await self._change(row, "SENT", due_in=LOOK, audit=audit):
            log.event("update.sent", party=row.party, update=row.id)

    async def _look(self, row: Update) -> None:
        """Whether the partner has it, and whether the time for its answer is over."""
        now = self._rooms.clock.now()
        if row.respond_by is not None and row.respond_by <= now:
            if await self._change(row, "TIMED_OUT", audit=audit_of("update.timed_out", row, self._rooms.node)):
                log.event("update.timed_out", level="error", party=row.party, update=row.id)
            return
        left = None if row.respond_by is None else (row.respond_by - now).total_seconds()
        message = await self._message(row, "outbound") if row.receipted_at is None else None
        if message is not None and message.state in ("FAILED", "CANCELLED"):
            await self._undelivered(row, message.error_code, message.error_detail or message.state)
            return
        receipted = row.receipted_at is not None or (message and message.state in ("ACKNOWLEDGED", "PURGED")) or False
        due = left if receipted else LOOK if left is None else min(LOOK, left)
        await self._change(row, "SENT", due_in=due, receipted=receipted)

    async def _undelivered(self, row: Update, code: str | None, why: str) -> None:
        why = printable(why, MAX_DETAIL)
        audit = audit_of("update.undelivered", row, self._rooms.node, code=code, why=why)
        if await self._change(row, "UNDELIVERED", code=code, detail=why, audit=audit):
            log.event("update.undelivered", level="error", party=row.party, update=row.id, code=code, reason=why)

    async def _rename(self, row: Update) -> None:
        """The partner will send under the new name from now on, where names are sent."""
        request = read(row.document)
        if isinstance(request, UpdateRequest):
            author, reason = row.actor or self._rooms.node, f"agreement update {row.id}, accepted by {row.party}"
            await self._stager.stage(row.party, (), request.updated, author=author, reason=reason)
        await self._change(row, "ACCEPTED")

    # -- small ----------------------------------------------------------------------------

    async def _change(self, row: Update, state: UpdateState, *, audit: AuditEntry | None = None, **more: Any) -> bool:
        """Under the claim on the row; False: another process has it by now. Without `due_in` nothing is due."""
        change, before = UpdateChange(state=state, **more), (row.state,)
        done = await self._store.change_update(row.id, change, before=before, claim=row.claim, audit=audit)
        return done is not None

    async def _message(self, row: Update, direction: Direction) -> Message | None:
        """The message that carries the request."""
        found = await self._store.find(row.message_id, direction=direction)
        exact = (m for m in found if m.user_message.message_id == row.message_id and m.partner == row.partner)
        return next(exact, None)

    def _party(self, row: Update) -> Party:
        """The partner of a row as it is agreed now. Raises `ConfigError`."""
        for party in self._rooms.agreements.value.pmodes.parties:
            if party.updates is not None and party_key(party.party_id) == row.partner:
                return party
        raise ConfigError(f"the agreement with {row.party} does not have updates any more")

    def _ours(self, row: Update) -> Party:
        """Raises `ConfigError`."""
        for party in self._rooms.agreements.value.pmodes.selves:
            if party.name == row.ours:
                return party
        raise ConfigError(f"{row.ours} is no party of ours any more")

    def _answer_id(self, row: Update) -> str:
        return row.answer_message_id or answer_id(row, row.message_id, self._rooms.config.node.host)
