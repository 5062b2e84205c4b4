"""The SOAP 1.2 envelope: its shape on receipt, its text on sending [as4 1.3, 1.4, 2, 3.2].

`read_envelope` is the shape check before cryptography [threats 1.1 step 4]. It finds the
few elements everything later works on, and refuses whatever would let two readers find
different ones: a second Header, Body, eb:Messaging or wsse:Security anywhere in the
document, an id that two elements share. Signature wrapping needs exactly that. Later
steps are handed these very nodes and look for nothing again.

Choices where the notes leave one:
- A Body with content is ValueInconsistent: eDelivery knows payloads as MIME parts only.
  A SOAP Fault beside an eb:Error is tolerated (Domibus adds one) and not read [as4 2.5].
- A SOAP 1.1 envelope, or any other, is a VersionMismatch fault; a header block that must
  be understood and is not, a MustUnderstand fault. Both are InvalidHeader with status 500.
- A header block that need not be understood is passed over. A second wsse:Security is
  taken only with the role `ebms` (authorisation of a pull), and then passed over too.
- mustUnderstand may be missing on the eb:Messaging of an Error signal, as products leave
  it out there [as4 7.9]; nowhere else.

What is sent is text in exclusive canonical form: `messaging_canonical` and
`body_canonical` give the octets whose digests are signed, `envelope` puts them together.
"""

from typing import NamedTuple

from gateway.as4 import ns
from gateway.as4.fields import MAX_TEXT, MESSAGE_ID, eb
from gateway.as4.header import write_messaging as messaging_canonical
from gateway.as4.xml import Element, escaped, parse, quoted
from gateway.errors import GatewayError, InvalidHeader, ValueInconsistent, told

__all__ = [
    "Claim",
    "MustUnderstandFault",
    "SoapEnvelope",
    "SoapFault",
    "VersionMismatchFault",
    "body_canonical",
    "claim",
    "envelope",
    "fault",
    "fault_said",
    "fault_xml",
    "messaging_canonical",
    "read_envelope",
]

_ENVELOPE, _HEADER, _BODY = ns.qn(ns.S12, "Envelope"), ns.qn(ns.S12, "Header"), ns.qn(ns.S12, "Body")
_FAULT = ns.qn(ns.S12, "Fault")
_FAULT_VALUE = f"{_FAULT}/{ns.qn(ns.S12, 'Code')}/{ns.qn(ns.S12, 'Value')}"
_FAULT_REASON = f"{ns.qn(ns.S12, 'Reason')}/{ns.qn(ns.S12, 'Text')}"
_MUST_UNDERSTAND, _ROLE = ns.qn(ns.S12, "mustUnderstand"), ns.qn(ns.S12, "role")
_MESSAGING, _SECURITY = eb("Messaging"), ns.qn(ns.WSSE, "Security")
_USER_MESSAGE, _SIGNAL_MESSAGE, _ERROR = eb("UserMessage"), eb("SignalMessage"), eb("Error")
_MESSAGE_ID = f"{eb('MessageInfo')}/{eb('MessageId')}"
#: Elements that may stand in one place only; a second one anywhere is somebody's hiding place.
_GUARDED = (_ENVELOPE, _HEADER, _BODY, _MESSAGING, _SECURITY)
#: Every attribute that some verifier resolves a `#` reference with. One name space [threats A11].
_IDS = frozenset({ns.qn(ns.WSU, "Id"), "Id", "ID", "id", ns.qn(ns.XML, "id"), "AssertionID"})
_TRUE, _FALSE = ("true", "1"), ("false", "0")
_ULTIMATE_RECEIVER = ns.S12 + "/role/ultimateReceiver"
_OUR_ROLES = (_ULTIMATE_RECEIVER, ns.S12 + "/role/next")
_FAULT_CODES = ("VersionMismatch", "MustUnderstand", "DataEncodingUnknown", "Sender", "Receiver")
_SPACE = " \t\r\n"


class SoapFault(InvalidHeader):
    """The envelope is refused by the rules of SOAP itself, and answered with a SOAP Fault."""

    fault_code = "Sender"

    def __init__(self, detail: str = "", *, where: str | None = None) -> None:
        super().__init__(detail, where=where, status=500)


class MustUnderstandFault(SoapFault):
    """A header block that must be understood is not understood here."""

    fault_code = "MustUnderstand"
    wire = "A SOAP header block that must be understood is not understood here."


class VersionMismatchFault(SoapFault):
    """The envelope is not SOAP 1.2."""

    fault_code = "VersionMismatch"
    wire = "Only SOAP 1.2 envelopes are understood here."


class SoapEnvelope:
    """A parsed envelope whose shape is right; believed in nothing.

    Live elements: used within the call and the thread that parsed them. `ids` has every
    id of the document, in whatever spelling, and the element it names. `fault` is the
    SOAP Fault beside an eb:Error, None otherwise.
    """

    __slots__ = ("body", "fault", "header", "ids", "messaging", "root", "security")

    root: Element
    header: Element
    body: Element
    messaging: Element
    security: Element | None
    fault: Element | None
    ids: dict[str, Element]


