"""Header, receipt, security, wire octets and the bundle: what is kept, and judged anew."""

import base64
import hashlib
import io
import json
import zipfile

import msgspec
from cryptography import x509

from gateway.plugin import NotFound
from tests.unit.backends.rest.conftest import refused

PAYLOAD = b"<request>" + b"x" * 2000 + b"</request>"


async def test_an_inbound_message(site):
    http, message = await site.client(), await site.receive(PAYLOAD)
    base = f"/v1/messages/{message.id}"
    header = (await http.get(base + "/header")).json()
    assert header["message_id"] == message.user_message.message_id and header["from_party"]["id"] == "AP_EE_01"
    assert {p["name"] for p in header["parts"][0]["properties"]} >= {"MimeType"}

    wire = await http.get(base + "/wire/request")
    assert wire.content == message.envelope and wire.headers["content-type"].startswith("application/soap+xml")
    assert "attachment" in wire.headers["content-disposition"]
    for path in ("/wire/response", "/receipt"):
        assert (await http.get(base + path)).content == message.receipt

    security = (await http.get(base + "/security")).json()
    assert security["valid"] is True and "reason" not in security
    assert base64.b64decode(security["signer"]["der"]) == message.signer and security["signer"]["ours"] is False
    assert security["signer"]["sha256"] == hashlib.sha256(message.signer).hexdigest()
    assert len(security["references"]) == 3 and all(reference["met"] for reference in security["references"])
    assert security["signature_algorithm"].endswith("rsa-sha256") and security["encryption_algorithms"]

    receipt = (await http.get(base + "/receipt", headers={"Accept": "application/json"})).json()
    assert receipt["valid"] is True and receipt["signer"]["ours"] is True
    assert receipt["ref_to_message_id"] == message.user_message.message_id
    assert [r["digest"] for r in receipt["references"]] == [r["digest"] for r in security["references"]]


async def test_an_outbound_message_before_and_after(site):
    http = await site.client()
    sent = await site.submit(http)
    base = f"/v1/messages/{sent['id']}"
    assert (await http.get(base + "/header")).json()["message_id"] == sent["message_id"]
    for path in ("/wire/request", "/wire/response", "/receipt", "/security"):
        refused(await http.get(base + path), "not-kept")
    refused(await http.get(base + "/receipt", headers={"Accept": "application/json"}), "not-kept")
    await site.lv.send_due()
    [(_, body)] = site.lv.listener.received
    wire = (await http.get(base + "/wire/request")).content
    assert wire and wire in body  # octet for octet what was on the wire
    security = (await http.get(base + "/security")).json()
    assert security["valid"] is True and security["signer"]["ours"] is True
    receipt = (await http.get(base + "/receipt", headers={"Accept": "application/json"})).json()
    assert receipt["valid"] is True and receipt["signer"]["ours"] is False
    refused(await http.get(base + "/wire/other"), "not-found")


async def test_what_was_changed_is_not_valid(site):
    http, message = await site.client(), await site.receive()
    row = site.store._messages[message.id]
    row.parts = (msgspec.structs.replace(row.parts[0], wire_digest=b"\0" * 32),)
    security = (await http.get(f"/v1/messages/{message.id}/security")).json()
    assert security["valid"] is False and [r["met"] for r in security["references"]].count(False) == 1
    row.envelope = row.envelope.replace(b"AP_EE_01", b"AP_EE_02", 1)
    security = (await http.get(f"/v1/messages/{message.id}/security")).json()
    assert security["valid"] is False and security["reason"]
    row.envelope = b"<nothing"
    assert (await http.get(f"/v1/messages/{message.id}/security")).json()["valid"] is False
    row.receipt = b"\xff"
    answer = await http.get(f"/v1/messages/{message.id}/receipt", headers={"Accept": "application/json"})
    assert answer.json()["valid"] is False


async def test_the_receipt_of_another_message_is_not_valid(site):
    http, first, second = await site.client(), await site.receive(), await site.receive(b"<other/>")
    site.store._messages[first.id].receipt = second.receipt
    answer = (await http.get(f"/v1/messages/{first.id}/receipt", headers={"Accept": "application/json"})).json()
    assert answer["valid"] is False and "another message" in answer["reason"]


def opened(octets: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(octets)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


async def test_the_bundle(site):
    http, message = await site.client(), await site.receive(PAYLOAD)
    answer = await http.get(f"/v1/messages/{message.id}/bundle")
    assert answer.headers["content-type"] == "application/zip"
    files = opened(answer.content)
    manifest = json.loads(files.pop("manifest.json"))
    assert {f["name"]: (f["size"], f["sha256"]) for f in manifest["files"]} == {
        name: (len(octets), hashlib.sha256(octets).hexdigest()) for name, octets in files.items()
    }
    assert not [name for name in files if name.startswith("payloads/")] and PAYLOAD not in answer.content
    assert files["wire/request.xml"] == message.envelope and files["wire/response.xml"] == message.receipt
    assert json.loads(files["verification.json"])["security"]["valid"] is True
    for name in ("signer", "receipt-signer"):
        x509.load_pem_x509_certificate(files[f"certificates/{name}.pem"])
    assert (await http.get(f"/v1/messages/{message.id}/bundle")).content == answer.content
    assert (await http.head(f"/v1/messages/{message.id}/bundle")).status_code == 200

    files = opened((await http.get(f"/v1/messages/{message.id}/bundle?payloads=true")).content)
    assert files["payloads/payload-0.xml"] == PAYLOAD


async def test_a_bundle_of_what_was_never_sent_says_what_is_missing(site):
    http = await site.client()
    sent = await site.submit(http)
    files = opened((await http.get(f"/v1/messages/{sent['id']}/bundle")).content)
    assert json.loads(files["manifest.json"])["missing"] == ["wire/request.xml", "wire/response.xml"]


async def test_nobody_else_sees_any_of_it(site):
    message = await site.receive()
    for other in (await site.client("b", "portal"), await site.client("c", actions=("none",))):
        for path in ("header", "receipt", "security", "wire/request", "wire/response", "bundle"):
            refused(await other.get(f"/v1/messages/{message.id}/{path}"), "not-found")


async def test_the_verbs_raise_not_found(site):
    import pytest

    from tests.world import CALLER

    for verb in (site.lv.door.header, site.lv.door.security, site.lv.door.receipt):
        with pytest.raises(NotFound):
            await verb(CALLER, "nothing")
