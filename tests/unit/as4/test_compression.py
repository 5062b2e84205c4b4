import gzip
import os
import struct
import zlib as standard

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4 import compression
from gateway.as4.compression import MAX_HEADER, MAX_MEMBERS, STEP, Deflater, Inflater, should_compress
from gateway.errors import DecompressionFailure

LIMIT = 64 << 20


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch):
    """Run a test with the fast library and with the one everybody has."""
    if request.param == "zlib":
        monkeypatch.setattr(compression, "zlib", standard)
    else:
        monkeypatch.setattr(compression, "zlib", pytest.importorskip("isal.isal_zlib"))
    return request.param


pytestmark = pytest.mark.usefixtures("library")


def inflate(octets: bytes, step: int | None = None, *, limit: int = LIMIT, **caps) -> bytes:
    inflater, step = Inflater(limit, **caps), step or len(octets) or 1
    pieces = [piece for i in range(0, len(octets), step) for piece in inflater.feed(octets[i : i + step])]
    inflater.finish()
    assert all(0 < len(piece) <= STEP for piece in pieces)
    return b"".join(pieces)


def member(content: bytes, *, extra=None, name=None, comment=None, crc=False, flags=0) -> bytes:
    """One gzip member written by hand, with the optional fields of RFC 1952."""
    flags |= (extra is not None) * 4 | (name is not None) * 8 | (comment is not None) * 16 | crc * 2
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    if extra is not None:
        header += struct.pack("<H", len(extra)) + extra
    for text in (name, comment):
        if text is not None:
            header += text + b"\0"
    if crc:
        header += struct.pack("<H", standard.crc32(header) & 0xFFFF)
    raw = standard.compressobj(6, standard.DEFLATED, -15)
    body = raw.compress(content) + raw.flush()
    return header + body + struct.pack("<II", standard.crc32(content), len(content) & 0xFFFFFFFF)


CONTENT = b"<evidence>" + bytes(range(256)) * 40 + b"</evidence>"


@pytest.mark.parametrize("step", [1, 7, 4096, None])
def test_inflates_whatever_the_cuts(step):
    assert inflate(gzip.compress(CONTENT, mtime=0), step) == CONTENT
    assert inflate(gzip.compress(b""), step) == b""
    assert inflate(member(b"abc"), step) == b"abc"


def test_large_content_comes_in_steps():
    content = os.urandom(300_000) + b"a" * 1_000_000 + os.urandom(300_000)
    assert inflate(gzip.compress(content, 1)) == content
    assert inflate(gzip.compress(content, 1), 1 << 20) == content


@pytest.mark.parametrize("fields", [
    {"name": b"../../etc/passwd"},
    {"name": b""},
    {"comment": b"c" * 300},
    {"extra": b""},
    {"extra": b"BC\x02\0ab"},
    {"crc": True},
    {"extra": b"x" * 10, "name": b"n", "comment": b"c" * 300},
    {"extra": b"\0" * 10, "name": b"n", "comment": b"", "crc": True},
])  # fmt: skip
@pytest.mark.parametrize("step", [1, 2, 3, 5, 11, None])
def test_header_fields_have_no_effect(fields, step):
    assert inflate(member(CONTENT, **fields) + member(b"x", **fields), step) == CONTENT + b"x"


@pytest.mark.parametrize("step", [1, 7, None])
def test_members_may_follow_one_another(step):
    assert inflate(member(b"a") + gzip.compress(b"") + member(b"b" * 1000), step) == b"a" + b"b" * 1000


@pytest.mark.parametrize("octets", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"hello", id="not gzip"),
    pytest.param(standard.compress(CONTENT), id="zlib container"),
    pytest.param(member(CONTENT)[10:-8], id="raw deflate"),
    pytest.param(b"PK\x03\x04" + bytes(40), id="zip"),
    pytest.param(b"\x28\xb5\x2f\xfd" + bytes(40), id="zstd"),
    pytest.param(b"\x1f\x8b\x07" + member(CONTENT)[3:], id="other method"),
    pytest.param(member(CONTENT, flags=0x20), id="reserved flag"),
    pytest.param(member(CONTENT) + b"\0", id="trailing zero"),
    pytest.param(member(CONTENT) + b"x", id="trailing octet"),
    pytest.param(member(CONTENT) + b"x" * 100, id="trailing octets"),
    pytest.param(member(CONTENT) + member(CONTENT)[:5], id="second member cut in its header"),
    pytest.param(member(CONTENT) + member(CONTENT)[:-1], id="second member cut"),
    pytest.param(member(CONTENT)[:-4] + struct.pack("<I", len(CONTENT) + 1), id="ISIZE wrong"),
    pytest.param(member(CONTENT)[:-8] + b"\0\0\0\0" + member(CONTENT)[-4:], id="CRC wrong"),
    pytest.param(member(CONTENT)[:30] + b"\xff\xff\xff\xff" + member(CONTENT)[34:], id="damaged"),
])  # fmt: skip
@pytest.mark.parametrize("step", [1, 7, None])
def test_refuses(octets, step):
    with pytest.raises(DecompressionFailure):
        inflate(octets, step)