class Claim(NamedTuple):
    """What a refused envelope says of itself; for the answer and the log, and for nothing else.

    `kind` is the name of the message unit (UserMessage, PullRequest, Receipt, Error).
    """

    message_id: str | None
    kind: str | None


# -- reading -------------------------------------------------------------------------


def read_envelope(octets: bytes, charset: str | None = None) -> SoapEnvelope:
    """Parse an envelope and check its shape.

    `charset` is the parameter of the media type. Raises `XmlRefused` where it is no XML
    of ours, `SoapFault`, `InvalidHeader`, or `ValueInconsistent` for a Body with content.
    """
    root = parse(octets, charset=charset)
    if root.tag != _ENVELOPE:
        if root.tag.endswith("}Envelope"):
            raise VersionMismatchFault("an envelope of another SOAP", where="S12:Envelope")
        raise InvalidHeader("no SOAP envelope", where="S12:Envelope", status=400)
    children = list(root)
    if [child.tag for child in children] != [_HEADER, _BODY]:
        if [child.tag for child in children] == [_BODY]:
            raise InvalidHeader(f"no SOAP header{_fault_code(children[0])}", where="S12:Header", status=400)
        raise InvalidHeader("not one Header and one Body", where="S12:Envelope", status=400)
    header, body = children
    if _has_text(root, children) or _has_text(header, header):
        raise InvalidHeader("text between elements", where="S12:Envelope", status=400)

    found = SoapEnvelope()
    found.root, found.header, found.body = root, header, body
    found.messaging, found.security, others = _header_blocks(header, body)
    for element in root.iter(*_GUARDED):
        if not any(element is known for known in (root, header, body, found.messaging, found.security, *others)):
            raise InvalidHeader("an element in a place where it is not allowed", where="S12:Envelope")
    found.ids = _ids(root)
    found.fault = _check_body(body, found.messaging)
    return found


def _header_blocks(header: Element, body: Element) -> tuple[Element, Element | None, list[Element]]:
    """eb:Messaging, the wsse:Security for us, and those for a role that is not ours."""
    messaging, security, others = [], [], []
    for block in header:
        tag, role = block.tag, block.get(_ROLE)
        must = block.get(_MUST_UNDERSTAND, "false").strip(_SPACE)
        if must not in _TRUE and must not in _FALSE:
            raise InvalidHeader("mustUnderstand is no boolean", where="@S12:mustUnderstand")
        if tag == _MESSAGING:
            if role not in (None, _ULTIMATE_RECEIVER):
                raise InvalidHeader("meant for another node", where="eb:Messaging/@S12:role")
            messaging.append(block)
        elif tag == _SECURITY:
            if role in (None, _ULTIMATE_RECEIVER):
                security.append(block)
            elif role == "ebms" or role.endswith("/ebms"):
                others.append(block)
            else:
                raise InvalidHeader("meant for another node", where="wsse:Security/@S12:role")
        elif must in _TRUE and (role is None or role in _OUR_ROLES):
            name = told(tag.rpartition("}")[2])
            raise MustUnderstandFault("a header block that is not understood", where=f"S12:Header/{name}")
    if not messaging:
        raise InvalidHeader(f"no eb:Messaging{_fault_code(body)}", where="eb:Messaging", status=400)
    if len(messaging) > 1:
        raise InvalidHeader("more than one eb:Messaging", where="eb:Messaging")
    if len(security) > 1 or len(others) > 1:
        raise InvalidHeader("more than one wsse:Security", where="wsse:Security")
    must = messaging[0].get(_MUST_UNDERSTAND)
    if (must or "").strip(_SPACE) not in _TRUE and not (must is None and _is_error(messaging[0])):
        raise InvalidHeader("must be understood, and does not say so", where="eb:Messaging/@S12:mustUnderstand")
    return messaging[0], security[0] if security else None, others


def _ids(root: Element) -> dict[str, Element]:
    """Every id of the document. One pass: looking ids up one by one is quadratic [threats 0.12]."""
    ids: dict[str, Element] = {}
    for element in root.iter():
        for name, text in element.items():
            if name in _IDS and text and ids.setdefault(text, element) is not element:
                raise InvalidHeader("one id on two elements", where="@wsu:Id")
    return ids


def _check_body(body: Element, messaging: Element) -> Element | None:
    if _has_text(body, body):
        raise ValueInconsistent("text in the SOAP body", where="S12:Body")
    if not len(body):
        return None
    if len(body) == 1 and body[0].tag == _FAULT and _is_error(messaging):
        return body[0]
    raise ValueInconsistent("content in the SOAP body", where="S12:Body")


def _is_error(messaging: Element) -> bool:
    return messaging.find(f"{_SIGNAL_MESSAGE}/{_ERROR}") is not None


