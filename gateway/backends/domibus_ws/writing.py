"""Answers as Domibus writes them, down to the prefixes: clients that search for those exist."""

import base64
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from gateway.backends.domibus_ws.mtom import include
from gateway.backends.domibus_ws.names import DEFAULT_MPC, EB, OLD, PLUGIN, SOAP
from gateway.plugin import AttemptView, MessageView, PartView, PropertyValue

XMIME = "http://www.w3.org/2005/05/xmlmime"
TYPE = "application/soap+xml;charset=UTF-8"
#: A multiple of three: base64 of the pieces is base64 of the whole.
PIECE = 3 * (64 << 10)

_BODY = f'xmlns:ns2="{{}}" xmlns:ns3="{EB}" xmlns:xmime="{XMIME}" xmlns:ns5="{SOAP}"'
_HEAD = f'<soap:Envelope xmlns:soap="{SOAP}">'
_TAIL = "</soap:Envelope>"


def element(name: str, content: str, namespace: str = PLUGIN) -> str:
    """An answer of the body: its children are in no namespace."""
    opening = f"ns2:{name} {_BODY.format(namespace)}"
    return f"<{opening}>{content}</ns2:{name}>" if content else f"<{opening}/>"


def envelope(body: str, header: str = "") -> bytes:
    head = f"<soap:Header>{header}</soap:Header>" if header else ""
    return f"{_HEAD}{head}<soap:Body>{body}</soap:Body>{_TAIL}".encode()


def text(name: str, value: str) -> str:
    return f"<{name}>{escape(value)}</{name}>"


def listed(name: str, ids: Iterable[str], namespace: str = PLUGIN) -> bytes:
    """An answer that is a list of message ids."""
    return envelope(element(name, "".join(text("messageID", id) for id in ids), namespace))


def fault(
    reason: str, *, code: str | None = None, message: str = "", namespace: str = PLUGIN, sender: bool = False
) -> bytes:
    """A SOAP 1.2 fault; with `code` a declared one."""
    detail = ""
    if code is not None:
        inside = text("code", code) + text("message", message)
        detail = f'<soap:Detail><ns2:FaultDetail xmlns:ns2="{namespace}">{inside}</ns2:FaultDetail></soap:Detail>'
    return envelope(
        f"<soap:Fault><soap:Code><soap:Value>soap:{'Sender' if sender else 'Receiver'}</soap:Value></soap:Code>"
        f'<soap:Reason><soap:Text xml:lang="en">{escape(reason)}</soap:Text></soap:Reason>{detail}</soap:Fault>'
    )


def errors(attempts: Iterable[AttemptView], message_id: str, namespace: str = PLUGIN) -> bytes:
    """The error log of a message, one item for each attempt that ended in an error."""
    field = "errorCode" if namespace == OLD else "domibusErrorCode"
    items = []
    for attempt in attempts:
        if attempt.error_code is None:
            continue
        at = moment(attempt.ended_at or attempt.started_at)
        items.append(
            "<item>"
            + text(field, attempt.error_code.replace(":", "_"))
            + text("errorDetail", attempt.error_detail or "")
            + text("messageInErrorId", message_id)
            + text("mshRole", "SENDING")
            + text("notified", at)
            + text("timestamp", at)
            + "</item>"
        )
    return envelope(element("getMessageErrorsResponse", "".join(items), namespace))