def test_every_truncation_is_noticed():
    octets = member(b"some content", name=b"n", crc=True)
    for stop in range(len(octets)):
        with pytest.raises(DecompressionFailure):
            inflate(octets[:stop])


@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
@pytest.mark.parametrize("step", [1, None])
def test_header_limit(over, fits, step):
    octets = member(b"x", name=b"n" * (MAX_HEADER - 11 + over))
    if fits:
        assert inflate(octets, step) == b"x"
        return
    with pytest.raises(DecompressionFailure):
        inflate(octets, step)


def test_a_huge_extra_field():
    with pytest.raises(DecompressionFailure):
        inflate(member(b"x", extra=bytes(65535)))


@pytest.mark.parametrize(("count", "fits"), [(MAX_MEMBERS - 1, True), (MAX_MEMBERS, True), (MAX_MEMBERS + 1, False)])
def test_number_of_members(count, fits):
    octets = member(b"") * count
    if fits:
        assert inflate(octets) == b""
        return
    with pytest.raises(DecompressionFailure):
        inflate(octets)


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
@pytest.mark.parametrize("step", [1, None])
def test_absolute_limit(size, fits, step):
    octets = member(os.urandom(size))
    if fits:
        assert len(inflate(octets, step, limit=1000)) == size
        return
    with pytest.raises(DecompressionFailure):
        inflate(octets, step, limit=1000)


def test_a_limit_of_nothing():
    assert inflate(member(b""), limit=0) == b""
    with pytest.raises(DecompressionFailure):
        inflate(member(b"x"), limit=0)


@pytest.mark.parametrize("step", [100, 1 << 20])
def test_a_bomb_stops_at_the_ratio(step):
    bomb = member(bytes(50 << 20))
    assert len(bomb) < 60_000
    inflater, out = Inflater(1 << 30), 0
    with pytest.raises(DecompressionFailure):
        for i in range(0, len(bomb), step):
            for piece in inflater.feed(bomb[i : i + step]):
                out += len(piece)
    assert out <= (1 << 20) + 200 * len(bomb)
    assert out < 4 << 20


def test_a_bomb_stops_at_the_limit():
    inflater, out = Inflater(10 << 20, ratio=2000), 0
    with pytest.raises(DecompressionFailure):
        for piece in inflater.feed(member(bytes(50 << 20))):
            out += len(piece)
    assert out <= 10 << 20


@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
def test_ratio_and_grace(over, fits):
    octets = member(bytes(100_000 + over))
    grace = 100_000 - 10 * len(member(bytes(100_000)))
    assert len(member(bytes(100_001))) == len(member(bytes(99_999)))
    if not fits:
        with pytest.raises(DecompressionFailure):
            inflate(octets, ratio=10, grace=grace - 10 * 9)
        return
    assert len(inflate(octets, ratio=10, grace=grace + 10 * 9)) == 100_000 + over


@given(st.binary(max_size=300), st.integers(1, 50))
def test_raises_only_declared_errors(octets, step):
    for prefix in (b"", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x1f", member(b"x")):
        try:
            inflate(prefix + octets, step)
        except DecompressionFailure:
            pass


# -- deflating --------------------------------------------------------------------


@given(st.lists(st.binary(max_size=2000), max_size=6))
def test_deflates_what_everybody_inflates(blocks):
    deflater = Deflater()
    octets = b"".join([*(deflater.feed(block) for block in blocks), deflater.finish()])
    assert gzip.decompress(octets) == inflate(octets) == b"".join(blocks)
    assert octets[:4] == b"\x1f\x8b\x08\0" and octets[4:8] == bytes(4)


def test_xml_shrinks():
    deflater = Deflater()
    text = b"<a>some text</a>\n" * 5000
    assert len(deflater.feed(text) + deflater.finish()) < len(text) / 20


@pytest.mark.parametrize(("kind", "expected"), [
    ("text/xml", True), ("application/xml; charset=utf-8", True), ("application/pdf", True), ("image/svg+xml", True),
    ("application/octet-stream", True), ("image/tiff", True), ("", True),
    ("image/jpeg", False), ("IMAGE/PNG", False), ("application/zip", False), ("application/gzip; x=y", False),
    ("application/vnd.etsi.asic-e+zip", False), ("application/vnd.etsi.asic-s+zip", False),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", False),
])  # fmt: skip
def test_should_compress(kind, expected):
    assert should_compress(kind) == expected
