"""The REST door on the real gateway: findings, documents and property types from API to wire and back."""

import base64
import contextlib
import hashlib
import uuid

import httpx
import msgspec
import pytest

from gateway.as4.units import Property
from gateway.client import verify_webhook
from gateway.plugin import DryRun, MessageView, Submitted
from gateway.store.api import Client, Credential
from tests.peer import check_receipt
from tests.unit.msh.test_advice import EP, ER, EXCHANGE, REGREP, asking, corners, question
from tests.world import EE, world

TYPED = [
    {"name": "originalSender", "value": "LV-DEMO-ER-1", "type": ER[1]},
    {"name": "finalRecipient", "value": "EE-DEMO-EP-1", "type": EP[1]},
    {"name": "ExchangeId", "value": EXCHANGE},
    {"name": "SpecificationId", "value": "oots-edm:v2.0", "type": "urn:ā b"},
    {"name": "note", "value": "two  words\tand ž", "type": "a\tb  c"},
    {"name": "plain", "value": "x", "type": ""},
]
#: An empty type says nothing: it is not on the wire, and nobody is told of one.
ARRIVED = [*TYPED[:-1], {"name": "plain", "value": "x"}]


@contextlib.asynccontextmanager
async def office(folder, **more):
    """A gateway with a client of its REST door."""
    async with world(folder, **more) as lv:
        client = Client(id="cl_1", name="office", backend="rest")
        key = hashlib.sha256(b"token").hexdigest()
        await lv.store.add_client(client, Credential(id="cr_1", client="cl_1", kind="token", key=key))
        transport = httpx.ASGITransport(lv.gateway.plugin, raise_app_exceptions=False)
        headers = {"Authorization": "Bearer token"}
        async with httpx.AsyncClient(transport=transport, base_url="http://gw", headers=headers) as http:
            yield lv, http


def submission(octets=None, **more):
    part = {"mime_type": REGREP, "content": base64.b64encode(octets or question()).decode(),
            "properties": [{"name": "PayloadName", "value": "ā.xml", "type": "urn:t:ž"}]}  # fmt: skip
    return {"to_party": {"id": EE.value}, "action": "ExecuteQueryRequest", "properties": TYPED, "parts": [part]} | more


