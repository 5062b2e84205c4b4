"""Read and write eb:Messaging: from one header element to one message unit, and back [as4 2].

How values are read is told in `fields`; signals are in `signals`. Foreign elements are
passed over where the schema leaves a place open, attributes we do not know everywhere.
Nothing is guessed: a value is taken or the header is refused. What a refusal tells the
peer is a place spelled by us, never a value that was sent.

    InvalidHeader (0009)        missing, repeated or misplaced elements, empty or overlong values,
                                MessageId, Timestamp
    ValueInconsistent (0003)    two UserMessages, two PartyIds, an untyped identifier that is no
                                URI, a PartInfo that names no MIME part
    ExternalPayloadError (0011) a PartInfo that points outside the message
    BundlingError (0030)        units of several kinds in one message [threats B19: our choice]
    InvalidReceipt (0302)       non-repudiation information that says nothing

Writing gives exclusive canonical XML: the octets of the text are what the signature
digests, so nothing is parsed to be signed. Same unit and id, same octets.

Agreements, four-corner and compression rules are not judged here; see `matching`, `policy`.
"""

import re
from urllib.parse import unquote

from gateway.as4 import ns
from gateway.as4.fields import (
    MAX_TEXT,
    MAX_VALUE,
    Sequence,
    attribute,
    eb,
    is_foreign,
    message_info_xml,
    read_message_info,
    token,
    value,
)
from gateway.as4.signals import read_signal, signal_xml
from gateway.as4.units import AgreementRef, MessageUnit, PartInfo, PartyId, Property, Service, UserMessage
from gateway.as4.xml import Element, escaped, parse, quoted
from gateway.errors import BundlingError, ExternalPayloadError, InvalidHeader, ValueInconsistent

#: Limits of lists [threats 1.5]. Parts are counted by `mime`, whose limit is a setting up to this one.
MAX_PROPERTIES = 100
MAX_PARTS = 1000
MAX_SCHEMAS = 16

#: RFC 3986: a scheme, and then only characters that a URI may have.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")

_USER_MESSAGE, _SIGNAL_MESSAGE = eb("UserMessage"), eb("SignalMessage")
_PARTY_ID, _PROPERTY, _PART_INFO, _SCHEMA = eb("PartyId"), eb("Property"), eb("PartInfo"), eb("Schema")
_LANG = ns.qn(ns.XML, "lang")

_MESSAGE = Sequence(
    "eb:UserMessage", "MessageInfo", "PartyInfo", "CollaborationInfo", "MessageProperties?", "PayloadInfo?"
)
_PARTIES = Sequence("eb:PartyInfo", "From", "To")
_FROM = Sequence("eb:From", "PartyId", "Role")
_TO = Sequence("eb:To", "PartyId", "Role")
_COLLABORATION = Sequence("eb:CollaborationInfo", "AgreementRef?", "Service", "Action", "ConversationId")
_PART = Sequence("eb:PartInfo", "Description?", "PartProperties?")


# -- reading -------------------------------------------------------------------------


def read_messaging(messaging: Element) -> MessageUnit:
    """The one message unit in an eb:Messaging element.

    Raises the errors of the table above. The element's own attributes are `soap`'s.
    """
    units: list[Element] = []
    foreign = False
    for child in messaging:
        tag = child.tag
        if tag in (_USER_MESSAGE, _SIGNAL_MESSAGE) and not foreign:
            units.append(child)
        elif is_foreign(tag):
            foreign = True
        else:
            raise InvalidHeader("an element that does not belong here", where="eb:Messaging")
    if not units:
        raise InvalidHeader("no message unit", where="eb:Messaging")
    if len(units) > 1:
        if all(unit.tag == _USER_MESSAGE for unit in units):
            raise ValueInconsistent("more than one UserMessage", where="eb:Messaging/eb:UserMessage")
        raise BundlingError("several message units", where="eb:Messaging")
    return _user_message(units[0]) if units[0].tag == _USER_MESSAGE else read_signal(units[0])


def _user_message(element: Element) -> UserMessage:
    info, parties, collaboration, properties, payload = _MESSAGE.read(element)
    message_id, timestamp, ref_to = read_message_info(info)
    sender, receiver = _PARTIES.read(parties)
    from_party, from_role = _party(sender, _FROM)
    to_party, to_role = _party(receiver, _TO)
    agreement, service, action, conversation = _COLLABORATION.read(collaboration)
    return UserMessage(
        message_id=message_id,
        timestamp=timestamp,
        from_party=from_party,
        from_role=from_role,
        to_party=to_party,
        to_role=to_role,
        service=Service(*_typed(service, "eb:CollaborationInfo/eb:Service")),
        action=token(action, "eb:CollaborationInfo/eb:Action"),
        conversation_id=token(conversation, "eb:CollaborationInfo/eb:ConversationId", empty=True),
        ref_to_message_id=ref_to,
        mpc=attribute(element, "mpc", "eb:UserMessage/@mpc"),
        agreement_ref=None if agreement is None else _agreement(agreement),
        properties=() if properties is None else _properties(properties, "eb:MessageProperties"),
        parts=() if payload is None else _parts(payload),
    )


