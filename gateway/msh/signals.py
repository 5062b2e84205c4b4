"""Signals that arrive by themselves, outside the HTTP exchange of an attempt.

For messages that partners pull they are the rule [as4 4.6]. For those that we push the common
profile has none (receipts and errors come back synchronously), but products
send late ones and they must be understood: a late, authentic receipt turns a FAILED
message into ACKNOWLEDGED [as4 4.2], a late error is judged like one that came in time.
"""

from gateway import log, metrics
from gateway.as4 import receipts
from gateway.as4.inbound import Opened, Terms
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, Receipt
from gateway.errors import (
    CertificateRefused,
    FailedAuthentication,
    InvalidReceipt,
    ProcessingModeMismatch,
    ValueInconsistent,
)
from gateway.keys.vouching import check_party
from gateway.msh.outcome import FINAL_CODES
from gateway.msh.rooms import Agreements, Rooms
from gateway.store.api import Message, NewEvent


class Signals:
    """Takes receipts and errors that were POSTed to us."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def terms(self, agreements: Agreements) -> Terms:
        """Whose signature a signal may bear: any partner's. `take` then asks for the right one.

        The header of a signal names no parties; whom it concerns is only known from the
        message it refers to, and that look-up waits.
        """
        # Earlier revisions, too: a message may have been sent under one.
        known = (agreements, *self._rooms.revisions.recent())
        names = frozenset().union(*(one.profiles for one in known))
        if not names:
            raise ProcessingModeMismatch("no agreement to send under", where="eb:SignalMessage")
        signers = frozenset().union(*(one.signers for one in known))
        profiles = [PROFILES[name] for name in sorted(names)]
        widest = profiles[0]
        if len(profiles) > 1:
            import msgspec

            widest = msgspec.structs.replace(
                widest, accept_signature=frozenset().union(*(p.accept_signature for p in profiles))
            )
        vouchers = tuple(dict.fromkeys(voucher for one in known for voucher in one.vouchers))
        return Terms(profile=widest, signers=tuple(signers), vouchers=vouchers)

    async def take(self, opened: Opened) -> None:
        """Apply an authenticated signal. Raises what makes it useless; the peer hears nothing of it."""
        unit = opened.unit
        reference = unit.ref_to_message_id if isinstance(unit, Receipt) else unit.about
        if not reference:
            raise ValueInconsistent("a signal without RefToMessageId", where="eb:RefToMessageId")
        found = await self._rooms.store.find(reference, direction="outbound")
        message = next((m for m in found if m.user_message.message_id == reference), None)
        if message is None:
            raise ValueInconsistent("a signal about an unknown message", where="eb:RefToMessageId")
        if opened.voucher is not None:
            known = await self._vouched(opened, message)
        else:
            known = opened.signer in await self._signers(message)
        if not known:
            raise FailedAuthentication("a signal signed by another party")
        if opened.voucher is None and (party := self._rooms.agreements.value.party(message.user_message.to_party)):
            await self._rooms.sightings.signed(party, opened.signer)
        if isinstance(unit, Receipt):
            await self._receipt(message, unit, opened)
        else:
            await self._error(message, unit)

    async def _vouched(self, opened: Opened, message: Message) -> bool:
        """Whether the signer, which has a path, is the party the message went to, by the rule of its leg."""
        agreements = await self._rooms.revisions.of(message.pmode_revision)
        trust = opened.voucher.trust
        if not any(leg.pmode_id == message.pmode_id and leg.to_party.trust == trust for leg in agreements.pmodes.legs):
            return False
        try:
            check_party(opened.signer, trust, message.user_message.to_party.value)
        except CertificateRefused:
            return False
        return True

    async def _signers(self, message: Message) -> tuple[bytes, ...]:
        """Of the revision the message was sent under, and of the one in force: the partner may have changed since."""
        known = (await self._rooms.revisions.of(message.pmode_revision), self._rooms.agreements.value)
        parties = [agreements.party(message.user_message.to_party) for agreements in known]
        return tuple(certificate for party in parties if party is not None for certificate in party.signing)

    async def _receipt(self, message: Message, receipt: Receipt, opened: Opened) -> None:
        for attempt in await self._rooms.store.attempts(message.id):
            try:
                receipts.check(receipt, attempt.references, message.user_message.message_id)
            except InvalidReceipt:
                continue
            # A message that was pulled has its receipt this way and no other.
            late = message.state != "WAITING_FOR_RECEIPT"
            changed = await self._rooms.store.settle_late(
                message.id, opened.envelope, (NewEvent("message.acknowledged", {"late": True} if late else {}),)
            )
            self._tell(message, late, changed)
            return
        raise InvalidReceipt("the receipt matches no attempt")

    def _tell(self, message: Message, late: bool, changed: bool) -> None:
        unit = message.user_message
        party = unit.to_party.value
        if late:
            log.event("receipt.late", changed=changed, party=party)
            metrics.receipt("late")
            return
        metrics.receipt("verified")
        metrics.reached(party, None)
        if changed:
            log.event("message.acknowledged", party=party, action=unit.action)
            seconds = (self._rooms.clock.now() - message.created_at).total_seconds()
            metrics.message("outbound", party, unit.action, "acknowledged", seconds)

    async def _error(self, message: Message, error: Error) -> None:
        fault = error.errors[0]
        log.event("error.late", level="warning", code=fault.code, party=message.user_message.to_party.value)
        if fault.code in FINAL_CODES and fault.severity != "warning":
            await self._rooms.store.fail_late(
                message.id,
                fault.code,
                fault.description or fault.short_description or "",
                (NewEvent("message.failed", {"code": fault.code}),),
            )
