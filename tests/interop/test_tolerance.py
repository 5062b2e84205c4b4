"""What other products write differently, through the whole inbound ladder: taken, or refused with a reason.

Each case is one deviation seen on the wire or in a tracker; its name is what docs/interop.md calls it in
"Where products disagree", and a test holds the two against each other. What is accepted is delivered with
the content it had; what is refused leaves nothing.
"""

import base64
import gzip
import os
import quopri
import re
from pathlib import Path

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.outbound import SOAP_CONTENT_TYPE
from gateway.as4.units import AgreementRef, Error, PartyId, Property, Receipt, Service
from tests.interop.foreign import Packed, foreign
from tests.interop.inside import inside  # noqa: F401 - the fixture lv
from tests.peer import Authority, Peer
from tests.security.forge import Part, forge
from tests.world import EE, LV, world

XML = b"<query xmlns='urn:q'>\xc4\x93</query>"
WSA = "http://www.w3.org/2005/08/addressing"

# -- making ---------------------------------------------------------------------


def pack(octets: bytes, member=lambda octets: gzip.compress(octets, 6, mtime=0)) -> Part:
    return Part(member(octets), "application/gzip",
                properties=(Property(ns.MIME_TYPE, "application/x-ebrs+xml"), Property(ns.COMPRESSION_TYPE, ns.GZIP)))


def renamed(text: str, **prefixes: str) -> str:
    """The same XML with other prefixes; an empty one makes the default namespace."""
    for old, new in prefixes.items():
        if new:
            text = re.sub(rf"(?<=[<\s/:]){old}(?=[:=])", new, text)
        else:
            text = text.replace(f"<{old}:", "<").replace(f"</{old}:", "</").replace(f"xmlns:{old}=", "xmlns=")
    return text


def swap(old: str, new: str, count: int = 1):
    """A template that replaces text, which must be there."""
    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, count)
    return change


def sub(pattern: str, new, count: int = 1):
    def change(text: str) -> str:
        assert re.search(pattern, text, re.S), pattern
        return re.sub(pattern, new, text, count=count, flags=re.S)
    return change


def xml(template=lambda text: text, **more):
    """A case whose envelope was written in another way."""
    def changed(text: str) -> str:
        made = template(text)
        assert made != text or more, "nothing is different"
        return made
    return lambda peer: foreign(peer, [pack(XML)], template=changed, **more)[0].out


def mime(change):
    """A case whose MIME packaging was written in another way: `change(Packed)` gives (type, body) or a Packed."""
    def make(peer: Peer):
        packed, _ = foreign(peer, [pack(XML)])
        changed = change(packed)
        out = changed.out if isinstance(changed, Packed) else changed
        assert out != packed.out, "nothing is different"
        return out
    return make


def kind(change):
    """A case with another Content-Type of the whole."""
    return mime(lambda p: (change(p.content_type), p.body()))


def body(change):
    return mime(lambda p: (p.content_type, change(p.body())))


def part(**more):
    """A case with one part that is made differently; delivered as XML."""
    return lambda peer: foreign(peer, [replace_part(pack(XML), **more)])[0].out


def replace_part(made: Part, **more) -> Part:
    for name, value in more.items():
        setattr(made, name, value)
    return made


def header(**fields):
    return lambda peer: foreign(peer, [pack(XML)], **fields)[0].out


def properties(*found: Property):
    """A case with these message properties, and two others that OOTS 2.0 asks for."""
    more = (Property("ExchangeId", "c6d1a9b2-3a57-4c1e-b0d4-9f2200000020"), Property("SpecificationId", "oots-edm:v2.0"))
    return header(properties=(*found, *more))


def plain(template=lambda text: text, **more):
    """A message without payload, as SOAP alone."""
    return lambda peer: (SOAP_CONTENT_TYPE, foreign(peer, [], template=template, **more)[0].envelope)


def wrapped_lines(text: str) -> str:
    """Base64 as Java on Windows writes it: lines of 76, and every line end twice, once as a reference."""
    return "&#13;\n" + "&#13;\n".join(text[at : at + 76] for at in range(0, len(text), 76))


def spaced(text: str) -> str:
    """White space between all elements of wsse:Security."""
    head, security, rest = re.split(r"(<wsse:Security .*</wsse:Security>)", text, flags=re.S)
    return head + security.replace("><", ">\n\t <") + rest


def moved_security(text: str) -> str:
    security = re.search("<wsse:Security .*</wsse:Security>", text, re.S)[0]
    return text.replace(security, "").replace("</S12:Header>", security + "</S12:Header>")


def reordered(order: str):
    """The children of wsse:Security in another order, by the initials of their names."""
    def change(text: str) -> str:
        root = etree.fromstring(text.encode())
        security = root.find(f".//{{{ns.WSSE}}}Security")
        children = sorted(security, key=lambda e: order.index(_initial(e)))
        texts = [_text_of(text, element) for element in children]
        start = text.index(">", text.index("<wsse:Security ")) + 1
        return text[:start] + "".join(texts) + text[text.index("</wsse:Security>"):]
    return change


def _initial(element) -> str:
    name = etree.QName(element).localname
    if name == "BinarySecurityToken":
        return "R" if element.get(f"{{{ns.WSU}}}Id") == "recipient" else "B"
    return {"EncryptedKey": "K", "EncryptedData": "D", "Signature": "S"}[name]


def _text_of(text: str, element) -> str:
    name = etree.QName(element)
    prefix = element.prefix
    mark = {"B": 'wsu:Id="signer"', "R": 'wsu:Id="recipient"'}.get(_initial(element), "")
    return re.search(rf"<{prefix}:{name.localname} [^>]*{mark}.*?</{prefix}:{name.localname}>", text, re.S)[0]


def digested_as_xml(peer: Peer):
    """Uncompressed XML as WSS4J signs it: over its canonical form."""
    octets = b'<?xml version="1.0"?>\n<b  z="1" a=\'2\'><!-- c --><e/></b>\n'
    canonical = etree.tostring(etree.fromstring(octets), method="c14n", exclusive=True, with_comments=False)
    made = Part(octets, "application/xml")
    return foreign(peer, [made], octets_of=lambda _: canonical)[0].out, [octets]