def _party(element: Element, sequence: Sequence) -> tuple[PartyId, str]:
    if len(element) > 2 and len(element.findall(_PARTY_ID)) > 1:
        raise ValueInconsistent("more than one PartyId", where=f"{sequence.where}/eb:PartyId")
    party_id, role = sequence.read(element)
    return PartyId(*_typed(party_id, f"{sequence.where}/eb:PartyId")), value(role, f"{sequence.where}/eb:Role")


def _typed(element: Element, where: str) -> tuple[str, str | None]:
    """A value and its type; without a type the value must be a URI [as4 2.2]."""
    text, type_ = value(element, where), attribute(element, "type", where)
    if type_ is None and not _URI.fullmatch(text):
        raise ValueInconsistent("neither a type nor a URI", where=where)
    return text, type_


def _agreement(element: Element) -> AgreementRef:
    where = "eb:CollaborationInfo/eb:AgreementRef"
    return AgreementRef(*_typed(element, where), pmode=attribute(element, "pmode", where))


def _properties(parent: Element, where: str) -> tuple[Property, ...]:
    """All of them in their order; a name may come twice [as4 2.2]. A name is taken as it stands.

    The schema wants at least one; some products write the empty element all the same, which
    says nothing [as4 7.13]. So it is with eb:PayloadInfo.
    """
    if len(parent) > MAX_PROPERTIES:
        raise InvalidHeader("too many properties", where=where)
    where = f"{where}/eb:Property"
    found = []
    for child in parent:
        name = child.get("name")
        if child.tag != _PROPERTY or not name or len(name) > MAX_VALUE:
            raise InvalidHeader("not a named property", where=where)
        found.append(Property(name, value(child, where, MAX_TEXT), attribute(child, "type", where)))
    return tuple(found)


def _parts(payload: Element) -> tuple[PartInfo, ...]:
    if len(payload) > MAX_PARTS:
        raise InvalidHeader("too many PartInfo", where="eb:PayloadInfo")
    found, seen = [], set()
    for child in payload:
        if child.tag != _PART_INFO:
            raise InvalidHeader("an element that does not belong here", where="eb:PayloadInfo")
        part = _part(child)
        # Two spellings of one Content-ID are one part, as they are in `mime`.
        key = unquote(part.href[4:]).casefold()
        if key in seen:
            raise ValueInconsistent("two PartInfo for one part", where="eb:PartInfo/@href")
        seen.add(key)
        found.append(part)
    return tuple(found)


def _part(element: Element) -> PartInfo:
    href, schemas = _href(element), []
    children = list(element)
    while len(schemas) < len(children) and children[len(schemas)].tag == _SCHEMA:
        schemas.append(_schema(children[len(schemas)]))
    if len(schemas) > MAX_SCHEMAS:
        raise InvalidHeader("too many", where="eb:PartInfo/eb:Schema")
    description, properties = _PART.read(children[len(schemas) :])
    if description is not None:
        text = value(description, "eb:PartInfo/eb:Description", MAX_TEXT)
        description = (text, attribute(description, _LANG, "eb:PartInfo/eb:Description"))
    properties = () if properties is None else _properties(properties, "eb:PartProperties")
    return PartInfo(href, properties, tuple(schemas), description)


def _href(element: Element) -> str:
    """Only `cid:` names a payload of an eDelivery message [as4 2.2]."""
    where = "eb:PartInfo/@href"
    href = attribute(element, "href", where, MAX_TEXT)
    if href is None or href.startswith("#"):
        raise ValueInconsistent("a payload in the SOAP body", where=where)
    if not href.startswith("cid:"):
        raise ExternalPayloadError("a payload outside the message", where=where)
    if len(href) == 4:
        raise ValueInconsistent("no Content-ID", where=where)
    return href


def _schema(element: Element) -> tuple[str, str | None, str | None]:
    where = "eb:PartInfo/eb:Schema"
    location = attribute(element, "location", where, MAX_TEXT)
    if location is None:
        raise InvalidHeader("no location", where=where)
    return location, attribute(element, "version", where), attribute(element, "namespace", where, MAX_TEXT)


