"""What an attempt's answer means for the message: the one place that decides.

A receipt counts only when it is signed by the party we sent to and repeats the digests
we signed. An error counts only when it is authentic; an unsigned one is noted, shown, and
the message is tried again [as4 4.4, threats J04]. Whether an authentic error is final is
a property of its code [as4 4.2].
"""

from gateway import metrics
from gateway.as4 import receipts
from gateway.as4.inbound import Terms, Unauthenticated, open_envelope
from gateway.as4.mime import EnvelopeReady, MessageReader
from gateway.as4.pmode import Leg
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, Receipt, Reference
from gateway.errors import EbmsError, InvalidReceipt, PeerAnswered, SendFailed
from gateway.transport.client import Answer

#: Errors after which the same message will not be taken another time.
FINAL_CODES = frozenset(
    f"EBMS:{n}"
    for n in ("0001", "0003", "0007", "0008", "0009", "0010", "0011", "0101", "0102", "0103", "0302", "0303")
)


def judge(answer: Answer, *, leg: Leg, message_id: str, signed: list[tuple[Reference, ...]], trust) -> bytes:
    """The receipt's octets if the answer settles the message.

    `signed` is what each attempt signed, the current one first. `trust` checks the
    signer's certificate. Raises `PeerAnswered` for an Error signal, `InvalidReceipt` for
    a receipt that does not fit, `SendFailed` for anything that is no signal.
    """
    octets, charset = _envelope(answer)

    def choose(_unit) -> Terms:
        return Terms(profile=PROFILES[leg.profile], signers=leg.to_party.signing)

    try:
        opened = open_envelope(octets, charset, choose=choose, trust=trust, allow_unsigned=True)
    except EbmsError as error:
        metrics.receipt("refused")
        raise InvalidReceipt(f"the answer is not authentic or not a signal: {error}") from None
    unit = opened.unit
    if isinstance(unit, Error):
        _about(unit.about, message_id)
        fault = unit.errors[0]
        raise PeerAnswered(
            fault.code,
            "; ".join(filter(None, (fault.short_description, fault.description, fault.detail)))[:1024],
            authenticated=not isinstance(opened, Unauthenticated),
        )
    if not isinstance(unit, Receipt):
        raise InvalidReceipt("the answer is neither a receipt nor an error")
    if isinstance(opened, Unauthenticated):
        metrics.receipt("unsigned")
        raise InvalidReceipt("the receipt is not signed")
    refusal = InvalidReceipt("no attempt signed what the receipt repeats")
    for references in signed:
        try:
            receipts.check(unit, references, message_id)
        except InvalidReceipt as invalid:
            refusal = invalid
            continue
        metrics.receipt("verified")
        return octets
    metrics.receipt("mismatch")
    raise refusal


def _about(reference: str | None, message_id: str) -> None:
    """An error about another message says nothing of ours."""
    if reference is not None and reference != message_id:
        raise InvalidReceipt("the error refers to another message")


def _envelope(answer: Answer) -> tuple[bytes, str | None]:
    """The SOAP part of an HTTP answer, whatever its status [as4 1.5]."""
    content_type = answer.headers.get("content-type", "")
    if not answer.body:
        raise SendFailed(
            f"HTTP {answer.status} with an empty body: no receipt came back",
            temporary=True,
            stage="receipt",
        )
    try:
        reader = MessageReader(content_type)
        events = [*reader.feed(answer.body), *reader.close()]
    except EbmsError:
        server = answer.headers.get("server", "")
        raise SendFailed(
            f"HTTP {answer.status} without an AS4 answer (content type {content_type[:80]!r}"
            f"{', server ' + repr(server[:40]) if server else ''}): a proxy or another program answered",
            temporary=True,
            stage="receipt",
        ) from None
    envelope = next((e for e in events if isinstance(e, EnvelopeReady)), None)
    if envelope is None:
        raise SendFailed(f"HTTP {answer.status} without an envelope", temporary=True, stage="receipt")
    return envelope.octets, envelope.charset
