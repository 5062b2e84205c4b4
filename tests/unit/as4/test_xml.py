"""The door to the parser: what is refused, what is read, and which octets are digested."""

import hashlib
import re
import threading
import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from gateway.as4 import ns, xml
from gateway.as4.xml import XmlRefused, canonical, canonical_document, escaped, parse, quoted, text_of
from gateway.errors import InvalidHeader

VECTORS = Path(__file__).parents[2] / "vectors/phase4-4.5.4-wire"

#: The one-line document of the protocol notes and its published digests [as4 8.1].
KNOWN = (
    b'<S12:Envelope xmlns:S12="http://www.w3.org/2003/05/soap-envelope" xmlns:wsu="http://docs.oasis-open.org/wss/2004'
    b'/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"><S12:Header><eb:Messaging xmlns:eb="http://docs.oasis-open.org/'
    b'ebxml-msg/ebms/v3.0/ns/core/200704/" S12:mustUnderstand="true" wsu:Id="m-1"><eb:SignalMessage><eb:MessageInfo>'
    b"<eb:Timestamp>2026-01-02T03:04:05.678Z</eb:Timestamp><eb:MessageId>a@b.example</eb:MessageId></eb:MessageInfo>"
    b'<eb:PullRequest mpc="urn:x:mpc:1"/></eb:SignalMessage></eb:Messaging></S12:Header><S12:Body wsu:Id="b-1"/>'
    b"</S12:Envelope>"
)


def digest(octets: bytes) -> str:
    return b64encode(hashlib.sha256(octets).digest()).decode()


# -- canonical octets ----------------------------------------------------------------


@pytest.mark.parametrize("prefixes", [None, "", "S12", "  S12\n", "unknown"])
def test_the_published_digests(prefixes):
    root = parse(KNOWN)
    messaging, body = canonical(root[0][0], prefixes), canonical(root[1], prefixes)
    assert (len(messaging), digest(messaging)) == (503, "I2smcgnyA798+Tz8phn6nWCcjG/2XGLDLoJDbtilEQY=")
    assert (len(body), digest(body)) == (181, "ykGjEoYs++3bW9YsYxXLoqLTEbqH2A7fMcZlw36hmSQ=")


ENVELOPE = re.compile(rb"<S12:Envelope.*?</S12:Envelope>", re.S)
SIGNED = [
    path
    for path in sorted(VECTORS.rglob("*.body"))
    if path.parent.name != "negative" and b"SignedInfo" in path.read_bytes()
]


