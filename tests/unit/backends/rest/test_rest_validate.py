"""POST /v1/messages:validate: the body of a submission, and nothing comes of it."""

import base64

import pytest

from gateway.plugin import Finding, RulesBroken
from tests.unit.backends.rest.conftest import form, refused

XML = b"<request/>"
FIELDS = [("req@c1", {"Content-Type": "application/xml"}, XML), ("any", {}, b"%PDF")]
PATH = "/v1/messages:validate"


@pytest.fixture
def validate(http):
    async def post(meta, fields=FIELDS, **headers):
        import json

        body = form([("meta", {"Content-Type": "application/json"}, json.dumps(meta).encode()), *fields])
        return await http.post(PATH, content=body, headers={"Content-Type": "multipart/form-data; boundary=B0"} | headers)

    return post


async def test_a_form(validate, msh, meta):
    answer = await validate(meta)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert next((p["cid"], p["size"]) for p in found["parts"]) == ("req@c1", len(XML))
    assert found["valid"] is True and not msh.views and not msh.keys


async def test_json(http, msh, meta):
    for part, content in zip(meta["parts"], (XML, b""), strict=True):
        part["content"] = base64.b64encode(content).decode()
    answer = await http.post(PATH, json=meta)
    assert answer.status_code == 200 and [p["size"] for p in answer.json()["parts"]] == [len(XML), 0]
    assert not msh.views


async def test_what_submit_refuses(validate, http, msh, meta):
    refused(await validate(meta, FIELDS[:1]), "parts-mismatch")
    refused(await validate({**meta, "to": "x"}), "invalid-document")
    refused(await validate({**meta, "to_party": {"id": "AP_XX"}}), "submission-refused")
    refused(await http.post(PATH, content=b"x", headers={"Content-Type": "text/plain"}), "unsupported-media-type")
    refused(await http.post(PATH + "?wait=1", json=meta), "invalid-parameter")
    refused(await http.get(PATH), "method-not-allowed")
    refused(await http.post(PATH, json=meta, headers={"Authorization": "Bearer no"}), "unauthorized")
    msh.limit = 5
    refused(await validate(meta), "payload-too-large")


async def test_broken_rules_are_listed(validate, http, msh, meta):
    finding = Finding("H-13", "fatal", "eb:ConversationId 'x' is not a UUID", "eb:ConversationId", "R-EDM-ebMS-017", "2.0")
    msh.broken = RulesBroken("the agreement refuses: R-EDM-ebMS-017", findings=(finding, Finding("E-05", "warning", "…")))
    for answer in (await validate(meta), await http.submit_form(meta, FIELDS)):
        problem = refused(answer, "rules-broken")
        assert problem["findings"] == [
            {"rule": "H-13", "severity": "fatal", "message": "eb:ConversationId 'x' is not a UUID",
             "where": "eb:ConversationId", "official": "R-EDM-ebMS-017", "line": "2.0"},
            {"rule": "E-05", "severity": "warning", "message": "…"},
        ]  # fmt: skip
        assert "R-EDM-ebMS-017" in problem["detail"] and "errors" not in problem


async def test_it_takes_the_place_of_an_upload(http, msh, meta, monkeypatch, validate):
    inner = []
    contents = msh.validate

    async def slow(*given):
        if not inner:
            inner.append(None)
            inner[0] = await http.submit_form(meta, FIELDS)
        return await contents(*given)

    monkeypatch.setattr(msh, "validate", slow)
    assert (await validate(meta)).status_code == 200
    refused(inner[0], "too-many-uploads")


@pytest.fixture
def options():
    return {"uploads": 1}
