"""The shape of envelopes: what is found, what is refused, and what we write."""

import hashlib
import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4 import ns, soap
from gateway.as4.header import read_messaging
from gateway.as4.soap import MustUnderstandFault, SoapFault, VersionMismatchFault, claim, read_envelope
from gateway.as4.units import PullRequest
from gateway.as4.xml import XmlRefused, canonical, parse, text_of
from gateway.errors import InvalidHeader, ValueInconsistent

VECTORS = Path(__file__).parents[2] / "vectors/phase4-4.5.4-wire"
SHARED = Path(__file__).parents[4] / "shared/vectors"
ENVELOPE = re.compile(rb"<(\w+:)?Envelope.*?</(\w+:)?Envelope>", re.S)

NAMESPACES = (
    f'xmlns:S12="{ns.S12}" xmlns:eb="{ns.EB}" xmlns:wsse="{ns.WSSE}" xmlns:wsu="{ns.WSU}" xmlns:ds="{ns.DS}"'
    ' xmlns:x="urn:x"'
)
INFO = (
    "<eb:MessageInfo><eb:Timestamp>2026-01-01T00:00:00Z</eb:Timestamp><eb:MessageId>m@x</eb:MessageId></eb:MessageInfo>"
)
PULL = f"<eb:SignalMessage>{INFO}<eb:PullRequest/></eb:SignalMessage>"
ERROR = f'<eb:SignalMessage>{INFO}<eb:Error errorCode="EBMS:0004" severity="failure"/></eb:SignalMessage>'
MESSAGING = f'<eb:Messaging S12:mustUnderstand="true" wsu:Id="m">{PULL}</eb:Messaging>'
FAULT = "<S12:Fault><S12:Code><S12:Value>S12:Receiver</S12:Value></S12:Code></S12:Fault>"


def messaging(unit=PULL, attributes='S12:mustUnderstand="true"'):
    return f"<eb:Messaging {attributes}>{unit}</eb:Messaging>"


def enveloped(header=MESSAGING, body='<S12:Body wsu:Id="b"/>') -> bytes:
    return f"<S12:Envelope {NAMESPACES}><S12:Header>{header}</S12:Header>{body}</S12:Envelope>".encode()


# -- what is taken -------------------------------------------------------------------


def test_the_parts_of_an_envelope():
    security = '<wsse:Security S12:mustUnderstand="true"><ds:Signature Id="s"/></wsse:Security>'
    found = read_envelope(enveloped(security + MESSAGING))
    assert found.root.tag == ns.qn(ns.S12, "Envelope")
    assert [found.header, found.body] == list(found.root)
    assert [found.security, found.messaging] == list(found.header)
    assert found.ids == {"m": found.messaging, "b": found.body, "s": found.security[0]}
    assert found.fault is None


@pytest.mark.parametrize(
    "octets",
    [
        enveloped(),
        b"\xef\xbb\xbf" + enveloped(),
        b'<?xml version="1.0" encoding="utf-8"?>\n<!-- c -->' + enveloped() + b"\n",
        enveloped().decode().encode("utf-16"),
        enveloped().replace(b"<S12:Body", b"\n \t<S12:Body").replace(b"<S12:Header>", b"\n<S12:Header>\n\r\n"),
        enveloped(messaging(attributes='S12:mustUnderstand="1"')),
        enveloped(messaging(attributes='S12:mustUnderstand=" true "')),
        enveloped(messaging(attributes=f'S12:mustUnderstand="true" S12:role="{ns.S12}/role/ultimateReceiver"')),
        enveloped(messaging(attributes='S12:mustUnderstand="true" id="i" wsu:Id="i"')),
        enveloped(body="<S12:Body>\n  <!-- nothing -->\n</S12:Body>"),
        enveloped(MESSAGING + "<x:unknown/>"),
        enveloped(MESSAGING + '<x:unknown S12:mustUnderstand="false"/>'),
        enveloped(MESSAGING + '<x:unknown S12:mustUnderstand="true" S12:role="urn:somebody"/>'),
        enveloped(MESSAGING + f'<x:unknown S12:mustUnderstand="1" S12:role="{ns.S12}/role/none"/>'),
        enveloped(MESSAGING + "<wsse:Security/>"),
        enveloped(MESSAGING + f'<wsse:Security S12:role="{ns.S12}/role/ultimateReceiver"/>'),
        enveloped(MESSAGING + '<wsse:Security S12:role="ebms"/><wsse:Security S12:mustUnderstand="1"/>'),
        enveloped(MESSAGING + '<wsse:Security S12:role="http://x/ebms"/>'),
        enveloped(messaging(ERROR)),
        enveloped(messaging(ERROR, "")),
        enveloped(messaging(ERROR), f"<S12:Body>{FAULT}</S12:Body>"),
        enveloped().replace(b"S12:", b"env:").replace(b":S12=", b":env="),
    ],
)
def test_taken(octets):
    found = read_envelope(octets)
    assert found.messaging.tag == ns.qn(ns.EB, "Messaging")
    assert (found.fault is not None) == (b"S12:Fault" in octets)
    assert found.security is None or not found.security.get(ns.qn(ns.S12, "role"), "").endswith("ebms")