def digested_as_text(peer: Peer):
    octets = b"a\nb\rc\r\nd"
    return foreign(peer, [Part(octets, "text/plain")], octets_of=lambda _: b"a\r\nb\r\nc\r\nd")[0].out, [octets]


def payload(octets: bytes, made: Part | None = None):
    """A case that must be delivered with exactly these octets."""
    return lambda peer: (foreign(peer, [made or pack(octets)])[0].out, [octets])


def gzip_header(octets: bytes) -> bytes:
    """A gzip member with everything a header may have: extra field, name, comment, time, another system."""
    packed = gzip.compress(octets, 9, mtime=0)
    flags = packed[:3] + bytes([0x04 | 0x08 | 0x10]) + b"\x12\x34\x56\x78\x02\x0b"
    return flags + b"\x04\0abcd" + b"../../etc/passwd\0" + b"a comment\0" + packed[10:]


def two_members(octets: bytes) -> bytes:
    half = len(octets) // 2
    return gzip.compress(octets[:half]) + gzip.compress(octets[half:])


def phase4_root(packed: Packed) -> tuple[str, bytes]:
    """phase4: an empty line before the first boundary, no `start`, no Content-ID on the root."""
    changed = packed.with_head(0, lambda _: b"Content-Type: application/soap+xml;charset=UTF-8")
    return re.sub(r"; start=[^;]*", "", changed.content_type), b"\r\n" + changed.body()


def header_lines(change):
    return mime(lambda p: p.with_head(1, change))


def transfer(number: int, encoding: bytes, change):
    def make(packed: Packed):
        with_head = packed.with_head(number, lambda h: re.sub(rb"(?i)content-transfer-encoding: \w+", b"Content-Transfer-Encoding: " + encoding, h))
        return with_head.with_part(number, change)
    return mime(make)


def quoted_printable(octets: bytes) -> bytes:
    return quopri.encodestring(octets, quotetabs=True).replace(b"\n", b"\r\n")


def reversed_parts(peer: Peer):
    packed, _ = foreign(peer, [pack(b"<a/>"), pack(b"<b/>")])
    return packed.with_parts([packed.parts[0], packed.parts[2], packed.parts[1]]).out, [b"<a/>", b"<b/>"]


def cid(written: str, content_id: str, signed: str | None = None):
    """A part whose id is spelled `cid:written` in PartInfo and `content_id` in its header."""
    return part(href=f"cid:{written}", cid=written, content_id=content_id, signed=signed and f"cid:{signed}",
                encrypted=signed)


def without_payload(text_type: str):
    def make(peer: Peer):
        packed, _ = foreign(peer, [])
        if text_type == "multipart":
            return packed.out, []
        return (text_type, packed.envelope), []
    return make


EXTRA_HEADERS = (
    f'<wsa:Action xmlns:wsa="{WSA}">urn:x</wsa:Action><wsa:To xmlns:wsa="{WSA}" S12:mustUnderstand="0">urn:y</wsa:To>'
    f'<x:Trace xmlns:x="urn:x" S12:role="{ns.S12}/role/none" S12:mustUnderstand="true"/>'
)
TIMESTAMP = '<wsu:Timestamp wsu:Id="TS-1"><wsu:Created>2026-03-01T11:00:00.000Z</wsu:Created></wsu:Timestamp>'
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered"
INCLUSIVE = f'<ec:InclusiveNamespaces xmlns:ec="{ns.EC}" PrefixList="{{}}"/>'

ORIGINAL, FINAL = (Property(ns.ORIGINAL_SENDER, "C1", UNREGISTERED), Property(ns.FINAL_RECIPIENT, "C4", UNREGISTERED))


def with_prefix_list(of_references: str | None, of_info: str | None):
    """InclusiveNamespaces in the transforms of the references and in CanonicalizationMethod."""
    def change(text: str) -> str:
        if of_references is not None:
            text = text.replace(f'<ds:Transform Algorithm="{ns.EXC_C14N}"></ds:Transform>',
                                f'<ds:Transform Algorithm="{ns.EXC_C14N}">{INCLUSIVE.format(of_references)}</ds:Transform>')
        if of_info is not None:
            text = text.replace("></ds:CanonicalizationMethod>", f">{INCLUSIVE.format(of_info)}</ds:CanonicalizationMethod>")
        return text
    return change