def _has_text(parent: Element, children: list[Element] | Element) -> bool:
    """Whether anything but white space stands between the children."""
    text = parent.text
    if text and text.strip(_SPACE):
        return True
    return any(child.tail and child.tail.strip(_SPACE) for child in children)


def _fault_code(body: Element) -> str:
    """For our log: which SOAP Fault a peer answered with, where that is all it said."""
    code = _text_at(body, _FAULT_VALUE).strip(_SPACE).rpartition(":")[2]
    return f", but a SOAP Fault: {code}" if code in _FAULT_CODES else ""


def _text_at(element: Element, path: str) -> str:
    """Text that nothing depends on: what is refused, or only logged."""
    found = element.find(path)
    return "" if found is None else found.text or ""


def fault_said(octets: bytes, charset: str | None = None) -> str | None:
    """What a SOAP Fault says that came without an ebMS header: code and reason, for people. Never raises.

    SOAP 1.1 is understood too: a stack answers in it when it did not get as far as AS4 [as4 2.5].
    """
    try:
        root = parse(octets, charset=charset)
    except GatewayError:
        return None
    if root.find(f"{_HEADER}/{_MESSAGING}") is not None:
        return None
    if (fault := root.find(f"{_BODY}/{_FAULT}")) is not None:
        code, reason = _text_at(root.find(_BODY), _FAULT_VALUE), _text_at(fault, _FAULT_REASON)
    elif (fault := root.find(f"{{{ns.S11}}}Body/{{{ns.S11}}}Fault")) is not None:
        code, reason = _text_at(fault, "faultcode"), _text_at(fault, "faultstring")
    else:
        return None
    said = (code.strip(_SPACE).rpartition(":")[2], " ".join(reason.split()))
    return ": ".join(filter(None, said))[:MAX_TEXT]


def claim(octets: bytes, charset: str | None = None) -> Claim:
    """What an envelope that was refused says of itself, as far as it can be read. Never raises.

    For RefToMessageId of the answer [as4 2.10], and because an Error signal is never
    answered with one, not even a malformed one [as4 2.5].
    """
    try:
        messaging = parse(octets, charset=charset).find(f"{_HEADER}/{_MESSAGING}")
    except GatewayError:
        return Claim(None, None)
    if messaging is None or not len(messaging):
        return Claim(None, None)
    # Of a bundle the message is meant: it is what the sender waits to hear about.
    message = messaging.find(_USER_MESSAGE)
    unit = messaging[0] if message is None else message
    text = _text_at(unit, _MESSAGE_ID)
    message_id = text if MESSAGE_ID.fullmatch(text) else None
    if unit.tag == _USER_MESSAGE:
        return Claim(message_id, "UserMessage")
    kinds = [name for name in ("Error", "Receipt", "PullRequest") if unit.find(eb(name)) is not None]
    return Claim(message_id, kinds[0] if kinds else None)


# -- writing -------------------------------------------------------------------------


def body_canonical(wsu_id: str, fault_xml: str = "") -> str:
    """S12:Body in exclusive canonical form: empty but for a fault [as4 3.1]."""
    return f'<S12:Body xmlns:S12="{ns.S12}" xmlns:wsu="{ns.WSU}" wsu:Id={quoted(wsu_id)}>{fault_xml}</S12:Body>'


def envelope(messaging_xml: str, body_id: str, security_xml: str = "", fault_xml: str = "") -> bytes:
    """The octets of an envelope made of text that is canonical already.

    In it, exclusive C14N of eb:Messaging is `messaging_xml`, that of the Body is
    `body_canonical(body_id, fault_xml)`, and that of any part of `security_xml` which
    declares the namespaces it uses is that text itself. Security comes first, as the
    stacks of our peers write it. UTF-8, no XML declaration, no white space.
    """
    return (
        f'<S12:Envelope xmlns:S12="{ns.S12}"><S12:Header>{security_xml}{messaging_xml}</S12:Header>'
        f"{body_canonical(body_id, fault_xml)}</S12:Envelope>"
    ).encode()


def fault_xml(code: str, reason: str) -> str:
    """S12:Fault in exclusive canonical form, for the inside of a Body. `code` is SOAP's own word."""
    if code not in _FAULT_CODES:
        raise ValueError(f"SOAP 1.2 has no fault code {code}")
    return (
        f"<S12:Fault><S12:Code><S12:Value>S12:{code}</S12:Value></S12:Code><S12:Reason>"
        f'<S12:Text xml:lang="en">{escaped(reason)}</S12:Text></S12:Reason></S12:Fault>'
    )


def fault(code: str, reason: str) -> bytes:
    """A minimal envelope with nothing but a SOAP Fault. `reason` is ours: `wire` and `where` of an error."""
    return (
        f'<S12:Envelope xmlns:S12="{ns.S12}"><S12:Body>{fault_xml(code, reason)}</S12:Body></S12:Envelope>'
    ).encode()
