import base64
import email
import email.policy
import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.mime import (
    ContentIds,
    EnvelopeReady,
    MessageReader,
    MimeLimits,
    PartBegins,
    PartData,
    PartEnds,
)
from gateway.errors import EbmsError, FeatureNotSupported, MimeInconsistency

VECTORS = Path(__file__).parents[2] / "vectors" / "phase4-4.5.4-wire"
SOAP = "application/soap+xml"
RELATED = 'multipart/related; type="application/soap+xml"; boundary="=_b"'
ROOT = b"--=_b\r\nContent-Type: application/soap+xml; charset=UTF-8\r\nContent-ID: <root@x>\r\n\r\n<E/>"
END = b"\r\n--=_b--\r\n"


def part(content: bytes = b"", *, cid: str = "<a@b>", head: bytes = b"") -> bytes:
    return b"\r\n--=_b\r\nContent-ID: " + cid.encode() + b"\r\n" + head + b"\r\n" + content


def read(body: bytes, cuts=(), *, content_type: str = RELATED, limits: MimeLimits | None = None):
    """(envelope or None, [(cid, content type, content, complete)], (error type, status) or None)."""
    envelope, parts, error = None, [], None
    edges = [0, *sorted(cuts), len(body)]
    try:
        reader = MessageReader(content_type, limits=limits or MimeLimits())

        def events():
            for start, stop in itertools.pairwise(edges):
                yield from reader.feed(body[start:stop])
            yield from reader.close()

        for event in events():
            assert isinstance(event, EnvelopeReady) == (envelope is None)
            match event:
                case EnvelopeReady(octets=octets, charset=charset):
                    envelope = (octets, charset)
                case PartBegins(cid=cid, content_type=kind):
                    assert not parts or parts[-1][3]
                    parts.append([cid, kind, b"", False])
                case PartData(block=block):
                    assert isinstance(block, bytes) and block
                    parts[-1][2] += block
                case PartEnds():
                    parts[-1][3] = True
    except EbmsError as refusal:
        error = (type(refusal), refusal.status)
    return envelope, [tuple(p) for p in parts], error


def outcome(body: bytes, **options):
    """What `read` says, the same whole and byte by byte."""
    whole = read(body, **options)
    bytewise = read(body, range(1, len(body)), **options)
    # A part that is cut off by a refusal may have been given out up to another octet.
    assert (bytewise[0], bytewise[2]) == (whole[0], whole[2])
    if whole[2] is None:
        assert bytewise[1] == whole[1]
    return whole


def refusal(body: bytes, **options):
    return outcome(body, **options)[2]


# -- what is read -----------------------------------------------------------------


def test_plain_envelope():
    assert outcome(b"<E/>", content_type=SOAP) == ((b"<E/>", None), [], None)
    assert outcome(b"<E/>", content_type='Application/soap+xml;charset="utf-16"; action=""')[0] == (b"<E/>", "utf-16")


def test_plain_envelope_is_ready_at_close():
    reader = MessageReader(SOAP)
    assert list(reader.feed(b"<E/>")) == []
    assert list(reader.close()) == [EnvelopeReady(b"<E/>", None)]


def test_related():
    body = b"\r\n" + ROOT + part(b"one") + part(b"\r\n", cid="c@d", head=b"content-type: Text/XML\r\n") + END
    assert outcome(body) == (
        (b"<E/>", "UTF-8"),
        [("a@b", "", b"one", True), ("c@d", "Text/XML", b"\r\n", True)],
        None,
    )


def test_the_envelope_comes_before_the_parts():
    reader = MessageReader(RELATED)
    assert [type(e) for e in reader.feed(ROOT + part(b"one"))] == [EnvelopeReady, PartBegins, PartData]


def test_part_headers_are_given_out():
    reader = MessageReader(RELATED)
    events = [*reader.feed(ROOT + part(head=b"X-Y: 1\r\n 2\r\n") + END), *reader.close()]
    assert events[1].headers == {"content-id": "<a@b>", "x-y": "1 2"}


def test_one_part_is_the_envelope():
    assert outcome(ROOT + END) == ((b"<E/>", "UTF-8"), [], None)


def test_root_without_content_id():
    body = b"\r\n--=_b\r\nContent-Type: application/soap+xml\r\n\r\n<E/>" + part(b"x") + END
    assert outcome(body) == ((b"<E/>", None), [("a@b", "", b"x", True)], None)


