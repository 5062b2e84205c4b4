import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.splitter import Splitter
from gateway.errors import MimeInconsistency

BOUNDARY = "=_b"
SIZES = {"parts": 8, "header": 100, "lines": 4, "around": 20}


def split(body: bytes, cuts=(), **sizes):
    """(parts as (header, content, complete), refused) whatever the cuts."""
    splitter = Splitter(BOUNDARY, **{**SIZES, **sizes})
    parts: list[list] = []
    edges = [0, *sorted(cuts), len(body)]

    def take(pieces):
        for piece in pieces:
            if isinstance(piece, dict):
                assert not parts or parts[-1][2], "a part begins inside another"
                parts.append([piece, b"", False])
            elif piece is None:
                parts[-1][2] = True
            else:
                assert piece, "an empty piece"
                parts[-1][1] += piece

    try:
        for start, stop in itertools.pairwise(edges):
            take(splitter.feed(body[start:stop]))
        take(splitter.close())
    except MimeInconsistency:
        return parts, True
    return parts, False


def contents(body: bytes, **sizes):
    """Contents of the parts, the same whole and byte by byte; None when refused."""
    whole = split(body, **sizes)
    assert split(body, range(1, len(body)), **sizes) == whole
    return None if whole[1] else [content for _, content, _ in whole[0]]


@pytest.mark.parametrize(("body", "expected"), [
    pytest.param(b"--=_b\r\n\r\none\r\n--=_b\r\n\r\ntwo\r\n--=_b--\r\n", [b"one", b"two"], id="plain"),
    pytest.param(b"\r\n--=_b\r\n\r\none\r\n--=_b--", [b"one"], id="empty line first, no CRLF at the end"),
    pytest.param(b"hello\r\n--=_b\r\n\r\none\r\n--=_b--\r\nbye", [b"one"], id="preamble and epilogue"),
    pytest.param(b"--=_b \t\r\n\r\none\r\n--=_b-- \r\n", [b"one"], id="blanks after the boundary"),
    pytest.param(b"--=_b\n\none\r\n--=_b--", [b"one"], id="LF in header and after the delimiter"),
    pytest.param(b"--=_b\nA: b\nC: d\n\n\none\n\r\n--=_b--\n", [b"\none\n"], id="LF is content"),
    pytest.param(b"--=_b\r\n\r\n\r\n--=_b--", [b""], id="empty part"),
    pytest.param(b"--=_b\r\n\r\n--=_b--", [b""], id="empty part, short form"),
    pytest.param(b"--=_b\r\nA: b\r\n\r\n--=_b\r\n\r\nx\r\n--=_b--", [b"", b"x"], id="short form with header"),
    pytest.param(b"--=_b\r\n\r\n\r\n\r\n--=_b--", [b"\r\n"], id="content is one line end"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_bc\r\nb\r\n--=_b--", [b"a\r\n--=_bc\r\nb"], id="boundary as a prefix"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b-\r\nb\r\n--=_b--", [b"a\r\n--=_b-\r\nb"], id="one hyphen"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b--x\r\nb\r\n--=_b--", [b"a\r\n--=_b--x\r\nb"], id="closing delimiter as a prefix"),
    pytest.param(b"--=_b\r\n\r\na--=_b\r\nb\r\n--=_b--", [b"a--=_b\r\nb"], id="boundary inside a line"),
    pytest.param(b"--=_b\r\n\r\n\r\r\n\r\r\n--=_b--", [b"\r\r\n\r"], id="lone CRs"),
    pytest.param(b"--=_b\r\n\r\n--=_b-x\r\n--=_b--", [b"--=_b-x"], id="content begins with nearly a delimiter"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b" + b" " * 257 + b"\r\n--=_b--",
                 [b"a\r\n--=_b" + b" " * 257], id="too many blanks are content"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b" + b" " * 256 + b"\r\n\r\nb\r\n--=_b--", [b"a", b"b"], id="many blanks"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b--\r\n--=_b\r\n\r\n", [b"a"], id="a delimiter in the epilogue"),
])  # fmt: skip
def test_splits(body, expected):
    assert contents(body) == expected


@pytest.mark.parametrize("body", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"--=_b--", id="no parts"),
    pytest.param(b"--=_b--\r\n--=_b\r\n\r\n\r\n--=_b--", id="no parts before the end"),
    pytest.param(b"one", id="no delimiter"),
    pytest.param(b"x--=_b\r\n\r\na\r\n--=_b--", id="first delimiter inside a line"),
    pytest.param(b"--=_b\r\n\r\na", id="truncated content"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b", id="truncated delimiter"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b-", id="truncated closing delimiter"),
    pytest.param(b"--=_b\r\nA: b", id="truncated header"),
    pytest.param(b"\n--=_b\n\na\n--=_b--\n", id="LF only"),
    pytest.param(b"--=_b\r\n\r\na\n--=_b\r\n\r\nb\r\n--=_b--", id="delimiter after a bare LF"),
    pytest.param(b"--=_b\n\n--=_b--\r\n", id="short form with a bare LF"),
    pytest.param(b"--=_b\r\n\r\na\n--=_b--\r\n", id="closing delimiter after a bare LF"),
    pytest.param(b"--=_b\r\n\r\na\n\n--=_b--\r\n", id="closing delimiter after two"),
    pytest.param(b"--=_b\r\n\r\na\r--=_b\r\n\r\nb\r\n--=_b--", id="delimiter after a bare CR"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b\rb\r\n--=_b--", id="delimiter before a bare CR"),
    pytest.param(b"--=_b\r\n\r\na\r\n--=_b--\rb", id="closing delimiter before a bare CR"),
    pytest.param(b"--=_b\r\nno colon\r\n\r\n\r\n--=_b--", id="header without colon"),
    pytest.param(b"--=_b\r\n: b\r\n\r\n\r\n--=_b--", id="header without name"),
    pytest.param(b"--=_b\r\nA : b\r\n\r\n\r\n--=_b--", id="blank before the colon"),
    pytest.param(b"--=_b\r\n A: b\r\n\r\n\r\n--=_b--", id="fold of nothing"),
    pytest.param(b"--=_b\r\nA: b\0\r\n\r\n\r\n--=_b--", id="NUL in a header"),
    pytest.param(b"--=_b\r\nA: b\rC: d\r\n\r\n\r\n--=_b--", id="bare CR in a header"),
    pytest.param(b"--=_b\r\nA: b\r\na: c\r\n\r\n\r\n--=_b--", id="a field twice"),
])  # fmt: skip
def test_refuses(body):
    assert contents(body) is None