@pytest.mark.parametrize("path", SIGNED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_digests_that_another_stack_made(path):
    """Messaging and Body of every phase4 exchange, PrefixLists included."""
    root = parse(ENVELOPE.search(path.read_bytes()).group())
    by_id = {e.get(ns.qn(ns.WSU, "Id")): e for e in root.iter()}
    checked = 0
    for reference in root.iter(ns.qn(ns.DS, "Reference")):
        if reference.getparent().tag != ns.qn(ns.DS, "SignedInfo") or not reference.get("URI").startswith("#"):
            continue
        inclusive = reference.find(f".//{ns.qn(ns.EC, 'InclusiveNamespaces')}")
        octets = canonical(by_id[reference.get("URI")[1:]], None if inclusive is None else inclusive.get("PrefixList"))
        assert digest(octets) == text_of(reference.find(ns.qn(ns.DS, "DigestValue")))
        checked += 1
    assert checked == 2


def in_thread(call):
    box = []

    def run():
        try:
            box.append(call())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


def test_the_default_prefix_is_honoured_in_every_thread():
    document = b'<a:r xmlns:a="urn:a" xmlns="urn:d"><a:x><y/></a:x></a:r>'
    expected = b'<a:x xmlns="urn:d" xmlns:a="urn:a"><y></y></a:x>'
    for _ in range(4):
        assert in_thread(lambda: canonical(parse(document)[0], "#default")) == expected
    # An element that did not come through `parse`, in a thread that never parsed.
    assert in_thread(lambda: canonical(etree.fromstring(document)[0], "#default")) == expected
    assert canonical(parse(document)[0]) == b'<a:x xmlns:a="urn:a"><y xmlns="urn:d"></y></a:x>'


def test_prefixes_of_ancestors_are_found():
    root = parse(b'<r xmlns:p="urn:p" xmlns:q="urn:q"><x/>tail</r>')
    assert canonical(root[0]) == b"<x></x>"
    assert canonical(root[0], "q p") == b'<x xmlns:p="urn:p" xmlns:q="urn:q"></x>'
    # U+00A0 is no white space to XML: one unknown token, and not two known ones.
    assert canonical(root[0], "q\u00a0p") == b"<x></x>"


def test_a_long_prefix_list_is_refused():
    root = parse(b"<r/>")
    canonical(root, " ".join(f"p{i}" for i in range(16)))
    with pytest.raises(XmlRefused):
        canonical(root, " ".join(f"p{i}" for i in range(17)))


@pytest.mark.parametrize("document", [b'<r xmlns="relative"/>', b'<p:r xmlns:p="../x"/>', b'<r xmlns:p="a b"/>'])
def test_a_relative_namespace_is_never_an_empty_digest(document):
    with pytest.raises(XmlRefused):
        canonical(parse(document), "p")


# -- what is refused -----------------------------------------------------------------

REFUSED = {
    "empty": b"",
    "spaces": b"  \n",
    "text": b"hello",
    "half": b"<a",
    "unclosed comment": b"<!-- a",
    "second root": b"<a/><b/>",
    "text behind": b"<a/>x",
    "doctype": b"<!DOCTYPE a><a/>",
    "doctype after declaration": b'<?xml version="1.0"?>\n<!DOCTYPE a []><a/>',
    "doctype after comment": b"<!-- <a> --> <!-- -->\t<!DOCTYPE a><a/>",
    "doctype after instruction": b"<?a ?><!DOCTYPE a><a/>",
    "doctype in UTF-16": "<!DOCTYPE a><a/>".encode("utf-16"),
    "doctype behind a byte order mark": b"\xef\xbb\xbf<!DOCTYPE a><a/>",
    "external entity": b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
    "external subset": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
    "parameter entity": b'<!DOCTYPE a [<!ENTITY % e SYSTEM "http://127.0.0.1:9/"> %e;]><a/>',
    "laughs": b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>',
    "doctype in the content": b"<a><!DOCTYPE b></a>",
    "unknown entity": b"<a>&nbsp;</a>",
    "instruction before": b"<?a?><a/>",
    "instruction after": b"<a/><?a?>",
    "instruction inside": b"<a><b><?c?></b></a>",
    "stylesheet": b'<?xml-stylesheet href="http://127.0.0.1:9/"?><a/>',
    "XML 1.1": b'<?xml version="1.1"?><a/>',
    "XML 9.9": b'<?xml version="9.9"?><a/>',
    "space before the declaration": b' <?xml version="1.0"?><a/>',
    "Latin-1": '<?xml version="1.0" encoding="ISO-8859-1"?><a>é</a>'.encode("latin-1"),
    "Latin-1 undeclared": "<a>é</a>".encode("latin-1"),
    "EBCDIC": '<?xml version="1.0" encoding="cp037"?><a/>'.encode("cp037"),
    "says EBCDIC": b'<?xml version="1.0" encoding="ebcdic-cp-us"?><a/>',
    "UTF-7": b"<?xml version='1.0' encoding='UTF-7'?><a/>",
    "UTF-16 without mark": "<a/>".encode("utf-16-le"),
    "UTF-16 with half a character": b"\xff\xfe<\x00a\x00/\x00>",
    "UTF-16 with half a pair": b"\xff\xfe<\x00a\x00>\x00\x00\xd8<\x00/\x00a\x00>\x00",
    "UTF-16 that says UTF-8": '<?xml version="1.0" encoding="utf-8"?><a/>'.encode("utf-16"),
    "UTF-8 that says UTF-16": b'<?xml version="1.0" encoding="utf-16"?><a/>',
    "UTF-32": "<a/>".encode("utf-32"),
    "overlong UTF-8": b"<a>\xc0\x80</a>",
    "surrogate in UTF-8": b"<a>\xed\xa0\x80</a>",
    "NUL": b"<a>\0</a>",
    "not a character": b"<a>\xef\xbf\xbe</a>",
    "control character": b"<a>\x01</a>",
    "numeric control character": b"<a>&#1;</a>",
    "unbound prefix": b"<p:a/>",
    "prefix undeclared": b'<a xmlns:p=""/>',
    "xml rebound": b'<a xmlns:xml="urn:x"/>',
    "attribute twice": b'<a b="1" b="2"/>',
    "attribute twice by name": b'<a xmlns:p="urn:u" xmlns:q="urn:u" p:b="1" q:b="2"/>',
    "xml:id twice": b'<a xml:id="x"><b xml:id="x"/></a>',
    "65 deep": b"<a>" * 65 + b"</a>" * 65,
    "5000 deep": b"<a>" * 5000 + b"</a>" * 5000,
    "20001 elements": b"<a>" + b"<b/>" * 20_000 + b"</a>",
    "65 attributes": b"<r><a/><a " + b" ".join(b'b%d=""' % i for i in range(65)) + b"/></r>",
    "65 namespaces": b"<a " + b" ".join(b'xmlns:p%d="urn:x"' % i for i in range(65)) + b"/>",
    "257 namespaces": b"".join(
        b"<a" + b"".join(b' xmlns:p%d="urn:x"' % i for i in range(k, min(k + 52, 257))) + b">" for k in range(0, 257, 52)
    ) + b"</a>" * 5,
    "8193 times one namespace": b"<a>" + b'<b xmlns="urn:x"/>' * 8193 + b"</a>",
    "name of 60 kB": b"<" + b"a" * 60_000 + b"/>",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(XmlRefused) as refusal:
        parse(REFUSED[name])
    assert refusal.value.status == 400
    assert refusal.value.where.startswith("SOAP envelope: ")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"<a>x</a>", "x"),
        (b"\xef\xbb\xbf<a>x</a>", "x"),
        (b"<?xml version='1.0' encoding='utf-8' standalone='no'?><a>\xc3\xa9</a>", "é"),
        (b'<?xml version="1.0" encoding="US-ASCII"?><a>x</a>', "x"),
        ('<?xml version="1.0" encoding="UTF-16"?><a>é</a>'.encode("utf-16"), "é"),
        ("\ufeff<a>\U0001f600</a>".encode("utf-16-be"), "\U0001f600"),
        (b"<a>&amp;&#x26;&lt;<![CDATA[<!DOCTYPE &]]></a>", "&&<<!DOCTYPE &"),
        (b"<a>ab<!-- c -->de</a>", "abde"),
        (b"<a>a<!-- <!DOCTYPE x> -->b</a>", "ab"),
        (b"<!-- c --><a>x</a><!-- c -->\n", "x"),
        (b"<a>" * 64 + b"</a>" * 64, None),
        (b"<a>" + b"<b/>" * 19_999 + b"</a>", None),
        (b"<r><a " + b" ".join(b'b%d=""' % i for i in range(64)) + b"/></r>", None),
        (b"<a " + b" ".join(b'xmlns:p%d="urn:x"' % i for i in range(64)) + b"/>", ""),
        (b"<a>" + b"".join(b'<b xmlns:p%d="urn:x"/>' % i for i in range(256)) + b"</a>", None),
        (b'<a x="' + b"xmlns " * 300 + b'">xmlns</a>', "xmlns"),
        (b'<a xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd"/></a>', None),
    ],
)
def test_read(document, text):
    root = parse(document)
    if text is not None:
        assert text_of(root) == text


