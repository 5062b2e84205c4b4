"""The description fits the door."""

import json
import re

import pytest

from gateway.backends.rest.operations import OPERATIONS


@pytest.fixture
async def description(http):
    answer = await http.get("/openapi.json")
    assert answer.status_code == 200 and (await http.get("/v1/openapi.json")).json() == answer.json()
    return answer.json()


async def test_every_operation_is_described(description):
    assert description["openapi"] == "3.1.0" and description["security"] == [{"token": []}, {"certificate": []}]
    described = {(m.upper(), path) for path, verbs in description["paths"].items() for m in verbs}
    assert described == {(o.method, re.sub(r":path\}", "}", o.path)) for o in OPERATIONS}
    ids = [verb["operationId"] for verbs in description["paths"].values() for verb in verbs.values()]
    assert len(set(ids)) == len(ids)


async def test_references_lead_somewhere(description):
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description)):
        assert name in description["components"]["schemas"]


async def test_parameters_and_answers(description):
    for path, verbs in description["paths"].items():
        for verb in verbs.values():
            in_path = {p["name"] for p in verb["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert "401" in verb["responses"] and any(code.startswith("2") for code in verb["responses"])
    listing = description["paths"]["/v1/messages"]["get"]["parameters"]
    assert {p["name"] for p in listing} >= {"direction", "state", "after", "limit", "party"}
    submit = description["paths"]["/v1/messages"]["post"]["requestBody"]["content"]
    assert set(submit) == {"application/json", "multipart/form-data"}


async def test_unknown_members_are_announced_as_refused(description):
    schemas = description["components"]["schemas"]
    for name in ("SubmissionMeta", "SubmissionParty", "InlinePart", "ClaimRequest", "WebhookRequest"):
        assert schemas[name]["additionalProperties"] is False
