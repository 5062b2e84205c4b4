"""Requests in the shapes that clients send, made by hand."""

import base64

SOAP = "http://www.w3.org/2003/05/soap-envelope"
EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
PLUGIN = "http://eu.domibus.wsplugin/"
OLD = "http://org.ecodex.backend/1_1/"
LV = 'type="urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"'
EE = 'type="urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"'
ROLE = "http://sdg.europa.eu/edelivery/gateway"
PROPERTIES = (
    f'<eb:Property name="originalSender" {LV}>C1</eb:Property><eb:Property name="finalRecipient" {EE}>C4</eb:Property>'
    '<eb:Property name="ExchangeId">c6d1a9b2-3a57-4c1e-b0d4-9f2200000020</eb:Property>'
    '<eb:Property name="SpecificationId">oots-edm:v2.0</eb:Property>'
)
PART = '<eb:PartInfo href="cid:message"><eb:PartProperties><eb:Property name="MimeType">application/x-ebrs+xml</eb:Property></eb:PartProperties></eb:PartInfo>'


def messaging(*, info="", parts=PART, to="AP_EE_01", sender="AP_LV_01", service="QueryManager",
              service_type="urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0", action="ExecuteQueryRequest",
              conversation="<eb:ConversationId>c1</eb:ConversationId>", agreement="", properties=PROPERTIES, role=ROLE):
    payload_info = f"<eb:PayloadInfo>{parts}</eb:PayloadInfo>" if parts is not None else ""
    return (
        f'<eb:Messaging xmlns:eb="{EB}"><eb:UserMessage>{info}<eb:PartyInfo>'
        f"<eb:From><eb:PartyId {LV}>{sender}</eb:PartyId><eb:Role>{role}</eb:Role></eb:From>"
        f"<eb:To><eb:PartyId {EE}>{to}</eb:PartyId><eb:Role>{role}</eb:Role></eb:To></eb:PartyInfo>"
        f'<eb:CollaborationInfo>{agreement}<eb:Service type="{service_type}">{service}</eb:Service>'
        f"<eb:Action>{action}</eb:Action>{conversation}</eb:CollaborationInfo>"
        f"<eb:MessageProperties>{properties}</eb:MessageProperties>{payload_info}</eb:UserMessage></eb:Messaging>"
    )


def message_id(id):
    return f"<eb:MessageInfo><eb:MessageId>{id}</eb:MessageId></eb:MessageInfo>"


def envelope(body, header="", *, prefix="s"):
    head = f"<{prefix}:Header>{header}</{prefix}:Header>" if header else ""
    return f'<{prefix}:Envelope xmlns:{prefix}="{SOAP}">{head}<{prefix}:Body>{body}</{prefix}:Body></{prefix}:Envelope>'.encode()


def operation(name, content="", *, namespace=PLUGIN, attributes=""):
    return envelope(f'<w:{name} xmlns:w="{namespace}" {attributes}>{content}</w:{name}>')


def payload(content=b"<query/>", *, id="cid:message", content_type="application/x-ebrs+xml", value=None, kind="payload"):
    inside = base64.b64encode(content).decode() if value is None else value
    name = f' payloadId="{id}"' if id is not None else ""
    kind_of = f' contentType="{content_type}"' if content_type else ""
    return f"<{kind}{name}{kind_of}><value>{inside}</value></{kind}>"


def submit(*payloads, namespace=PLUGIN, **header):
    return envelope(
        f'<w:submitRequest xmlns:w="{namespace}">{"".join(payloads or (payload(),))}</w:submitRequest>', messaging(**header)
    )


def related(root, *attachments, boundary="b0", root_type='application/xop+xml; charset=UTF-8; type="application/soap+xml"',
            encoding="binary", first=True):
    """(Content-Type, octets) of a multipart/related; attachments are (header cid, content)."""
    head = f'--{boundary}\r\nContent-Type: {root_type}\r\nContent-ID: <root@x>\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
    parts = [head.encode() + root]
    for cid, content in attachments:
        head = f"--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-ID: {cid}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        parts.append(head.encode() + content)
    if not first:
        parts.reverse()
    octets = b"\r\n".join(parts) + f"\r\n--{boundary}--\r\n".encode()
    return f'multipart/related; type="application/xop+xml"; boundary="{boundary}"; start="<root@x>"', octets


def include(cid):
    return f'<xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="cid:{cid}"/>'