@pytest.mark.parametrize("start", ['"<root@x>"', "<root@x>", "root@x", '" < root@x > "'])
def test_start_names_the_first_part(start):
    assert outcome(ROOT + END, content_type=f"{RELATED}; start={start}")[2] is None


@pytest.mark.parametrize("parameters", [
    "multipart/related; boundary==_b",
    "MULTIPART/Related;START-INFO=text/xml;Type=application/soap+xml;BOUNDARY=\"=_b\";charset=utf-8;action=x",
    'multipart/related; boundary="=_b"; type="application/soap+xml; action=x";',
])  # fmt: skip
def test_outer_content_type(parameters):
    assert outcome(ROOT + END, content_type=parameters)[2] is None


@pytest.mark.parametrize("cid", ["<a@b>", " <a@b> ", "a@b", "< a@b >"])
def test_content_id_forms(cid):
    assert outcome(ROOT + part(cid=cid) + END)[1][0][0] == "a@b"


def test_many_parts():
    body = ROOT + b"".join(part(b"%d" % n, cid=f"<{n}@x>") for n in range(100)) + END
    _, parts, error = outcome(body, limits=MimeLimits(parts=100))
    assert error is None
    assert [(cid, content) for cid, _, content, _ in parts] == [(f"{n}@x", b"%d" % n) for n in range(100)]


def test_transfer_encodings_are_undone():
    encoded = base64.encodebytes(bytes(range(256)))
    body = (
        b"--=_b\r\nContent-Type: application/soap+xml\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.b64encode(b"<E/>")
        + part(encoded, head=b"Content-Transfer-Encoding: BASE64\r\n")
        + part(b"=00=\r\n=FF", cid="c", head=b"Content-Transfer-Encoding: quoted-printable\r\n")
        + part(b"\xff", cid="d", head=b"Content-Transfer-Encoding: 7bit\r\n")
        + END
    )
    envelope, parts, error = outcome(body)
    assert (envelope, error) == ((b"<E/>", None), None)
    assert [content for _, _, content, _ in parts] == [bytes(range(256)), b"\0\xff", b"\xff"]


# -- what is refused --------------------------------------------------------------


@pytest.mark.parametrize(("content_type", "status"), [
    ("", 415),
    ("text/xml; charset=utf-8", 415),
    ("text/plain", 415),
    ("application/xml", 415),
    ('multipart/form-data; boundary="=_b"', 415),
    ('multipart/mixed; boundary="=_b"', 415),
    ('multipart/related; type="text/xml"; boundary="=_b"', 415),
    ("multipart/related; type=application/soap+xml", 400),
    ('multipart/related; boundary=""', 400),
    ('multipart/related; boundary="=_b"; boundary="=_b"', 400),
    ('multipart/related; boundary="' + "b" * 71 + '"', 400),
    ("application/soap+xml; charset", 400),
])  # fmt: skip
def test_content_types_refused(content_type, status):
    with pytest.raises(MimeInconsistency) as refused:
        MessageReader(content_type)
    assert refused.value.status == status


def test_mtom_is_not_supported():
    with pytest.raises(FeatureNotSupported) as refused:
        MessageReader('multipart/related; type="application/xop+xml"; start-info="application/soap+xml"; boundary=b')
    assert (refused.value.code, refused.value.status) == ("EBMS:0008", 415)
    body = ROOT.replace(b"soap+xml", b"xop+xml") + END
    assert refusal(body) == (FeatureNotSupported, 415)


@pytest.mark.parametrize(("root", "status"), [
    (b"Content-Type: text/xml\r\n", 415),
    (b"Content-Type: text/plain\r\n", 415),
    (b"", 415),
    (b"Content-Type: application/soap+xml; charset\r\n", 400),
    (b"Content-Type: application/soap+xml\r\nContent-Transfer-Encoding: gzip\r\n", 400),
    (b"Content-Type: application/soap+xml\r\nContent-ID: <>\r\n", 400),
    (b"Content-Type: application/soap+xml\r\nnonsense\r\n", 400),
])  # fmt: skip
def test_roots_refused(root, status):
    assert refusal(b"--=_b\r\n" + root + b"\r\n<E/>" + END) == (MimeInconsistency, status)


@pytest.mark.parametrize("start", ["<a@b>", "<Root@x>", "", "root", "cid:root@x"])
def test_start_elsewhere(start):
    body = ROOT + part(head=b"Content-Type: application/soap+xml\r\n") + END
    assert refusal(body, content_type=f'{RELATED}; start="{start}"') == (MimeInconsistency, 400)


