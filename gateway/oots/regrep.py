"""Reading RegRep 4: from bytes to a root element, and from a slot to its value.

A *slot* is `rim:Slot[@name]/rim:SlotValue[@xsi:type]` [oots 3.1]. Everything is bound by
namespace, never by prefix. Reading is tolerant and bounded: what is missing, empty or
endless is None. Elements are for the caller's own call only, as `gateway.as4.xml` demands.
"""

import re
from datetime import UTC, datetime

from gateway.as4 import xml
from gateway.as4.ns import qn
from gateway.errors import GatewayError
from gateway.oots import codes

#: A document of the samples has 9 kB; an answer with the most parts a message can have some 100 kB.
#: The worst a peer can make of this costs less than a tenth of a second (measured).
MAX_DOCUMENT = 1 << 20
#: Samples have one or two; a million would cost more than all the rest of the document.
MAX_INSTRUCTIONS = 1000
#: Identifiers and locations have at most 256 characters [tdd 4.5.1]; `detail` is prose.
MAX_VALUE = 1024

_OPENING = re.compile(rb"<!--|<!\[CDATA\[|<\?(?!xml[\s?])")
_CLOSING = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}


_SLOT, _SLOT_VALUE, _VALUE = (qn(codes.RIM, name) for name in ("Slot", "SlotValue", "Value"))

#: SlotValue elements by the name of their slot; None where a slot has no value.
Slots = dict[str, xml.Element | None]


class EdmUnreadable(GatewayError):
    """The document is not an exchange document, or not XML we take."""


def parse(octets: bytes, charset: str | None = None) -> xml.Element:
    """The root element of a document of at most `MAX_DOCUMENT` octets. Raises `EdmUnreadable`."""
    if len(octets) > MAX_DOCUMENT:
        raise EdmUnreadable("larger than an exchange document may be")
    try:
        if octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
            octets = _without_instructions(octets.decode("utf-16").encode()).decode().encode("utf-16")
        else:
            octets = _without_instructions(octets)
        return xml.parse(octets, charset=charset)
    except UnicodeError:
        raise EdmUnreadable("broken UTF-16") from None
    except xml.XmlRefused as refused:
        raise EdmUnreadable(refused.detail) from None


def child(element: xml.Element | None, tag: str) -> xml.Element | None:
    """The first child with that tag."""
    return next(element.iterchildren(tag), None) if element is not None else None


def slots(element: xml.Element | None) -> Slots:
    """The SlotValue of every slot directly below `element`, by name; of several with one name the first."""
    found: Slots = {}
    for slot in element.iterchildren(_SLOT) if element is not None else ():
        name = (slot.get("name") or "").strip()
        if name not in found:
            found[name] = child(slot, _SLOT_VALUE)
    return found


def value(slots: Slots, name: str) -> str | None:
    """The rim:Value of a slot of simple type."""
    return content(child(slots.get(name), _VALUE))


def content(element: xml.Element | None) -> str | None:
    """The text of an element."""
    return _bounded(element.text) if element is not None else None


def attribute(element: xml.Element | None, name: str) -> str | None:
    return _bounded(element.get(name)) if element is not None else None


def xsi_type(element: xml.Element) -> str | None:
    """@xsi:type as `{namespace}name`; None when there is none or its prefix is bound to nothing."""
    prefix, colon, local = (attribute(element, qn(codes.XSI, "type")) or "").rpartition(":")
    namespace = element.nsmap.get(prefix if colon else None)
    if namespace:
        return qn(namespace, local)
    return local or None if not colon else None


def boolean(text: str | None) -> bool | None:
    """xs:boolean."""
    return {"true": True, "1": True, "false": False, "0": False}.get(text or "")


def moment(text: str | None) -> datetime | None:
    """xs:dateTime as aware UTC; a time without a zone is taken for UTC."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _bounded(text: str | None) -> str | None:
    """Trimmed, because official samples pad values with line breaks. An endless value counts as none."""
    text = text.strip() if text else None
    return text if text and len(text) <= MAX_VALUE else None


def _without_instructions(text: bytes) -> bytes:
    """The document without processing instructions: official samples carry one, the XML door
    refuses them. One linear pass, because a peer chose the bytes."""
    kept, at = [], 0
    while opening := _OPENING.search(text, at):
        if len(kept) == MAX_INSTRUCTIONS:
            raise EdmUnreadable("too many comments, CDATA sections or processing instructions")
        closing = _CLOSING[opening[0]]
        end = text.find(closing, opening.end())
        if end < 0:
            raise EdmUnreadable("a comment, CDATA section or processing instruction never ends")
        end += len(closing)
        kept.append(text[at : opening.start() if opening[0] == b"<?" else end])
        at = end
    bare = b"".join(kept) + text[at:]
    # The door would look for these outside comments; no exchange document has them anywhere.
    if b"<!DOCTYPE" in bare or b"<!ENTITY" in bare:
        raise EdmUnreadable("a document type declaration is not allowed")
    return bare
