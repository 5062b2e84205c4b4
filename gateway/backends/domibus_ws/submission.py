"""A Messaging header and what stands in the body become a `plugin.Submission`."""

from msgspec import Struct

from gateway.backends.domibus_ws import faults
from gateway.backends.domibus_ws.reading import Node, Payload, cid_of
from gateway.plugin import PartSubmission, PartyRef, PropertyValue, Submission

MAX_PARTS = 64


class Wanted(Struct, frozen=True):
    """What to submit, and under which name each part's content is held."""

    submission: Submission
    contents: tuple[str, ...]


def wanted(header: Node | None, payloads: list[Payload], attachments: set[str]) -> Wanted:
    """Raises `Fault`, in the order in which Domibus judges a request."""
    user_message = header.find("UserMessage") if header is not None else None
    if user_message is None:
        raise faults.refused("EBMS:0009", "InvalidHeader", "Mandatory field UserMessage is not provided.")
    for payload in payloads:
        if payload.kind == "payload" and not payload.id:
            raise faults.no_payload_id()
        if payload.kind == "bodyload" and payload.id is not None:
            raise faults.bodyload_with_id()
    parts, contents = _parts(user_message.find("PayloadInfo"), payloads, attachments)
    info = user_message.find("MessageInfo")
    collaboration = _needed(user_message, "CollaborationInfo")
    parties = _needed(user_message, "PartyInfo")
    agreement, service = collaboration.find("AgreementRef"), _needed(collaboration, "Service")
    submission = Submission(
        from_party=_party(parties, "From"),
        to_party=_party(parties, "To"),
        service=_filled(service.text, "Service"),
        service_type=service.get("type") or None,
        action=_filled(collaboration.text_of("Action"), "Action"),
        agreement_ref=_trimmed(agreement.text) if agreement is not None else None,
        agreement_type=agreement.get("type") or None if agreement is not None and _trimmed(agreement.text) else None,
        # Absent: one is made. Present and empty: it is sent empty.
        conversation_id=(collaboration.text_of("ConversationId") or "").strip()
        if collaboration.find("ConversationId") is not None
        else None,
        message_id=_trimmed(info.text_of("MessageId")) if info is not None else None,
        ref_to_message_id=_trimmed(info.text_of("RefToMessageId")) if info is not None else None,
        properties=_properties(user_message.find("MessageProperties")),
        parts=tuple(parts),
    )
    return Wanted(submission, tuple(contents))


def _party(parties: Node, which: str) -> PartyRef:
    side = _needed(parties, which)
    party = side.find("PartyId")
    if party is None or not party.text.strip():
        raise _missing(f"{which}/PartyId")
    return PartyRef(party.text.strip(), party.get("type") or None, _filled(side.text_of("Role"), f"{which}/Role"))


def _parts(
    payload_info: Node | None, payloads: list[Payload], attachments: set[str]
) -> tuple[list[PartSubmission], list[str]]:
    parts: list[PartSubmission] = []
    contents: list[str] = []
    for part_info in payload_info.all("PartInfo") if payload_info is not None else ():
        href = _trimmed(part_info.get("href"))
        properties = _part_properties(part_info)
        path = next((p.value for p in properties if p.name.lower() == "filepath"), None)
        if path is not None:
            raise faults.file_path(path)
        payload = _payload_of(href, payloads)
        stated = next((p.value for p in properties if p.name == "MimeType"), None)
        parts.append(
            PartSubmission(
                mime_type=stated or payload.content_type or "text/xml",
                cid=cid_of(href) if href else None,
                properties=tuple(p for p in properties if p.name != "MimeType"),
            )
        )
        contents.append(_content_of(payload, attachments))
        if len(parts) > MAX_PARTS:
            raise faults.refused("EBMS:0003", "ValueInconsistent", f"more than {MAX_PARTS} payloads")
    return parts, contents


def _part_properties(part_info: Node) -> tuple[PropertyValue, ...]:
    element = part_info.find("PartProperties")
    if element is not None and not element.all("Property"):
        raise faults.empty_properties()
    return _properties(element)


def _payload_of(href: str | None, payloads: list[Payload]) -> Payload:
    """The payload whose id is `href`, in whatever case; the bodyload for a part without one."""
    if href is not None:
        found = next((p for p in payloads if p.kind == "payload" and (p.id or "").lower() == href.lower()), None)
        if found is not None:
            return found
        if any(p.kind == "bodyload" for p in payloads):
            raise faults.no_payload_for(href)
        raise faults.nothing_for(href)
    found = next((p for p in payloads if p.kind == "bodyload"), None)
    if found is None:
        raise faults.nothing_for("null")
    return found


def _content_of(payload: Payload, attachments: set[str]) -> str:
    if payload.cid is None:
        return payload.key
    if payload.cid not in attachments:
        raise faults.nothing_for(f"cid:{payload.cid}")
    return f"cid:{payload.cid}"


def _properties(element: Node | None) -> tuple[PropertyValue, ...]:
    found = element.all("Property") if element is not None else ()
    return tuple(PropertyValue(p.get("name") or "", p.text.strip(), p.get("type") or None) for p in found)


def _trimmed(text: str | None) -> str | None:
    return (text or "").strip() or None


def _needed(node: Node, name: str) -> Node:
    found = node.find(name)
    if found is None:
        raise _missing(name)
    return found


def _filled(text: str | None, name: str) -> str:
    found = _trimmed(text)
    if found is None:
        raise _missing(name)
    return found


def _missing(name: str) -> faults.Fault:
    return faults.refused("EBMS:0009", "InvalidHeader", f"Mandatory field {name} is not provided.")