def test_start_without_an_id_on_the_first_part():
    body = b"--=_b\r\nContent-Type: application/soap+xml\r\n\r\n<E/>" + END
    assert refusal(body, content_type=f'{RELATED}; start="<root@x>"') == (MimeInconsistency, 400)


@pytest.mark.parametrize("body", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"--=_b--", id="no parts"),
    pytest.param(b"--=_b\r\nContent-Type: application/soap+xml\r\n\r\n" + END, id="empty envelope"),
    pytest.param(ROOT, id="no end"),
    pytest.param(ROOT.replace(b"\r\n", b"\n") + END.replace(b"\r\n", b"\n"), id="LF only"),
    pytest.param(b"x" * 1025 + b"\r\n" + ROOT + END, id="long preamble"),
])  # fmt: skip
def test_no_envelope_means_400(body):
    assert refusal(body) == (MimeInconsistency, 400)


def test_empty_plain_body():
    assert refusal(b"", content_type=SOAP) == (MimeInconsistency, 400)


@pytest.mark.parametrize("rest", [
    pytest.param(b"\r\n--=_b\r\n\r\nx" + END, id="no Content-ID"),
    pytest.param(part(cid="") + END, id="empty Content-ID"),
    pytest.param(part(cid="<>") + END, id="empty brackets"),
    pytest.param(part(cid="<<a@b>>") + END, id="two pairs of brackets"),
    pytest.param(part(cid="<a@b") + END, id="half a pair"),
    pytest.param(part(cid="<\xe4@b>") + END, id="not ASCII"),
    pytest.param(part(cid="<a\0b>") + END, id="NUL"),
    pytest.param(part(cid="x" * 10_000) + END, id="a huge one"),
    pytest.param(part(cid="<root@x>") + END, id="that of the root"),
    pytest.param(part() + part() + END, id="twice"),
    pytest.param(part() + part(cid="a@b") + END, id="twice but for the brackets"),
    pytest.param(part() + part(cid="<A@B>") + END, id="twice but for case"),
    pytest.param(part() + part(cid="<a%40b>") + END, id="twice but for percent-encoding"),
    pytest.param(part(cid="<%61%40b>") + part(cid="<A@b>") + END, id="twice but for both"),
    pytest.param(part(cid="<a%40b>") + part(cid="<a%2540b>") + END, id="one decodes to the other"),
    pytest.param(part(cid="<a%20>") + part(cid="<a>") + END, id="twice but for a blank"),
    pytest.param(part() + part(cid=" < a@b > ") + END, id="twice but for blanks"),
    pytest.param(part(head=b"Content-ID: <c@d>\r\n") + END, id="two in one part"),
    pytest.param(part(head=b"Content-Type: multipart/mixed; boundary=c\r\n") + END, id="nested multipart"),
    pytest.param(part(head=b"Content-Type: Multipart/Related\r\n") + END, id="nested related"),
    pytest.param(part(head=b"Content-Type: message/rfc822\r\n") + END, id="nested message"),
    pytest.param(part(head=b"Content-Transfer-Encoding: x\r\n") + END, id="unknown transfer encoding"),
    pytest.param(part(b"QQ", head=b"Content-Transfer-Encoding: base64\r\n") + END, id="base64 cut short"),
    pytest.param(part(b"=", head=b"Content-Transfer-Encoding: quoted-printable\r\n") + END, id="broken escape"),
    pytest.param(part(b"=\r\n", head=b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: binary\r\n") + END,
                 id="two transfer encodings"),
    pytest.param(part(head=b"no colon\r\n") + END, id="a header line without colon"),
    pytest.param(part(head=b"X: y\r\n" * 32) + END, id="a field repeated"),
    pytest.param(part(head=b"".join(b"X-%d: y\r\n" % n for n in range(32))) + END, id="33 header lines"),
    pytest.param(part(head=b"X: " + b"y" * (1 << 20) + b"\r\n") + END, id="a huge header"),
    pytest.param(part(b"x"), id="no end"),
    pytest.param(part(b"x") + b"\r\n--=_b--" + b"x" * 1024 + b"\r\nx" * 1025, id="long epilogue"),
])  # fmt: skip
def test_a_broken_part_after_the_envelope_means_200(rest):
    envelope, _, error = read(ROOT + rest)
    assert envelope == (b"<E/>", "UTF-8")
    assert error == (MimeInconsistency, 200)
    assert read(ROOT + rest, range(1, 3000))[2] == error


@pytest.mark.parametrize("kind", [b"", b"nonsense", b"text/xml; charset=\"", b"image/png"])
def test_a_payload_type_has_no_effect(kind):
    _, parts, error = outcome(ROOT + part(b"x", head=b"Content-Type: " + kind + b"\r\n") + END)
    assert (parts, error) == ([("a@b", kind.decode(), b"x", True)], None)


# -- limits, at n-1, n, n+1 ---------------------------------------------------------


@pytest.mark.parametrize(("over", "error"), [(-1, None), (0, None), (1, (MimeInconsistency, 413))])
class TestLimits:
    def test_plain_envelope(self, over, error):
        assert refusal(b"x" * (10 + over), content_type=SOAP, limits=MimeLimits(envelope=10)) == error

    def test_root_part(self, over, error):
        body = ROOT.replace(b"<E/>", b"x" * (10 + over)) + part(b"y" * 20) + END
        assert refusal(body, limits=MimeLimits(envelope=10)) == error

    def test_part(self, over, error):
        body = ROOT + part(b"x" * (10 + over)) + part(b"y" * 10, cid="c") + END
        assert refusal(body, limits=MimeLimits(part=10)) == error

    def test_part_is_counted_before_decoding(self, over, error):
        head = b"Content-Transfer-Encoding: quoted-printable\r\n"
        body = ROOT + part(b"=00" * 3 + b"x" * (1 + over), head=head) + END
        assert refusal(body, limits=MimeLimits(part=10)) == error

    def test_message(self, over, error):
        body = ROOT + part(b"x" * 50) + END
        assert refusal(body, limits=MimeLimits(message=len(body) - over)) == error

    def test_plain_message(self, over, error):
        assert refusal(b"x" * (10 + over), content_type=SOAP, limits=MimeLimits(message=10)) == error

    def test_number_of_parts(self, over, error):
        body = ROOT + b"".join(part(cid=f"{n}") for n in range(3 + over)) + END
        assert refusal(body, limits=MimeLimits(parts=3)) == (error and (MimeInconsistency, 200))


def test_default_limits():
    limits = MimeLimits()
    assert (limits.envelope, limits.parts, limits.part, limits.message) == (1 << 20, 64, 200 << 20, 1 << 30)
    assert (limits.part_header, limits.header_lines, limits.preamble) == (8 << 10, 32, 1 << 10)


def test_an_endless_body_ends_at_its_limit():
    reader = MessageReader(RELATED, limits=MimeLimits(message=1000))
    list(reader.feed(ROOT + part()))
    fed = 0
    with pytest.raises(MimeInconsistency) as refused:
        while True:
            fed += 100
            list(reader.feed(b"x" * 100))
    assert refused.value.status == 413
    assert fed <= 1000


# -- against bytes of others ----------------------------------------------------------


def content_type_of(headers: Path) -> str:
    return email.message_from_bytes(headers.read_bytes())["content-type"] or ""


BODIES = sorted(VECTORS.rglob("*.request.body"))
UNREADABLE = {"empty-body": 400, "content-type-text-plain": 415}


def test_there_are_vectors():
    assert len(BODIES) > 60
    assert {path.parent.name for path in BODIES} >= {"edelivery1-rsa2048", "edelivery2-eddsa", "edelivery2-ecdsa"}


@pytest.mark.parametrize("path", BODIES, ids=[str(p.relative_to(VECTORS)).removesuffix(".request.body") for p in BODIES])
def test_phase4_requests(path):
    name = path.name.removesuffix(".request.body")
    content_type, body = content_type_of(path.with_suffix(".headers")), path.read_bytes()
    envelope, parts, error = read(body, content_type=content_type)
    assert read(body, range(0, len(body), 7), content_type=content_type) == (envelope, parts, error)
    if name in UNREADABLE:
        assert error == (MimeInconsistency, UNREADABLE[name])
        return
    assert error is None
    oracle = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    if not oracle.is_multipart():
        assert (envelope[0], parts) == (body, [])
        return
    first, *others = oracle.get_payload()
    assert first.get_payload(decode=True) == envelope[0]
    assert [(p["Content-ID"], p["Content-Type"], p.get_payload(decode=True)) for p in others] == [
        (f"<{cid}>", kind, content) for cid, kind, content, _ in parts
    ]


SIGNALS = sorted(VECTORS.rglob("*.response.body"))


@pytest.mark.parametrize("path", SIGNALS, ids=[str(p.relative_to(VECTORS)).removesuffix(".response.body") for p in SIGNALS])
def test_phase4_responses(path):
    content_type, body = content_type_of(path.with_suffix(".headers")), path.read_bytes()
    envelope, parts, error = read(body, content_type=content_type)
    if body and content_type.startswith("application/soap+xml"):
        assert (envelope, parts, error) == ((body, "utf-8"), [], None)
    else:
        assert error is not None


@pytest.mark.parametrize("name", ["edelivery1-rsa2048/plain-xml", "edelivery2-eddsa/plain-xml"])
def test_every_truncation_of_a_real_message_is_noticed(name):
    path = VECTORS / f"{name}.request.body"
    content_type, body = content_type_of(path.with_suffix(".headers")), path.read_bytes()
    needed = len(body.rstrip(b"\r\n"))  # the last line end may be missing
    assert read(body[:needed], content_type=content_type)[2] is None
    for stop in [*range(0, 400), *range(400, needed, 37), *range(needed - 60, needed)]:
        assert read(body[:stop], content_type=content_type)[2] is not None, stop


# -- against another reader -----------------------------------------------------------

TRICKY = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\r\n", b"\r", b"\n", b"--", b"--=_b", b"\r\n--=_", b"\r\n--=_bx", b"\r\n--=_b-", b"\0"]),
    ),
    max_size=8,
).map(b"".join)


