"""What `gateway.store.keys` promises, run against every store: keys, rings, states, choices."""

import asyncio
import hashlib
from datetime import timedelta

import msgspec
import pytest

from gateway.errors import NotFound, NotPossible, StalePlan
from gateway.store.agreements import NewRevision
from gateway.store.keys import Choice, NewKey, Ring
from tests.contract.test_agreements_contract import alive, new, process

SIGN, DECRYPT, SERVER = "sign", "decrypt", "tls-server"


def key(id="k1", uses=(DECRYPT, SIGN), **more):
    facts = {"algorithm": "RSA 3072", "public": f"spki {id}".encode(), "sealed": b"sealed", "certificate": id.encode()}
    return NewKey(id=id, uses=uses, **facts | more)


def ring(base, wanted, **more):
    return NewRevision(
        topic="keys", base=base, content=wanted.encode(), author="anna@lv", reason="rotation", **more
    )


async def serve(store, base, wanted, **more):
    """The ring in force, without processes."""
    proposed = await store.propose_revision(ring(base, wanted, **more))
    return await store.settle_revision(proposed.number, topic="keys")


async def states(store):
    return {one.id: dict(one.states) for one in await store.own_keys()}


async def kinds(store):
    return [entry.kind for entry in await store.audit_entries()]


async def test_a_key_as_it_was_written(store, other):
    made = await store.add_key(key(chain=(b"issuer", b"root"), party="AP_LV"), author="anna@lv")
    assert made.states == {SIGN: "PLANNED", DECRYPT: "PLANNED"} and made.author == "anna@lv"
    assert made.fingerprint == hashlib.sha256(b"k1").hexdigest() and (made.kind, made.uses) == ("RSA", (DECRYPT, SIGN))
    assert await other.own_keys() == [made] and made.chain == (b"issuer", b"root") and made.sealed == b"sealed"
    entry = (await store.audit_entries())[-1]
    assert (entry.kind, entry.actor, entry.subject) == ("key.added", "anna@lv", made.fingerprint)
    with pytest.raises(NotPossible, match="key k1 already"):
        await store.add_key(key("k2", certificate=b"k1"), author="berta")
    assert len(await store.own_keys()) == 1


async def test_a_request_and_its_certificate(store):
    asked = await store.add_key(key(certificate=None), author="anna")
    assert asked.certificate is None and asked.fingerprint == hashlib.sha256(b"spki k1").hexdigest()
    with pytest.raises(NotPossible, match="k1"):
        await store.add_key(key("k2", public=b"spki k1", certificate=None), author="anna")
    with pytest.raises(NotPossible, match="no certificate"):
        await store.propose_revision(ring(0, Ring().with_states({("k1", SIGN): "STAGED"})))
    done = await store.complete_key("k1", b"issued", (b"ca",), actor="berta")
    assert (done.certificate, done.chain, done.fingerprint) == (b"issued", (b"ca",), hashlib.sha256(b"issued").hexdigest())
    with pytest.raises(NotPossible, match="has its certificate"):
        await store.complete_key("k1", b"another", (), actor="berta")
    with pytest.raises(NotFound):
        await store.complete_key("k9", b"other", (), actor="berta")
    # A renewed certificate of the same key is a key of its own.
    again = await store.add_key(key("k2", public=b"spki k1", certificate=b"renewed"), author="anna")
    assert again.id == "k2" and await kinds(store) == ["key.added", "key.completed", "key.added"]


async def test_what_was_never_used_may_go(store):
    await store.add_key(key(), author="anna")
    gone = await store.drop_key("k1", actor="berta", why="mistake")
    assert gone.retired and gone.sealed is None and gone.certificate == b"k1"
    entry = (await store.audit_entries())[-1]
    assert (entry.kind, entry.actor, entry.detail["why"]) == ("key.dropped", "berta", "mistake")
    with pytest.raises(NotPossible):
        await store.drop_key("k1", actor="berta", why="twice")
    await store.add_key(key("k2"), author="anna")
    await serve(store, 0, Ring().with_states({("k2", SIGN): "STAGED"}))
    with pytest.raises(NotPossible, match="not PLANNED for all"):
        await store.drop_key("k2", actor="berta", why="used")
    with pytest.raises(NotFound):
        await store.drop_key("k9", actor="berta", why="nothing")


