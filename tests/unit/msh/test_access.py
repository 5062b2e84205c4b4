"""Who is asking, and what becomes of it at the door."""

import asyncio
from datetime import UTC, datetime, timedelta

import bcrypt
import pytest
from msgspec.structs import replace

from gateway.clock import SystemClock
from gateway.errors import ConfigError, NotFound, OutOfScope, Overloaded, SubmissionRefused
from gateway.msh import access
from gateway.msh.access import Access
from gateway.operate import backends
from gateway.plugin import Caller, PartyRef, PropertyValue, Submission
from gateway.scope import Scope
from gateway.store.api import MessageFilter
from gateway.store.memory import MemoryStore
from tests.peer import Authority, Keys
from tests.world import CORNERS, EE, world


@pytest.fixture
def store():
    return MemoryStore(SystemClock())


@pytest.fixture
def judge(store):
    return Access(store, SystemClock())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(access, "ROUNDS", 4)


async def test_tokens(store, judge):
    client, token = await backends.create(store, "Portal", "rest", Scope(actions=("Ask",)))
    assert await judge.token(token) == Caller(client.id, "Portal", "rest", Scope(actions=("Ask",)))
    credential, second = await backends.add_token(store, client.id, timedelta(days=1))
    assert (await judge.token(second)).id == client.id
    await backends.revoke(store, credential.id)
    for wrong in (second, token[:-1], "", "gw_"):
        with pytest.raises(NotFound):
            await judge.token(wrong)
    assert (await judge.token(token)).id == client.id
    await backends.revoke(store, client.id)
    with pytest.raises(NotFound):
        await judge.token(token)
    with pytest.raises(NotFound):
        await backends.add_token(store, client.id)


async def test_an_expired_token_is_worth_nothing(store, judge):
    client, _ = await backends.create(store, "Portal", "rest")
    _, token = await backends.add_token(store, client.id, timedelta(seconds=-1))
    with pytest.raises(NotFound):
        await judge.token(token)


async def test_passwords(store, judge):
    client, password = await backends.create(store, "Old backend", "domibus", login="portal")
    for _ in range(2):  # judged, then remembered
        assert (await judge.password("portal", password)).id == client.id
    for login, wrong in (("portal", password + "x"), ("portal", ""), ("Portal", password), ("", password),
                         ("portal", "\0"), ("portal", "x" * 10_000), ("x" * 10_000, password), ("\ud800", "\ud800")):  # fmt: skip
        with pytest.raises(NotFound):
            await judge.password(login, wrong)
    await backends.revoke(store, client.id)
    with pytest.raises(NotFound):
        await judge.password("portal", password)  # remembered or not


async def test_a_hash_made_by_another_product_is_understood(store, judge):
    """Domibus keeps bcrypt hashes with the prefix 2a; its users move with them."""
    client, _ = await backends.create(store, "Old backend", "domibus")
    verifier = bcrypt.hashpw(b"Passw0rd", bcrypt.gensalt(4, prefix=b"2a")).decode()
    credential = (await backends.add_password(store, client.id, "other"))[0]
    await store.add_credential(replace(credential, id="cr_x", key="moved", verifier=verifier))
    assert (await judge.password("moved", "Passw0rd")).id == client.id
    await store.add_credential(replace(credential, id="cr_y", key="broken", verifier="no hash"))
    with pytest.raises(NotFound):
        await judge.password("broken", "Passw0rd")


async def test_an_unknown_login_is_judged_like_a_known_one(store, judge, monkeypatch):
    judged = []
    monkeypatch.setattr(access, "_check", lambda password, verifier: judged.append(verifier) or False)
    await backends.create(store, "Old backend", "domibus", login="portal")
    for login in ("portal", "nobody"):
        with pytest.raises(NotFound):
            await judge.password(login, "wrong password")
    assert len(judged) == 2 and judged[1] == access._NOBODY


async def test_guesses_do_not_pile_up(store, judge, monkeypatch):
    import threading

    let_go = threading.Event()
    monkeypatch.setattr(access, "_check", lambda *_: let_go.wait(30) and False)
    guesses = [asyncio.create_task(judge.password("portal", f"guess {n}")) for n in range(access.WAITING)]
    await asyncio.sleep(0)
    try:
        with pytest.raises(Overloaded):
            await judge.password("portal", "one more")
    finally:
        let_go.set()
    assert all(isinstance(found, NotFound) for found in await asyncio.gather(*guesses, return_exceptions=True))


async def test_certificates(store, judge):
    keys = Keys.make("AP_LV_01", "ecdsa", Authority())
    client, _ = await backends.create(store, "Portal", "rest")
    await backends.add_certificate(store, client.id, keys.signing)
    assert (await judge.certificate(keys.signing)).id == client.id
    with pytest.raises(NotFound):
        await judge.certificate(keys.encryption)

    class Later(SystemClock):
        def now(self):
            return datetime.now(UTC) + timedelta(days=36_500)

    with pytest.raises(NotFound):
        await Access(store, Later()).certificate(keys.signing)


