"""The contracts: of the WS plugin, of the old interface, and of the service a backend offers for pushes.

Made from a table of operations and our own description of the types, so that the code and
the contract cannot say different things. Names, forms and order are those clients were
generated from: body children unqualified, the Messaging header qualified.
"""

from typing import Literal
from xml.sax.saxutils import quoteattr

from msgspec import Struct

from gateway.backends.domibus_ws.names import EB, OLD, PLUGIN, STATUSES

PUSH = "eu.domibus"
_XSD, _WSDL, _SOAP12 = "http://www.w3.org/2001/XMLSchema", "http://schemas.xmlsoap.org/wsdl/", "http://schemas.xmlsoap.org/wsdl/soap12/"
_XMIME = "http://www.w3.org/2005/05/xmlmime"

Kind = Literal["current", "old", "push"]


class Operation(Struct, frozen=True):
    """An operation: elements of request and answer ("" is an empty message), the fault, and headers."""

    name: str
    request: str
    answer: str
    fault: str = ""
    header_in: bool = False
    header_out: bool = False


CURRENT = (
    Operation("submitMessage", "submitRequest", "submitResponse", "SubmitMessageFault", header_in=True),
    Operation("retrieveMessage", "retrieveMessageRequest", "retrieveMessageResponse", "RetrieveMessageFault", header_out=True),
    Operation("markMessageAsDownloaded", "markMessageAsDownloadedRequest", "markMessageAsDownloadedResponse",
              "MarkMessageAsDownloadedFault"),
    Operation("listPendingMessages", "listPendingMessagesRequest", "listPendingMessagesResponse", "ListPendingMessagesFault"),
    Operation("listPushFailedMessages", "listPushFailedMessagesRequest", "listPushFailedMessagesResponse",
              "ListPushFailedMessagesFault"),
    Operation("rePushFailedMessages", "rePushFailedMessagesRequest", "", "RePushFailedMessagesFault"),
    Operation("getStatus", "statusRequest", "getStatusResponse", "StatusFault"),
    Operation("getStatusWithAccessPointRole", "statusRequestWithAccessPointRole", "getStatusResponse", "StatusFault"),
    Operation("getMessageErrors", "getErrorsRequest", "getMessageErrorsResponse", "GetMessageErrorsFault"),
    Operation("getMessageErrorsWithAccessPointRole", "getErrorsRequestWithAccessPointRole", "getMessageErrorsResponse",
              "GetMessageErrorsFault"),
)  # fmt: skip
OLD_ONES = (
    Operation("submitMessage", "submitRequest", "submitResponse", "SendMessageFault", header_in=True),
    Operation("retrieveMessage", "retrieveMessageRequest", "retrieveMessageResponse", "DownloadMessageFault", header_out=True),
    Operation("listPendingMessages", "listPendingMessagesRequest", "listPendingMessagesResponse", "ListPendingMessagesFault"),
    Operation("getStatus", "getStatusRequest", "getStatusResponse", "StatusFault"),
    Operation("getMessageErrors", "getErrorsRequest", "getMessageErrorsResponse", "GetMessageErrorsFault"),
)  # fmt: skip
PUSHES = (
    Operation("submitMessage", "submitRequest", "", "SubmitMessageFault", header_in=True),
    Operation("receiveSuccess", "receiveSuccess", "", "ReceiveSuccessFault"),
    Operation("receiveFailure", "receiveFailure", "", "ReceiveFailureFault"),
    Operation("sendSuccess", "sendSuccess", "", "SendSuccessFault"),
    Operation("sendFailure", "sendFailure", "", "SendFailureFault"),
    Operation("messageStatusChange", "messageStatusChange", "", "MessageStatusChangeFault"),
    Operation("delete", "delete", "", "DeleteFault"),
    Operation("deleteBatch", "deleteBatch", "", "DeleteBatchFault"),
)