async def test_a_whole_rotation(store, other):
    for one in ("old", "next"):
        await store.add_key(key(one), author="anna")
    first = Ring().with_states({("old", use): "ACTIVE" for use in (SIGN, DECRYPT)})
    with pytest.raises(NotPossible, match="from PLANNED to ACTIVE"):
        await store.propose_revision(ring(0, first))
    staged = Ring().with_states({(k, use): "STAGED" for k in ("old", "next") for use in (SIGN, DECRYPT)})
    assert (await serve(store, 0, staged)).state == "ACTIVE"
    before = staged.with_states({("old", use): "ACTIVE" for use in (SIGN, DECRYPT)})
    await serve(other, 1, before)
    promoted = before.with_states({("next", SIGN): "ACTIVE", ("old", SIGN): "DRAINING", ("next", DECRYPT): "ANNOUNCED"})
    done = await serve(store, 2, promoted)
    assert (done.number, done.topic, Ring.decode((await other.active_ring()).content)) == (3, "keys", promoted)
    assert await states(other) == {"old": {DECRYPT: "ACTIVE", SIGN: "DRAINING"}, "next": {DECRYPT: "ANNOUNCED", SIGN: "ACTIVE"}}
    moved = [e for e in await store.audit_entries() if e.kind == "key.moved"][-3:]
    fingerprints = {k.id: k.fingerprint for k in await store.own_keys()}
    assert {(e.subject, e.detail["use"], e.detail["from"], e.detail["to"], e.actor) for e in moved} == {
        (fingerprints["next"], SIGN, "STAGED", "ACTIVE", "anna@lv"),
        (fingerprints["next"], DECRYPT, "STAGED", "ANNOUNCED", "anna@lv"),
        (fingerprints["old"], SIGN, "ACTIVE", "DRAINING", "anna@lv")}  # fmt: skip
    # Back, and forth again; then the old one goes, and with it its private part.
    await serve(store, 3, promoted.with_states({("next", SIGN): "STAGED", ("old", SIGN): "ACTIVE"}))
    await serve(store, 4, promoted)
    drained = promoted.with_states({("next", DECRYPT): "ACTIVE", ("old", DECRYPT): "DRAINING"})
    await serve(store, 5, drained)
    with pytest.raises(NotPossible, match="from ACTIVE to RETIRED"):
        await store.propose_revision(ring(6, drained.with_states({("next", SIGN): "RETIRED"})))
    await serve(store, 6, drained.with_states({("old", SIGN): "RETIRED"}))
    assert {k.id: k.sealed for k in await store.own_keys()} == {"old": b"sealed", "next": b"sealed"}
    await serve(store, 7, drained.with_states({("old", SIGN): "RETIRED", ("old", DECRYPT): "RETIRED"}))
    keys = {k.id: k for k in await store.own_keys()}
    assert keys["old"].retired and keys["old"].sealed is None and keys["old"].certificate == b"old", "kept for archives"
    assert keys["next"].sealed == b"sealed" and await store.verify_audit() is None


async def test_rings_that_are_none(store):
    for one in ("a", "b"):
        await store.add_key(key(one, uses=(SIGN,)), author="anna")
    await store.add_key(key("mine", uses=(SIGN,), party="AP_LV"), author="anna")
    await store.add_key(key("ed", uses=(SIGN,), algorithm="Ed25519"), author="anna")
    await store.add_key(key("dec", uses=(DECRYPT,)), author="anna")
    every = {(k, SIGN): "STAGED" for k in ("a", "b", "mine", "ed")} | {("dec", DECRYPT): "STAGED"}
    staged = Ring().with_states(every)
    await serve(store, 0, staged)
    # One of each kind and party may be active beside each other.
    await serve(store, 1, staged.with_states({("a", SIGN): "ACTIVE", ("mine", SIGN): "ACTIVE", ("ed", SIGN): "ACTIVE"}))
    bad = {
        "more than one key is active for sign RSA": staged.with_states({("a", SIGN): "ACTIVE", ("b", SIGN): "ACTIVE"}),
        "no key k9": staged.with_states({("k9", SIGN): "STAGED"}),
        "no key a for decrypt": staged.with_states({("a", DECRYPT): "STAGED"}),
        "each use of a key once": Ring(places=(*staged.places, staged.places[0])),
        "key dec, chosen for EE, does not sign": staged.with_choices([Choice(partner="EE", key="dec")]),
        "more than one key is chosen for EE RSA": staged.with_choices([Choice(partner="EE", key="a"), Choice(partner="EE", key="b")]),
        "a choice names a partner": staged.with_choices([Choice(partner="", key="a")]),
        "printable": staged.with_choices([Choice(partner="EE", key="a", why="\0")]),
    }  # fmt: skip
    for why, wanted in bad.items():
        with pytest.raises(NotPossible, match=why):
            await store.propose_revision(ring(2, wanted))
    assert (await store.active_ring()).number == 2 and len(await store.revisions(topic="keys")) == 2


