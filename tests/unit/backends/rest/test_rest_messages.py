"""Submitting, in both forms, and reading about messages."""

import base64
import json

import pytest

from tests.unit.backends.rest.conftest import refused

XML, PDF = b"<request/>", b"%PDF" + bytes(range(256)) * 300
FIELDS = [("req@c1", {"Content-Type": "application/xml"}, XML), ("any", {}, PDF)]


def inline(meta, *contents):
    for part, content in zip(meta["parts"], contents, strict=True):
        part["content"] = base64.b64encode(content).decode()
    return meta


async def test_a_form_is_stored_and_answered(http, msh, meta):
    answer = await http.submit_form(meta, FIELDS)
    assert answer.status_code == 202, answer.text
    submitted = answer.json()
    assert answer.headers["location"] == f"/v1/messages/{submitted['id']}"
    assert "idempotent-replayed" not in answer.headers and submitted["replayed"] is False
    view = msh.views[submitted["id"]]
    assert [msh.contents[view.id, n] for n in (0, 1)] == [XML, PDF]
    assert view.parts[0].cid == "req@c1"
    assert view.properties[0].type == "urn:t" and view.backend == "evidence"


async def test_json_is_stored_and_answered(http, msh, meta):
    answer = await http.post("/v1/messages", json=inline(meta, XML, b""), headers={"Idempotency-Key": '"quoted-key"'})
    assert answer.status_code == 202, answer.text
    assert msh.contents[answer.json()["id"], 0] == XML and msh.contents[answer.json()["id"], 1] == b""
    assert list(msh.keys) == [("client-alpha", "quoted-key")]


async def test_without_payloads(http, msh, meta):
    meta["parts"] = []
    assert (await http.submit_form(meta, [])).status_code == 202
    refused(await http.submit_form(meta, [("x", {}, b"1")], key="2"), "parts-mismatch")
    assert len(msh.views) == 1


async def test_the_same_key_and_content_is_a_replay(http, msh, meta):
    first = await http.submit_form(meta, FIELDS)
    again = await http.submit_form(meta, FIELDS)
    assert again.status_code == 202 and again.headers["idempotent-replayed"] == "true"
    assert again.json() == {**first.json(), "replayed": True}
    assert again.headers["location"] == first.headers["location"]
    assert len(msh.views) == 1


async def test_the_same_key_with_other_content(http, msh, meta):
    await http.submit_form(meta, FIELDS)
    refused(await http.submit_form(meta, [FIELDS[0], ("any", {}, b"other")]), "idempotency-key-reused")
    assert len(msh.views) == 1


async def test_the_same_message_id(http, msh, meta):
    meta["message_id"] = "1@c1"
    assert (await http.submit_form(meta, FIELDS, key=None)).status_code == 202  # repeatable by its message_id
    assert (await http.submit_form(meta, FIELDS, key=None)).headers["idempotent-replayed"] == "true"
    refused(await http.submit_form(meta, [FIELDS[0], ("any", {}, b"other")], key=None), "message-id-conflict")


async def test_a_key_belongs_to_its_client(connect, msh, meta):
    for name in ("alpha", "beta"):
        assert "idempotent-replayed" not in (await connect(name).submit_form(meta, FIELDS)).headers
    assert len(msh.views) == 2


async def test_neither_key_nor_message_id(http, msh, meta):
    refused(await http.submit_form(meta, FIELDS, key=None), "idempotency-key-missing")
    refused(await http.post("/v1/messages", json=inline(meta, XML, PDF)), "idempotency-key-missing")
    assert not msh.views


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\there", "ž", '"half', 'in"side'])
async def test_keys_that_are_none(http, meta, key):
    answer = await http.submit_form(meta, FIELDS, key=None, headers={"Idempotency-Key": key.encode()})
    refused(answer, "invalid-parameter")


async def test_what_the_msh_refuses(http, meta):
    meta["to_party"]["id"] = "AP_XX"
    problem = refused(await http.submit_form(meta, FIELDS), "submission-refused")
    assert problem["errors"] == [{"pointer": "#/to_party/id", "detail": "no agreement with this party"}]
    assert problem["hint"] == "One of AP_LT, AP_EE."