# -- writing -------------------------------------------------------------------------


def write_messaging(unit: MessageUnit, wsu_id: str) -> str:
    """eb:Messaging with `unit`, in exclusive canonical form.

    `wsu_id` is an NCName, unique in the envelope. What the unit says is written as it is;
    whether a peer would take it is asked with `check_sendable` before a message is
    stored for sending. Raises `InvalidHeader` for characters that XML cannot carry.
    """
    content = _user_message_xml(unit) if isinstance(unit, UserMessage) else signal_xml(unit)
    return (
        f'<eb:Messaging xmlns:S12="{ns.S12}" xmlns:eb="{ns.EB}" xmlns:wsu="{ns.WSU}"'
        f' wsu:Id={quoted(wsu_id)} S12:mustUnderstand="true">{content}</eb:Messaging>'
    )


def check_sendable(unit: MessageUnit) -> None:
    """Read `unit` as a peer as strict as we are would read it.

    Raises what the peer would answer, and `ValueInconsistent` where a value would not
    arrive as it is: white space around it, a Timestamp finer than milliseconds.
    """
    if read_messaging(parse(write_messaging(unit, "_").encode())) != unit:
        raise ValueInconsistent("a value would arrive changed", where="eb:Messaging")


def _user_message_xml(m: UserMessage) -> str:
    agreement = ""
    if m.agreement_ref is not None:
        # Attributes in canonical order: pmode, type.
        pmode = "" if m.agreement_ref.pmode is None else f" pmode={quoted(m.agreement_ref.pmode)}"
        type_ = _type_xml(m.agreement_ref.type)
        agreement = f"<eb:AgreementRef{pmode}{type_}>{escaped(m.agreement_ref.value)}</eb:AgreementRef>"
    # Empty MessageProperties and PayloadInfo are not valid and are left out [as4 2.2].
    properties = f"<eb:MessageProperties>{_properties_xml(m.properties)}</eb:MessageProperties>" if m.properties else ""
    payload = f"<eb:PayloadInfo>{''.join(map(_part_xml, m.parts))}</eb:PayloadInfo>" if m.parts else ""
    return (
        f"<eb:UserMessage{'' if m.mpc is None else f' mpc={quoted(m.mpc)}'}>"
        f"{message_info_xml(m.message_id, m.timestamp, m.ref_to_message_id)}"
        f"<eb:PartyInfo><eb:From>{_party_xml(m.from_party, m.from_role)}</eb:From>"
        f"<eb:To>{_party_xml(m.to_party, m.to_role)}</eb:To></eb:PartyInfo><eb:CollaborationInfo>{agreement}"
        f"<eb:Service{_type_xml(m.service.type)}>{escaped(m.service.value)}</eb:Service>"
        f"<eb:Action>{escaped(m.action)}</eb:Action>"
        f"<eb:ConversationId>{escaped(m.conversation_id)}</eb:ConversationId></eb:CollaborationInfo>"
        f"{properties}{payload}</eb:UserMessage>"
    )


def _party_xml(party: PartyId, role: str) -> str:
    return f"<eb:PartyId{_type_xml(party.type)}>{escaped(party.value)}</eb:PartyId><eb:Role>{escaped(role)}</eb:Role>"


def _type_xml(type_: str | None) -> str:
    return "" if type_ is None else f" type={quoted(type_)}"


def _properties_xml(properties: tuple[Property, ...]) -> str:
    return "".join(
        f"<eb:Property name={quoted(p.name)}{_type_xml(p.type)}>{escaped(p.value)}</eb:Property>" for p in properties
    )


def _part_xml(part: PartInfo) -> str:
    schemas = "".join(map(_schema_xml, part.schema))
    description = ""
    if part.description is not None:
        text, language = part.description
        # xml:lang is required, and Domibus stumbles over an empty one [as4 7.18].
        description = f"<eb:Description xml:lang={quoted(language or 'en')}>{escaped(text)}</eb:Description>"
    properties = f"<eb:PartProperties>{_properties_xml(part.properties)}</eb:PartProperties>" if part.properties else ""
    href = "" if part.href is None else f" href={quoted(part.href)}"
    return f"<eb:PartInfo{href}>{schemas}{description}{properties}</eb:PartInfo>"


def _schema_xml(schema: tuple[str, str | None, str | None]) -> str:
    location, version, namespace = schema
    namespace = "" if namespace is None else f" namespace={quoted(namespace)}"
    version = "" if version is None else f" version={quoted(version)}"
    return f"<eb:Schema location={quoted(location)}{namespace}{version}></eb:Schema>"