async def test_choices_for_partners(store, other):
    for one in ("old", "next"):
        await store.add_key(key(one, uses=(SIGN,)), author="anna")
    staged = Ring().with_states({("old", SIGN): "STAGED", ("next", SIGN): "STAGED"})
    await serve(store, 0, staged)
    first = staged.with_choices([Choice(partner="EE", key="next", why="asked for"), Choice(partner="FI", key="old", party="LV")])
    await serve(store, 1, first)
    before = await other.chosen()
    assert [(c.party, c.partner, c.key, c.why) for c in before] == [("", "EE", "next", "asked for"), ("LV", "FI", "old", "")]
    await serve(store, 2, staged.with_choices([Choice(partner="EE", key="next", why="works"), Choice(partner="SE", key="old")]))
    after = {c.partner: c for c in await store.chosen()}
    assert after.keys() == {"EE", "SE"} and after["EE"].why == "works"
    assert after["EE"].since == before[0].since, "the same key, for as long as it was"
    assert [k for k in await kinds(store) if k.startswith("key.")][-3:] == ["key.unchosen", "key.chosen", "key.chosen"]
    with pytest.raises(NotPossible, match="does not sign in this ring"):
        await store.propose_revision(ring(3, first.with_states({("next", SIGN): "RETIRED"})))


async def test_every_process_answers_for_a_ring_and_knows_the_moment(store, other):
    a, b = process("0", kek="aa"), process("1", node="ee", ring=4, ring_trouble="no token \0")
    await alive(store, a, b)
    await store.add_key(key(), author="anna")
    wanted = Ring().with_states({("k1", SIGN): "STAGED"})
    proposed = await store.propose_revision(ring(0, wanted, lead=30.0))
    assert (proposed.state, proposed.number, proposed.content) == ("PROPOSED", 1, None)
    assert (await other.beat(a)).ring_proposed == 1 and (await other.beat(a)).proposed == 0
    assert (await store.settle_revision(1, topic="keys")).state == "PROPOSED"
    await store.acknowledge_revision(1, a, None, topic="keys")
    await store.acknowledge_revision(1, b, None)  # of the agreements, which there are none of
    assert (await store.settle_revision(1, topic="keys")).state == "PROPOSED"
    with pytest.raises(NotPossible, match="ring 1 is being applied"):
        await store.drop_key("k1", actor="berta", why="now")
    await other.acknowledge_revision(1, b, None, topic="keys")
    done = await other.settle_revision(1, topic="keys")
    assert done.state == "ACTIVE" and timedelta(29) > done.effective_at - done.settled_at > timedelta(seconds=29)
    standing = await store.beat(a)
    assert (standing.ring, standing.ring_proposed, standing.active) == (1, 0, 0) and 28 < standing.ring_in <= 30
    assert [(w.node, w.why) for w in await store.acknowledgements(1, topic="keys")] == [("ee", None), ("lv", None)]
    told = {p.place: p for p in await store.processes()}
    assert (told["0"].kek, told["0"].ring, told["1"].ring) == ("aa", 0, 4) and told["1"].ring_trouble.startswith("no token")


