"""Resend, cancel, hold, release, redeliver; peek; filters; conversations; parties."""

import pytest

from tests.unit.backends.rest.conftest import refused


async def act(http, id, verb):
    return await http.post(f"/v1/messages/{id}/{verb}")


async def test_hold_and_release_an_outbound_message(site):
    http = await site.client()
    sent = await site.submit(http)
    answer = await act(http, sent["id"], "hold")
    assert answer.status_code == 200 and answer.json()["held"] is True
    await site.lv.send_due()
    assert not site.lv.listener.received
    problem = refused(await act(http, sent["id"], "resend"), "state-conflict")
    assert "SUBMITTED" in problem["detail"]
    assert (await act(http, sent["id"], "hold")).status_code == 200
    assert "held" not in (await act(http, sent["message_id"], "release")).json()
    refused(await act(http, sent["id"], "release"), "state-conflict")
    await site.lv.send_due()
    assert (await http.get(f"/v1/messages/{sent['id']}")).json()["state"] == "ACKNOWLEDGED"
    for verb in ("hold", "cancel", "resend", "redeliver"):
        answer = await act(http, sent["id"], verb)
        assert answer.status_code == (404 if verb == "redeliver" else 409), verb


async def test_cancel(site):
    http = await site.client()
    sent = await site.submit(http)
    assert (await act(http, sent["id"], "cancel")).json()["state"] == "CANCELLED"
    refused(await act(http, sent["id"], "cancel"), "state-conflict")
    log = (await http.get("/v1/event-log")).json()["events"]
    assert [e["type"] for e in log] == ["message.accepted", "message.cancelled"]


async def test_resend_keeps_the_message_id(site):
    http = await site.client()
    site.lv.listener.answer = lambda *_: (500, "text/plain", b"no")
    sent = await site.submit(http)
    await site.lv.send_due()
    assert (await http.get(f"/v1/messages/{sent['id']}")).json()["state"] == "WAITING_FOR_RETRY"
    site.lv.listener.answer = site.lv.receipting
    assert (await act(http, sent["id"], "resend")).status_code == 200
    await site.lv.send_due()
    view = (await http.get(f"/v1/messages/{sent['id']}")).json()
    assert (view["state"], view["message_id"], view["attempts"]) == ("ACKNOWLEDGED", sent["message_id"], 2)


async def test_hold_and_redeliver_an_inbound_message(site):
    http, message = await site.client(), await site.receive()
    assert (await act(http, message.id, "hold")).json()["held"] is True
    assert (await http.post("/v1/inbox/claim", json={})).json() == {"deliveries": []}
    assert (await http.get("/v1/inbox/peek")).json() == {"messages": []}
    assert (await act(http, message.id, "release")).status_code == 200
    refused(await act(http, message.id, "redeliver"), "state-conflict")
    refused(await act(http, message.id, "cancel"), "state-conflict")
    for redelivered in (False, True):
        assert [m["id"] for m in (await http.get("/v1/inbox/peek")).json()["messages"]] == [str(message.id)]
        [lent] = (await http.post("/v1/inbox/claim", json={})).json()["deliveries"]
        assert lent["redelivered"] is redelivered
        answer = await http.post(f"/v1/inbox/{lent['delivery_id']}/ack", json={"claim": lent["claim"]})
        assert answer.status_code == 204
        if not redelivered:
            assert (await act(http, message.id, "redeliver")).json()["state"] == "RECEIVED"


async def test_peek_is_filtered_and_claims_nothing(site):
    http = await site.client()
    first, second = await site.receive(conversation_id="one"), await site.receive(conversation_id="two")
    for query, expected in (
        ("", [first, second]), ("?conversation_id=two", [second]), ("?limit=1", [first]), ("?from_party=AP_FI_01", []),
        ("?final_recipient=C4", [first, second]), ("?parked=true", []),
    ):  # fmt: skip
        found = (await http.get("/v1/inbox/peek" + query)).json()["messages"]
        assert [m["id"] for m in found] == [str(m.id) for m in expected], query
    assert len((await http.post("/v1/inbox/claim", json={"limit": 9})).json()["deliveries"]) == 2
    refused(await http.get("/v1/inbox/peek?limit=101"), "invalid-parameter")