def wsdl(kind: Kind, *, location: str = "http://localhost/services/wsplugin") -> str:
    """One self-contained WSDL 1.1 document, SOAP 1.2, document/literal."""
    namespace, service, port, port_type, binding, operations = {
        "current": (PLUGIN, "WebServicePlugin", "WEBSERVICEPLUGIN_PORT", "WebServicePluginInterface",
                    "WebServicePlugin_SoapBinding", CURRENT),
        "old": (OLD, "BackendService_1_1", "BACKEND_PORT", "BackendInterface", "BackendService_1_1SoapBinding", OLD_ONES),
        "push": (PUSH, "BackendService", "BACKEND_PORT", "BackendInterface", "BackendService_SoapBinding", PUSHES),
    }[kind]  # fmt: skip
    messaging = "tns:Messaging" if kind == "push" else "eb:Messaging"
    detail = "BackendFaultDetail" if kind == "push" else "FaultDetail"
    types = _schemas(kind, namespace)
    parts = [
        f'<wsdl:definitions xmlns:wsdl="{_WSDL}" xmlns:xsd="{_XSD}" xmlns:soap12="{_SOAP12}" xmlns:eb="{EB}" '
        f'xmlns:tns="{namespace}" name="{service}" targetNamespace="{namespace}">',
        f"<wsdl:types>{types}</wsdl:types>",
        f'<wsdl:message name="Header"><wsdl:part name="ebMSHeaderInfo" element="{messaging}"/></wsdl:message>',
        '<wsdl:message name="Nothing"/>',
        f'<wsdl:message name="FaultMessage"><wsdl:part name="{detail}" element="tns:{detail}"/></wsdl:message>',
    ]
    for name in dict.fromkeys(element for o in operations for element in (o.request, o.answer) if element):
        parts.append(f'<wsdl:message name="{name}Message"><wsdl:part name="{name}" element="tns:{name}"/></wsdl:message>')
    parts.append(f'<wsdl:portType name="{port_type}">')
    for o in operations:
        answer = f"{o.answer}Message" if o.answer else "Nothing"
        parts.append(
            f'<wsdl:operation name="{o.name}"><wsdl:input message="tns:{o.request}Message"/>'
            f'<wsdl:output message="tns:{answer}"/><wsdl:fault name="{o.fault}" message="tns:FaultMessage"/></wsdl:operation>'
        )
    parts.append(f'</wsdl:portType><wsdl:binding name="{binding}" type="tns:{port_type}">')
    parts.append('<soap12:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>')
    header = '<soap12:header message="tns:Header" part="ebMSHeaderInfo" use="literal"/>'
    for o in operations:
        parts.append(
            f'<wsdl:operation name="{o.name}"><soap12:operation soapAction="" style="document"/>'
            f'<wsdl:input>{header if o.header_in else ""}<soap12:body use="literal"/></wsdl:input>'
            f'<wsdl:output>{header if o.header_out else ""}<soap12:body use="literal"/></wsdl:output>'
            f'<wsdl:fault name="{o.fault}"><soap12:fault name="{o.fault}" use="literal"/></wsdl:fault></wsdl:operation>'
        )
    parts.append(
        f'</wsdl:binding><wsdl:service name="{service}"><wsdl:port name="{port}" binding="tns:{binding}">'
        f"<soap12:address location={quoteattr(location)}/></wsdl:port></wsdl:service></wsdl:definitions>"
    )
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "\n".join(parts) + "\n"


# -- types ------------------------------------------------------------------------


def _schemas(kind: Kind, namespace: str) -> str:
    header = "" if kind == "push" else _schema(EB, _messaging("eb", extension=kind == "current"), qualified=True, eb=True)
    body = {"current": _current, "old": _old, "push": _push}[kind]()
    return header + _schema(namespace, body, qualified=False, eb=kind != "push")


def _schema(namespace: str, content: str, *, qualified: bool, eb: bool) -> str:
    form = "qualified" if qualified else "unqualified"
    prefix = f'xmlns:eb="{EB}" ' if eb and namespace != EB else ""
    own = "eb" if namespace == EB else "tns"
    return (
        f'<xsd:schema xmlns:xsd="{_XSD}" xmlns:xmime="{_XMIME}" {prefix}xmlns:{own}="{namespace}" targetNamespace="{namespace}" '
        f'elementFormDefault="{form}" attributeFormDefault="unqualified">{content}</xsd:schema>'
    )


def _text(name: str, longest: int = 255) -> str:
    return (
        f'<xsd:simpleType name="{name}"><xsd:restriction base="xsd:string"><xsd:minLength value="1"/>'
        f'<xsd:maxLength value="{longest}"/></xsd:restriction></xsd:simpleType>'
    )


def _valued(name: str, base: str, *attributes: str) -> str:
    """Text with attributes."""
    return (
        f'<xsd:complexType name="{name}"><xsd:simpleContent><xsd:extension base="{base}">'
        + "".join(attributes)
        + "</xsd:extension></xsd:simpleContent></xsd:complexType>"
    )


def _attribute(name: str, type: str, *, required: bool = False, default: str | None = None) -> str:
    more = ' use="required"' if required else f' default="{default}"' if default is not None else ""
    return f'<xsd:attribute name="{name}" type="{type}"{more}/>'


def _element(name: str, type: str, *, least: int = 1, most: str = "1", nillable: bool = False, attributes: str = "") -> str:
    bounds = ("" if least == 1 else f' minOccurs="{least}"') + ("" if most == "1" else f' maxOccurs="{most}"')
    return f'<xsd:element name="{name}" type="{type}"{bounds}{" nillable=" + chr(34) + "true" + chr(34) if nillable else ""}{attributes}/>'