def test_reads_header_fields():
    body = (
        b"--=_b\r\nContent-Type: text/xml;\r\n\tcharset=utf-8\nContent-ID:<a@b>\r\nX-Empty:\r\n\r\n\r\n--=_b--"
    )
    parts, refused = split(body)
    assert not refused
    assert parts[0][0] == {"content-type": "text/xml; charset=utf-8", "content-id": "<a@b>", "x-empty": ""}


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, True), (101, False)])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_header_size(size, fits, end):
    header = b"A: ".ljust(size - 2 * len(end), b"x") + end + end
    assert len(header) == size
    assert (contents(b"--=_b\r\n" + header + b"\r\n--=_b--") is not None) == fits


@pytest.mark.parametrize(("lines", "fits"), [(3, True), (4, True), (5, False)])
def test_header_lines(lines, fits):
    header = b"A: b\r\n" + b" c\r\n" * (lines - 1)
    assert (contents(b"--=_b\r\n" + header + b"\r\n\r\n--=_b--") is not None) == fits


@pytest.mark.parametrize(("parts", "fits"), [(7, True), (8, True), (9, False)])
def test_number_of_parts(parts, fits):
    assert (contents(b"--=_b\r\n\r\n\r\n" * parts + b"--=_b--") is not None) == fits


@pytest.mark.parametrize(("octets", "fits"), [(19, True), (20, True), (21, False)])
def test_preamble_and_epilogue(octets, fits):
    one = b"--=_b\r\n\r\n\r\n--=_b--\r\n"
    assert (contents(b"x" * octets + b"\r\n" + one) is not None) == fits
    assert (contents(one + b"x" * octets) is not None) == fits


@pytest.mark.parametrize(("times", "fits"), [(999, True), (1000, True), (1001, False)])
def test_content_full_of_the_boundary(times, fits):
    assert (contents(b"--=_b\r\n\r\n" + b"x\r\n--=_bx" * times + b"\r\n--=_b--") is not None) == fits


FRAGMENTS = st.lists(
    st.sampled_from([
        b"\r\n--=_b\r\n\r\n", b"\r\n--=_b--", b"\r\n--=_b", b"--=_b", b"\n--=_b", b"--", b"-", b"=", b"\r\n", b"\r",
        b"\n", b" ", b"\t", b"x", b"A: b\r\n", b"\r\n\r\n", b"_b", b"\0", b"\xff" * 30,
    ]),
    max_size=30,
)  # fmt: skip


@given(fragments=FRAGMENTS, data=st.data())
def test_the_cuts_do_not_matter(fragments, data):
    body = b"--=_b\r\n\r\n" + b"".join(fragments) + b"\r\n--=_b--\r\n"
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    whole = split(body)
    assert split(body, cuts) == whole
    assert split(body, range(1, len(body))) == whole


@given(contents_=st.lists(st.binary(max_size=200).filter(lambda c: b"\n--=_b" not in b"\n" + c), min_size=1, max_size=4))
def test_every_truncation_is_noticed(contents_):
    body = b"".join(b"--=_b\r\n\r\n" + content + b"\r\n" for content in contents_) + b"--=_b--"
    assert contents(body) == contents_
    assert all(split(body[:stop])[1] for stop in range(len(body)))