async def test_a_process_that_lacks_a_key_refuses_for_all(store):
    one = process("0")
    await alive(store, one)
    await store.add_key(key(), author="anna")
    await store.propose_revision(ring(0, Ring().with_states({("k1", SIGN): "STAGED"})))
    await store.acknowledge_revision(1, one, "sealed with another key-encryption key", topic="keys")
    refused = await store.settle_revision(1, topic="keys")
    assert refused.state == "REFUSED" and refused.refusal == "lv 0: sealed with another key-encryption key"
    assert await states(store) == {"k1": {SIGN: "PLANNED", DECRYPT: "PLANNED"}} and await store.active_ring() is None
    assert (await store.audit_entries())[-1].subject == "ring 1" and (await kinds(store))[-1] == "keys.refused"
    withdrawn = await store.propose_revision(ring(0, Ring().with_states({("k1", SIGN): "STAGED"})))
    gone = await store.withdraw_revision(withdrawn.number, actor="berta", why="not today", topic="keys")
    assert (gone.state, gone.refusal, withdrawn.number) == ("REFUSED", "not today", 2)


async def test_agreements_and_keys_change_one_after_the_other(store):
    """Each is tested with the other that is in force."""
    await alive(store, process())
    await store.add_key(key(), author="anna")
    staged = Ring().with_states({("k1", SIGN): "STAGED"})
    await store.begin_agreements(new())
    await store.propose_revision(new(1, b"two"))
    with pytest.raises(StalePlan, match="revision 2 is being applied"):
        await store.propose_revision(ring(0, staged))
    await store.withdraw_revision(2, actor="a", why="b")
    proposed = await store.propose_revision(ring(0, staged))
    with pytest.raises(StalePlan, match="ring 1 is being applied"):
        await store.propose_revision(new(1, b"three"))
    assert (await store.propose_revision(ring(0, staged))).number == proposed.number, "asked twice is one proposal"
    with pytest.raises(StalePlan, match="ring 0 is active"):
        await store.propose_revision(ring(1, staged))
    # Numbers, contents and histories of their own.
    assert (await store.revision(1)).content == b"one" and Ring.decode((await store.revision(1, topic="keys")).content) == staged
    assert [r.number for r in await store.revisions()] == [2, 1] and [r.number for r in await store.revisions(topic="keys")] == [1]
    with pytest.raises(NotFound, match="no ring 7"):
        await store.settle_revision(7, topic="keys")


async def test_of_two_at_once_one_is_proposed(nodes):
    stores = [await nodes.store() for _ in range(4)]
    await alive(stores[0], process())
    for n in range(4):
        await stores[0].add_key(key(f"k{n}"), author="anna")
    found = await asyncio.gather(
        *(s.propose_revision(ring(0, Ring().with_states({(f"k{n}", SIGN): "STAGED"}))) for n, s in enumerate(stores)),
        return_exceptions=True,
    )
    assert sum(isinstance(f, StalePlan) for f in found) == 3


async def test_the_canonical_form():
    a = Ring().with_states({("a", SIGN): "STAGED", ("b", SIGN): "ACTIVE"})
    assert a.encode() == Ring(places=tuple(reversed(a.places))).encode() and Ring.decode(a.encode()) == a
    with pytest.raises(msgspec.ValidationError):
        Ring.decode(b'{"places":[{"key":"a","use":"wash","state":"STAGED"}]}')


async def test_what_a_key_is_never_changes(nodes, store):
    if not hasattr(nodes, "sql"):
        pytest.skip("a wall of PostgreSQL")
    import asyncpg

    await store.add_key(key(), author="anna")
    for change in ("public = 'x'", "algorithm = 'x'", "party = 'x'", "certificate = 'x'", "certificate = NULL",
                   "chain = '{x}'", "author = 'x'", "token = 'x'", "id = 'x'"):  # fmt: skip
        with pytest.raises(asyncpg.PostgresError):
            await nodes.sql.execute(f"UPDATE own_key SET {change}")
    await nodes.sql.execute("UPDATE own_key SET sealed = 'sealed anew'")
    await nodes.sql.execute("UPDATE own_key SET sealed = NULL")
    with pytest.raises(asyncpg.PostgresError):
        await nodes.sql.execute("UPDATE own_key SET sealed = 'back again'")
    with pytest.raises(asyncpg.PostgresError):
        await nodes.sql.execute("INSERT INTO key_use (key, use, state) VALUES ('k1', 'tls-server', 'ACTIVE')")
    await serve(store, 0, Ring().with_states({("k1", SIGN): "STAGED"}))
    for change in ("topic = 'agreements'", "lead = 5", "effective_at = now()"):
        with pytest.raises(asyncpg.PostgresError):
            await nodes.sql.execute(f"UPDATE agreement_revision SET {change}")