@pytest.mark.parametrize("document", [b"<m>good<!-- x -->-evil</m>", b"<m><!---->good<![CDATA[-evil]]></m>"])
def test_what_is_read_is_what_was_signed(document):
    root = parse(document)
    assert text_of(root) == "good-evil"
    assert canonical(root) == b"<m>good-evil</m>"


@pytest.mark.parametrize(
    ("octets", "charset", "taken"),
    [
        (b"<a/>", "utf-8", True),
        (b"<a/>", '"UTF-8"', True),
        (b"<a/>", "utf8", True),
        (b"<a/>", "us-ascii", True),
        (b"<a/>", "", True),
        (b"\xef\xbb\xbf<a/>", "UTF-8", True),
        (b"<a/>", "iso-8859-1", False),
        (b"<a/>", "utf-16", False),
        ("<a/>".encode("utf-16"), "utf-16", True),
        ("<a/>".encode("utf-16"), None, True),
        ("<a/>".encode("utf-16"), "utf-8", False),
    ],
)
def test_the_media_type_must_not_lie(octets, charset, taken):
    if taken:
        parse(octets, charset=charset)
    else:
        with pytest.raises(XmlRefused):
            parse(octets, charset=charset)


def test_text_of_refuses_elements():
    with pytest.raises(InvalidHeader) as refusal:
        text_of(parse(b"<evil>a<b/></evil>"), where="eb:Action")
    assert refusal.value.where == "eb:Action"


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(octets):
    for document in (octets, b"<?xml" + octets, b"<a " + octets + b"/>", b"<a>" + octets + b"</a>"):
        try:
            canonical(parse(document))
        except XmlRefused:
            pass


