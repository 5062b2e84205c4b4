"""100 MB through the SOAP door, both ways, as base64 and beside the envelope: memory stays flat."""

import base64
import hashlib
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from gateway.backends.domibus_ws.operations import Options
from gateway.plugin import MessageFilter
from tests.unit.backends.domibus_ws.conftest import PATH, site_of
from tests.unit.backends.domibus_ws.shapes import include, operation, payload, related, submit
from tests.unit.store.servers import Database, Servers
from tests.world import CALLER, world

SIZE = 100 << 20
PIECE = 3 << 16
BOUND = 64 << 20

pytestmark = pytest.mark.slow


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def begin() -> int:
    """Forget the peak so far; what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


@pytest.fixture(scope="module")
def servers():
    made = Servers()
    yield made
    made.stop()


@pytest.fixture
async def lv(tmp_path, servers):
    database = await Database.make(servers.dsn("wheel"))
    async with world(tmp_path / "lv", store=await database.store()) as found:
        yield found
    await database.drop()


def content():
    """The payload in pieces, always the same, and compressible by nobody."""
    for number in range(SIZE // PIECE):
        yield hashlib.shake_128(number.to_bytes(4)).digest(PIECE)
    yield b"." * (SIZE % PIECE)


def digest() -> str:
    found = hashlib.sha256()
    for piece in content():
        found.update(piece)
    return found.hexdigest()


async def inline():
    before, after = submit(payload(value="@@@")).split(b"@@@")
    yield before
    for piece in content():
        yield base64.b64encode(piece)
    yield after


async def beside(octets: bytes):
    before, after = octets.split(b"@@@")
    yield before
    for piece in content():
        yield piece
    yield after


@pytest.mark.parametrize("mtom", [False, True], ids=["base64", "MTOM"])
async def test_a_large_payload_passes_with_flat_memory(lv, mtom):
    lv.gateway._backends["domibus_ws"]._door._options = replace(Options(), mtom=mtom)
    content_type, octets = related(submit(payload(value=include("a1"))), ("<a1>", b"@@@"))
    async with site_of(lv) as site:
        portal = await site.user()
        used = begin()
        headers = {"Authorization": portal.authorization, "Content-Type": content_type if mtom else "application/soap+xml"}
        async with aiohttp.ClientSession() as session:
            async with session.post(site.url + PATH, data=beside(octets) if mtom else inline(), headers=headers) as answer:
                assert answer.status == 200, await answer.read()
            assert peak() - used < BOUND, f"submitting took {peak() - used >> 20} MiB"
            [view], _ = await lv.door.messages(CALLER, MessageFilter())
            assert (view.parts[0].size, view.parts[0].sha256) == (SIZE, digest())

            # What is retrieved: the same octets as an inbound message, put where such a message would be.
            await received(lv, view)
            used = begin()
            request = operation("retrieveMessageRequest", "<messageID>large@ee.example</messageID>", attributes='markAsDownloaded="false"')
            headers["Content-Type"] = "application/soap+xml"
            got = hashlib.sha256()
            async with session.post(site.url + PATH, data=request, headers=headers) as answer:
                assert answer.status == 200
                size = 0
                async for block in answer.content.iter_chunked(1 << 18):
                    size += len(block)
                    got.update(block)
            assert size > SIZE
            assert peak() - used < BOUND, f"retrieving took {peak() - used >> 20} MiB"


async def received(lv, view) -> None:
    """The stored submission turned into a waiting inbound message by the database's owner."""
    sql = lv.store._pool
    await sql.write("ALTER TABLE message DISABLE TRIGGER USER")
    try:
        await sql.write(
            """UPDATE message SET direction = 'inbound', state = 'RECEIVED', message_id = 'large@ee.example',
                      header = jsonb_set(header::jsonb, '{message_id}', '"large@ee.example"')::json,
                      references_digest = '', envelope = '', signer = '', receipt = ''
                WHERE id = $1::text::uuid RETURNING id""",
            view.id,
        )
        await sql.write("UPDATE job SET kind = 'deliver', queue = 'rest' WHERE message = $1::text::uuid RETURNING id", view.id)
    finally:
        await sql.write("ALTER TABLE message ENABLE TRIGGER USER")