# -- what is refused -----------------------------------------------------------------

TWIN = '<x:a {}="i"/><x:a {}="i"/>'
REFUSED = {
    # B03: the frame
    "two headers": enveloped().replace(b"<S12:Body", b"<S12:Header/><S12:Body"),
    "two bodies": enveloped(body="<S12:Body/><S12:Body/>"),
    "header after body": enveloped()
    .replace(b"<S12:Header>", b"<S12:Body/><S12:Header>")
    .replace(b'<S12:Body wsu:Id="b"/>', b""),
    "element after body": enveloped(body="<S12:Body/><x:a/>"),
    "element before header": enveloped().replace(b"<S12:Header>", b"<x:a/><S12:Header>"),
    "no header": enveloped().replace(f"<S12:Header>{MESSAGING}</S12:Header>".encode(), b""),
    "no body": enveloped(body=""),
    "empty envelope": f"<S12:Envelope {NAMESPACES}/>".encode(),
    "text in the envelope": enveloped(body="x<S12:Body/>"),
    "text in the header": enveloped(MESSAGING + "x"),
    "text before the first block": enveloped("x" + MESSAGING),
    "root is no envelope": MESSAGING.replace(">", f" {NAMESPACES}>", 1).encode(),
    "envelope of no namespace": b"<Envelope><Header/><Body/></Envelope>",
    # B02: eb:Messaging
    "no Messaging": enveloped(""),
    "two Messaging": enveloped(MESSAGING + messaging()),
    "Messaging of another namespace": enveloped(messaging(attributes="").replace("eb:", "x:")),
    "Messaging without slash": enveloped(messaging(attributes="")).replace(b"200704/", b"200704"),
    "mustUnderstand missing": enveloped(messaging(attributes="")),
    "mustUnderstand false": enveloped(messaging(attributes='S12:mustUnderstand="false"')),
    "mustUnderstand 0": enveloped(messaging(attributes='S12:mustUnderstand="0"')),
    "mustUnderstand false on an error": enveloped(messaging(ERROR, 'S12:mustUnderstand="false"')),
    "mustUnderstand yes": enveloped(messaging(attributes='S12:mustUnderstand="yes"')),
    "mustUnderstand of no namespace": enveloped(messaging(attributes='mustUnderstand="true"')),
    "Messaging for the next node": enveloped(
        messaging(attributes=f'S12:mustUnderstand="true" S12:role="{ns.S12}/role/next"')
    ),
    "Messaging with an empty role": enveloped(messaging(attributes='S12:mustUnderstand="true" S12:role=""')),
    # B11: wsse:Security
    "two Security": enveloped(MESSAGING + "<wsse:Security/><wsse:Security/>"),
    "two Security, one with our role": enveloped(
        MESSAGING + f'<wsse:Security/><wsse:Security S12:role="{ns.S12}/role/ultimateReceiver"/>'
    ),
    "Security for next": enveloped(MESSAGING + f'<wsse:Security S12:role="{ns.S12}/role/next"/>'),
    "Security for somebody": enveloped(MESSAGING + '<wsse:Security S12:role="urn:somebody"/>'),
    "Security for xebms": enveloped(MESSAGING + '<wsse:Security S12:role="xebms"/>'),
    "Security with an empty role": enveloped(MESSAGING + '<wsse:Security S12:role=""/>'),
    "two Security for ebms": enveloped(MESSAGING + '<wsse:Security S12:role="ebms"/>' * 2),
    # B01, B14: hiding places
    "Messaging under an unknown block": enveloped(MESSAGING + f"<x:a>{MESSAGING.replace('m', 'n')}</x:a>"),
    "Messaging under ds:Object": enveloped(
        f"<wsse:Security><ds:Signature><ds:Object>{messaging()}</ds:Object></ds:Signature></wsse:Security>" + MESSAGING
    ),
    "Messaging in itself": enveloped(messaging(PULL + MESSAGING)),
    "Body under a header block": enveloped(MESSAGING + "<x:a><S12:Body/></x:a>"),
    "Header under a header block": enveloped(MESSAGING + "<x:a><S12:Header/></x:a>"),
    "Envelope under a header block": enveloped(MESSAGING + "<x:a><S12:Envelope/></x:a>"),
    "Security under a header block": enveloped(MESSAGING + "<x:a><wsse:Security/></x:a>"),
    "Security in Security for ebms": enveloped(
        MESSAGING + '<wsse:Security S12:role="ebms"><wsse:Security/></wsse:Security>'
    ),
    # B05, A11: ids
    "one id twice": enveloped(MESSAGING + TWIN.format("wsu:Id", "wsu:Id")),
    "wsu:Id and Id": enveloped(MESSAGING + TWIN.format("wsu:Id", "Id")),
    "Id and ID": enveloped(MESSAGING + TWIN.format("Id", "ID")),
    "id and xml:id": enveloped(MESSAGING + TWIN.format("id", "xml:id")),
    "AssertionID and wsu:Id": enveloped(MESSAGING + TWIN.format("AssertionID", "wsu:Id")),
    "id of Messaging on the Body": enveloped(body='<S12:Body Id="m"/>'),
    "id of Messaging on the Envelope": enveloped().replace(b"<S12:Envelope", b'<S12:Envelope ID="m"', 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(InvalidHeader) as refusal:
        read_envelope(REFUSED[name])
    assert refusal.value.code == "EBMS:0009"
    assert not isinstance(refusal.value, SoapFault | XmlRefused)
    assert refusal.value.status in (200, 400)


@pytest.mark.parametrize(
    "body",
    ["<x:a/>", "text", f"{FAULT}", f"{FAULT}{FAULT}", "<eb:UserMessage/>"],
)
def test_a_body_with_content(body):
    with pytest.raises(ValueInconsistent) as refusal:
        read_envelope(enveloped(body=f"<S12:Body>{body}</S12:Body>"))
    assert (refusal.value.code, refusal.value.where) == ("EBMS:0003", "S12:Body")


def test_a_fault_stands_alone_beside_an_error():
    for body in (f"{FAULT}<x:a/>", f"{FAULT}{FAULT}", f"{FAULT}x", "<x:Fault/>"):
        with pytest.raises(ValueInconsistent):
            read_envelope(enveloped(messaging(ERROR), f"<S12:Body>{body}</S12:Body>"))


@pytest.mark.parametrize("name", ["urn:x", "http://www.w3.org/2005/08/addressing"])
@pytest.mark.parametrize("role", ["", f'S12:role="{ns.S12}/role/next"', f'S12:role="{ns.S12}/role/ultimateReceiver"'])
def test_a_block_that_must_be_understood(name, role):
    octets = enveloped(f'<y:To xmlns:y="{name}" S12:mustUnderstand="1" {role}/>' + MESSAGING)
    with pytest.raises(MustUnderstandFault) as refusal:
        read_envelope(octets)
    assert (refusal.value.status, refusal.value.fault_code, refusal.value.code) == (500, "MustUnderstand", "EBMS:0009")


@pytest.mark.parametrize("namespace", ["http://schemas.xmlsoap.org/soap/envelope/", "urn:soap", ns.S12 + "/"])
def test_another_soap(namespace):
    with pytest.raises(VersionMismatchFault) as refusal:
        read_envelope(enveloped().replace(f'S12="{ns.S12}"'.encode(), f'S12="{namespace}"'.encode()))
    assert (refusal.value.status, refusal.value.fault_code) == (500, "VersionMismatch")


def test_a_fault_without_header_is_named_in_the_log():
    for octets in (soap.fault("Receiver", "no"), enveloped("", f"<S12:Body>{FAULT}</S12:Body>")):
        with pytest.raises(InvalidHeader, match="SOAP Fault: Receiver"):
            read_envelope(octets)
    with pytest.raises(InvalidHeader) as refusal:
        read_envelope(soap.fault("Receiver", "no").replace(b"S12:Receiver", b"S12:Invented"))
    assert "Invented" not in str(refusal.value)


def test_charset():
    with pytest.raises(XmlRefused):
        read_envelope(enveloped(), "iso-8859-1")
    read_envelope(enveloped(), "UTF-8")


@given(st.data())
def test_moving_any_element_anywhere_never_confuses(data):
    """Copy or move one element of a good envelope to any place: refused, or the nodes found are the only ones."""
    root = parse(
        enveloped("<wsse:Security><ds:Signature><ds:Object/></ds:Signature></wsse:Security>" + MESSAGING + "<x:a/>")
    )
    elements = list(root.iter())
    source = data.draw(st.sampled_from(elements[1:]))
    target = data.draw(st.sampled_from([e for e in elements if source not in (e, *e.iterancestors())]))
    moved = parse(canonical(source))
    if data.draw(st.booleans()):
        for element in moved.iter():
            element.attrib.pop(ns.qn(ns.WSU, "Id"), None)
    if data.draw(st.booleans()):
        source.getparent().remove(source)
    target.insert(data.draw(st.integers(0, len(target))), moved)
    try:
        found = read_envelope(canonical(root))
    except (InvalidHeader, ValueInconsistent):
        return
    for name, element in (("Messaging", found.messaging), ("Body", found.body), ("Header", found.header)):
        same = [e for e in found.root.iter() if e.tag.endswith("}" + name)]
        assert same == [element]
    assert found.messaging.getparent() is found.header
    assert [found.header, found.body] == list(found.root)


# -- what refused envelopes say of themselves -----------------------------------------


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (enveloped(), ("m@x", "PullRequest")),
        (enveloped(body="<S12:Body><x:a/></S12:Body>"), ("m@x", "PullRequest")),
        (enveloped(messaging(ERROR)), ("m@x", "Error")),
        (enveloped(messaging(ERROR.replace("m@x", "m x"))), (None, "Error")),
        (enveloped(messaging(f"<eb:UserMessage>{INFO}</eb:UserMessage>")), ("m@x", "UserMessage")),
        (enveloped(messaging("<eb:UserMessage/>")), (None, "UserMessage")),
        (enveloped(messaging("<eb:Other/>")), (None, None)),
        (enveloped(messaging("")), (None, None)),
        (enveloped(""), (None, None)),
        (b"<a/>", (None, None)),
        (b"", (None, None)),
        (b"<!DOCTYPE a><a/>", (None, None)),
    ],
)
def test_claims(octets, expected):
    assert claim(octets) == expected


