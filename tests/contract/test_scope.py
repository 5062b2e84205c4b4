"""A client reads only what its backend and scope see, by every verb, whatever ids it guesses [threats L01]."""

import random
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest

from gateway.as4.units import PartyId, Property, Service
from gateway.errors import ClaimLost
from gateway.scope import FINAL_RECIPIENT, ORIGINAL_SENDER, Scope, names
from gateway.store.api import Client, MessageFilter, Viewer, WaitingFilter
from gateway.store.webhooks import Webhook
from tests.contract.test_store_contract import inbound, outbound, part, unit

TYPES = (None, "", "urn:t:LV", "urn:t:EE")
VALUES = ("C1", "C4", "urn:x:C4", "40'; DROP TABLE message --")
ACTIONS = ("Ask", "Answer", "Ķ")
BACKENDS = ("rest", "portal", "archive")
PARTIES = (PartyId("AP_EE_01", "urn:t:EE"), PartyId("AP_EE_01", "urn:t:FI"), PartyId("AP_FI_01"))


def corner(rng, name):
    return (Property(name, rng.choice(VALUES), rng.choice(TYPES)),) if rng.random() < 0.8 else ()


def some_unit(rng, party, *, outgoing):
    other = {"to_party": party} if outgoing else {"from_party": party}
    properties = (*corner(rng, ORIGINAL_SENDER), Property("other", "C4"), *corner(rng, FINAL_RECIPIENT))
    if rng.random() < 0.1:  # twice the same name: the first one counts
        properties += corner(rng, FINAL_RECIPIENT)
    service = Service(rng.choice(("S", "T")), rng.choice(TYPES))
    return unit(properties=properties, action=rng.choice(ACTIONS), service=service, **other)


def key(party):
    return f"{party.type}:{party.value}" if party.type else party.value


def some_bounds(rng, values):
    return tuple(rng.sample(values, rng.randint(1, 2))) if rng.random() < 0.4 else ()


def some_scope(rng):
    corners = [f"{t}:{v}" if t else v for v in VALUES for t in TYPES]
    return Scope(
        partners=some_bounds(rng, [*map(key, PARTIES), "AP_EE_01"]), services=some_bounds(rng, ["S", "T"]),
        actions=some_bounds(rng, list(ACTIONS)), original_senders=some_bounds(rng, corners),
        final_recipients=some_bounds(rng, corners),
    )  # fmt: skip


def covered(viewer, new, direction):
    message = new.user_message
    other = message.to_party if direction == "outbound" else message.from_party
    found = {p.name: names(p.value, p.type) for p in reversed(message.properties)}
    return new.backend == viewer.backend and viewer.scope.covers(
        direction, partner=names(other.value, other.type), service=message.service.value, action=message.action,
        original_sender=found.get(ORIGINAL_SENDER, ()), final_recipient=found.get(FINAL_RECIPIENT, ()),
    )  # fmt: skip


@pytest.fixture
async def filled(store):
    """Some messages of three backends, in both directions: {id: (message, direction)}."""
    rng, stored = random.Random(7), {}
    for number in range(60):
        party = rng.choice(PARTIES)
        if number % 2:
            new = outbound(user_message=some_unit(rng, party, outgoing=True), backend=rng.choice(BACKENDS), receiver=key(party))
            await store.submit_once(new)
        else:
            new = inbound(user_message=some_unit(rng, party, outgoing=False), backend=rng.choice(BACKENDS), sender=key(party))
            await store.receive_once(new)
        stored[new.id] = (new, "outbound" if number % 2 else "inbound")
    return stored


async def test_every_verb_of_reading_stays_within_the_scope(store, filled):
    rng = random.Random(8)
    viewers = [Viewer(rng.choice(BACKENDS), some_scope(rng)) for _ in range(25)]
    viewers += [Viewer("nobody"), Viewer("rest"), Viewer("rest", Scope(actions=("none",)))]
    seen_any = 0
    for viewer in viewers:
        expected = {id for id, (new, direction) in filled.items() if covered(viewer, new, direction)}
        seen_any += len(expected)
        page = await store.messages(MessageFilter(limit=100), viewer=viewer)
        assert {m.id for m in page} == expected, viewer
        feed = await store.events(viewer=viewer, limit=1000)
        assert {subject for _, _, _, subject, _ in feed} == expected, viewer
        for id, (new, _) in rng.sample(list(filled.items()), 12):
            visible = id in expected
            assert (await store.message(id, viewer=viewer) is not None) == visible
            assert [m.id for m in await store.find(new.user_message.message_id, viewer=viewer)] == [id] * visible
            assert [m.id for m in await store.find(str(id), viewer=viewer)] == [id] * visible
            assert bool(await store.events(message=id, viewer=viewer)) == visible
    assert seen_any > 20
    assert len(await store.messages(MessageFilter(limit=100))) == 60  # the operator


async def test_claims_and_deliveries_stay_within_the_scope(store, filled):
    rng = random.Random(9)
    for viewer in [Viewer(backend, some_scope(rng)) for backend in BACKENDS * 6]:
        expected = {id for id, (new, direction) in filled.items() if direction == "inbound" and covered(viewer, new, direction)}
        jobs = await store.claim("deliver", queues=(viewer.backend,), worker="w", limit=100, lease=60, scope=viewer.scope)
        assert {job.message for job in jobs} == expected
        for job in jobs:
            assert (await store.delivery(job.id, viewer)).message == job.message
            assert await store.delivery(job.id, Viewer("nobody")) is None
            assert await store.delivery(job.id, Viewer(viewer.backend, Scope(actions=("none",)))) is None
            await store.release(job.id, job.claim)


