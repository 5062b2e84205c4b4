"""The form reader: what may come when, whatever the cuts, and that it pulls and never gathers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.rest.body import Body
from gateway.backends.rest.limits import RestOptions
from gateway.backends.rest.multipart import FormReader
from gateway.backends.rest.problems import Disconnected, Refused
from gateway.plugin import PartSubmission
from tests.unit.backends.rest.conftest import form

TYPE = "multipart/form-data; boundary=B0"
XML = ("req@c1", {}, b"<a/>")
TWO = (PartSubmission("text/xml", cid="req@c1"), PartSubmission("text/plain"))


class Sender:
    """A request body as an ASGI `receive`; notes how much has been asked for."""

    def __init__(self, body, step=1 << 16, *, end=True):
        self.blocks = [body[i : i + step] for i in range(0, len(body), step)]
        self.asked, self.end = 0, end

    async def __call__(self):
        if self.asked < len(self.blocks):
            self.asked += 1
            more = self.asked < len(self.blocks) or not self.end
            return {"type": "http.request", "body": self.blocks[self.asked - 1], "more_body": more}
        return {"type": "http.disconnect"} if not self.end else {"type": "http.request", "body": b"", "more_body": False}


async def read(body, parts=TWO, *, step=1 << 16, end=True, content_type=TYPE):
    reader = FormReader(content_type, Body(Sender(body, step, end=end), RestOptions()))
    meta = await reader.meta(1000)
    await reader.expect(parts)
    return meta, [b"".join([block async for block in reader.content(n)]) for n in range(len(parts))]


async def slug(*given, **named):
    with pytest.raises(Refused) as refusal:
        await read(*given, **named)
    return refusal.value.slug


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 4096, 1 << 20])
@pytest.mark.parametrize("content", [
    b"", b"x", b"\r\n--B0", b"\r\n--B", b"\r\n" * 50, b"--B0--\r\n", b"\r\n--B0x\r\n", bytes(range(256)) * 20,
], ids=["empty", "one", "boundary-like", "short boundary", "line ends", "no line end before", "longer", "binary"])
async def test_reads_whatever_the_cuts(step, content):
    if content.startswith(b"\r\n--B0") and len(content) == 6:
        content += b"y"  # exactly the boundary ends the part, by RFC 2046
    body = form([("meta", {}, b"{}"), XML, ("any", {"Content-Type": "text/plain"}, content)])
    assert await read(body, step=step) == (b"{}", [b"<a/>", content])


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--B0", b"B0", b"a", b"\r\n", b"\r\n-", b"\x00"]), max_size=40),
       step=st.integers(1, 9))
def test_reads_what_nearly_is_a_boundary(pieces, step):
    import asyncio

    content = b"".join(pieces).replace(b"\r\n--B0", b"")
    if b"\r\n--B0" in b"\r\n" + content:
        return
    body = form([("meta", {}, b"{}"), XML, ("any", {}, content)])
    assert asyncio.run(read(body, step=step)) == (b"{}", [b"<a/>", content])


async def test_every_truncation_is_noticed():
    """python-multipart itself does not."""
    body = form([("meta", {}, b"{}"), XML, ("any", {}, b"content")])
    for length in range(len(body) - 2):  # the last two bytes are the line end after the last boundary
        assert await slug(body[:length]) in ("malformed-form", "meta-first"), length


async def test_a_broken_connection_is_not_an_end():
    body = form([("meta", {}, b"{}"), XML, ("any", {}, b"content")])
    for length in (10, len(body) // 2, len(body)):
        with pytest.raises(Disconnected):
            await read(body[:length], end=False)


@pytest.mark.parametrize(("fields", "expected"), [
    ([("data", {}, b"{}"), XML], "meta-first"),
    ([XML, ("meta", {}, b"{}")], "meta-first"),
    ([], "meta-first"),
    ([("meta", {}, b"x" * 1001)], "meta-too-large"),
    ([("meta", {}, b"{}")], "parts-mismatch"),
    ([("meta", {}, b"{}"), XML], "parts-mismatch"),
    ([("meta", {}, b"{}"), XML, ("b", {}, b""), ("c", {}, b"")], "parts-mismatch"),
    ([("meta", {}, b"{}"), ("any", {}, b"text"), XML], "parts-mismatch"),
    ([("meta", {}, b"{}"), ("req@c1", {"Content-ID": "<other@c1>"}, b""), ("b", {}, b"")], "parts-mismatch"),
    ([("meta", {}, b"{}"), ("req@c1", {"Content-Transfer-Encoding": "base64"}, b"PGEvPg=="), ("b", {}, b"")], "malformed-form"),
], ids=["other name", "meta second", "nothing", "large", "no payload", "one missing", "one more", "order", "other cid",
        "base64"])
async def test_forms_that_are_refused(fields, expected):
    assert await slug(form(fields)) == expected


async def test_content_id_names_a_part():
    body = form([("meta", {}, b"{}"), ("file", {"Content-ID": "<req@c1>"}, b"1"), ("file", {}, b"2")])
    assert (await read(body))[1] == [b"1", b"2"]


@pytest.mark.parametrize("body", [
    b"no boundary at all",
    b"\r\n" + b"a" * 200_000,
    b"--B0\r\nNo-Disposition: x\r\n\r\n{}\r\n--B0--",
    b'--B0\r\nContent-Disposition: attachment; name="meta"\r\n\r\n{}\r\n--B0--',
    b"--B0\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--B0--",
    b'--B0\r\nContent-Disposition: form-data; name="meta"\r\nContent-Disposition: form-data; name="x"\r\n\r\n{}\r\n--B0--',
    b'--B0\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n{}\r\n--B0--',
    b"--B0\r\nBad Header: x\r\n\r\n{}\r\n--B0--",
    b'--B0\r\nContent-Disposition: form-data; name="meta"\r\nX: ' + b"a" * 5000 + b"\r\n\r\n{}\r\n--B0--",
    b'--B0\r\nContent-Disposition: form-data; name="meta"' + b"\r\nX: a" * 9 + b"\r\n\r\n{}\r\n--B0--",
    b"--B0" + b" " * 100_000,
], ids=["text", "endless preamble", "no disposition", "attachment", "no name", "twice", "not utf-8", "bad header",
        "long header", "many headers", "padding"])
@pytest.mark.parametrize("step", [1 << 20, 1000])
async def test_what_is_no_form(body, step):
    assert await slug(body, step=step) == "malformed-form"


async def test_content_after_the_end():
    body = form([("meta", {}, b"{}")])
    await read(body + b"\r\n" * 100, parts=(), step=50)
    assert await slug(body + b"x" * 5000, parts=(), step=50) == "malformed-form"


@pytest.mark.parametrize("content_type", [
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 71,
])
async def test_boundaries_that_are_none(content_type):
    assert await slug(b"", content_type=content_type) == "malformed-form"


async def test_a_boundary_in_quotes_and_a_name_in_utf8():
    parts = (PartSubmission("text/plain", cid="ļ@c1"),)
    body = form([("meta", {}, b"{}"), ("ļ@c1", {}, b"1")], "a b")
    assert await read(body, parts, content_type='multipart/form-data; boundary="a b"') == (b"{}", [b"1"])


async def test_pulls_only_what_is_asked_for():
    """Backpressure: 10 MB of payload, of which the reader takes the first block."""
    sender = Sender(form([("meta", {}, b"{}"), ("any", {}, bytes(10_000_000))]), step=10_000)
    reader = FormReader(TYPE, Body(sender, RestOptions()))
    await reader.meta(1000)
    await reader.expect([PartSubmission("text/plain")])
    content = reader.content(0)
    await anext(content)
    assert sender.asked <= 2
    taken = 0
    async for _ in content:
        taken += 1
        assert sender.asked <= taken + 3
    assert sender.asked == len(sender.blocks)


async def test_a_payload_left_in_the_middle_is_skipped():
    body = form([("meta", {}, b"{}"), ("req@c1", {}, b"a" * 50_000), ("any", {}, b"second")])
    reader = FormReader(TYPE, Body(Sender(body, 1000), RestOptions()))
    await reader.meta(1000)
    await reader.expect(TWO)
    await anext(reader.content(0))
    assert [block async for block in reader.content(1)] == [b"second"]


async def test_payloads_come_in_their_order():
    reader = FormReader(TYPE, Body(Sender(form([("meta", {}, b"{}"), XML, ("any", {}, b"")])), RestOptions()))
    await reader.meta(1000)
    await reader.expect(TWO)
    with pytest.raises(ValueError):
        await anext(reader.content(1))
