"""Handing out payloads: whole, in ranges, inert."""

import base64
import hashlib

import pytest

from tests.unit.backends.rest.conftest import refused

CONTENT = bytes(range(256)) * 20
SIZE = len(CONTENT)


@pytest.fixture
def message(msh):
    return msh.receive("evidence", CONTENT, b"", mime_type="application/pdf")


@pytest.fixture
def address(message):
    return f"/v1/messages/{message.id}/payloads/{message.parts[0].cid}"


async def test_the_list(http, message):
    listed = (await http.get(f"/v1/messages/{message.id}/payloads")).json()["payloads"]
    assert [part["cid"] for part in listed] == [part.cid for part in message.parts]
    assert listed[0]["sha256"] == hashlib.sha256(CONTENT).hexdigest() and listed[0]["size"] == SIZE


async def test_the_whole(http, address):
    answer = await http.get(address)
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert answer.status_code == 200 and answer.content == CONTENT
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["content-digest"] == answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == 'attachment; filename="payload-0.pdf"'
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["accept-ranges"] == "bytes"


async def test_an_empty_one(http, message):
    answer = await http.get(f"/v1/messages/{message.id}/payloads/{message.parts[1].cid}")
    assert answer.status_code == 200 and answer.content == b"" and answer.headers["content-length"] == "0"


@pytest.mark.parametrize(("asked", "first", "last"), [
    ("bytes=0-0", 0, 0), ("bytes=0-1499", 0, 1499), ("bytes=1000-1999", 1000, 1999), ("bytes=999-", 999, SIZE - 1),
    (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1), ("bytes=-1", SIZE - 1, SIZE - 1), (f"bytes=1-{10**17}", 1, SIZE - 1),
])
async def test_one_range(http, address, asked, first, last):
    answer = await http.get(address, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["content-length"] == str(last - first + 1)
    assert "content-digest" not in answer.headers and "repr-digest" in answer.headers


@pytest.mark.parametrize("asked", [
    "bytes=0-", f"bytes=-{SIZE}", f"bytes=-{SIZE * 2}", "bytes=0-1,2-3", "bytes=5-4", "lines=1-2", "bytes=a-b", "bytes=-",
    "bytes=" + "9" * 5000, "bytes=" + "0-1," * 1000,
])
async def test_ranges_answered_with_the_whole(http, address, asked):
    """[threats H09]: several ranges are not computed."""
    answer = await http.get(address, headers={"Range": asked})
    assert answer.status_code == 200 and answer.content == CONTENT


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
async def test_ranges_beyond(http, address, asked):
    answer = await http.get(address, headers={"Range": asked})
    refused(answer, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


async def test_if_range(http, address):
    tag = (await http.get(address)).headers["etag"]
    for validator, status in ((tag, 206), ('"other"', 200), ("W/" + tag, 200)):
        answer = await http.get(address, headers={"Range": "bytes=5-", "If-Range": validator})
        assert answer.status_code == status


async def test_head(http, address):
    answer = await http.head(address)
    assert answer.status_code == 200 and answer.content == b"" and answer.headers["content-length"] == str(SIZE)


@pytest.mark.parametrize("how", [{}, {"Range": "bytes=1-"}])
async def test_a_purged_one(http, msh, message, address, how):
    msh.purge(message.id)
    refused(await http.get(address, headers=how), "payload-purged")
    assert (await http.get(f"/v1/messages/{message.id}")).json()["state"] == "PURGED"


async def test_reading_destroys_nothing(http, address):
    for _ in range(3):
        assert (await http.get(address)).content == CONTENT


@pytest.mark.parametrize("cid", ["nobody", "%00", "../0", "part-0%40gateway.example%0d%0aX:1"])
@pytest.mark.parametrize("how", [{}, {"Range": "bytes=1-"}])
async def test_no_such_part(http, message, cid, how):
    refused(await http.get(f"/v1/messages/{message.id}/payloads/{cid}", headers=how), "not-found")


async def test_a_cid_with_slashes(http, msh, meta):
    meta["parts"] = [{"mime_type": "text/plain", "cid": "a/b c@d"}]
    id = (await http.submit_form(meta, [("a/b c@d", {}, b"x")])).json()["id"]
    assert (await http.get(f"/v1/messages/{id}/payloads/a%2Fb%20c@d")).content == b"x"


@pytest.mark.parametrize(("mime_type", "sent", "name"), [
    ("text/html", "text/html", "payload-0.bin"),
    ("text/xml; charset=UTF-8", "text/xml; charset=UTF-8", "payload-0.xml"),
    ('application/x-ebrs+xml; charset="utf-8"', 'application/x-ebrs+xml; charset="utf-8"', "payload-0.xml"),
    ("text/html\r\nSet-Cookie: a=b", "application/octet-stream", "payload-0.bin"),
    ("../../etc/passwd", "application/octet-stream", "payload-0.bin"),
    ("text/plain; a=" + "b" * 5000, "application/octet-stream", "payload-0.bin"),
    ("", "application/octet-stream", "payload-0.bin"),
])
async def test_a_partner_cannot_choose_what_a_browser_does(http, msh, mime_type, sent, name):
    """[threats K02, M01]"""
    view = msh.receive("evidence", b"<script>", mime_type=mime_type)
    answer = await http.get(f"/v1/messages/{view.id}/payloads/{view.parts[0].cid}")
    assert answer.headers["content-type"] == sent and "set-cookie" not in answer.headers
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert "sandbox" in answer.headers["content-security-policy"]