def _complex(name: str | None, content: str, attributes: str = "", *, group: str = "sequence") -> str:
    named = f' name="{name}"' if name else ""
    inner = f"<xsd:{group}>{content}</xsd:{group}>" if content else ""
    return f"<xsd:complexType{named}>{inner}{attributes}</xsd:complexType>"


def _global(name: str, content: str, attributes: str = "") -> str:
    return f'<xsd:element name="{name}">{_complex(None, content, attributes)}</xsd:element>'


def _messaging(p: str, *, extension: bool) -> str:
    """The Messaging header: the plugin's own part of the ebMS header, children in any order."""
    processing = _element("ProcessingType", f"{p}:ProcessingType", least=0) if extension else ""
    part_info = "" if extension else _element("Schema", "xsd:anyType", least=0) + _element("Description", "xsd:anyType", least=0)
    kinds = "".join(f'<xsd:enumeration value="{v}"/>' for v in ("PUSH", "PULL"))
    return "".join((
        f'<xsd:element name="Messaging" type="{p}:Messaging"/>',
        _complex("Messaging", _element("UserMessage", f"{p}:UserMessage", least=0), _attribute("mustUnderstand", "xsd:boolean")
                 + '<xsd:anyAttribute namespace="##other" processContents="lax"/>'),
        _complex("UserMessage",
                 _element("MessageInfo", f"{p}:MessageInfo", least=0) + _element("PartyInfo", f"{p}:PartyInfo")
                 + _element("CollaborationInfo", f"{p}:CollaborationInfo")
                 + _element("MessageProperties", f"{p}:MessageProperties", least=0)
                 + _element("PayloadInfo", f"{p}:PayloadInfo", least=0) + processing,
                 _attribute("mpc", "xsd:anyURI"), group="all"),
        (f'<xsd:simpleType name="ProcessingType"><xsd:restriction base="xsd:string">{kinds}</xsd:restriction></xsd:simpleType>'
         if extension else ""),
        _text("text"), _text("text1024", 1024),
        _complex("MessageInfo", _element("Timestamp", "xsd:dateTime", least=0) + _element("MessageId", f"{p}:text", least=0)
                 + _element("RefToMessageId", f"{p}:text", least=0), group="all"),
        _complex("PartyInfo", _element("From", f"{p}:Side") + _element("To", f"{p}:Side", least=0), group="all"),
        _complex("Side", _element("PartyId", f"{p}:PartyId") + _element("Role", f"{p}:text")),
        _valued("PartyId", f"{p}:text", _attribute("type", f"{p}:text")),
        _complex("CollaborationInfo",
                 _element("AgreementRef", f"{p}:AgreementRef", least=0) + _element("Service", f"{p}:Service")
                 + _element("Action", "xsd:token") + _element("ConversationId", "xsd:token", least=0)),
        _valued("AgreementRef", "xsd:string", _attribute("type", "xsd:string"), _attribute("pmode", "xsd:string")),
        _valued("Service", f"{p}:text", _attribute("type", f"{p}:text")),
        _complex("MessageProperties", _element("Property", f"{p}:Property", most="unbounded")),
        _complex("PartProperties", _element("Property", f"{p}:Property", most="unbounded")),
        _valued("Property", f"{p}:text1024", _attribute("name", f"{p}:text", required=True), _attribute("type", f"{p}:text")),
        _complex("PayloadInfo", _element("PartInfo", f"{p}:PartInfo", most="unbounded")),
        _complex("PartInfo", part_info + _element("PartProperties", f"{p}:PartProperties", least=0), _attribute("href", "xsd:token")),
    ))  # fmt: skip


def _payload(*more: str) -> str:
    return (
        _complex("LargePayloadType",
                 _element("value", "xsd:base64Binary", attributes=' xmime:expectedContentTypes="application/octet-stream"'),
                 _attribute("payloadId", "xsd:token") + _attribute("contentType", "xsd:string")
                 + "".join(_attribute(name, "xsd:string") for name in more))
    )  # fmt: skip


def _fault(name: str, p: str = "xsd") -> str:
    return _global(name, _element("code", "xsd:string") + _element("message", "xsd:string", least=0, nillable=True))


def _statuses() -> str:
    values = "".join(f'<xsd:enumeration value="{status}"/>' for status in STATUSES)
    return f'<xsd:simpleType name="messageStatus"><xsd:restriction base="xsd:string">{values}</xsd:restriction></xsd:simpleType>'