def moment(at: datetime) -> str:
    """Milliseconds, UTC, with Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


# -- a retrieved message ------------------------------------------------------------


def messaging(message: MessageView) -> str:
    """The Messaging header of a message that is handed out."""
    opening = f'<ns5:Messaging xmlns:xmime="{XMIME}" xmlns:ns5="{EB}" xmlns:ns4="{PLUGIN}">'
    return f"{opening}{user_message(message)}</ns5:Messaging>"


def user_message(message: MessageView, *, names: Sequence[str] = (), namespace: str = "") -> str:
    """The UserMessage element; `names` are the values of a part property FileName, one for each part."""
    info = _eb("Timestamp", moment(message.timestamp)) + _eb("MessageId", message.message_id)
    if message.ref_to_message_id:
        info += _eb("RefToMessageId", message.ref_to_message_id)
    agreement = ""
    if message.agreement_ref:
        agreement = _eb("AgreementRef", message.agreement_ref, type=message.agreement_type)
    parts = "".join(
        f"<ns5:PartInfo href={quoteattr('cid:' + part.cid)}><ns5:PartProperties>{_part_properties(part)}"
        f"{_properties([PropertyValue('FileName', names[n])]) if names else ''}</ns5:PartProperties></ns5:PartInfo>"
        for n, part in enumerate(message.parts)
    )
    return (
        f"<ns5:UserMessage{namespace} mpc={quoteattr(message.mpc or DEFAULT_MPC)}>"
        f"<ns5:MessageInfo>{info}</ns5:MessageInfo>"
        f"<ns5:PartyInfo><ns5:From>{_party(message.from_party)}</ns5:From><ns5:To>{_party(message.to_party)}</ns5:To>"
        "</ns5:PartyInfo><ns5:CollaborationInfo>"
        + agreement
        + _eb("Service", message.service, type=message.service_type)
        + _eb("Action", message.action)
        + _eb("ConversationId", message.conversation_id)
        + "</ns5:CollaborationInfo>"
        + _group("MessageProperties", _properties(message.properties))
        + _group("PayloadInfo", parts)
        + "</ns5:UserMessage>"
    )


def retrieved_beside(message: MessageView, namespace: str, ids: Sequence[str]) -> bytes:
    """The answer to retrieveMessage whose payloads stand beside it, under these content ids [mtom]."""
    payloads = "".join(
        f"<payload payloadId={quoteattr('cid:' + part.cid)} contentType={quoteattr(part.mime_type)}>"
        f"<value>{include(id)}</value></payload>"
        for part, id in zip(message.parts, ids, strict=True)
    )
    return envelope(element("retrieveMessageResponse", payloads, namespace), messaging(message))


async def encoded(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The content as base64 in one line."""
    rest = b""
    async for block in content:
        octets = rest + block
        ready = len(octets) // PIECE * PIECE
        for start in range(0, ready, PIECE):
            yield base64.b64encode(octets[start : start + PIECE])
        rest = octets[ready:]
    yield base64.b64encode(rest)


async def retrieved(
    message: MessageView, contents: list[tuple[PartView, AsyncIterator[bytes]]], namespace: str
) -> AsyncIterator[bytes]:
    """The answer to retrieveMessage, payloads as base64, as it is made."""
    yield f"{_HEAD}<soap:Header>{messaging(message)}</soap:Header><soap:Body>".encode()
    yield f"<ns2:retrieveMessageResponse {_BODY.format(namespace)}>".encode()
    for part, content in contents:
        attributes = f"payloadId={quoteattr('cid:' + part.cid)} contentType={quoteattr(part.mime_type)}"
        yield f"<payload {attributes}><value>".encode()
        async for text in encoded(content):
            yield text
        yield b"</value></payload>"
    yield f"</ns2:retrieveMessageResponse></soap:Body>{_TAIL}".encode()


def _eb(name: str, value: str, *, type: str | None = None) -> str:
    attribute = f" type={quoteattr(type)}" if type else ""
    return f"<ns5:{name}{attribute}>{escape(value)}</ns5:{name}>"


def _group(name: str, content: str) -> str:
    return f"<ns5:{name}>{content}</ns5:{name}>" if content else ""


def _party(party) -> str:
    return _eb("PartyId", party.id, type=party.type) + _eb("Role", party.role or "")


def _properties(properties: Iterable[PropertyValue]) -> str:
    return "".join(
        f"<ns5:Property name={quoteattr(p.name)}" + (f" type={quoteattr(p.type)}" if p.type else "")
        + f">{escape(p.value)}</ns5:Property>"
        for p in properties
    )  # fmt: skip


def _part_properties(part: PartView) -> str:
    stated = [p for p in part.properties if p.name != "MimeType"]
    return _properties([PropertyValue("MimeType", part.mime_type), *stated])
