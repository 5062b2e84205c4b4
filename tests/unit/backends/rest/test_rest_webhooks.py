"""Webhooks through the REST door: what is asked for and what is told."""

from tests.unit.backends.rest.conftest import refused

URL = "https://b.example/events"


async def made(http, **more):
    answer = await http.post("/v1/webhooks", json={"url": URL, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_one_and_its_changes(http):
    target = await made(http, events=["message.received"])
    assert target["secret"].startswith("whsec_") and target.get("signature", "hmac") == "hmac"
    address = f"/v1/webhooks/{target['id']}"
    one = (await http.get(address)).json()
    assert one == {**target, "secret": ""}
    changed = (await http.patch(address, json={"enabled": False})).json()
    assert (changed["enabled"], changed["url"], changed["events"], changed["secret"]) == (False, URL, ["message.received"], "")
    replaced = (await http.put(address, json={"url": "https://b.example/2"})).json()
    assert (replaced["url"], replaced.get("events"), replaced.get("enabled", True)) == ("https://b.example/2", None, True)
    refused(await http.put(address, json={"enabled": True}), "invalid-document")
    refused(await http.patch(address, json={"secret": "whsec_AAAA"}), "invalid-document")
    refused(await http.patch(address, json={"events": ["nonsense"]}), "invalid-document")
    problem = refused(await http.patch(address, json={"url": "http://169.254.169.254/"}), "submission-refused")
    assert problem["errors"][0]["pointer"] == "#/url"


async def test_a_public_key_and_no_secret(http):
    target = await made(http, signature="ed25519")
    assert target["secret"] == "" and target["public_keys"][0].startswith("whpk_")
    assert (await http.get(f"/v1/webhooks/{target['id']}")).json()["public_keys"] == target["public_keys"]
    refused(await http.post("/v1/webhooks", json={"url": URL, "signature": "none"}), "invalid-document")


async def test_rotation(http):
    target = await made(http)
    answer = await http.post(f"/v1/webhooks/{target['id']}/rotate", json={"overlap": 60})
    assert answer.status_code == 200 and answer.json()["secret"] != target["secret"]
    assert answer.json()["previous_until"]
    refused(await http.post(f"/v1/webhooks/{target['id']}/rotate", json={"overlap": -1}), "invalid-document")
    refused(await http.post(f"/v1/webhooks/{target['id']}/rotate"), "unsupported-media-type")


async def test_test_deliveries_replay(http, msh):
    target = await made(http)
    address = f"/v1/webhooks/{target['id']}"
    told = [(await http.post(f"{address}/test")) for _ in range(3)]
    assert [t.status_code for t in told] == [202] * 3
    first = told[0].json()
    assert (first["type"], first["state"]) == ("webhook.test", "waiting")
    assert (await http.get(told[0].headers["location"])).json() == first
    page = (await http.get(f"{address}/deliveries?limit=2")).json()
    rest = (await http.get(f"{address}/deliveries?limit=2&after={page['next']}")).json()
    assert [d["id"] for d in page["deliveries"] + rest["deliveries"]] == [t.json()["id"] for t in told[::-1]]
    assert "next" not in rest
    assert (await http.get(f"{address}/deliveries?state=parked")).json() == {"deliveries": []}
    refused(await http.get(f"{address}/deliveries?state=lost"), "invalid-parameter")
    refused(await http.get(f"{address}/deliveries?after=nonsense"), "submission-refused")
    again = await http.post(f"{address}/deliveries/{first['id']}/replay")
    assert again.status_code == 202 and again.json()["id"] == first["id"]
    msh.running.add(first["id"])
    refused(await http.post(f"{address}/deliveries/{first['id']}/replay"), "delivery-running")
    refused(await http.post(f"{address}/deliveries/nonsense/replay"), "not-found")


async def test_a_test_waits_for_its_outcome(http, msh):
    target = await made(http)
    waited = await http.post(f"/v1/webhooks/{target['id']}/test?wait=0.2")
    assert waited.json()["state"] == "waiting"
    refused(await http.post(f"/v1/webhooks/{target['id']}/test?wait=61"), "invalid-parameter")


async def test_nothing_of_it_is_there_for_others(http, connect):
    target = await made(http)
    delivery = (await http.post(f"/v1/webhooks/{target['id']}/test")).json()
    other = connect("beta", "another")
    address = f"/v1/webhooks/{target['id']}"
    for method, path, body in (
        ("GET", "", None), ("PATCH", "", {}), ("PUT", "", {"url": URL}), ("DELETE", "", None), ("POST", "/rotate", {}),
        ("POST", "/test", None), ("GET", "/deliveries", None), ("GET", f"/deliveries/{delivery['id']}", None),
        ("POST", f"/deliveries/{delivery['id']}/replay", None),
    ):  # fmt: skip
        refused(await other.request(method, address + path, json=body), "not-found")
    assert (await http.get(address)).status_code == 200


async def test_there_are_not_too_many(http):
    for _ in range(50):
        await made(http)
    problem = refused(await http.post("/v1/webhooks", json={"url": URL}), "too-many-webhooks")
    assert "50" in problem["detail"]