@pytest.mark.parametrize("octets", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_what_is_no_certificate_is_refused(store, octets):
    client, _ = await backends.create(store, "Portal", "rest")
    with pytest.raises(ConfigError):
        await backends.add_certificate(store, client.id, octets)


async def test_subjects(store, judge):
    client, _ = await backends.create(store, "Portal", "rest")
    await backends.add_subject(store, client.id, "https://login.example", "portal")
    assert (await judge.subject("https://login.example", "portal")).id == client.id
    for issuer, subject in (("https://login.example", "other"), ("https://login.example portal", ""), ("", "portal")):
        with pytest.raises(NotFound):
            await judge.subject(issuer, subject)
    with pytest.raises(ConfigError):
        await backends.add_subject(store, client.id, "https://a b", "c")


@pytest.mark.parametrize("how", [
    {"name": ""}, {"name": "x" * 81}, {"name": "a\nb"}, {"login": "a:b"}, {"login": " a"}, {"login": ""},
    {"login": "x", "password": "short"}, {"login": "x", "password": "x" * 73}, {"scope": Scope(actions=("",))},
    {"scope": Scope(actions=("a\n",))}, {"scope": Scope(actions=("x",) * 1001)},
])  # fmt: skip
async def test_bad_clients_are_refused(store, how):
    with pytest.raises(ConfigError):
        await backends.create(store, **{"name": "n", "backend": "rest"} | how)
    assert await store.clients() == []


async def test_a_login_belongs_to_one_client(store):
    await backends.create(store, "A", "rest", login="portal")
    with pytest.raises(ConfigError, match="belongs to a client"):
        await backends.create(store, "B", "rest", login="portal")


async def test_the_audit_tells_who_may_do_what_and_no_secret(store):
    client, token = await backends.create(store, "A", "rest", Scope(final_recipients=("person-1",)))
    _, password = await backends.add_password(store, client.id, "portal")
    await backends.set_scope(store, client.id, Scope())
    await backends.revoke(store, client.id)
    entries = await store.audit_entries()
    assert [e.kind for e in entries] == ["client.created", "credential.created", "client.scope", "client.revoked"]
    assert not any(word in str(entries) for word in (token, password, "person-1"))


# -- at the door ------------------------------------------------------------------


async def nothing(_number):
    return
    yield


async def test_a_client_sends_only_within_its_scope(tmp_path):
    async with world(tmp_path / "lv") as lv:
        wanted = Submission(to_party=PartyRef(EE.value), action="ExecuteQueryRequest", properties=CORNERS)
        type_ = CORNERS[0].type
        for allowed in (
            Scope(), Scope(original_senders=("C1",)), Scope(original_senders=("x", f"{type_}:C1")),
            Scope(partners=(EE.value,), actions=("ExecuteQueryRequest",), services=("QueryManager",)),
            Scope(final_recipients=("somebody else",)),  # bounds what it receives
        ):  # fmt: skip
            await lv.door.submit(Caller("c", "n", "rest", allowed), wanted, nothing)
        before = len(await lv.store.messages(filter_all()))
        for bound in (
            Scope(original_senders=("C2",)), Scope(original_senders=(f"{type_}:C2",)), Scope(actions=("Other",)),
            Scope(partners=("AP_FI_01",)), Scope(services=("LifecycleManager",)),
        ):  # fmt: skip
            with pytest.raises(OutOfScope):
                await lv.door.submit(Caller("c", "n", "rest", bound), wanted, nothing)
        two_faced = (PropertyValue("originalSender", "C2", type_), *CORNERS)
        with pytest.raises(SubmissionRefused):  # a property twice is refused by its own rule, or by the scope
            await lv.door.submit(
                Caller("c", "n", "rest", Scope(original_senders=("C1",))),
                Submission(to_party=PartyRef(EE.value), action="ExecuteQueryRequest", properties=two_faced), nothing,
            )  # fmt: skip
        assert len(await lv.store.messages(filter_all())) == before


def filter_all():
    return MessageFilter(limit=500)


async def test_a_client_receives_only_within_its_scope(tmp_path):
    async with world(tmp_path / "lv") as lv:
        mine = Caller("c", "n", "rest", Scope(final_recipients=("C4",)))
        others = Caller("d", "m", "rest", Scope(final_recipients=("C9",)))
        assert (await lv.give(lv.peer.message())).status == 200
        assert await lv.door.claim(others, limit=10) == []
        [delivery] = await lv.door.claim(mine, limit=10)
        for verb in (
            lambda: lv.door.message(others, delivery.message.id), lambda: lv.door.trace(others, delivery.message.id),
            lambda: lv.door.payload(others, delivery.message.id, delivery.message.parts[0].cid),
            lambda: lv.door.ack(others, delivery.delivery_id, delivery.claim),
            lambda: lv.door.nack(others, delivery.delivery_id, delivery.claim),
            lambda: lv.door.extend(others, delivery.delivery_id, delivery.claim, lease=5),
        ):  # fmt: skip
            with pytest.raises(NotFound):
                await verb()
        await lv.door.ack(mine, delivery.delivery_id, delivery.claim)