#: Name → what makes the message. A case may give its expected contents beside it.
ACCEPTED = {
    # the HTTP header and the multipart frame
    "outer-charset": kind(lambda t: t + "; charset=UTF-8"),
    "outer-action": kind(lambda t: t + '; action="urn:x"; start-info="application/soap+xml"'),
    "outer-type-missing": kind(lambda t: t.replace(' type="application/soap+xml";', "")),
    "outer-parameters-in-any-case-and-order": kind(
        lambda t: 'Multipart/Related; START="<root@peer.example>" ;BOUNDARY="=_foreign"; Type=application/soap+xml'),
    "start-missing": kind(lambda t: re.sub(r"; start=[^;]*", "", t)),
    "start-without-brackets": kind(lambda t: re.sub(r'start="<([^>]*)>"', r'start="\1"', t)),
    "root-without-id": mime(phase4_root),
    "preamble-and-epilogue": body(lambda b: b"This is a MIME message.\r\n" + b + b"\r\nthe end\r\n"),
    "no-final-line-end": body(lambda b: b[:-2]),
    "blanks-after-boundary": body(lambda b: b.replace(b"--=_foreign\r\n", b"--=_foreign \t\r\n")),
    "part-header-lf": header_lines(lambda h: h.replace(b"\r\n", b"\n")),
    "part-header-folded": header_lines(lambda h: h.replace(b"Content-ID: ", b"Content-ID:\r\n\t")),
    "part-header-case": header_lines(lambda h: h.replace(b"Content-ID", b"CONTENT-id").replace(b"Content-Type", b"content-type")),
    "part-header-extra": header_lines(lambda h: h + b'\r\nContent-Description: r\xc3\xa9sum\xc3\xa9\r\n'
                                      b'Content-Disposition: attachment; filename="../../x"\r\nX-Any: thing'),
    "part-without-type": header_lines(lambda h: re.sub(rb"Content-Type: [^\r]*\r\n", b"", h)),
    "part-type-gzip": header_lines(lambda h: h.replace(b"application/octet-stream", b"application/x-gzip; charset=x")),
    "part-order": reversed_parts,
    "transfer-encoding-base64": transfer(1, b"base64", base64.encodebytes),
    "transfer-encoding-quoted-printable": transfer(0, b"quoted-printable", quoted_printable),
    "transfer-encoding-8bit": transfer(1, b"8bit", lambda o: o),
    "transfer-encoding-missing": header_lines(lambda h: re.sub(rb"Content-Transfer-Encoding: \w+\r\n", b"", h)),
    "payload-less-as-multipart": without_payload("multipart"),
    "payload-less-as-soap": without_payload("application/soap+xml;charset=utf-8"),
    "payload-less-without-charset": without_payload("application/soap+xml"),
    # content ids
    "content-id-without-brackets": cid("p@x", "p@x"),
    "content-id-in-blanks": cid("p@x", "  < p@x >  "),
    "content-id-percent-encoded": cid("p%20a%2Fb@x", "<p a/b@x>"),
    "content-id-raw-in-reference": cid("p%2Ba@x", "<p+a@x>", "p+a@x"),
    "content-id-of-phase4": cid("phase4-att-5b9b8e21-9a59@cid", "<phase4-att-5b9b8e21-9a59@cid>"),
    # the envelope
    "byte-order-mark": xml(encode=lambda t: b"\xef\xbb\xbf" + t.encode()),
    "xml-declaration": xml(lambda t: t, encode=lambda t: b'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n' + t.encode()),
    "utf-16": lambda peer: (lambda p: p.with_head(0, lambda h: h.replace(b"UTF-8", b"utf-16")).out)(
        foreign(peer, [pack(XML)], encode=lambda t: b"\xff\xfe" + t.encode("utf-16-le"))[0]),
    "charset-spelling": mime(lambda p: p.with_head(0, lambda h: h.replace(b"charset=UTF-8", b'Charset="utf8"'))),
    "prefixes-of-domibus": xml(lambda t: renamed(t, S12="env", eb="eb3")),
    "prefixes-as-defaults": xml(lambda t: renamed(t, ds="", eb="", xenc="")),
    "prefixes-numbered": xml(lambda t: renamed(t, eb="ns5", S12="ns2", wsse="ns7")),
    "comments": xml(swap("<eb:UserMessage", "<!-- made by hand --><eb:UserMessage")),
    "character-references": xml(swap(">ExecuteQueryRequest<", ">Execute&#x51;uery<![CDATA[Request]]><")),
    "security-after-messaging": xml(moved_security),
    "security-with-role": xml(swap('S12:mustUnderstand="true">', f'S12:mustUnderstand="1" S12:role="{ns.S12}/role/ultimateReceiver">')),
    "must-understand-1": xml(sub(r'(<eb:Messaging[^>]*)S12:mustUnderstand="true"', r'\1S12:mustUnderstand=" 1 "')),
    "other-header-blocks": xml(swap("</S12:Header>", EXTRA_HEADERS + "</S12:Header>")),
    "id-on-messaging-too": xml(swap('wsu:Id="m-1"', 'id="m-1" wsu:Id="m-1"')),
    "id-unqualified": xml(swap('wsu:Id="m-1"', 'id="m-1"')),
    "id-upper-case": xml(swap('wsu:Id="b-1"', 'ID="b-1"')),
    "id-of-xml": xml(swap('wsu:Id="m-1"', 'xml:id="m-1"')),
    "white-space-in-body": xml(swap("></S12:Body>", ">\r\n  </S12:Body>")),
    # the security header
    "white-space-in-security": xml(spaced),
    "base64-in-lines": xml(spelled=wrapped_lines),
    "security-signature-first": xml(reordered("BSRKD")),
    "security-data-before-key": xml(reordered("DRKBS")),
    "security-tokens-last": xml(reordered("KDSRB")),
    "security-timestamp": xml(swap("<xenc:EncryptedKey", TIMESTAMP + "<xenc:EncryptedKey")),
    "token-unused": plain(lambda t: t.replace("<ds:Signature ", re.search("<wsse:BinarySecurityToken.*?</wsse:BinarySecurityToken>", t)[0].replace("signer", "other") + "<ds:Signature ", 1)),
    "token-without-encoding-type": xml(sub(r' EncodingType="[^"]*"', "", 2)),
    "reference-without-value-type": xml(sub(r'(<wsse:Reference URI="#signer") ValueType="[^"]*"', r"\1")),
    "str-without-token-type": xml(sub(r' wsse11:TokenType="[^"]*"', "")),
    "key-info-with-id": xml(swap("<ds:KeyInfo><wsse:SecurityTokenReference><wsse:Reference URI=\"#signer\"",
                                 "<ds:KeyInfo Id=\"KI\"><wsse:SecurityTokenReference wsu:Id=\"STR\"><wsse:Reference URI=\"#signer\"")),
    "signature-by-ski": xml(token="ski"),
    "signature-by-issuer-and-serial": xml(token="issuer-serial"),
    "signature-by-thumbprint": xml(token="thumbprint"),
    "signature-by-certificate": xml(token="x509"),
    "signature-by-path": xml(token="pkipath"),
    "recipient-by-ski": xml(recipient_token="ski"),
    "recipient-by-issuer-and-serial": xml(recipient_token="issuer-serial"),
    "references-in-another-order": xml(lambda t: re.sub(r"(<ds:Reference .*?</ds:Reference>)(.*?)(</ds:SignedInfo>)", r"\2\1\3", t, flags=re.S)),
    "prefix-list-of-domibus": xml(with_prefix_list(None, "S12")),
    "prefix-list-of-phase4": xml(with_prefix_list("S12", "S12")),
    "prefix-list-with-others": xml(with_prefix_list("wsu  eb\n S12 nobody", "ds wsse")),
    "prefix-list-empty": xml(with_prefix_list("", "")),
    "encrypted-data-by-wsu-id": xml(lambda t: re.sub(r'<xenc:EncryptedData ([^>]*)Id="', rf'<xenc:EncryptedData \1xmlns:wsu="{ns.WSU}" wsu:Id="', t)),
    "encrypted-key-by-wsu-id": xml(sub(r'<xenc:EncryptedKey ([^>]*) Id="EK"', rf'<xenc:EncryptedKey \1 xmlns:wsu="{ns.WSU}" wsu:Id="EK"')),
    "encrypted-data-without-key-info": xml(sub(r"(<xenc:EncryptedData.*?)<ds:KeyInfo.*?</ds:KeyInfo>(<xenc:CipherData>)", r"\1\2")),
    "encrypted-key-without-list": xml(sub("<xenc:ReferenceList>.*?</xenc:ReferenceList>", "")),
    "encrypted-data-without-mime-type": xml(sub(r' MimeType="[^"]*"', "")),
    "mgf-in-the-other-namespace": xml(lambda t: re.sub(r'<xenc11:MGF xmlns:xenc11="[^"]*"([^>]*)></xenc11:MGF>', r"<xenc:MGF\1></xenc:MGF>", t)),
    "mgf-before-digest": xml(sub(r"(<ds:DigestMethod [^>]*></ds:DigestMethod>)(<xenc11:MGF [^>]*></xenc11:MGF>)", r"\2\1")),
    "encrypted-key-without-parts": lambda peer: (SOAP_CONTENT_TYPE, _with_useless_key(peer)),
    # eb:Messaging
    "timestamp-without-zone": xml(sub(r"(<eb:Timestamp>[^<]*)Z<", r"\1<")),
    "timestamp-with-offset": xml(sub(r"<eb:Timestamp>[^<]*<", "<eb:Timestamp>2026-03-01T12:15:30+02:00<")),
    "timestamp-with-nine-digits": xml(sub(r"<eb:Timestamp>[^<]*<", "<eb:Timestamp>2026-03-01T12:15:30.123456789Z<")),
    "timestamp-without-fraction": xml(sub(r"<eb:Timestamp>[^<]*<", "<eb:Timestamp>2026-03-01T12:15:30Z<")),
    "padding-in-values": xml(lambda t: re.sub(r"(<eb:(?:PartyId|Role|Service|Action|ConversationId|Property)\b[^>]*>)([^<]+)<", "\\1\n   \\2\t\n  <", t)),
    "padding-in-attributes": xml(sub(r'(<eb:PartyId type=")([^"]*)"', r'\1 \2 "')),
    "message-id-without-at": xml(sub(r"<eb:MessageId>[^<]*<", "<eb:MessageId>5d3c7f7e-9b0a-4b67-8a6f-0b6f3f5f8f11<")),
    "conversation-id-empty": xml(sub(r"<eb:ConversationId>[^<]*<", "<eb:ConversationId><")),
    "agreement-ref-with-pmode": header(agreement_ref=AgreementRef("urn:any", None, "pm-1")),
    "mpc-left-out": header(mpc=None),
    "mpc-default": header(mpc=ns.DEFAULT_MPC),
    "ref-to-message-id-empty": xml(swap("</eb:MessageInfo>", "<eb:RefToMessageId/></eb:MessageInfo>")),
    "ref-to-message-id-unknown": header(ref_to_message_id="nobody@knows.example"),
    "empty-lists": plain(swap("</eb:UserMessage>", "<eb:PayloadInfo/></eb:UserMessage>")),
    "empty-part-properties": lambda peer: (foreign(peer, [Part(XML, properties=())], template=swap(
        "></eb:PartInfo>", "><eb:PartProperties/></eb:PartInfo>"))[0].out, [XML]),
    "unknown-attributes": xml(sub(r"<eb:UserMessage", '<eb:UserMessage xmlns:x="urn:x" x:y="z" other="1"')),
    "foreign-elements-behind-the-message": xml(swap("</eb:UserMessage>", '</eb:UserMessage><x:y xmlns:x="urn:x"/>')),
    "schema-and-description": xml(sub(r'(<eb:PartInfo [^>]*>)', r'\1<eb:Schema location="urn:s" version="1"/><eb:Description xml:lang="">d</eb:Description>')),
    "xsi-lang": xml(sub(r"(<eb:PartInfo [^>]*>)", r'\1<eb:Description xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:lang="en">d</eb:Description>')),
    # corners and properties as seen in OOTS
    "corners-without-type": properties(Property(ns.ORIGINAL_SENDER, f"{UNREGISTERED}:C1"), Property(ns.FINAL_RECIPIENT, f"{UNREGISTERED}:C4")),
    "corners-with-invented-type": properties(replace(ORIGINAL, type=f"{UNREGISTERED}:oots-evidence-provider"), FINAL),
    "corners-as-free-text": properties(replace(ORIGINAL, value="Agid"), FINAL),
    "corners-in-another-order": properties(FINAL, ORIGINAL),
    "corners-not-swapped": header(action="ExecuteQueryResponse", properties=(
        ORIGINAL, FINAL, Property("ExchangeId", "c6d1a9b2-3a57-4c1e-b0d4-9f2200000020"), Property("SpecificationId", "oots-edm:v2.0"))),
    "part-property-payload-name": lambda peer: (foreign(peer, [Part(gzip.compress(XML), properties=(
        Property("PayloadName", "request.xml"), Property(ns.COMPRESSION_TYPE, ns.GZIP), Property(ns.MIME_TYPE, "text/xml"),
        Property("CharacterSet", "utf-8")))])[0].out, [XML]),
    # payloads
    "uncompressed": payload(XML, Part(XML, "application/octet-stream")),
    "digest-over-canonical-xml": digested_as_xml,
    "digest-over-text-lines": digested_as_text,
    "gzip-header-fields": lambda peer: (foreign(peer, [pack(XML, gzip_header)])[0].out, [XML]),
    "gzip-two-members": lambda peer: (foreign(peer, [pack(XML * 9, two_members)])[0].out, [XML * 9]),
    "gzip-of-nothing": payload(b""),
    "empty-part": payload(b"", Part(b"", "application/octet-stream")),
    "payload-with-doctype": payload(b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>'),
}


def _with_useless_key(peer: Peer) -> bytes:
    """A message without payload that brings an EncryptedKey all the same."""
    other = foreign(peer, [pack(XML)])[0].envelope.decode()
    useless = re.search("<wsse:BinarySecurityToken[^>]*recipient.*?</xenc:EncryptedKey>", other, re.S)[0]
    return foreign(peer, [], template=swap("<wsse:BinarySecurityToken", useless + "<wsse:BinarySecurityToken"))[0].envelope


@pytest.mark.parametrize("name", ACCEPTED)
async def test_accepted(lv, name):
    made = ACCEPTED[name](lv.peer)
    (content_type, octets), contents = made if isinstance(made[1], list) else (made, None)
    answer = await lv.post(content_type, octets)
    assert isinstance(answer.unit, Receipt), answer.unit
    [delivery] = await lv.inbox()
    if contents is None:
        contents = [XML] if delivery.message.parts else []
    assert await lv.content(delivery) == contents
    assert delivery.message.action.startswith("ExecuteQuery")


async def test_accepted_in_blocks_of_one_octet(lv):
    content_type, octets = foreign(lv.peer, [pack(XML)])[0].out
    assert isinstance((await lv.post(content_type, octets, step=1)).unit, Receipt)


async def test_fixed_content_ids_are_used_again(lv):
    """`cid:regrep@oots.eu` in every message: two messages, two deliveries."""
    for number in range(2):
        made = replace_part(pack(b"<n>%d</n>" % number), cid="regrep@oots.eu")
        assert isinstance((await lv.post(*foreign(lv.peer, [made])[0].out)).unit, Receipt)
    deliveries = await lv.inbox()
    assert sorted([(await lv.content(d))[0] for d in deliveries]) == [b"<n>0</n>", b"<n>1</n>"]


async def test_a_hundred_parts(tmp_path):
    """Some stacks stopped at thirty, or gave every payload the content of the first."""
    def change(config):
        return replace(config, limits=replace(config.limits, parts=100))

    async with world(tmp_path / "lv", change=change) as lv:
        made = [pack(b"<n>%d</n>" % n) for n in range(100)]
        assert isinstance((await lv.post(*foreign(lv.peer, made)[0].out)).unit, Receipt)
        [delivery] = await lv.inbox()
        assert await lv.content(delivery) == [b"<n>%d</n>" % n for n in range(100)]
        answer = await lv.post(*foreign(lv.peer, [*made, pack(b"<one-more/>")])[0].out)
        assert (answer.code, answer.unit.errors[0].detail) == ("EBMS:0007", "number of MIME parts")


async def test_the_test_service_is_receipted_and_delivered_to_nobody(lv):
    content_type, octets = foreign(lv.peer, [pack(XML)], service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION,
                                   properties=())[0].out
    assert isinstance((await lv.post(content_type, octets)).unit, Receipt)
    assert await lv.inbox() == []


# -- refused ----------------------------------------------------------------------


def forged(parts=None, **more):
    return lambda peer: forge(peer, [pack(XML)] if parts is None else parts, **more)[:2]


def wrong_start(packed: Packed):
    return packed.content_type.replace("root@", "other@"), packed.body()


def root_last(packed: Packed):
    return packed.with_parts([packed.parts[1], packed.parts[0]])


def reversed_path(peer: Peer):
    """The leaf first, as Java lists a CertPath; DER has it last."""
    der = peer.keys.signing + Authority().certificate
    path = base64.b64encode(b"\x30\x82" + len(der).to_bytes(2, "big") + der).decode()
    return foreign(peer, [pack(XML)], token="pkipath", template=sub(
        r'(wsu:Id="signer">)[^<]*', lambda m: m[1] + path))[0].out


def twice(packed: Packed):
    return packed.with_parts([*packed.parts, packed.parts[1]])


BOUND = ('<eb:SignalMessage><eb:MessageInfo><eb:Timestamp>2026-03-01T10:15:31.004Z</eb:Timestamp><eb:MessageId>s@x'
         "</eb:MessageId><eb:RefToMessageId>r@x</eb:RefToMessageId></eb:MessageInfo><eb:Receipt/></eb:SignalMessage>")
FRAGMENT = ('<mf:MessageFragment xmlns:mf="http://docs.oasis-open.org/ebxml-msg/ns/v3.0/mf/2010/04/" '
            'S12:mustUnderstand="true" href="cid:f@x"><mf:GroupId>g</mf:GroupId></mf:MessageFragment></S12:Header>')

#: Name → (what makes the message, code, eb:ErrorDetail). None as detail: a security error, which has none.
REFUSED = {
    "party-id-in-another-case": (header(from_party=PartyId("ap_ee_01", EE.type)), "EBMS:0010", "eb:From/eb:PartyId"),
    "party-id-of-another-type": (header(from_party=PartyId(EE.value, f"{UNREGISTERED}:ee")), "EBMS:0010", "eb:From/eb:PartyId"),
    "receiver-in-another-case": (header(to_party=PartyId("ap_lv_01", LV.type)), "EBMS:0010", "eb:To/eb:PartyId"),
    "party-id-without-type": (xml(sub(r' type="[^"]*"(>AP_EE_01)', r"\1")), "EBMS:0003", "eb:From/eb:PartyId"),
    "two-party-ids": (xml(sub(r"(<eb:From>)(<eb:PartyId.*?</eb:PartyId>)", r"\1\2\2")), "EBMS:0003", "eb:From/eb:PartyId"),
    "role-unknown": (header(from_role="urn:role:other"), "EBMS:0010", "eb:From/eb:Role"),
    "service-without-type": (header(service=Service("QueryManager")), "EBMS:0003", "eb:CollaborationInfo/eb:Service"),
    "action-in-another-case": (header(action="executequeryrequest"), "EBMS:0010", "eb:Action"),
    "corner-missing": (properties(ORIGINAL), "EBMS:0003", "eb:MessageProperties/eb:Property[finalRecipient]"),
    "corner-twice": (properties(ORIGINAL, FINAL, FINAL), "EBMS:0003", "eb:MessageProperties/eb:Property[finalRecipient]"),
    "must-understand-missing": (xml(sub(r'(<eb:Messaging[^>]*) S12:mustUnderstand="true"', r"\1")), "EBMS:0009", "eb:Messaging/@S12:mustUnderstand"),
    "two-messages": (plain(lambda t: re.sub("(<eb:UserMessage.*</eb:UserMessage>)", r"\1\1", t, flags=re.S)), "EBMS:0003", "eb:Messaging/eb:UserMessage"),
    "receipt-bundled": (plain(swap("<eb:UserMessage", BOUND + "<eb:UserMessage")), "EBMS:0030", "eb:Messaging"),
    "part-info-names-the-body": (forged([Part(XML, href="#b-1", signed="", encrypted="", content_id="")]), "EBMS:0003", "eb:PartInfo/@href"),
    "part-info-names-a-url": (forged([Part(XML, href="https://example.org/x", signed="", encrypted="", content_id="")]), "EBMS:0011", "eb:PartInfo/@href"),
    "payload-in-the-body": (plain(swap("></S12:Body>", "><x/></S12:Body>")), "EBMS:0003", "S12:Body"),
    "start-names-another-part": (mime(wrong_start), "EBMS:0007", "Content-Type/start"),
    "root-not-first": (mime(root_last), "EBMS:0007", "Content-Type"),
    "content-id-twice": (mime(twice), "EBMS:0007", "Content-ID"),
    "content-id-dangling": (mime(lambda p: p.with_parts(p.parts[:1])), "EBMS:0007", "eb:PartInfo[1] without MIME part"),
    "part-nobody-describes": (mime(lambda p: p.with_parts([*p.parts, (b"Content-ID: <x@y>", b"z")])), "EBMS:0007", "MIME part without eb:PartInfo"),
    "mtom": (kind(lambda t: t.replace("application/soap+xml", "application/xop+xml")), "EBMS:0008", "Content-Type/type"),
    "boundary-after-lf": (body(lambda b: b.replace(b"\r\n--=_foreign", b"\n--=_foreign")), "EBMS:0007", "multipart delimiter"),
    "charset-western": (mime(lambda p: p.with_head(0, lambda h: h.replace(b"UTF-8", b"ISO-8859-1"))), "EBMS:0009",
                        "SOAP envelope: the bytes are utf-8, the media type says another charset"),
    "doctype": (xml(encode=lambda t: b"<!DOCTYPE x>" + t.encode()), "EBMS:0009", "SOAP envelope: a document type declaration is not allowed"),
    "unsigned": (lambda peer: (SOAP_CONTENT_TYPE, re.sub(
        rb"<wsse:Security .*</wsse:Security>", b"", foreign(peer, [])[0].envelope)), "EBMS:0103", None),
    "unencrypted": (forged([replace_part(pack(XML), encrypted="")]), "EBMS:0103", None),
    "signed-before-compression": (lambda peer: foreign(peer, [pack(XML)], octets_of=lambda _: XML)[0].out, "EBMS:0101", None),
    "signed-after-encryption": (lambda peer: foreign(peer, [pack(XML)], octets_of=lambda _: os.urandom(99))[0].out, "EBMS:0101", None),
    "oaep-without-digest": (xml(sub(r"<ds:DigestMethod [^>]*></ds:DigestMethod>(<xenc11)", r"\1")), "EBMS:0103", None),
    "oaep-without-mgf": (xml(sub(r"<xenc11:MGF [^>]*></xenc11:MGF>", "")), "EBMS:0103", None),
    "oaep-mgf1p": (xml(swap(ns.RSA_OAEP, ns.XENC + "rsa-oaep-mgf1p")), "EBMS:0103", None),
    "timestamp-signed": (xml(lambda t: t.replace("<xenc:EncryptedKey", TIMESTAMP + "<xenc:EncryptedKey", 1).replace(
        "</ds:SignedInfo>", re.search("<ds:Reference.*?</ds:Reference>", t)[0].replace("#m-1", "#TS-1") + "</ds:SignedInfo>")), "EBMS:0103", None),
    "path-leaf-first": (reversed_path, "EBMS:0101", None),
    "key-info-without-reference": (lambda peer: foreign(peer, [pack(XML)], token="x509", template=sub(
        r"<ds:KeyInfo><wsse:SecurityTokenReference>(<ds:X509Data.*?)</wsse:SecurityTokenReference></ds:KeyInfo></ds:Signature>",
        r"<ds:KeyInfo>\1</ds:KeyInfo></ds:Signature>"))[0].out, "EBMS:0103", None),
    "line-ends-rewritten": (body(lambda b: _rewritten(b)), ("EBMS:0102", "EBMS:0007"), ...),
    "compression-called-x-gzip": (part(properties=(Property(ns.MIME_TYPE, "text/xml"), Property(ns.COMPRESSION_TYPE, "application/x-gzip"))),
                                  "EBMS:0003", "eb:PartInfo[1]/eb:PartProperties/eb:Property[CompressionType]"),
    "compressed-without-mime-type": (part(properties=(Property(ns.COMPRESSION_TYPE, ns.GZIP),)), "EBMS:0003",
                                     "eb:PartInfo[1]/eb:PartProperties/eb:Property[MimeType]"),
    "character-set-impossible": (part(properties=(Property(ns.MIME_TYPE, "text/xml"), Property(ns.COMPRESSION_TYPE, ns.GZIP),
                                                  Property("CharacterSet", "!utf*"))), "EBMS:0003",
                                 "eb:PartInfo[1]/eb:PartProperties/eb:Property[CharacterSet]"),
    "gzip-cut-short": (lambda peer: foreign(peer, [pack(XML, lambda o: gzip.compress(o)[:-4])])[0].out, "EBMS:0303",
                       "eb:PartInfo[1]: the gzip stream stops early"),
    "gzip-with-something-behind": (lambda peer: foreign(peer, [pack(XML, lambda o: gzip.compress(o) + b"garbage")])[0].out,
                                   "EBMS:0303", "eb:PartInfo[1]: not gzip"),
    "gzip-only-by-name": (lambda peer: foreign(peer, [pack(b"<a/>"), pack(XML, lambda o: o)])[0].out, "EBMS:0303", "eb:PartInfo[2]: not gzip"),
}


def _rewritten(octets: bytes) -> bytes:
    """A proxy that took the ciphertext for text."""
    head, ciphertext = octets.rsplit(b"\r\n\r\n", 1)
    return head + b"\r\n\r\n" + b"\n" + ciphertext.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(lv, name):
    make, code, detail = REFUSED[name]
    answer = await lv.post(*make(lv.peer))
    assert isinstance(answer.unit, Error), "it was accepted"
    [error] = answer.unit.errors
    assert error.code in code if isinstance(code, tuple) else error.code == code, error
    if detail is not ...:
        assert error.detail == detail
    assert await lv.nothing_stored()


@pytest.mark.parametrize(("name", "change", "reason"), [
    ("split-join", swap("</S12:Header>", FRAGMENT), b"S12:Header/MessageFragment"),
    ("ws-reliable-messaging", swap("</S12:Header>", '<r:Sequence xmlns:r="http://docs.oasis-open.org/ws-rx/wsrm/200702" '
                                   'S12:mustUnderstand="true"/></S12:Header>'), b"S12:Header/Sequence"),
    ("soap-1.1", lambda t: t.replace(ns.S12, ns.S11), b"S12:Envelope"),
])
async def test_refused_with_a_soap_fault(lv, name, change, reason):
    status, headers, octets = await lv.raw(*xml(change)(lv.peer))
    assert status == 500 and headers["content-type"].startswith("application/soap+xml")
    assert b"<S12:Fault>" in octets and reason in octets
    assert await lv.nothing_stored()


# -- eDelivery 2.0 ------------------------------------------------------------------

EXCHANGE = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "ExecuteQueryRequest"
from_role = "http://sdg.europa.eu/edelivery/gateway"
to_role = "http://sdg.europa.eu/edelivery/gateway"
"""
KEY_LENGTH = "<dsigmore:KeyLength>16</dsigmore:KeyLength>"
RECIPIENT = r"<xenc:RecipientKeyInfo>(<wsse:SecurityTokenReference>(.*?)</wsse:SecurityTokenReference>)</xenc:RecipientKeyInfo>"


def mixed_up(text: str) -> str:
    """The derivation behind the keys."""
    return re.sub(r"(<xenc11:KeyDerivationMethod.*?</xenc11:KeyDerivationMethod>)(.*?)(</xenc:AgreementMethod>)", r"\2\1\3", text, flags=re.S)


#: Name → (suite, template, accepted): deviations of key agreement. What is refused is EBMS:0103.
AGREEMENT = {
    "key-length-missing": ("ed25519", swap(KEY_LENGTH, ""), True),
    "salt-missing": ("ed25519", None, True),
    "hkdf-info-empty": ("ed25519", swap(KEY_LENGTH, "<dsigmore:Info></dsigmore:Info>" + KEY_LENGTH), True),
    "derivation-behind-the-keys": ("ed25519", mixed_up, True),
    "recipient-as-bare-x509-data": ("ed25519", sub(RECIPIENT, r"<xenc:RecipientKeyInfo>\2</xenc:RecipientKeyInfo>"), True),
    "recipient-inside-key-value": ("ed25519", sub(
        RECIPIENT, rf'<xenc:RecipientKeyInfo><ds:KeyValue xmlns:ds="{ns.DS}">\1</ds:KeyValue></xenc:RecipientKeyInfo>'), True),
    "curve-misprinted": ("ecdsa", swap("urn:oid:1.2.840", "urn:oid1.2.840"), True),
    "key-length-in-bits": ("ed25519", swap(KEY_LENGTH, KEY_LENGTH.replace("16", "128")), False),
    "concat-kdf": ("ecdsa", swap(ns.HKDF, "http://www.w3.org/2009/xmlenc11#ConcatKDF"), False),
    "other-suite": ("ed25519", swap(ns.X25519, ns.ECDH_ES), False),
}


@pytest.mark.parametrize("name", AGREEMENT)
async def test_agreement(tmp_path, name):
    suite, template, accepted = AGREEMENT[name]
    profile = "edelivery-as4/2.0" + ("-ecdsa" if suite == "ecdsa" else "")
    async with world(tmp_path / "lv", suite=suite, profile=profile, more=EXCHANGE) as lv:
        token = "issuer-serial" if "x509" in name else "bst"
        if template is None:
            packed, _ = _without_salt(lv.peer)
        else:
            packed, _ = foreign(lv.peer, [pack(XML)], template=template, recipient_token=token)
        answer = await lv.post(*packed.out)
        if accepted:
            assert isinstance(answer.unit, Receipt), answer.unit
            [delivery] = await lv.inbox()
            assert await lv.content(delivery) == [XML]
        else:
            assert (answer.code, answer.unit.errors[0].detail) == ("EBMS:0103", None)


def _without_salt(peer: Peer):
    """HKDF without salt: derived and wrapped anew, as nobody but the sender can."""
    from cryptography.hazmat.primitives import keywrap
    from cryptography.hazmat.primitives.asymmetric import x25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from gateway.as4.wss import encrypt
    from gateway.as4.wss.algorithms import encode_base64, public_key_of

    keys: list[bytes] = []
    wrap = keywrap.aes_key_wrap
    keywrap.aes_key_wrap = lambda kek, key: keys.append(key) or wrap(kek, key)
    try:
        def template(text: str) -> str:
            ephemeral = x25519.X25519PrivateKey.generate()
            spki = ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            kek = encrypt.wrapping_key(ephemeral.exchange(public_key_of(peer.partner_encryption)), b"", b"")
            text = sub("<dsigmore:Salt>.*?</dsigmore:Salt>", "")(text)
            text = sub("(<dsig11:DEREncodedKeyValue[^>]*>)[^<]*", lambda m: m[1] + encode_base64(spki))(text)
            return sub("(<xenc:CipherValue>)[^<]*", lambda m: m[1] + encode_base64(wrap(kek, keys[0])))(text)
        return foreign(peer, [pack(XML)], template=template)
    finally:
        keywrap.aes_key_wrap = wrap


# -- what we send, for stacks that are particular -----------------------------------


async def test_what_we_write_suits_particular_readers(lv):
    """One look at a message and a receipt of ours for everything that other stacks stumbled over."""
    await lv.submit([(b"<a/>", "application/xml"), (b"t", "text/plain")])
    await lv.send_due()
    content_type, octets = lv.listener.received[-1]
    packed = Packed.of(content_type, octets)
    text = packed.envelope.decode()
    # No charset on the multipart type, which firewall rules refuse; `type` and `start` are there.
    assert "charset" not in content_type and 'type="application/soap+xml"' in content_type and 'start="<' in content_type
    # Content ids of characters that nobody decodes differently; parts in the order of PartInfo; binary.
    cids = [re.search(rb"Content-ID: <([^>]*)>", head)[1].decode() for head, _ in packed.parts]
    assert all(re.fullmatch(r"[A-Za-z0-9._@-]+", one) for one in cids)
    assert re.findall(r'<eb:PartInfo href="cid:([^"]*)"', text) == cids[1:]
    assert all(b"Content-Transfer-Encoding: binary" in head for head, _ in packed.parts)
    # WSS4J works in document order: key, data, token, signature; no white space between.
    order = re.findall(r"<(xenc:EncryptedKey|xenc:EncryptedData|ds:Signature) ", text)
    assert order == ["xenc:EncryptedKey", "xenc:EncryptedData", "xenc:EncryptedData", "ds:Signature"]
    assert not re.search(r">\s+<", text)
    # What BSP asks of token references.
    assert f'wsse11:TokenType="{ns.TOKEN_ENCRYPTED_KEY}"' in text and f'ValueType="{ns.X509V3}"' in text
    # Three fraction digits and Z; `true` and not `1`; no empty lists; no `pmode`; ids that are NCNames.
    assert re.search(r"<eb:Timestamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z<", text)
    assert 'S12:mustUnderstand="true"' in text and "pmode=" not in text
    assert all(re.match(r"[A-Za-z_]", id) for id in re.findall(r'(?:wsu:)?Id="([^"]*)"', text))
    # Uncompressed text goes as octets, so that nobody canonicalises it: here both are compressed.
    assert set(re.findall(r'<xenc:EncryptedData [^>]*MimeType="([^"]*)"', text)) == {"application/gzip"}


async def test_receipts_of_ours_suit_particular_readers(lv):
    """Domibus compares URI and DigestValue as text and wants one child in eb:Receipt."""
    packed, message = foreign(lv.peer, [pack(XML)], spelled=wrapped_lines)
    answer = await lv.post(*packed.out)
    root = etree.fromstring(answer.envelope)
    [receipt] = root.iter(f"{{{ns.EB}}}Receipt")
    assert len(receipt) == 1 and root.find(f".//{{{ns.EB}}}RefToMessageId").text == message.message_id
    theirs, ours = (
        [(r.get("URI"), r.find(f"{{{ns.DS}}}DigestValue").text) for r in where.iter(f"{{{ns.DS}}}Reference")]
        for where in (next(etree.fromstring(packed.envelope).iter(f"{{{ns.DS}}}SignedInfo")), receipt))
    assert theirs == ours and "\r" in ours[0][1]
    # A receipt is signed over itself alone, names its certificate by a token, and is not encrypted.
    signed = [r.get("URI") for r in next(root.iter(f"{{{ns.DS}}}SignedInfo")).iter(f"{{{ns.DS}}}Reference")]
    assert len(signed) == 2 and not any(uri.startswith("cid:") for uri in signed)
    assert b"BinarySecurityToken" in answer.envelope and b"Encrypted" not in answer.envelope


async def test_errors_of_ours_suit_particular_readers(lv):
    """Signed; both references; xml:lang that is not empty; mustUnderstand; a place and no stack trace."""
    content_type, octets = header(action="Nothing")(lv.peer)
    answer = await lv.post(content_type, octets)
    assert answer.signer == lv.keys.signing
    [error] = etree.fromstring(answer.envelope).iter(f"{{{ns.EB}}}Error")
    message_id = re.search(rb"<eb:MessageId>([^<]*)", octets)[1].decode()
    assert error.get("refToMessageInError") == message_id == answer.unit.ref_to_message_id
    assert (error.get("severity"), error.get("errorCode")) == ("failure", "EBMS:0010")
    description = error.find(f"{{{ns.EB}}}Description")
    assert description.get(f"{{{ns.XML}}}lang") == "en" and description.text
    assert error.find(f"{{{ns.EB}}}ErrorDetail").text == "eb:Action"
    assert b'S12:mustUnderstand="true"' in answer.envelope


# -- the document ---------------------------------------------------------------------


DOCUMENT = Path(__file__).parents[2] / "docs" / "interop.md"


def test_every_case_has_its_row():
    """docs/interop.md, "Where products disagree": one row for each case, and no row without."""
    text = DOCUMENT.read_text()
    section = text[text.index("## Where products disagree"):].split("\n## ")[0]
    rows = set(re.findall(r"^\| .* \| `([^`]+)` \|$", section, re.M))
    from tests.interop import test_answers

    cases = {f"accepted[{name}]" for name in ACCEPTED} | {f"refused[{name}]" for name in REFUSED}
    cases |= {f"answers[{name}]" for name in test_answers.ANSWERS} | {f"agreement[{name}]" for name in AGREEMENT}
    named = {row for row in rows if re.match(r"(accepted|refused|answers|agreement)\[", row)}
    assert cases - named == set(), "without a row"
    assert named - cases == set(), "without a test"
    functions = {row for row in rows if row.startswith("test_")}
    here = {name for module in ("test_tolerance.py", "test_answers.py", "test_http_front.py")
            for name in re.findall(r"^(?:async )?def (test_\w+)", (Path(__file__).parent / module).read_text(), re.M)}
    assert functions <= here
