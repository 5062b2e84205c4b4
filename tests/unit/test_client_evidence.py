"""The Python client against a real gateway on a real port: evidence, actions, uploads, events."""

import asyncio
import zipfile

import pytest

from gateway.client import GatewayClient, GatewayProblem, Part
from gateway.msh import feed
from tests.unit.backends.domibus_ws.conftest import site_of
from tests.unit.backends.rest.real import real
from tests.world import CORNERS, EE

PROPERTIES = [{"name": p.name, "value": p.value, **({"type": p.type} if p.type else {})} for p in CORNERS]


@pytest.fixture
async def site(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "BEAT", 0.05)
    async with real(tmp_path / "lv") as found, site_of(found.lv) as served:
        found.http = await found.client()
        found.gateway = GatewayClient(served.url, found.http.token)
        yield found


def submit(gateway, part, **more):
    return gateway.submit(EE.value, "ExecuteQueryRequest", [part], properties=PROPERTIES, **more)


async def test_a_message_from_upload_to_bundle(site, tmp_path):
    gateway, content = site.gateway, bytes(range(256)) * 3000
    upload = await asyncio.to_thread(gateway.upload, content, piece=100_000)
    sent = await asyncio.to_thread(submit, gateway, Part(mime_type="application/x-ebrs+xml", upload=upload))
    assert (await asyncio.to_thread(gateway.hold, sent["id"]))["held"] is True
    assert "held" not in await asyncio.to_thread(gateway.release, sent["id"])
    await site.lv.send_due()
    assert (await asyncio.to_thread(gateway.security, sent["id"]))["valid"] is True
    assert (await asyncio.to_thread(gateway.receipt, sent["id"]))["valid"] is True
    assert (await asyncio.to_thread(gateway.header, sent["id"]))["message_id"] == sent["message_id"]
    assert b"Signature" in await asyncio.to_thread(gateway.wire, sent["id"], "response")
    await asyncio.to_thread(gateway.save_bundle, sent["id"], tmp_path / "b.zip", payloads=True)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert content in [archive.read(name) for name in archive.namelist()]
    for verb in (gateway.cancel, gateway.resend):
        with pytest.raises(GatewayProblem) as problem:
            await asyncio.to_thread(verb, sent["id"])
        assert problem.value.status == 409
    await asyncio.to_thread(gateway.drop_upload, upload)
    log = await asyncio.to_thread(lambda: [e["type"] for e in gateway.event_log()])
    assert log == ["message.accepted", "message.held", "message.released", "message.acknowledged"]


async def test_consuming_and_following(site):
    gateway = site.gateway

    def two():
        events = gateway.follow(after="0")
        found = [next(events), next(events)]
        events.close()
        return found

    heard = asyncio.create_task(asyncio.to_thread(two))
    first = await site.receive(conversation_id="c")
    await site.receive(conversation_id="c")
    assert [e["type"] for e in await heard] == ["message.received"] * 2
    assert len(await asyncio.to_thread(gateway.peek, from_party="AP_EE_01")) == 2
    assert await asyncio.to_thread(lambda: next(m["id"] for m in gateway.conversation("c"))) == str(first.id)
    assert [c["messages"] for c in await asyncio.to_thread(lambda: list(gateway.conversations()))] == [2]
    assert [p["id"] for p in await asyncio.to_thread(gateway.parties)] == ["AP_EE_01"]
    [lent] = await asyncio.to_thread(gateway.claim)
    await asyncio.to_thread(gateway.ack, lent)
    assert (await asyncio.to_thread(gateway.redeliver, lent["message"]["id"]))["state"] == "RECEIVED"