# -- cost ----------------------------------------------------------------------------


def cost(call) -> float:
    """Seconds of CPU; the least of three, because the test process collects garbage of its own."""
    taken = []
    for _ in range(3):
        before = time.process_time()
        call()
        taken.append(time.process_time() - before)
    return min(taken)


def test_namespaces_beside_each_other():
    """WSS4J declares four for each encrypted part, so the sixtieth part made 256 of them."""
    assert len(parse(b"<a>" + b"".join(b'<b xmlns:p%d="urn:x"/>' % i for i in range(8192)) + b"</a>")) == 8192


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"<!--" * 250_000, id="comments never closed"),
        pytest.param(b"<?x " * 250_000, id="instructions never closed"),
        pytest.param(b" " * 1_000_000 + b"<a/>", id="blanks"),
        pytest.param(b"<!-- -->" * 120_000 + b"<a/>", id="many comments"),
        pytest.param(b"<a>" + b"<![CDATA[<!DOCTYPE]]>" * 45_000 + b"</a>", id="CDATA"),
        pytest.param(b"<r" + b"".join(b' xmlns:n%d="u:"' % i for i in range(50_000)) + b"/>", id="namespaces"),
        pytest.param(b"<r>" + b"<a/>" * 250_000 + b"</r>", id="elements"),
        pytest.param(b"<a " + b" ".join(b'b%d=""' % i for i in range(80_000)) + b"/>", id="attributes"),
    ],
)
def test_a_megabyte_of_nothing_is_judged_quickly(octets):
    def judge():
        try:
            parse(octets)
        except XmlRefused:
            pass

    assert cost(judge) < 0.25