@given(contents=st.lists(TRICKY, max_size=4), newline=st.sampled_from([b"\r\n", b"\n"]), data=st.data())
def test_reads_what_the_standard_library_reads(contents, newline, data):
    head = newline.join([b"--=_b", b"Content-Type: application/soap+xml;", b" charset=UTF-8", b"", b"<E/>"])
    body = head + b"".join(
        b"\r\n" + newline.join([b"--=_b", b"Content-Type: a/b", b"Content-ID: <%d@x>" % n, b"", content])
        for n, content in enumerate(contents)
    ) + END  # fmt: skip
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    envelope, parts, error = read(body, cuts)
    assert (envelope, error) == read(body)[::2]
    if error is not None:
        return
    oracle = email.message_from_bytes(f"Content-Type: {RELATED}\r\n\r\n".encode() + body, policy=email.policy.compat32)
    assert [p.get_payload(decode=True) for p in oracle.get_payload()] == [b"<E/>", *(p[2] for p in parts)]
    assert [p["Content-ID"] for p in oracle.get_payload()[1:]] == [f"<{p[0]}>" for p in parts]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_raises_only_declared_errors(body, cuts):
    for content_type in (SOAP, RELATED):
        read(ROOT + body, [min(c, len(body)) for c in cuts], content_type=content_type)
        read(body, [min(c, len(body)) for c in cuts], content_type=content_type)