def _errors(field: str) -> str:
    return "".join((
        _complex("errorResultImpl",
                 _element(field, "xsd:string", least=0) + _element("errorDetail", "xsd:string", least=0)
                 + _element("messageInErrorId", "xsd:string", least=0) + _element("mshRole", "tns:mshRole", least=0)
                 + _element("notified", "xsd:dateTime", least=0) + _element("timestamp", "xsd:dateTime", least=0)),
        '<xsd:simpleType name="mshRole"><xsd:restriction base="xsd:string"><xsd:enumeration value="SENDING"/>'
        '<xsd:enumeration value="RECEIVING"/></xsd:restriction></xsd:simpleType>',
        _complex("errorResultImplArray", _element("item", "tns:errorResultImpl", least=0, most="unbounded", nillable=True)),
        '<xsd:element name="getMessageErrorsResponse" type="tns:errorResultImplArray"/>',
        '<xsd:element name="getStatusResponse" type="tns:messageStatus"/>',
    ))  # fmt: skip


def _transfer() -> str:
    content = _element("bodyload", "tns:LargePayloadType", least=0) + _element(
        "payload", "tns:LargePayloadType", least=0, most="unbounded", nillable=True
    )
    ids = _element("messageID", "xsd:string", least=0, most="unbounded")
    return (
        _global("submitRequest", content)
        + _global("retrieveMessageResponse", content)
        + _global("listPendingMessagesResponse", ids)
    )


def _by_id(name: str, role: bool = False) -> str:
    more = _element("accessPointRole", "tns:mshRole") if role else ""
    return _global(name, _element("messageID", "tns:max255-non-empty-string") + more)


def _filters(name: str, *extra: str) -> str:
    names = ("messageId", *extra)
    return _global(
        name,
        "".join(_element(n, "xsd:string", least=0) for n in (*names, "finalRecipient", "originalSender"))
        + _element("receivedFrom", "xsd:dateTime", least=0)
        + _element("receivedTo", "xsd:dateTime", least=0),
    )


def _current() -> str:
    id = _element("messageID", "tns:max255-non-empty-string", nillable=True)
    return "".join((
        _text("max255-non-empty-string"), _payload(), _transfer(), _statuses(), _errors("domibusErrorCode"),
        _global("submitResponse", _element("messageID", "xsd:string", least=0, most="unbounded")
                + _element("messageEntityID", "xsd:string", least=0)),
        _global("retrieveMessageRequest", id, _attribute("markAsDownloaded", "xsd:string", default="true")),
        _by_id("markMessageAsDownloadedRequest"), _by_id("markMessageAsDownloadedResponse"),
        _filters("listPendingMessagesRequest", "conversationId", "refToMessageId", "fromPartyId"),
        _filters("listPushFailedMessagesRequest"),
        _global("listPushFailedMessagesResponse", _element("messageID", "xsd:string", least=0, most="unbounded")),
        _global("rePushFailedMessagesRequest", _element("messageID", "xsd:string", least=0, most="unbounded")),
        _by_id("statusRequest"), _by_id("statusRequestWithAccessPointRole", role=True),
        _by_id("getErrorsRequest"), _by_id("getErrorsRequestWithAccessPointRole", role=True),
        # Nobody uses them, but clients were generated with them.
        _by_id("messageErrorsRequest"), _by_id("messageErrorsRequestWithAccessPointRole", role=True),
        _by_id("messageStatusRequest"),
        _valued("PayloadType", "xsd:base64Binary", _attribute("payloadId", "xsd:token")),
        _complex("PayloadURLType", "", _attribute("payloadId", "xsd:token")),
        _fault("FaultDetail"),
    ))  # fmt: skip


def _old() -> str:
    return "".join((
        _text("max255-non-empty-string"), _payload(), _transfer(), _statuses(), _errors("errorCode"),
        _global("submitResponse", _element("messageID", "xsd:string", least=0, most="unbounded")),
        _by_id("retrieveMessageRequest"),
        '<xsd:element name="listPendingMessagesRequest" type="xsd:anyType"/>',
        _by_id("getStatusRequest"), _by_id("getErrorsRequest"), _fault("FaultDetail"),
    ))  # fmt: skip


def _push() -> str:
    id = _element("messageID", "xsd:string")
    return "".join((
        _messaging("tns", extension=True), _payload("mimeType", "payloadName"), _statuses(),
        _global("submitRequest", _element("bodyload", "tns:LargePayloadType", least=0)
                + _element("payload", "tns:LargePayloadType", least=0, most="unbounded", nillable=True)),
        *(_global(name, id) for name in ("receiveSuccess", "receiveFailure", "sendSuccess", "sendFailure", "delete")),
        _global("messageStatusChange", id + _element("messageStatus", "tns:messageStatus")),
        _global("deleteBatch", _element("messageIds", "xsd:string", least=0, most="unbounded")),
        _fault("BackendFaultDetail"),
    ))  # fmt: skip


__all__ = ["CURRENT", "OLD_ONES", "PUSHES", "Kind", "wsdl"]
