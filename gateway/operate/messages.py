"""Looking at messages as an operator: every backend's, metadata only, payloads never."""

import hashlib

from cryptography import x509
from msgspec import Struct

from gateway.as4.wss.algorithms import UNREADABLE
from gateway.errors import NotFound
from gateway.operate.explanations import Explanation, Language, explain_attempt
from gateway.stages import Step
from gateway.store.api import Attempt, AuditEntry, Message, MessageFilter, Store
from gateway.store.partner_certificates import Revocation


class Trace(Struct, frozen=True):
    """A message with everything that happened to it."""

    message: Message
    attempts: list[Attempt]
    events: list[dict]

    @property
    def steps(self) -> list[Step]:
        """All stages, oldest first."""
        steps = [*self.message.steps, *(step for attempt in self.attempts for step in attempt.steps)]
        return sorted(steps, key=lambda step: step.started)


async def listing(store: Store, wanted: MessageFilter) -> list[Message]:
    """Messages, newest first."""
    return await store.messages(wanted)


async def one(store: Store, reference: str) -> Message:
    """The message meant by an id, a MessageId, or a prefix of 8 characters or more.

    Raises `NotFound` when there is none, or when several begin so.
    """
    found = await store.find(reference)
    exact = [m for m in found if reference in (str(m.id), m.user_message.message_id)]
    found = exact or found
    if not found:
        raise NotFound(f"no message {reference!r}: give an id, a MessageId, or 8 characters or more of either")
    if len(found) > 1:
        raise NotFound(f"{reference!r} fits {len(found)} messages: give more of it, or the id from `messages list`")
    return found[0]


class Signer(Struct, frozen=True):
    """Who signed a message that was received. `revocation` is the newest word of the issuer, None without one."""

    subject: str
    sha256: str
    revocation: Revocation | None


async def signer(store: Store, message: Message) -> Signer | None:
    """The certificate a received message was signed with; None of a message of ours."""
    if message.signer is None:
        return None
    sha256 = hashlib.sha256(message.signer).hexdigest()
    try:
        subject = x509.load_der_x509_certificate(message.signer).subject.rfc4514_string()
    except UNREADABLE:
        subject = ""
    said = await store.revocations(certificate=sha256)
    return Signer(subject, sha256, said[0] if said else None)


class PulledChannel(Struct, frozen=True):
    """A channel we pull from: who holds its messages, which of our parties they are for, and its MPC."""

    holder: str
    puller: str
    mpc: str


async def pull(store: Store, *, by: str) -> list[PulledChannel]:
    """Have every channel that rests asked at once. A running gateway does it within five seconds. `by` is who asks."""
    queues = await store.pull_now()
    await store.audit(AuditEntry(kind="messages.pulled", actor=by, subject="channels", detail={"count": len(queues)}))
    return [PulledChannel(*queue.split(" ", 2)) for queue in queues]


def explanation(found: Trace, *, language: Language = "en") -> Explanation | None:
    """Why a message was not acknowledged, or not yet; None where nothing went wrong."""
    message = found.message
    last = found.attempts[-1] if found.attempts else None
    if message.direction != "outbound" or message.state in ("ACKNOWLEDGED", "PURGED") or message.error_code is None:
        return None
    return explain_attempt(
        last.outcome if last else None, message.error_code, message.error_detail or "", language=language
    )


async def trace(store: Store, reference: str) -> Trace:
    """The message with its attempts and events. Raises `NotFound`."""
    message = await one(store, reference)
    events = await store.events(message=message.id, limit=500)
    return Trace(
        message,
        await store.attempts(message.id),
        [{"number": number, "at": at, "type": kind, **data} for number, at, kind, _, data in events],
    )