# -- Content-ID and cid: --------------------------------------------------------------


@pytest.mark.parametrize(("cid", "known", "expected"), [
    ("a@b", ["a@b"], "a@b"),
    ("a%40b", ["a@b"], "a@b"),
    ("a@b", ["a%40b"], "a%40b"),
    ("a%40b", ["a@b", "a%40b"], "a%40b"),
    ("a%2540b", ["a%40b"], "a%40b"),
    ("%61%40b", ["a%40b"], None),
    ("a@b", ["a%40b", "%61@b"], None),
    ("a", ["a@b"], None),
    ("a@b", ["a"], None),
    ("A@b", ["a@b"], None),
    ("a+b", ["a b"], None),
    ("a%ff", ["a\ufffd"], None),
    ("", [], None),
])  # fmt: skip
def test_finding_a_content_id(cid, known, expected):
    assert ContentIds(known).find(cid) == expected
    assert ContentIds(dict.fromkeys(known)).find(cid) == expected


def test_many_content_ids_cost_their_number():
    """A stranger's message may name a thousand parts, each spelled in two ways."""
    began = time.process_time()
    ids = ContentIds(f"part%2B{n}@x" for n in range(20_000))
    assert all(ids.find(f"part+{n}@x") == f"part%2B{n}@x" for n in range(20_000))
    assert time.process_time() - began < 5  # 0.1 s; their square is minutes