async def test_more_than_the_agreement_allows(http, msh, meta):
    msh.limit = len(XML) + len(PDF)
    assert (await http.submit_form(meta, FIELDS)).status_code == 202
    msh.limit -= 1
    refused(await http.submit_form(meta, FIELDS, key="2"), "payload-too-large")
    assert len(msh.views) == 1


@pytest.mark.parametrize(("change", "pointer"), [
    (lambda m: m.pop("action"), "#"),
    (lambda m: m.update(action=1), "#/action"),
    (lambda m: m.update(convesation_id="x"), "#"),
    (lambda m: m["to_party"].update(typ="x"), "#/to_party"),
    (lambda m: m["parts"][1].update(mime_type=None), "#/parts/1/mime_type"),
    (lambda m: m["parts"][0].update(name="x"), "#/parts/0"),
    (lambda m: m["properties"][0].pop("value"), "#/properties/0"),
    (lambda m: m.update(deadline="2026-11-21T12:00:00"), "#/deadline"),
], ids=["no action", "number", "misspelt", "misspelt below", "null", "unknown in part", "no value", "no time zone"])
async def test_documents_of_another_form(http, msh, meta, change, pointer):
    change(meta)
    problem = refused(await http.submit_form(meta, FIELDS), "invalid-document")
    assert problem["errors"][0]["pointer"] == pointer and problem["detail"]
    assert not msh.views


@pytest.mark.parametrize("octets", [
    b"", b"{", b"\xff\xfe", b'{"action": "\xff"}', b'{"action": "\\ud800"}', b"\xef\xbb\xbf{}",
    b'{"action": "x", "to_party": {"id": "AP_LT"}} {}',
])
async def test_what_is_no_json(http, octets):
    refused(await http.submit_form(octets, FIELDS), "malformed-json")
    headers = {"Content-Type": "application/json", "Idempotency-Key": "1"}
    refused(await http.post("/v1/messages", content=octets, headers=headers), "malformed-json")


async def test_deep_json_costs_nothing(http):
    octets = b'{"action": "x", "to_party": ' + b"[" * 200_000
    refused(await http.submit_form(octets, FIELDS), "invalid-document")


async def test_meta_at_its_limit(http, meta):
    room = 256 * 1024 - len(json.dumps(meta)) - len(', "service": ""')
    meta["service"] = "s" * room
    assert len(json.dumps(meta)) == 256 * 1024
    assert (await http.submit_form(meta, FIELDS)).status_code == 202
    meta["service"] += "s"
    refused(await http.submit_form(meta, FIELDS, key="2"), "meta-too-large")


async def test_json_at_its_limits(http, meta):
    meta["parts"] = [{"mime_type": "text/plain"}]
    headers = {"Idempotency-Key": "1"}
    fits = await http.post("/v1/messages", json=inline(meta, bytes(1_000_000)), headers=headers)
    assert fits.status_code == 202
    refused(await http.post("/v1/messages", json=inline(meta, bytes(1_000_001)), headers=headers), "body-too-large")
    big = b'{"action": "' + b"x" * 1_500_000 + b'"}'
    refused(await http.post("/v1/messages", content=big, headers=headers | {"Content-Type": "application/json"}), "body-too-large")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/mixed; boundary=B0", ""])
async def test_other_kinds_of_content(http, kind):
    answer = await http.post("/v1/messages", content=b"x", headers={"Content-Type": kind, "Idempotency-Key": "1"})
    refused(answer, "unsupported-media-type")


async def test_waiting_for_the_final_state(http, msh, meta):
    msh.after_submit = msh.settle
    answer = await http.submit_form(meta, FIELDS, query="?wait=5")
    assert answer.status_code == 200 and answer.json()["state"] == "ACKNOWLEDGED"
    assert answer.headers["location"].endswith(answer.json()["id"])


async def test_waiting_in_vain(http, meta):
    answer = await http.submit_form(meta, FIELDS, query="?wait=0.05")
    assert answer.status_code == 202 and answer.json()["state"] == "SUBMITTED"


@pytest.mark.parametrize("query", ["wait=61", "wait=-1", "wait=nan", "wait=x", "wait=1&wait=2", "wit=1"])
async def test_waits_that_are_none(http, msh, meta, query):
    refused(await http.submit_form(meta, FIELDS, query="?" + query), "invalid-parameter")
    assert not msh.views


@pytest.fixture
def options(request):
    return {"uploads": 1} if "at_once" in request.node.name else {}


