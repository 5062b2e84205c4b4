"""`gateway parties test`: one message of the ebMS test service, there and back [as4 2.7].

The message is signed, encrypted and sent by the very code that sends all messages, with the
agreement, keys, TLS and egress rules of this node, and its receipt is judged by the same
code. Only its store is one that lives as long as the test: nothing is retried behind the
operator's back, no consumer sees anything, and it works before the node runs at all. It
carries a small payload, for without one nothing would be encrypted; the partner receipts it
and delivers it to nobody.
"""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec
from cryptography import x509
from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.as4.wss.keys import SigningKey
from gateway.as4.wss.tokens import carried_certificates
from gateway.errors import EbmsError, GatewayError, NotFound
from gateway.keys.keyring import Keyring
from gateway.msh.rooms import Agreements, Cell, Rooms
from gateway.msh.send import Sender
from gateway.msh.submit import Submitter
from gateway.operate.explanations import Explanation, Language, explain, explain_attempt
from gateway.plugin import Caller, PartSubmission, PartyRef, Submission
from gateway.stages import Step
from gateway.store.api import Attempt, Message
from gateway.store.memory import MemoryStore
from gateway.transport.client import Answer, Client

#: The stages that are shown, in the order in which they happen; the others are this test's own store.
STAGES = ("match", "validate", "sign", "encrypt", "connect", "send", "receipt")
#: Explanations of an answer that did not come in time.
TIMEOUTS = frozenset({"connect-timeout", "send-timeout", "answer-timeout"})
#: Explanations of a connection that broke without a word: the TLS handshake may say more.
UNCLEAR = frozenset({"connection-broken", "tls"})
PAYLOAD = b"This message of the ebMS test service checks the way between two access points.\n"
_CALLER = Caller("parties-test", "parties test", "rest")


class Timing(Struct, frozen=True):
    """One stage: its milliseconds, and the name of the error that ended it."""

    stage: str
    ms: float
    error: str | None = None


class Ping(Struct, frozen=True, kw_only=True):
    """How one test ended.

    `receipt` is "verified" when it is signed by the partner and repeats what we signed, else
    "none" or "refused". `signer` is the subject of the certificate that came with it; `dns_ms` is
    a part of the stage connect. `proof` says what vouches for an answer that is an ebMS error or a receipt: the
    partner's signature, or for an unsigned error TLS alone (whoever answered holds the server certificate
    that was verified), or nothing: anybody on the way may have said so.
    """

    party: str
    party_id: str
    endpoint: str | None
    profile: str
    agreement: str | None
    result: Literal["ok", "failed", "timeout"]
    stages: list[Timing]
    ms: float
    receipt: Literal["verified", "refused", "none"]
    message_id: str | None = None
    http_status: int | None = None
    tls: str | None = None
    dns_ms: float | None = None
    signer: str | None = None
    proof: Literal["signature", "tls", "none"] | None = None
    code: str | None = None
    detail: str | None = None
    explanation: Explanation | None = None


def legs_to(pmodes: PModeSet, wanted: str | None) -> list[Leg]:
    """The test-service legs from us to the party of that name or id; to every partner without one.

    Only where we push, to somebody who is known: a partner that pulls from us asks when it likes,
    and who is discovered for each message has no address before. Raises `NotFound`.
    """
    partners = [p for p in pmodes.parties if not pmodes.is_self(p.party_id) and not p.pattern]
    if wanted is not None:
        meant = [p for p in partners if wanted in (p.name, p.party_id.value)]
        if not meant:
            ours = any(wanted in (p.name, p.party_id.value) for p in pmodes.selves)
            known = ", ".join(sorted(p.name for p in partners)) or "none"
            raise NotFound(
                f"{wanted} is our own party" if ours else f"there is no partner {wanted!r}; known: {known}"
            )
        partners = meant
    legs = [
        leg for leg in pmodes.legs
        if leg.is_test and not leg.pulled and pmodes.is_self(leg.from_party.party_id)
        and any(leg.to_party.party_id == p.party_id for p in partners)
    ]  # fmt: skip
    if not legs:
        raise NotFound("there is no agreement to push a test message under")
    return legs


