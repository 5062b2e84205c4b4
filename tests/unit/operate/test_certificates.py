"""What an operator plans and sees of our own certificates. Rings under a whole gateway: tests/unit/msh/test_ring.py."""

import datetime

import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.config import Config
from gateway.errors import ConfigError, KeyUnavailable, NotFound, NotPossible, StalePlan
from gateway.keys.sealing import KeyEncryptionKey
from gateway.operate import certificates, key_files, key_import
from gateway.store.keys import Choice, Ring
from gateway.store.memory import MemoryStore
from tests.pki import SIGN, Ca, key
from tests.unit.operate.test_key_import import pem

KEK = KeyEncryptionKey(b"k" * 32)
CA = Ca.root("Operator CA")
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def store():
    return MemoryStore(SystemClock())


async def added(store, name="a", *, kind="rsa", number=1, uses=(), **leaf) -> str:
    private = key(kind, number)
    if kind != "rsa":
        leaf["key_usage"] = SIGN
    octets = pem(CA.leaf(name, private.public_key(), **leaf), private=private)
    [found] = key_import.read(octets, await certificates.held(store), now=NOW, uses=uses)
    return (await key_import.keep(store, KEK, found, author="anna")).id


async def do(store, plan, **more):
    return await certificates.apply(store, plan, author="anna@lv", reason="because", lead=0.0, **more)


async def staged(store, *ids):
    return await do(store, certificates.plan_stage(await certificates.held(store), ids))


async def promoted(store, *ids, **more):
    return await do(store, certificates.plan_promote(await certificates.held(store), ids, now=NOW, **more))


async def test_keys_are_found_by_the_beginning_of_id_or_fingerprint(store):
    ids = [await added(store, name, number=n) for n, name in enumerate("ab")]
    have = await certificates.held(store)
    for one in have.keys:
        colons = ":".join(one.fingerprint[i : i + 2] for i in range(0, 64, 2)).upper()
        for name in (one.id, one.fingerprint, f"sha256:{one.fingerprint}", colons, one.fingerprint[:12]):
            assert have.find(name).id == one.id
    with pytest.raises(NotPossible, match="could be any"):
        have.find("key_")
    for name in ("nothing", "", "ab"):
        with pytest.raises(NotFound):
            have.find(name)
    assert sorted(ids) == sorted(k.id for k in have.keys)


async def test_a_plan_says_what_it_does_and_is_stale_when_something_else_was_done(store):
    first, second = await added(store, "a", number=1), await added(store, "b", number=2)
    plan = certificates.plan_stage(await certificates.held(store), [first])
    assert plan.id.startswith("0-") and [m[:2] for m in plan.moves] == [(first, "decrypt"), (first, "sign")]
    assert certificates.plan_stage(await certificates.held(store), [first]) == plan, "the same again"
    await staged(store, second)
    with pytest.raises(StalePlan):
        await do(store, plan)
    with pytest.raises(NotPossible, match="expected PLANNED"):
        certificates.plan_stage(await certificates.held(store), [second])
    with pytest.raises(NotPossible, match="is not for tls-server"):
        certificates.plan_stage(await certificates.held(store), [first], ["tls-server"])
    with pytest.raises(ConfigError, match="reason"):
        await certificates.apply(store, certificates.plan_stage(await certificates.held(store), [first]), author="a", reason=" ")


async def test_signing_and_decryption_change_hands_at_different_times(store):
    old, new = await added(store, "a", number=1), await added(store, "b", number=2)
    await staged(store, old, new)
    await promoted(store, old)
    await do(store, certificates.plan_promote(await certificates.held(store), [new], ["sign"], now=NOW))
    have = await certificates.held(store)
    assert have.key(old).states == {"sign": "DRAINING", "decrypt": "ACTIVE"}
    assert have.key(new).states == {"sign": "ACTIVE", "decrypt": "STAGED"}
    plan = certificates.plan_rollback(have, [new], now=NOW)
    assert {(m.key, m.use, m.after) for m in plan.moves} == {(new, "sign", "STAGED"), (old, "sign", "ACTIVE")}


async def test_keys_of_another_party_or_kind_are_not_replaced(store):
    rsa, edwards = await added(store, "a", number=1), await added(store, "b", kind="ed25519", number=1)
    private = key("rsa", 3)
    [found] = key_import.read(pem(CA.leaf("c", private.public_key()), private=private), await certificates.held(store), now=NOW, party="AP_LV_02")
    other = (await key_import.keep(store, KEK, found, author="anna")).id
    await staged(store, rsa, edwards, other)
    await promoted(store, rsa, edwards, other)
    assert {k.states["sign"] for k in (await certificates.held(store)).keys} == {"ACTIVE"}
    second = await added(store, "d", number=4)
    await staged(store, second)
    await promoted(store, second)
    states = {k.id: k.states["sign"] for k in (await certificates.held(store)).keys}
    assert states == {rsa: "DRAINING", edwards: "ACTIVE", other: "ACTIVE", second: "ACTIVE"}


async def test_choices_end_with_a_promotion_for_all_unless_they_are_to_stay(store):
    old, new = await added(store, "a", number=1), await added(store, "b", number=2)
    await staged(store, old, new)
    await promoted(store, old)
    have = await certificates.held(store)
    refusing = have.ring.with_choices([Choice(partner="AP_EE_01", key=old, why="refuses the new one")])
    await do(store, certificates.plan_ring("choose", have, refusing))
    have = await certificates.held(store)
    assert certificates.plan_promote(have, [new], now=NOW).ring.choices == ()
    kept = certificates.plan_promote(have, [new], now=NOW, chosen=True)
    assert [c.partner for c in kept.ring.choices] == ["AP_EE_01"]
    await do(store, kept)
    with pytest.raises(NotPossible, match="does not sign in this ring"):
        certificates.plan_retire(await certificates.held(store), [old], ["sign"], now=NOW)