# -- vectors -------------------------------------------------------------------------

WIRE = [
    p for p in sorted(VECTORS.rglob("*.body")) if ENVELOPE.search(p.read_bytes()) and b"<!DOCTYPE" not in p.read_bytes()
]


@pytest.mark.parametrize("path", WIRE, ids=lambda p: f"{p.parent.parent.name}/{p.parent.name}/{p.name}")
def test_every_exchange_of_phase4(path):
    octets = ENVELOPE.search(path.read_bytes()).group()
    name = path.name.removesuffix(".request.body")
    if name in ("two-messaging-headers", "signature-wrapping-messaging"):
        with pytest.raises(InvalidHeader) as refusal:
            read_envelope(octets)
        assert refusal.value.status == 200
        assert claim(octets).kind == "UserMessage"
        return
    found = read_envelope(octets)
    unit = read_messaging(found.messaging)
    assert claim(octets) == (unit.message_id, type(unit).__name__)
    for reference in found.root.iter(ns.qn(ns.DS, "Reference")):
        uri = reference.get("URI")
        if reference.getparent().tag == ns.qn(ns.DS, "SignedInfo") and uri.startswith("#"):
            assert found.ids[uri[1:]] in (found.messaging, found.body)
    assert (found.security is None) == (name.startswith("unsigned-") and ".response" not in name)