def test_the_worst_canonicalisation_within_the_budgets_is_bounded():
    """Finding 1 of the threats: 4 x 63 namespaces, 16 of them in the PrefixList, all the elements allowed."""
    levels = [
        b"<e" + b"".join(b' xmlns:n%d="urn:%d"' % (i, i) for i in range(k, k + 63)) + b">" for k in range(0, 252, 63)
    ]
    prefixes = " ".join(f"n{i * 15}" for i in range(16))
    for inside in (b"<n0:a/>" * 19_990, b'<n0:a xmlns:n15="urn:other"/>' * 7_900 + b"<n0:a/>" * 12_000):
        root = parse(b"".join(levels) + inside + b"</e>" * 4)
        assert cost(lambda: canonical(root, prefixes)) < 1.0


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def strange(number: int, size: int) -> bytes:
    """A document of `size` octets in which no name was ever seen before."""
    names = (b"<a%x_%x_%s/>" % (number, i, b"x" * 40) for i in range(size // 55))
    return b"<r>" + b"".join(names) + b"</r>"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_names_of_strangers_do_not_stay(monkeypatch):
    """libxml2 would keep them as long as the thread lives: about 140 MB here."""
    monkeypatch.setattr(xml, "DICTIONARY_OCTETS", 2 << 20)

    def run():
        parse(strange(0, 500_000))
        before = resident()
        for number in range(200):
            parse(strange(number, 500_000))
        return resident() - before

    assert in_thread(run) < 40


def test_documents_outlive_their_dictionary(monkeypatch):
    monkeypatch.setattr(xml, "DICTIONARY_OCTETS", 1000)
    document = b'<a:r xmlns:a="urn:a" xmlns="urn:d"><a:x><y/></a:x></a:r>'

    def run():
        kept = []
        for number in range(100):
            kept.append(parse(document))
            parse(strange(number, 2000))
        octets = {canonical(root[0], "#default") for root in kept}
        assert all(root[0][0].tag == "{urn:d}y" for root in kept)
        return octets

    expected = {b'<a:x xmlns="urn:d" xmlns:a="urn:a"><y></y></a:x>'}
    assert in_thread(run) == expected
    assert run() == expected


# -- payload documents ---------------------------------------------------------------


def test_a_payload_is_digested_whole():
    document = b"<?xml version='1.0'?><!-- c --><?a b?>\n<r  b='2' a='1'><!-- c --><x/>\r\n<?c?></r>\n<?d?>"
    assert canonical_document(document) == b'<?a b?>\n<r a="1" b="2"><x></x>\n<?c?></r>\n<?d?>'
    with pytest.raises(XmlRefused):
        parse(document, budget=False)


def test_a_payload_in_a_western_encoding():
    text = '<?xml version="1.0" encoding="{}"?><r>é</r>'
    assert canonical_document(text.format("ISO-8859-1").encode("latin-1")) == "<r>é</r>".encode()
    assert canonical_document(text.format("windows-1252").encode("cp1252")) == "<r>é</r>".encode()
    with pytest.raises(XmlRefused):
        canonical_document(b'<?xml version="1.0" encoding="windows-1252"?><r>\x81</r>')
    with pytest.raises(XmlRefused):
        canonical_document(text.format("koi8-r").encode("koi8-r", "replace"))


def test_the_payload_of_another_stack():
    """phase4 digested the exclusive C14N of this document; the digest stands in its SignedInfo."""
    message = parse(ENVELOPE.search((VECTORS / "edelivery1-rsa2048/plain-xml-needs-c14n.request.body").read_bytes())[0])
    promised = [
        text_of(r.find(ns.qn(ns.DS, "DigestValue")))
        for r in message.iter(ns.qn(ns.DS, "Reference"))
        if r.get("URI").startswith("cid:")
    ]
    assert promised == [digest(canonical_document((VECTORS / "payloads/needs-c14n.xml").read_bytes()))]


@pytest.mark.parametrize(
    "document",
    [
        b"<!DOCTYPE a><a/>",
        b"<a>&x;</a>",
        b"<a " + b" ".join(b'b%d=""' % i for i in range(1025)) + b"/>",
        b"<a " + b" ".join(b'xmlns:p%d="urn:x"' % i for i in range(65)) + b"/>",
        b"<a>" + b"".join(b'<b xmlns:p%d="urn:x"/>' % i for i in range(1025)) + b"</a>",
        b'<a xmlns="relative"/>',
        b"",
    ],
)
def test_costly_or_dangerous_payloads_are_refused(document):
    with pytest.raises(XmlRefused):
        canonical_document(document)


def test_a_payload_may_be_larger_than_an_envelope():
    document = b"<a>" + b'<b c="">d</b>' * 30_000 + b"</a>"
    assert canonical_document(document) == document
    assert parse(document, budget=False).tag == "a"


# -- writing -------------------------------------------------------------------------

CHARACTERS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\t\n\r\"'<>& \u0085\u2028]"), max_size=40
)


@given(CHARACTERS, CHARACTERS)
def test_what_is_written_is_canonical_and_reads_back(content, attribute):
    try:
        octets = f"<a b={quoted(attribute)}>{escaped(content)}</a>".encode()
    except InvalidHeader:
        assert any(not etree_takes(c) for c in content + attribute)
        return
    root = parse(octets)
    assert canonical(root) == octets
    assert (text_of(root), root.get("b")) == (content, attribute)


def etree_takes(character: str) -> bool:
    try:
        etree.fromstring(f"<a>&#{ord(character)};</a>")
        return True
    except etree.XMLSyntaxError:
        return False


@pytest.mark.parametrize("value", ["\0", "\x0b", "\x1f", "\ud800", "\ufffe", "a\uffff"])
def test_what_xml_cannot_carry_is_not_written(value):
    for write in (escaped, quoted):
        with pytest.raises(InvalidHeader):
            write(value)