async def test_what_is_out_of_time_is_an_obstacle(store):
    id = await added(store, days=11, start=-10)  # ends tomorrow
    await staged(store, id)
    have = await certificates.held(store)
    assert certificates.plan_promote(have, [id], now=NOW).obstacles == ()
    late = certificates.plan_promote(have, [id], now=NOW + 2 * DAY)
    assert len(late.obstacles) == 1 and "is not valid now" in late.obstacles[0]


async def test_draining_takes_its_time(store):
    old, new = await added(store, "a", number=1), await added(store, "b", number=2)
    await staged(store, old, new)
    await promoted(store, old)
    await promoted(store, new)
    have = await certificates.held(store)
    assert "drained for 0 of 30 days" in certificates.plan_retire(have, [old], now=NOW).obstacles[0]
    assert certificates.plan_retire(have, [old], now=NOW + 31 * DAY).obstacles == ()
    assert certificates.plan_retire(have, [old], ["sign"], now=NOW).obstacles == (), "what signs no more may go at once"
    with pytest.raises(NotPossible, match="ACTIVE, expected"):
        certificates.plan_retire(have, [new], now=NOW)


async def test_where_no_process_runs_the_command_tests_the_ring_itself(store):
    id = await added(store)
    tested = []

    async def test(ring: Ring) -> None:
        tested.append(ring)
        raise KeyUnavailable("the token is not there")

    plan = certificates.plan_stage(await certificates.held(store), [id])
    with pytest.raises(KeyUnavailable):
        await do(store, plan, test=test)
    assert tested == [plan.ring] and await store.active_ring() is None
    assert (await do(store, plan)).revision.state == "ACTIVE"


async def test_what_there_is_and_what_is_due(store, tmp_path):
    soon, later = await added(store, "a", number=1, days=30), await added(store, "b", number=2)
    await staged(store, soon)
    await promoted(store, soon)
    shown = certificates.own_certificates(await certificates.held(store))
    assert [(c.key, c.use, c.state) for c in shown] == [
        (soon, "decrypt", "ACTIVE"), (soon, "sign", "ACTIVE"), (later, "decrypt", "PLANNED"), (later, "sign", "PLANNED")]  # fmt: skip
    assert shown[0].subject == "CN=a" and shown[0].place == "database" and shown[0].not_after - NOW < 21 * DAY
    due = certificates.needs_renewal(shown, now=NOW, days=30)
    assert [(d.certificate.use, d.days, d.successor) for d in due] == [("decrypt", 19, later), ("sign", 19, later)]
    assert certificates.needs_renewal(shown, now=NOW, days=10) == []
    await staged(store, later)
    ready = certificates.own_certificates(await certificates.held(store))
    assert certificates.needs_renewal(ready, now=NOW, days=30) == [], "its successor waits in the ring"
    assert len(certificates.needs_renewal(ready, now=NOW + 15 * DAY, days=30)) == 2, "and should not wait for too long"
    # What is configured as files is listed beside them.
    for name, number in (("one", 3), ("two", 4)):
        (tmp_path / f"{name}.pem").write_bytes(pem(CA.leaf(name, key("rsa", number).public_key(), days=25), private=key("rsa", number)))
        (tmp_path / f"{name}.pem").chmod(0o600)
    (tmp_path / "gateway.toml").write_text(
        '[[keys.store]]\npath = "one.pem"\n[[keys.store]]\npath = "two.pem"\n[as4.tls]\ncertificate = "one.pem"\n')
    files = key_files.configured(Config.load(tmp_path / "gateway.toml", environ={}))
    assert [(f.key.rpartition("/")[2], f.use, f.state, f.place) for f in files] == [
        ("one.pem", "sign", "ACTIVE", "file"), ("one.pem", "decrypt", "ACTIVE", "file"),
        ("two.pem", "sign", "DRAINING", "file"), ("two.pem", "decrypt", "DRAINING", "file"),
        ("one.pem", "tls-server", "ACTIVE", "file")]  # fmt: skip
    assert {d.certificate.use for d in certificates.needs_renewal(files, now=NOW, days=30)} == {"sign", "decrypt", "tls-server"}


async def test_nothing_secret_is_in_what_is_shown(store):
    await added(store)
    have = await certificates.held(store)
    shown = msgspec.json.encode(certificates.own_certificates(have)) + msgspec.json.encode(
        [e.detail for e in await store.audit_entries()])
    assert have.keys[0].sealed not in shown and b"sealed" not in shown


async def test_steps_are_in_the_audit_under_fingerprint_and_actor(store):
    old, new = await added(store, "a", number=1), await added(store, "b", number=2)
    await staged(store, old, new)
    await promoted(store, old)
    await promoted(store, new)
    have = await certificates.held(store)
    told = [(e.kind, e.actor, e.detail["from"], e.detail["to"]) for e in await store.audit_entries()
            if e.subject == have.key(old).fingerprint and e.detail.get("use") == "sign"]  # fmt: skip
    assert told == [("key.moved", "anna@lv", "PLANNED", "STAGED"), ("key.moved", "anna@lv", "STAGED", "ACTIVE"),
                    ("key.moved", "anna@lv", "ACTIVE", "DRAINING")]  # fmt: skip
    assert await store.verify_audit() is None