@pytest.mark.parametrize("profile", ["edelivery1-rsa2048", "edelivery2-eddsa", "edelivery2-ecdsa"])
@pytest.mark.parametrize("name", ["doctype-external-entity", "not-xml", "empty-body"])
def test_what_phase4_leaves_unanswered(profile, name):
    octets = (VECTORS / profile / "negative" / f"{name}.request.body").read_bytes()
    if name == "doctype-external-entity":
        octets = octets[octets.index(b"<?xml" if b"<?xml" in octets else b"<!DOCTYPE") :]
    with pytest.raises(XmlRefused) as refusal:
        read_envelope(octets)
    assert refusal.value.status == 400


def shared(name: str) -> bytes:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the collection of foreign vectors is not here")
    octets = path.read_bytes()
    return ENVELOPE.search(octets).group() if name.endswith(("as4in", "as4out", "mime")) else octets


@pytest.mark.parametrize(
    "name",
    [
        "phase4/soap12/test-2023-03-15.xml",
        "phase4/peppol-usermessage-2026.as4out",
        "phase4/receipt-helger.as4in",
        "phase4/receipt-governikus.as4in",
        "phase4/receipt-dataport1-mustunderstand.as4in",
        "phase4/receipt-btc-2027.xml",
        "phase4/error-ebms0001.xml",
        "phase4/error-no-reftomessageid.xml",
        "phase4/error-with-soap-fault.xml",
        "domibus-harmony/usermessage-signed-messaging-only.xml",
        "domibus-harmony/keyref-bst_x509v3.xml",
        "domibus-harmony/keyref-bst_X509PKIPathv1.xml",
        "domibus-harmony/keyref-is.xml",
        "domibus-harmony/keyref-ski.xml",
        "domibus-harmony/request_BST_PKIP.xml",
        "domibus-harmony/response_BST_PKIP.xml",
        "domibus-harmony/soapEnvelope-PullRequest.xml",
        "domibus-harmony/soapEnvelope-SignalMessage-error.xml",
        "domibus-harmony/soapEnvelope-SignalMessage-receipt-pull.xml",
        "domibus-harmony/soapEnvelope-UserMessage-receipt-split-and-join.xml",
    ],
)
def test_envelopes_of_other_products(name):
    found = read_envelope(shared(name))
    read_messaging(found.messaging)
    assert (found.fault is not None) == ("error-with-soap-fault" in name or "SignalMessage-error" in name)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("phase4/peppol-usermessage-2026.as4out", True),
        ("phase4/receipt-helger.as4in", True),
        ("phase4/receipt-governikus.as4in", True),
        ("phase4/receipt-dataport1-mustunderstand.as4in", True),
        ("phase4/receipt-btc-2027.xml", True),
        ("domibus-harmony/usermessage-signed-messaging-only.xml", True),
        ("phase4/NEG-receipt-dataport1.as4in", False),
    ],
)
def test_digests_of_other_products(name, good):
    """The nodes found are the nodes that were signed, octet for octet."""
    found = read_envelope(shared(name))
    met = []
    for reference in found.security.iter(ns.qn(ns.DS, "Reference")):
        if reference.get("URI").startswith("#"):
            inclusive = reference.find(f".//{ns.qn(ns.EC, 'InclusiveNamespaces')}")
            octets = canonical(
                found.ids[reference.get("URI")[1:]], None if inclusive is None else inclusive.get("PrefixList")
            )
            value = text_of(reference.find(ns.qn(ns.DS, "DigestValue")))
            met.append(hashlib.sha256(octets).digest() == b64decode(value))
    assert met and all(met) == good


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("phase4/soap11/UserMessage.xml", VersionMismatchFault),
        ("phase4/soap11/EmptyMessaging.xml", VersionMismatchFault),
        ("phase4/soap11/NoMessaging.xml", InvalidHeader),
        ("phase4/soap11/UserMessage-no-soap.xml", InvalidHeader),
        ("phase4/receipt-soap11-with-usermessage.xml", VersionMismatchFault),
        ("phase4/soap12/UserMessage12.xml", ValueInconsistent),
        ("phase4/soap12/PullRequest12.xml", XmlRefused),
        ("phase4/soap12/UserMessageWithCompressedPayload12.xml", XmlRefused),
        ("phase4/NEG-no-partyid.xml", InvalidHeader),
        ("phase4/NEG-two-usermessages.xml", InvalidHeader),
        ("phase4/NEG-no-responder.xml", ValueInconsistent),
        ("phase4/NEG-unknown-signature-algorithm.xml", (InvalidHeader, ValueInconsistent)),
        ("phase4/NEG-unknown-digest-algorithm.xml", (InvalidHeader, ValueInconsistent)),
    ],
)
def test_refused_envelopes_of_other_products(name, error):
    with pytest.raises(error):
        canonical(read_envelope(shared(name)).root)


