import email

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.mime import EnvelopeReady, MessageReader, PartBegins, PartData, PartEnds
from gateway.as4.related import RelatedWriter, new_boundary
from gateway.errors import ValueInconsistent

BOUNDARY = new_boundary(lambda n: bytes(range(n)))


def written(writer: RelatedWriter, contents: list[bytes]) -> bytes:
    body = writer.root()
    for index, content in enumerate(contents):
        body += writer.part_head(index) + content + writer.part_tail
    return body + writer.epilogue


def test_the_shape_peers_know():
    writer = RelatedWriter(BOUNDARY, b"<E/>", [("p-1@gw.example", "application/octet-stream", 3)])
    assert BOUNDARY == "=_000102030405060708090a0b0c0d0e0f"
    root_id = "root-000102030405060708090a0b0c0d0e0f@as4"
    assert writer.content_type == (
        'multipart/related; type="application/soap+xml"; boundary="=_000102030405060708090a0b0c0d0e0f"; '
        f'start="<{root_id}>"; start-info="application/soap+xml"'
    )
    assert written(writer, [b"abc"]) == (
        b"--=_000102030405060708090a0b0c0d0e0f\r\n"
        b"Content-Type: application/soap+xml; charset=UTF-8\r\n"
        b"Content-Transfer-Encoding: binary\r\n"
        b"Content-ID: <" + root_id.encode() + b">\r\n\r\n"
        b"<E/>\r\n"
        b"--=_000102030405060708090a0b0c0d0e0f\r\n"
        b"Content-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: binary\r\n"
        b"Content-ID: <p-1@gw.example>\r\n\r\n"
        b"abc\r\n"
        b"--=_000102030405060708090a0b0c0d0e0f--\r\n"
    )


@given(root=st.binary(min_size=1, max_size=300), contents=st.lists(st.binary(max_size=300), max_size=4))
def test_both_readers_get_back_what_was_written(root, contents):
    parts = [(f"p{n}@gw", "application/gzip", len(content)) for n, content in enumerate(contents)]
    writer = RelatedWriter(BOUNDARY, root, parts)
    body = written(writer, contents)
    assert len(body) == writer.content_length

    reader = MessageReader(writer.content_type)
    events = [*reader.feed(body), *reader.close()]
    expected = [EnvelopeReady(root, "UTF-8")]
    for (cid, kind, _), content in zip(parts, contents, strict=True):
        headers = {"content-type": kind, "content-transfer-encoding": "binary", "content-id": f"<{cid}>"}
        expected += [PartBegins(cid, kind, headers), *([PartData(content)] if content else []), PartEnds()]
    assert events == expected

    oracle = email.message_from_bytes(b"Content-Type: " + writer.content_type.encode() + b"\r\n\r\n" + body)
    assert not oracle.defects
    assert [p.get_payload(decode=True) for p in oracle.get_payload()] == [root, *contents]
    assert oracle.get_param("start") == oracle.get_payload()[0]["Content-ID"]
    assert [p["Content-ID"] for p in oracle.get_payload()[1:]] == [f"<{cid}>" for cid, _, _ in parts]


@pytest.mark.parametrize("cid", ["", "a b", "a+b", "a%40b", "<a@b>", "a/b", "a\r\nb", "a\n", "é@b", "a(b)", "a&b=c"])
def test_content_ids_that_peers_misread(cid):
    with pytest.raises(ValueInconsistent) as refusal:
        RelatedWriter(BOUNDARY, b"<E/>", [(cid, "a/b", 0)])
    assert refusal.value.where == "eb:PartInfo/@href"


@pytest.mark.parametrize("cids", [["a", "a"], ["a", "A"], ["root-000102030405060708090a0b0c0d0e0f@as4"]])
def test_content_ids_are_unique(cids):
    with pytest.raises(ValueInconsistent):
        RelatedWriter(BOUNDARY, b"<E/>", [(cid, "a/b", 0) for cid in cids])


@pytest.mark.parametrize("kind", ["", "text", "text/", "a/b\r\nX: y", "a/b\n", "a/b;\r\n c=d", "a b/c", "a/é", "a/b;c=\0"])
def test_media_types_that_would_break_the_header(kind):
    with pytest.raises(ValueInconsistent):
        RelatedWriter(BOUNDARY, b"<E/>", [("a", kind, 0)])


@pytest.mark.parametrize("kind", ["text/xml", "text/xml; charset=UTF-8", 'a/vnd.b+c;x="y z"', "application/soap+xml"])
def test_media_types(kind):
    assert f"Content-Type: {kind}\r\n".encode() in RelatedWriter(BOUNDARY, b"", [("a", kind, 0)]).part_head(0)


@pytest.mark.parametrize("boundary", ["", "a" * 71, "a b", "a\r\n", 'a"'])
def test_boundaries(boundary):
    with pytest.raises(ValueError, match="boundary"):
        RelatedWriter(boundary, b"<E/>", [])


def test_a_new_boundary_is_random():
    assert new_boundary(lambda n: b"\0" * n) == "=_" + "0" * 32
    assert new_boundary(lambda n: b"\xff" * n) == "=_" + "f" * 32
