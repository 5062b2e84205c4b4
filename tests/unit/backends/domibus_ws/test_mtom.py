"""A message handed out with MTOM: zeep reads it, and so does a plain MIME parser."""

import email
import os

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.backends.domibus_ws.operations import Options
from gateway.backends.domibus_ws.reading import cid_of
from tests.unit.backends.domibus_ws.shapes import operation


@pytest.fixture
async def mtom_site(lv):
    from tests.unit.backends.domibus_ws.conftest import site_of

    lv.gateway._backends["domibus_ws"]._door._options = replace(Options(), mtom=True)
    async with site_of(lv) as found:
        yield found


async def test_payloads_stand_beside_the_envelope(mtom_site, lv):
    portal = await mtom_site.user()
    contents = [b"<response/>", b"%PDF\r\n--uuid:" + os.urandom(100_000) + b".", b""]
    await lv.give(lv.peer.message([("application/x-ebrs+xml", contents[0]), ("application/pdf", contents[1]), ("text/plain", b"")]))
    client = await portal.zeep()
    [id] = await client("listPendingMessages")
    found = await client("retrieveMessage", id, "false")
    assert [p.value or b"" for p in found.body.payload] == contents

    status, kind, octets = await portal.post(operation("retrieveMessageRequest", f"<messageID>{id}</messageID>"))
    assert status == 200 and kind.startswith('multipart/related; type="application/xop+xml"')
    parsed = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + octets)
    root, *attachments = parsed.get_payload()
    assert root.get_content_type() == "application/xop+xml"
    by_id = {part["Content-ID"].strip("<>"): part.get_payload(decode=True) for part in attachments}
    tree = etree.fromstring(root.get_payload(decode=True))
    named = [cid_of(node.get("href")) for node in tree.iter("{http://www.w3.org/2004/08/xop/include}Include")]
    assert [by_id[name] for name in named] == contents