# -- writing -------------------------------------------------------------------------

UNIT = PullRequest("m@x", datetime(2026, 1, 1, tzinfo=UTC), ns.DEFAULT_MPC)


def test_an_envelope_of_ours():
    messaging_xml = soap.messaging_canonical(UNIT, "_m")
    octets = soap.envelope(messaging_xml, "_b", security_xml=f'<wsse:Security xmlns:wsse="{ns.WSSE}"></wsse:Security>')
    found = read_envelope(octets)
    assert canonical(found.messaging) == canonical(found.messaging, "S12") == messaging_xml.encode()
    assert canonical(found.body) == canonical(found.body, "S12") == soap.body_canonical("_b").encode()
    assert canonical(found.security).decode() == f'<wsse:Security xmlns:wsse="{ns.WSSE}"></wsse:Security>'
    assert set(found.ids) == {"_m", "_b"}
    assert list(found.header) == [found.security, found.messaging]
    assert read_messaging(found.messaging) == UNIT


def test_the_digests_of_the_protocol_notes():
    """The Body of vector [as4 8.1], made here without a parser."""
    octets = soap.body_canonical("b-1").encode()
    assert len(octets) == 181
    assert b64encode(hashlib.sha256(octets).digest()) == b"ykGjEoYs++3bW9YsYxXLoqLTEbqH2A7fMcZlw36hmSQ="


def test_a_fault_in_the_body():
    body = soap.fault_xml("Receiver", "a < b & c\r")
    octets = soap.envelope(soap.messaging_canonical(UNIT, "_m"), "_b", fault_xml=body)
    element = parse(octets)[1]
    assert canonical(element) == soap.body_canonical("_b", body).encode()


@pytest.mark.parametrize("code", ["VersionMismatch", "MustUnderstand", "DataEncodingUnknown", "Sender", "Receiver"])
def test_a_fault_alone(code):
    octets = soap.fault(code, MustUnderstandFault.wire)
    root = parse(octets)
    assert canonical(root) == octets
    value = root.find(f"{{{ns.S12}}}Body/{{{ns.S12}}}Fault/{{{ns.S12}}}Code/{{{ns.S12}}}Value")
    assert text_of(value) == f"S12:{code}"


def test_fault_codes_are_soaps():
    with pytest.raises(ValueError):
        soap.fault("Client", "no")
