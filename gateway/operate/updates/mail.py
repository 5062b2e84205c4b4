"""Agreement updates as user messages: which, out of what, and sent in the name of the gateway itself.

Request and answer are a Two-Way/Push-and-Push exchange: the answer refers to the message of the request and stays in
its conversation [as4 4.5]. MessageIds come from the ledger, so that sending again after a crash is the same
submission, and the partner sees one message.
"""

from collections.abc import AsyncIterator

from gateway.as4 import ns
from gateway.as4.pmode import Party
from gateway.as4.updates.reading import MAX_DOCUMENT
from gateway.errors import DeliveryRefused
from gateway.msh.payloads import content
from gateway.msh.rooms import Rooms
from gateway.msh.submit import Submitter
from gateway.plugin import Caller, PartSubmission, PartyRef, Submission
from gateway.pmodes.updates import BACKEND
from gateway.store.api import Message
from gateway.store.updates import Update

#: Whose messages these are; no client can be this one, and no backend has the name.
CALLER = Caller(BACKEND, "agreement update", BACKEND)
_ANSWERS = {("update", True): ns.UPDATE_CONFIRMED, ("update", False): ns.UPDATE_REJECTED,
            ("termination", True): ns.TERMINATE_CONFIRMED, ("termination", False): ns.TERMINATE_REJECTED}  # fmt: skip
_REQUESTS = {"update": ns.UPDATE_ACTION, "termination": ns.TERMINATE_ACTION}
REQUEST_ACTIONS = frozenset(_REQUESTS.values())
ANSWER_ACTIONS = frozenset(_ANSWERS.values())


async def document_of(rooms: Rooms, message: Message) -> bytes:
    """The one document of a message. Raises `DeliveryRefused`: it is not one, or too large; `NotFound`."""
    if len(message.parts) != 1:
        raise DeliveryRefused(f"{len(message.parts)} parts instead of one document")
    if message.parts[0].size > MAX_DOCUMENT:
        raise DeliveryRefused(f"a document of {message.parts[0].size} octets")
    return b"".join([block async for block in content(rooms.store, rooms.kek, message, message.parts[0])])


async def send_request(submitter: Submitter, row: Update, us: Party, partner: Party) -> None:
    """Hand our request to sending. Raises what `Submitter.submit` raises."""
    await _submit(submitter, us, partner, row.document, Submission(
        to_party=_ref(partner), from_party=_ref(us), service=ns.UPDATE_SERVICE, action=_REQUESTS[row.kind],
        conversation_id=row.conversation_id, message_id=row.message_id, parts=(_PART,),
    ))  # fmt: skip


async def send_answer(submitter: Submitter, row: Update, us: Party, partner: Party) -> None:
    """Hand our answer to sending. Raises what `Submitter.submit` raises."""
    await _submit(submitter, us, partner, row.answer, Submission(
        to_party=_ref(partner), from_party=_ref(us), service=ns.UPDATE_SERVICE,
        action=_ANSWERS[row.kind, row.state == "TAKEN"], conversation_id=row.conversation_id,
        message_id=row.answer_message_id, ref_to_message_id=row.message_id, parts=(_PART,),
    ))  # fmt: skip


_PART = PartSubmission(mime_type="application/xml")


def _ref(party: Party) -> PartyRef:
    return PartyRef(party.party_id.value, party.party_id.type)


async def _submit(submitter: Submitter, us: Party, partner: Party, document: bytes, wanted: Submission) -> None:
    async def octets(_: int) -> AsyncIterator[bytes]:
        yield document

    await submitter.submit(CALLER, wanted, octets)