async def ping(rooms: Rooms, leg: Leg, *, key: SigningKey | None = None, language: Language = "en") -> Ping:
    """Send one test message under `leg` and judge its receipt. Never raises for what a partner can cause.

    `key` signs in place of the one that signs today: is a partner ready for the next one?
    """
    store, watch = MemoryStore(rooms.clock), _Watch(rooms.client)
    rooms = dataclasses.replace(rooms, store=store, client=watch)
    if key is not None:
        rooms = dataclasses.replace(rooms, keyring=Cell(Keyring({None: (key,)}, {})))
    try:
        stored, _ = await Submitter(rooms).submit(_CALLER, _submission(leg), _payload)
    except GatewayError as error:
        return _not_sent(leg, error, language)
    [job] = await store.claim("send", worker="parties-test", limit=1, lease=3600.0)
    await Sender(rooms).send(job)
    message = await store.message(stored.id)
    [attempt] = await store.attempts(stored.id)
    found = _judged(leg, message, attempt, watch.answer, language)
    if found.explanation is not None and found.explanation.key in UNCLEAR:
        party = leg.to_party
        said = await watch.client.objection(party.endpoint, partner=message.partner, ca=party.tls_ca)
        if said is not None:
            explanation = explain("sending", found.code or "", said, language=language)
            found = msgspec.structs.replace(found, detail=f"{found.detail}; {said}", explanation=explanation)
    return found


class OneRevision:
    """What `Rooms.revisions` is where there is but one set of agreements."""

    def __init__(self, agreements: Agreements) -> None:
        self._agreements = agreements

    async def of(self, _number: int) -> Agreements:
        return self._agreements


class _Watch:
    """The client, and what it saw of the one answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answer: Answer | None = None

    async def post(self, *arguments, **more) -> Answer:
        self.answer = await self.client.post(*arguments, **more)
        return self.answer


def _submission(leg: Leg) -> Submission:
    sender, receiver, agreement = leg.from_party.party_id, leg.to_party.party_id, leg.agreement
    return Submission(
        to_party=PartyRef(receiver.value, receiver.type),
        from_party=PartyRef(sender.value, sender.type),
        service=ns.TEST_SERVICE,
        action=ns.TEST_ACTION,
        agreement_ref=agreement.value if agreement else None,
        agreement_type=agreement.type if agreement else None,
        parts=(PartSubmission(mime_type="text/plain"),),
    )


async def _payload(_number: int) -> AsyncIterator[bytes]:
    yield PAYLOAD


def _judged(leg: Leg, message: Message, attempt: Attempt, answer: Answer | None, language: Language) -> Ping:
    ok = attempt.outcome == "acknowledged"
    explanation = None
    if not ok:
        explanation = explain_attempt(
            attempt.outcome, attempt.error_code or "", attempt.error_detail or "", language=language
        )
    timed_out = explanation is not None and explanation.key in TIMEOUTS
    stages = _timings([*message.steps, *attempt.steps])
    return Ping(
        **_facts(leg),
        result="ok" if ok else "timeout" if timed_out else "failed",
        stages=stages,
        ms=round(sum(t.ms for t in stages), 3),
        receipt="verified" if ok else "refused" if attempt.outcome == "invalid-receipt" else "none",
        message_id=message.user_message.message_id,
        http_status=answer.status if answer else None,
        tls=answer.tls if answer else None,
        dns_ms=round(answer.timings["dns"] * 1000, 3) if answer and "dns" in answer.timings else None,
        signer=_signer(message.receipt) if ok and message.receipt else None,
        proof=_proof(attempt.outcome, answer),
        code=attempt.error_code,
        detail=attempt.error_detail,
        explanation=explanation,
    )


def _proof(outcome: str | None, answer: Answer | None) -> Literal["signature", "tls", "none"] | None:
    if outcome in ("acknowledged", "error"):
        return "signature"
    if outcome != "unverified-error":
        return None
    # Chain and host name of the server are verified in every connection that has TLS.
    return "tls" if answer is not None and answer.tls else "none"


def _not_sent(leg: Leg, error: GatewayError, language: Language) -> Ping:
    """The submission was refused by our own rules."""
    code = error.code if isinstance(error, EbmsError) else "EBMS:0004"
    return Ping(
        **_facts(leg), result="failed", stages=[], ms=0.0, receipt="none", code=code, detail=str(error),
        explanation=explain("sending", code, str(error), language=language),
    )  # fmt: skip


def _facts(leg: Leg) -> dict:
    party: Party = leg.to_party
    return {
        "party": party.name, "party_id": party.party_id.value, "endpoint": party.endpoint, "profile": leg.profile,
        "agreement": leg.agreement.value if leg.agreement else None,
    }  # fmt: skip


def _timings(steps: Sequence[Step]) -> list[Timing]:
    """Milliseconds by stage; the last error of each."""
    found: dict[str, Timing] = {}
    for step in steps:
        before = found.get(step.stage, Timing(step.stage, 0.0))
        found[step.stage] = Timing(step.stage, round(before.ms + step.seconds * 1000, 3), step.error or before.error)
    return [found[name] for name in STAGES if name in found]


def _signer(receipt: bytes) -> str | None:
    """The subject of the certificate that the receipt carries; receipts that only name theirs say nothing."""
    try:
        carried = carried_certificates(receipt)
        return x509.load_der_x509_certificate(carried[0]).subject.rfc4514_string() if carried else None
    except (EbmsError, *UNREADABLE):
        return None