@pytest.mark.parametrize(("query", "there"), [
    ("party=AP_EE_01", True), ("party=AP_FI_01", False), ("original_sender=C1", True), ("final_recipient=C1", False),
    ("since=2026-01-01T00:00:00Z", True), ("until=2026-01-01T00:00:00Z", False), ("action=ExecuteQueryRequest", True),
    ("service=x", False), ("direction=inbound", False),
])  # fmt: skip
async def test_filters(site, query, there):
    http = await site.client()
    sent = await site.submit(http)
    found = (await http.get("/v1/messages?" + query)).json()["messages"]
    assert [m["id"] for m in found] == ([sent["id"]] if there else [])


async def test_the_next_page_keeps_the_filters(site):
    http = await site.client()
    for number in range(3):
        await site.submit(http, key=f"k{number}")
    first = await http.get("/v1/messages?limit=2&since=2026-01-01T00:00:00%2B01:00")
    assert first.links["next"]["url"].startswith("/v1/messages?") and "since=" in first.links["next"]["url"]
    second = await http.get(first.links["next"]["url"])
    assert len(second.json()["messages"]) == 1 and "next" not in second.links
    refused(await http.get("/v1/messages?since=yesterday"), "invalid-parameter")
    refused(await http.get("/v1/messages?since=2026-01-01T00:00:00"), "invalid-parameter")


async def test_conversations(site):
    http = await site.client()
    conversation = "https://portal.example/c/1?x"
    sent = await site.submit(http, conversation_id=conversation)
    answer = await site.receive(conversation_id=conversation, ref_to_message_id=sent["message_id"])
    await site.submit(http, key="other", conversation_id="second")
    listed = await http.get("/v1/conversations?limit=1")
    assert [c["conversation_id"] for c in listed.json()["conversations"]] == ["second"]
    [found] = (await http.get(listed.links["next"]["url"])).json()["conversations"]
    assert (found["conversation_id"], found["messages"], found["newest"]) == (conversation, 2, str(answer.id))
    from urllib.parse import quote

    one = (await http.get(f"/v1/conversations/{quote(conversation, safe='')}")).json()
    assert [(m["id"], m["state"]) for m in one["messages"]] == [(sent["id"], "SUBMITTED"), (str(answer.id), "RECEIVED")]
    page = await http.get(f"/v1/conversations/{quote(conversation, safe='')}?limit=1")
    [last] = (await http.get(page.links["next"]["url"])).json()["messages"]
    assert last["id"] == str(answer.id)
    refused(await http.get("/v1/conversations/nothing"), "not-found")
    refused(await http.get("/v1/conversations?after=eA"), "submission-refused")
    stranger = await site.client("b", "portal")
    assert (await stranger.get("/v1/conversations")).json() == {"conversations": []}
    refused(await stranger.get("/v1/conversations/second"), "not-found")


async def test_parties(site):
    http = await site.client()
    [party] = (await http.get("/v1/parties")).json()["parties"]
    assert party["id"] == "AP_EE_01" and set(party) <= {"id", "type", "name", "sends", "receives"}
    assert {o["action"] for o in party["sends"]} >= {"ExecuteQueryRequest"} and party["receives"]
    for id in ("AP_EE_01", f"{party['type']}:AP_EE_01"):
        assert (await http.get(f"/v1/parties/{id}")).json() == party
    refused(await http.get("/v1/parties/AP_FI_01"), "not-found")
    narrow = await site.client("b", actions=("ExecuteQueryRequest",), original_senders=("C1",))
    [found] = (await narrow.get("/v1/parties")).json()["parties"]
    assert {o["action"] for o in (*found["sends"], *found["receives"])} == {"ExecuteQueryRequest"}
    assert (await (await site.client("c", partners=("AP_FI_01",))).get("/v1/parties")).json() == {"parties": []}