async def test_payloads_and_attempts_of_others_are_not_there(store):
    new = outbound(parts=(part(inline=None, chunks=2),))
    async with store.submitting(new.id) as submitting:
        for number in range(2):
            await submitting.chunk(0, number, b"chunk")
        await submitting.accept(new)
    [job] = await store.claim("send", worker="w", limit=1, lease=60)
    await store.begin_attempt(job, node="n", references=())
    for viewer, there in ((None, True), (Viewer("rest"), True), (Viewer("b"), False), (Viewer("rest", Scope(actions=("x",))), False)):
        assert [c async for c in store.chunks(new.id, 0, viewer=viewer)] == [b"chunk"] * 2 * there
        assert len(await store.attempts(new.id, viewer=viewer)) == there


async def test_a_webhook_hears_only_of_what_its_client_may_see(store):
    await store.add_client(Client(id="c1", name="A", backend="rest", scope=Scope(actions=("Ask",))))
    for id, client in (("w1", "c1"), ("w2", None)):
        await store.add_webhook(Webhook(id=id, backend="rest", url="https://x", sealed_secret=b"s", client=client))
    await store.receive_once(inbound(user_message=unit(action="Answer")))
    await store.receive_once(inbound(user_message=unit(action="Ask")))
    heard = [job.queue for job in await store.claim("notify", worker="w", limit=10, lease=60)]
    assert sorted(heard) == ["w1", "w2", "w2"]
    await store.revoke_client("c1")
    await store.receive_once(inbound(user_message=unit(action="Ask")))
    assert [job.queue for job in await store.claim("notify", worker="w", limit=10, lease=60)] == ["w2"]


async def test_guessed_ids_find_nothing(store, filled):
    viewer = Viewer("nobody")
    for _ in range(200):
        assert await store.message(uuid4(), viewer=viewer) is None


def test_a_scope_survives_its_json():
    scope = Scope(actions=("Ķ",), final_recipients=("urn:t:C4",))
    assert msgspec.json.decode(msgspec.json.encode(scope), type=Scope) == scope
    assert msgspec.json.encode(Scope()) == b"{}"


# -- waiting, and claiming one -----------------------------------------------------------


async def test_what_waits_is_listed_oldest_first(store):
    stored = [inbound(user_message=unit(f"m{n}@x", conversation_id=f"c{n % 2}")) for n in range(4)]
    for message in stored:
        await store.receive_once(message)
    rest = Viewer("rest")
    assert await store.undelivered(WaitingFilter(), rest) == ["m0@x", "m1@x", "m2@x", "m3@x"]
    assert await store.undelivered(WaitingFilter(limit=2), rest) == ["m0@x", "m1@x"]
    assert await store.undelivered(WaitingFilter(conversation_id="c1"), rest) == ["m1@x", "m3@x"]
    assert await store.undelivered(WaitingFilter(message_id="m2@x", final_recipient="urn:c4"), rest) == ["m2@x"]
    for nothing in (
        {"final_recipient": "urn:c5"}, {"original_sender": "x"}, {"from_party": "AP_FI_01"}, {"ref_to_message_id": "m"},
        {"received_from": datetime(2999, 1, 1, tzinfo=UTC)}, {"received_to": datetime(1999, 1, 1, tzinfo=UTC)},
        {"parked": True}, {"message_id": "m\0"},
    ):  # fmt: skip
        assert await store.undelivered(WaitingFilter(**nothing), rest) == [], nothing
    assert await store.undelivered(WaitingFilter(from_party="AP_EE_01", original_sender="Ķēniņš & Co \u2028"), rest) != []
    assert await store.undelivered(WaitingFilter(), Viewer("portal")) == []
    assert await store.undelivered(WaitingFilter(), Viewer("rest", Scope(final_recipients=("x",)))) == []

    job = await store.claim_delivery(stored[1].id, rest, worker="w", lease=60)
    assert "m1@x" in await store.undelivered(WaitingFilter(), rest)  # until it is taken over
    await store.finish_delivery(job.id, job.claim, ())
    assert await store.undelivered(WaitingFilter(), rest) == ["m0@x", "m2@x", "m3@x"]
    job = await store.claim_delivery(stored[0].id, rest, worker="w", lease=60)
    await store.park(job.id, job.claim, error="no")
    assert await store.undelivered(WaitingFilter(), rest) == ["m2@x", "m3@x"]
    assert await store.undelivered(WaitingFilter(parked=True), rest) == ["m0@x"]


async def test_one_message_is_claimed_by_one(store):
    message = inbound()
    await store.receive_once(message)
    rest = Viewer("rest")
    assert await store.claim_delivery(uuid4(), rest, worker="w", lease=60) is None
    for stranger in (Viewer("portal"), Viewer("rest", Scope(actions=("none",)))):
        assert await store.claim_delivery(message.id, stranger, worker="w", lease=60) is None
    job = await store.claim_delivery(message.id, rest, worker="w", lease=60)
    assert (job.message, job.attempt) == (message.id, 1)
    with pytest.raises(ClaimLost):
        await store.claim_delivery(message.id, rest, worker="v", lease=60)
    await store.release(job.id, job.claim)
    again = await store.claim_delivery(message.id, rest, worker="v", lease=60)
    assert again.id == job.id and again.claim != job.claim and again.attempt == 2
    await store.finish_delivery(again.id, again.claim, ())
    assert await store.claim_delivery(message.id, rest, worker="w", lease=60) is None
