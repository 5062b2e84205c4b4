"""Signals that arrive by themselves, outside the HTTP exchange of an attempt.

The common profile has none (receipts and errors come back synchronously), but products
send late ones and they must be understood: a late, authentic receipt turns a FAILED
message into ACKNOWLEDGED [as4 4.2], a late error is judged like one that came in time.
"""

from gateway import log, metrics
from gateway.as4 import receipts
from gateway.as4.inbound import Opened, Terms
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, Receipt
from gateway.errors import FailedAuthentication, InvalidReceipt, ProcessingModeMismatch, ValueInconsistent
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
        legs = [leg for leg in agreements.pmodes.legs if agreements.pmodes.is_self(leg.from_party.party_id)]
        if not legs:
            raise ProcessingModeMismatch("no agreement to send under", where="eb:SignalMessage")
        signers = {certificate for leg in legs for certificate in leg.to_party.signing}
        profiles = [PROFILES[name] for name in dict.fromkeys(leg.profile for leg in legs)]
        widest = profiles[0]
        if len(profiles) > 1:
            import msgspec

            widest = msgspec.structs.replace(
                widest, accept_signature=frozenset().union(*(p.accept_signature for p in profiles))
            )
        return Terms(profile=widest, signers=tuple(signers))

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
        if opened.signer not in self._signers(message):
            raise FailedAuthentication("a signal signed by another party")
        if isinstance(unit, Receipt):
            await self._receipt(message, unit, opened)
        else:
            await self._error(message, unit)

    def _signers(self, message: Message) -> tuple[bytes, ...]:
        pmodes = self._rooms.agreements.value.pmodes
        return next(
            (p.signing for p in pmodes.parties if p.party_id == message.user_message.to_party), ()
        )

    async def _receipt(self, message: Message, receipt: Receipt, opened: Opened) -> None:
        for attempt in await self._rooms.store.attempts(message.id):
            try:
                receipts.check(receipt, attempt.references, message.user_message.message_id)
            except InvalidReceipt:
                continue
            changed = await self._rooms.store.settle_late(
                message.id, opened.envelope, (NewEvent("message.acknowledged", {"late": True}),)
            )
            log.event("receipt.late", changed=changed, party=message.user_message.to_party.value)
            metrics.receipt("late")
            return
        raise InvalidReceipt("the receipt matches no attempt")

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
