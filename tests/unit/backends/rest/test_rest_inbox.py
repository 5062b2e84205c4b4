"""Claim, ack, nack, extend; and the registration of webhooks."""

from datetime import timedelta

import pytest

from tests.unit.backends.rest.conftest import refused


async def claim(http, **asked):
    answer = await http.post("/v1/inbox/claim", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["deliveries"]


async def tell(http, delivery, verb, **more):
    return await http.post(f"/v1/inbox/{delivery['delivery_id']}/{verb}", json={"claim": delivery["claim"], **more})


async def test_claim_read_acknowledge(http, msh):
    view = msh.receive("evidence", b"<a/>")
    (delivery,) = await claim(http, limit=10, lease=30)
    assert delivery["message"]["id"] == view.id and not delivery["redelivered"] and delivery["attempt"] == 1
    assert await claim(http) == []
    answer = await tell(http, delivery, "ack")
    assert answer.status_code == 204 and answer.content == b""
    assert (await tell(http, delivery, "ack")).status_code == 204  # idempotent
    assert (await http.get(f"/v1/messages/{view.id}")).json()["state"] == "DELIVERED"


async def test_two_workers_never_get_the_same(connect, msh):
    """[threats L03]"""
    for n in range(6):
        msh.receive("evidence", str(n).encode())
    got = [await claim(connect(name), limit=3) for name in ("alpha", "beta")]
    assert len({delivery["message"]["id"] for some in got for delivery in some}) == 6


async def test_after_the_lease(http, msh):
    """[threats L04]"""
    msh.receive("evidence", b"<a/>")
    (first,) = await claim(http, lease=30)
    msh.now += timedelta(seconds=31)
    (second,) = await claim(http)
    assert second["delivery_id"] == first["delivery_id"] and second["redelivered"] and second["attempt"] == 2
    for verb in ("ack", "nack", "extend"):
        refused(await tell(http, first, verb), "claim-lost")
    assert (await tell(http, second, "ack")).status_code == 204


async def test_extend_and_give_back(http, msh):
    msh.receive("evidence", b"<a/>")
    (delivery,) = await claim(http, lease=30)
    answer = await tell(http, delivery, "extend", lease=120)
    assert answer.json() == {"lease_until": "2026-11-21T12:02:00Z"}
    assert (await tell(http, delivery, "nack", retry_in=10)).status_code == 204
    assert await claim(http) == []
    msh.now += timedelta(seconds=10)
    assert len(await claim(http)) == 1


@pytest.mark.parametrize("verb", ["ack", "nack", "extend"])
async def test_somebody_elses_delivery_does_not_exist(connect, msh, verb):
    """[threats L01]"""
    msh.receive("evidence", b"<a/>")
    (delivery,) = await claim(connect("alpha"))
    other = connect("beta", of="other")
    assert await claim(other) == []
    refused(await tell(other, delivery, verb), "not-found")
    refused(await tell(other, {"delivery_id": "x", "claim": "y"}, verb), "not-found")


@pytest.mark.parametrize(("path", "body"), [
    ("claim", {"limit": 0}), ("claim", {"limit": 101}), ("claim", {"limit": "1"}), ("claim", {"lease": 0}),
    ("claim", {"lease": 3601}), ("claim", {"leese": 1}), ("x/ack", {}), ("x/ack", {"claim": ""}),
    ("x/ack", {"claim": "a\u0000b"}), ("x/ack", {"claim": "a\n"}), ("x/nack", {"claim": "c", "retry_in": -1}),
    ("x/nack", {"claim": "c", "retry_in": 86_401}), ("x/extend", {"claim": "c", "lease": 1e9}), ("x/ack", []),
])
async def test_requests_that_are_refused(http, path, body):
    refused(await http.post(f"/v1/inbox/{path}", json=body), "invalid-document")


async def test_json_only(http):
    refused(await http.post("/v1/inbox/claim", data={"limit": "1"}), "unsupported-media-type")
    refused(await http.post("/v1/inbox/claim", content=b"{}"), "unsupported-media-type")  # no type at all
    typed = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await http.post("/v1/inbox/claim", content=b"{}", headers=typed)).status_code == 200


async def test_webhooks(connect, msh):
    http, other = connect("alpha"), connect("beta", of="other")
    answer = await http.post("/v1/webhooks", json={"url": "https://b.example/e", "events": ["message.received"]})
    assert answer.status_code == 201 and answer.json()["secret"].startswith("whsec_")
    id = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/webhooks/{id}"
    (listed,) = (await http.get("/v1/webhooks")).json()["webhooks"]
    assert (listed["id"], listed["secret"]) == (id, "")
    assert (await other.get("/v1/webhooks")).json() == {"webhooks": []}
    refused(await other.delete(f"/v1/webhooks/{id}"), "not-found")
    assert (await http.delete(f"/v1/webhooks/{id}")).status_code == 204
    refused(await http.delete(f"/v1/webhooks/{id}"), "not-found")


@pytest.mark.parametrize("body", [
    {"url": "ftp://b.example"}, {"url": "https://b.example/ x"}, {"url": "https://b.example\n"}, {"url": ""}, {},
    {"url": "https://b.example/" + "x" * 2048}, {"url": "https://b.example", "events": ["message.*"]},
])
async def test_webhooks_that_are_none(http, msh, body):
    refused(await http.post("/v1/webhooks", json=body), "invalid-document")
    assert not msh.targets


async def test_webhooks_that_may_not_be(http):
    problem = refused(await http.post("/v1/webhooks", json={"url": "http://169.254.169.254/"}), "submission-refused")
    assert problem["errors"][0]["pointer"] == "#/url"