async def test_types_from_rest_to_the_wire(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        answer = await http.post("/v1/messages", json=submission(), headers={"Idempotency-Key": "1"})
        assert answer.status_code == 202, answer.text
        await lv.send_due()
        message, _, _ = lv.peer.receive(*lv.listener.received[0])
        assert [msgspec.to_builtins(p) for p in message.properties] == ARRIVED
        assert message.parts[0].properties[0] == Property("PayloadName", "ā.xml", "urn:t:ž")
        view = (await http.get(f"/v1/messages/{answer.json()['id']}")).json()
        assert view["state"] == "ACKNOWLEDGED" and view["properties"] == ARRIVED


async def test_types_from_a_form_to_the_wire(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        meta = submission()
        content = base64.b64decode(meta["parts"][0].pop("content"))
        files = [("meta", (None, msgspec.json.encode(meta), "application/json")), ("p", ("q.xml", content, REGREP))]
        answer = await http.post("/v1/messages", files=files, headers={"Idempotency-Key": "1"})
        assert answer.status_code == 202, answer.text
        await lv.send_due()
        message, contents, _ = lv.peer.receive(*lv.listener.received[0])
        assert [msgspec.to_builtins(p) for p in message.properties] == ARRIVED and contents == [content]


async def test_types_from_the_wire_to_rest(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        properties = tuple(Property(p["name"], p["value"], p.get("type")) for p in TYPED)
        part_properties = (Property("PayloadName", "ā.xml", "urn:t:ž"),)
        sent = asking(lv, properties=properties, part_properties=part_properties)
        check_receipt(await lv.give(sent), sent)
        (delivery,) = (await http.post("/v1/inbox/claim", json={})).json()["deliveries"]
        (listed,) = (await http.get("/v1/messages")).json()["messages"]
        one = (await http.get(f"/v1/messages/{listed['id']}")).json()
        (part,) = (await http.get(f"/v1/messages/{listed['id']}/payloads")).json()["payloads"]
        assert delivery["message"] == listed == one and one["properties"] == ARRIVED
        assert part == one["parts"][0]
        assert part["properties"][1] == {"name": "PayloadName", "value": "ā.xml", "type": "urn:t:ž"}


async def test_white_space_that_would_not_arrive_is_refused(tmp_path):
    async with office(tmp_path / "lv") as (_, http):
        wanted = submission(properties=[*TYPED[:2], {"name": "n", "value": "v", "type": " t"}])
        answer = await http.post("/v1/messages", json=wanted, headers={"Idempotency-Key": "1"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "#/properties/2/type"


async def test_findings_and_document_of_what_arrived(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        sent = asking(lv, conversation_id="urn:uuid:1")
        check_receipt(await lv.give(sent), sent)
        (listed,) = (await http.get("/v1/messages")).json()["messages"]
        (finding,) = listed["findings"]
        assert finding == {
            "rule": "H-13", "official": "R-EDM-ebMS-017", "severity": "fatal", "line": "2.0",
            "where": "eb:CollaborationInfo/eb:ConversationId",
            "message": "eb:ConversationId 'urn:uuid:1' is not a UUID",
        }  # fmt: skip
        document = listed["document"]
        assert (document["kind"], document["procedure"], document["round"]) == ("request", "R1", 1)
        assert "requester" not in document and "Anna" not in msgspec.json.encode(listed).decode()
        assert msgspec.convert(listed, MessageView).findings[0].rule == "H-13"


async def test_a_right_message_has_neither_in_its_representation(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        sent = asking(lv)
        check_receipt(await lv.give(sent), sent)
        (listed,) = (await http.get("/v1/messages")).json()["messages"]
        assert "findings" not in listed and listed["document"]["kind"] == "request"


async def test_submit_tells_findings_and_refuse_refuses(tmp_path):
    refuse = '[overrides."AP_EE_01:ExecuteQueryRequest"]\nrules = "refuse"'
    wanted = submission(conversation_id="x", properties=TYPED[:4])
    async with office(tmp_path / "a") as (_, http):
        answer = await http.post("/v1/messages", json=wanted, headers={"Idempotency-Key": "1"})
        assert answer.status_code == 202 and [f["rule"] for f in answer.json()["findings"]] == ["H-13"]
        assert msgspec.convert(answer.json(), Submitted).findings[0].severity == "fatal"
    async with office(tmp_path / "b", more=refuse) as (lv, http):
        answer = await http.post("/v1/messages", json=wanted, headers={"Idempotency-Key": "1", "Accept-Language": "lv"})
        problem = answer.json()
        assert answer.status_code == 422 and problem["type"] == "/problems/rules-broken"
        assert [f["rule"] for f in problem["findings"]] == ["H-13"] and "OOTS" in problem["title"]
        assert await lv.nothing_stored()


async def test_the_dry_run(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        answer = await http.post("/v1/messages:validate", json=submission(properties=TYPED[:3]))
        found = msgspec.convert(answer.json(), DryRun)
        assert answer.status_code == 200 and not found.valid and found.line == "2.0"
        assert [f.rule for f in found.findings] == ["H-14", "H-15"]
        assert (found.document.kind, found.document.procedure, found.document.round) == ("request", "R1", 1)
        assert found.parts[0].wire_size < found.parts[0].size == len(question())
        assert f'<eb:Property name="originalSender" type="{ER[1]}">' in found.header
        assert await lv.nothing_stored()
        missing = await http.post("/v1/messages:validate", json=submission(to_party={"id": "AP_EE_02"}))
        assert missing.status_code == 422 and "did you mean AP_EE_01" in missing.json()["hint"]


async def test_a_webhook_says_how_many_findings_there_are(tmp_path):
    async with office(tmp_path / "lv") as (lv, http):
        posted = []

        async def post(url, body, headers, *, timeout=20.0):
            posted.append((body, headers))
            return 200, {}, b""

        lv.door.post = post
        made = await http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9999/", "events": ["message.received"]})
        assert made.status_code == 201, made.text
        for conversation in ("x", str(uuid.uuid4())):
            sent = asking(lv, conversation_id=conversation)
            check_receipt(await lv.give(sent), sent)
        for job in await lv.store.claim("notify", worker="w", limit=10, lease=60):
            await lv.gateway._workers._notify(job)
        events = [verify_webhook(headers, body, made.json()["secret"]) for body, headers in posted]
        assert sorted(event["data"].get("findings", 0) for event in events) == [0, 1]
        assert all("H-13" not in str(event) and "originalSender" not in str(event) for event in events)
        for event in events:  # thin: the properties and their types are at the message
            view = (await http.get(f"/v1/messages/{event['data']['message_id']}")).json()
            assert view["properties"] == [msgspec.to_builtins(p) for p in corners(ER, EP)]


@pytest.mark.parametrize("octets", [b"\0", b"<a>" * 5000], ids=["no XML", "deep"])
async def test_a_hostile_document_is_told_to_its_sender(tmp_path, octets):
    async with office(tmp_path / "lv") as (_, http):
        found = (await http.post("/v1/messages:validate", json=submission(octets, properties=TYPED[:4]))).json()
        assert [f["rule"] for f in found["findings"]] == ["E-01"] and not found["valid"]