async def test_too_many_at_once(http, msh, meta, monkeypatch):
    """[threats H07, L02]"""
    inner = []
    submit = msh.submit

    async def slow(*given, **named):
        if not inner:
            inner.append(None)
            inner[0] = await http.submit_form(meta, FIELDS, key="2")
        return await submit(*given, **named)

    monkeypatch.setattr(msh, "submit", slow)
    assert (await http.submit_form(meta, FIELDS)).status_code == 202
    refused(inner[0], "too-many-uploads")
    assert inner[0].headers["retry-after"] == "1"
    assert (await http.submit_form(meta, FIELDS, key="3")).status_code == 202  # the place is free again


async def test_one_message_by_both_ids(http, meta):
    submitted = (await http.submit_form(meta, FIELDS)).json()
    for id in (submitted["id"], submitted["message_id"]):
        view = (await http.get(f"/v1/messages/{id}")).json()
        assert (view["id"], view["direction"], view["action"]) == (submitted["id"], "outbound", "ExecuteQueryRequest")
    events = (await http.get(f"/v1/messages/{submitted['id']}/events")).json()["events"]
    assert [step["stage"] for step in events] == ["submit", "store"]


@pytest.mark.parametrize("path", ["", "/events", "/payloads", "/payloads/req@c1"])
async def test_somebody_elses_message_does_not_exist(connect, msh, meta, path):
    """[threats L01]: the answer is the one for an id that nobody has."""
    id = (await connect("alpha").submit_form(meta, FIELDS)).json()["id"]
    other = connect("beta", of="other")
    theirs, nobodys = await other.get(f"/v1/messages/{id}{path}"), await other.get(f"/v1/messages/{id[::-1]}{path}")
    problems = [refused(answer, "not-found") | {"trace_id": ""} for answer in (theirs, nobodys)]
    assert problems[0] == problems[1]
    assert (await other.get("/v1/messages")).json() == {"messages": []}
    assert (await other.get(f"/v1/messages?message_id={msh.views[id].message_id}")).json() == {"messages": []}


@pytest.mark.parametrize("id", ["%00", "a%0Ab", "x" * 256, "%E2%80%AE"])
async def test_ids_that_cannot_be(http, id):
    """[threats M02]: neither PostgreSQL nor the log gets to see them."""
    refused(await http.get(f"/v1/messages/{id}"), "not-found")


async def test_lists_in_pages(http, msh, meta):
    ids = [(await http.submit_form(meta, FIELDS, key=str(n))).json()["id"] for n in range(5)]
    seen, address = [], "/v1/messages?limit=2&direction=outbound"
    while address:
        answer = await http.get(address)
        page = answer.json()
        seen.append([view["id"] for view in page["messages"]])
        assert ("next" in page) is ("next" in answer.links)
        address = answer.links["next"]["url"] if answer.links else None
    assert seen == [ids[4:2:-1], ids[2:0:-1], ids[:1]]


async def test_lists_by_filter(http, msh, meta):
    first = (await http.submit_form(meta, FIELDS)).json()
    msh.receive("evidence", b"<a/>")
    msh.settle(first["id"])

    async def count(query):
        return len((await http.get(f"/v1/messages?{query}")).json()["messages"])

    assert await count("") == 2
    assert await count("direction=inbound") == 1 and await count("state=ACKNOWLEDGED") == 1
    assert await count(f"message_id={first['message_id']}") == 1
    assert await count(f"conversation_id={first['conversation_id']}") == 1
    assert await count("party=AP_LT") == 2 and await count("action=Other") == 0
    assert await count("action=&party=AP_LT") == 2  # an empty value is no filter


@pytest.mark.parametrize("query", [
    "limit=0", "limit=501", "limit=x", "direction=up", "state=acknowledged", "action=a%00b", "action=a%0A",
    "foo=1", "limit=1&limit=2", "after=%20", "action=%FF", "&".join(f"a{n}=1" for n in range(40)),
    "action=" + "x" * 256,
])
async def test_lists_by_nonsense(http, query):
    """[threats L08]"""
    refused(await http.get(f"/v1/messages?{query}"), "invalid-parameter")


async def test_a_cursor_that_is_none(http):
    assert refused(await http.get("/v1/messages?after=xyz"), "submission-refused")["errors"][0]["pointer"] == "#/after"
