"""What an attempt's answer means for the message: the one place that decides.

A receipt counts only when it is signed by the party we sent to and repeats the digests
we signed. An error counts only when it is authentic; an unsigned one is noted, shown, and
the message is tried again [as4 4.4, threats J04]. Whether an authentic error is final is
a property of its code [as4 4.2].
"""

import re

from gateway import metrics
from gateway.as4 import ns, receipts, soap
from gateway.as4.inbound import Opened, Terms, Unauthenticated, open_envelope
from gateway.as4.media_type import bare_type
from gateway.as4.mime import EnvelopeReady, MessageReader
from gateway.as4.pmode import Leg
from gateway.as4.units import Error, Receipt, Reference
from gateway.errors import EbmsError, InvalidReceipt, PeerAnswered, SendFailed
from gateway.log import printable
from gateway.msh.partners import terms_for
from gateway.transport.client import Answer

#: How answers are labelled that are SOAP all the same.
_XML_TYPES = ("", "text/xml", "application/xml", "application/octet-stream")
_TITLE = re.compile(rb"<title>([^<]*)", re.IGNORECASE)

#: Errors after which the same message will not be taken another time.
FINAL_CODES = frozenset(
    f"EBMS:{n}"
    for n in ("0001", "0003", "0007", "0008", "0009", "0010", "0011", "0101", "0102", "0103", "0302", "0303")
)


def judge(
    answer: Answer, *, leg: Leg, message_id: str, signed: list[tuple[Reference, ...]], trust, vouch=None
) -> Opened:
    """The receipt, if the answer settles the message; its octets are the envelope.

    `signed` is what each attempt signed, the current one first. `trust` checks the
    signer's certificate, `vouch` one that is trusted by path. Raises `PeerAnswered` for an
    Error signal, `InvalidReceipt` for a receipt that does not fit, `SendFailed` for anything
    that is no signal.
    """
    octets, charset = _envelope(answer)

    def choose(_unit) -> Terms:
        return terms_for(leg.profile, leg.to_party, leg.to_party.party_id)

    try:
        opened = open_envelope(
            octets, charset, choose=choose, trust=trust, vouch=vouch, allow_unsigned=True, strangers=True
        )  # fmt: skip
    except EbmsError as error:
        if (fault := soap.fault_said(octets, charset)) is not None:
            said = printable(fault, 200)
            said = f"HTTP {answer.status}: a SOAP Fault without ebMS header: {said}"
            raise SendFailed(said, stage="receipt") from None
        metrics.receipt("refused")
        refused = InvalidReceipt(f"the answer is not authentic or not a signal: {error}")
        refused.stranger = getattr(error, "stranger", None)
        raise refused from None
    unit = opened.unit
    if isinstance(unit, Error):
        _about(unit.about, message_id)
        fault = unit.errors[0]
        answered = PeerAnswered(
            fault.code,
            "; ".join(filter(None, (fault.short_description, fault.description, fault.detail)))[:1024],
            authenticated=not isinstance(opened, Unauthenticated),
        )
        answered.opened = None if isinstance(opened, Unauthenticated) else opened
        raise answered
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
        return opened
    metrics.receipt("mismatch")
    raise refusal


def _about(reference: str | None, message_id: str) -> None:
    """An error about another message says nothing of ours."""
    if reference is not None and reference != message_id:
        raise InvalidReceipt("the error refers to another message")


def _envelope(answer: Answer) -> tuple[bytes, str | None]:
    """The SOAP part of an HTTP answer, whatever its status [as4 1.5]."""
    content_type = answer.headers.get("content-type", "")
    if bare_type(content_type) in _XML_TYPES and any(soap_.encode() in answer.body for soap_ in (ns.S12, ns.S11)):
        # Who answered labelled SOAP as plain XML, or not at all. Its signature says whether to believe it.
        content_type = ns.SOAP_MEDIA_TYPE + content_type[len(content_type.partition(";")[0]) :]
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
        server, said = answer.headers.get("server", ""), _said(content_type, answer.body)
        raise SendFailed(
            f"HTTP {answer.status} without an AS4 answer (content type {content_type[:80]!r}"
            f"{', server ' + repr(server[:40]) if server else ''}): a proxy or another program answered"
            f"{', saying ' + repr(said) if said else ''}",
            temporary=True,
            stage="receipt",
        ) from None
    envelope = next((e for e in events if isinstance(e, EnvelopeReady)), None)
    if envelope is None:
        raise SendFailed(f"HTTP {answer.status} without an envelope", temporary=True, stage="receipt")
    return envelope.octets, envelope.charset


def _said(content_type: str, body: bytes) -> str:
    """The words of an answer that is no AS4, for people: older phase4 tells its reason in plain text [as4 7.14]."""
    kind = bare_type(content_type)
    if kind == "text/html" and (title := _TITLE.search(body[:4096])) is not None:
        body = title[1]
    elif kind != "text/plain":
        return ""
    return printable(" ".join(body[:800].decode("utf-8", "replace").split()), 200)
