"""The event stream and the event log."""

import asyncio

import pytest

from gateway.backends.rest import events as module
from gateway.msh import feed
from gateway.operate import backends
from tests.unit.backends.rest.conftest import refused
from tests.unit.backends.rest.real import events_in, streamed


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(feed, "GATHER", 0.0)
    monkeypatch.setattr(feed, "BEAT", 0.05)


def listen(site, http, path="/v1/events", *, until, **headers):
    headers = {"Authorization": f"Bearer {http.token}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return asyncio.create_task(streamed(site.lv.gateway.plugin, path, headers, until=until))


async def listening(site):
    async with asyncio.timeout(5):
        while not site.lv.door._feed._followers:
            await asyncio.sleep(0.005)


async def test_events_come_as_they_happen(site):
    http = await site.client()
    await site.submit(http, key="before")
    heard = listen(site, http, until=lambda text: text.count("event: message.acknowledged") == 1)
    await listening(site)
    sent = await site.submit(http)
    await site.lv.send_due()
    status, headers, text = await heard
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-store" and text.startswith("retry: ")
    mine = [e for e in events_in(text) if e["subject"] == sent["id"]]
    assert [e["type"] for e in mine] == ["message.accepted", "message.acknowledged"]
    assert mine[0]["data"]["message_id"] == sent["message_id"]
    assert set(mine[0]["data"]) >= {"message_id", "conversation_id"} and len({e["id"] for e in mine}) == 2


async def test_what_was_missed_is_replayed(site):
    http = await site.client()
    for number in range(5):
        await site.submit(http, key=f"k{number}")
    log = (await http.get("/v1/event-log")).json()
    assert len(log["events"]) == 5 and log["more"] is False
    first = (await http.get("/v1/event-log?limit=2")).json()
    assert first["more"] is True
    status, _, text = await listen(
        site, http, until=lambda text: text.count("event:") == 3, Last_Event_ID=first["after"]
    )
    assert status == 200 and [e["id"] for e in events_in(text)] == [e["id"] for e in log["events"][2:]]
    rest = (await http.get(f"/v1/event-log?after={first['after']}")).json()
    assert rest["events"] == log["events"][2:]
    _, _, text = await listen(site, http, f"/v1/events?after={rest['after']}", until=lambda text: ": nothing new" in text)
    assert events_in(text) == []


async def test_types(site):
    http = await site.client()
    await site.submit(http)
    await site.receive()
    path = "/v1/events?types=message.received,message.failed&after=0"
    _, _, text = await listen(site, http, path, until=lambda text: "event:" in text)
    assert [e["type"] for e in events_in(text)] == ["message.received"]
    log = (await http.get("/v1/event-log?types=message.accepted")).json()["events"]
    assert [e["type"] for e in log] == ["message.accepted"]
    for path in ("/v1/events", "/v1/event-log"):
        refused(await http.get(f"{path}?types=message.nothing"), "invalid-parameter")
        refused(await http.get(f"{path}?after=x"), "invalid-parameter")
    refused(await http.get("/v1/events", headers={"Last-Event-ID": "x"}), "invalid-parameter")
    assert (await http.head("/v1/events")).status_code == 200


async def test_others_hear_nothing_of_it(site):
    http = await site.client()
    others = [await site.client("b", "portal"), await site.client("c", actions=("none",))]
    heard = [listen(site, other, until=lambda text: text.count(": nothing new") > 3) for other in others]
    await listening(site)
    await site.submit(http)
    await site.receive()
    for task, other in zip(heard, others, strict=True):
        _, _, text = await task
        assert events_in(text) == []
        assert (await other.get("/v1/event-log")).json()["events"] == []


async def test_a_revoked_client_is_let_go(site, monkeypatch):
    monkeypatch.setattr(module, "RECHECK", 0.0)
    revoked, bounded = await site.client(), await site.client("b")
    heard = [listen(site, http, until=lambda text: False) for http in (revoked, bounded)]
    await listening(site)
    await site.store.revoke_client(revoked.id)
    from gateway.scope import Scope

    await site.store.set_scope(bounded.id, Scope(actions=("none",)))
    for task in heard:
        assert (await task)[0] == 200
    assert backends  # what the command line calls


async def test_a_client_has_so_many_streams(site):
    http = await site.client()
    ends = asyncio.Event()
    heard = [listen(site, http, until=lambda text: ends.is_set()) for _ in range(8)]
    async with asyncio.timeout(5):
        while site.lv.door._feed._followers < 8:
            await asyncio.sleep(0.005)
    refused(await http.get("/v1/events"), "too-many-streams")
    other = await site.client("b")
    assert (await listen(site, other, until=lambda text: ": nothing" in text))[0] == 200
    ends.set()
    await asyncio.gather(*heard)
    assert (await listen(site, http, until=lambda text: ": nothing" in text))[0] == 200


async def test_streams_end_when_the_gateway_drains(site):
    http = await site.client()
    heard = listen(site, http, until=lambda text: False)
    await listening(site)
    await site.lv.gateway.drain()
    assert (await heard)[0] == 200
