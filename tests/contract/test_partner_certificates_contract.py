"""What every store promises about partners' certificates."""

import asyncio
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from gateway.store.api import AuditEntry
from gateway.store.partner_certificates import MAX_STRANGERS, MAX_WAITING, NewStranger, Revocation

NOW = datetime.now(UTC).replace(microsecond=0)


def entry(kind="certificate.test", actor="lv-1", **detail):
    return AuditEntry(kind=kind, actor=actor, subject="AP_EE_01", detail=detail)


def stranger(number=1, party="type:AP_EE_01", **more):
    return NewStranger(party=party, sha256=f"{number:064x}", der=b"\x30" * 20, subject="CN=AP_EE_01", issuer="CN=CA",
                       valid_from=NOW, valid_until=NOW + timedelta(days=9), **more)  # fmt: skip


async def kinds(store):
    return [e.kind for e in await store.audit_entries()]


async def test_a_next_use_is_noted_once_whoever_sees_it(store, other):
    noted = await asyncio.gather(*(s.note_next("t:EE", "aa", entry()) for s in (store, other) for _ in range(5)))
    assert sorted(noted) == [False] * 9 + [True]
    assert await other.note_next("t:EE", "bb", entry()) and await other.note_next("t:FI", "aa", entry())
    uses = await store.next_uses()
    assert {(u.party, u.sha256) for u in uses} == {("t:EE", "aa"), ("t:EE", "bb"), ("t:FI", "aa")}
    assert abs((uses[0].first_used - datetime.now(UTC)).total_seconds()) < 60
    assert await kinds(store) == ["certificate.test"] * 3 and await store.verify_audit() is None


async def test_a_stranger_is_kept_once_and_counted(store, other):
    assert await store.quarantine(stranger()) == "new"
    assert await other.quarantine(stranger(seen=4)) == "again"
    [found] = await store.strangers()
    assert (found.seen, found.state, found.decided_at, found.subject) == (5, "WAITING", None, "CN=AP_EE_01")
    assert found.first_seen <= found.last_seen and found.der == b"\x30" * 20 and found.valid_until == NOW + timedelta(days=9)
    assert await kinds(store) == []  # the refusal is audited, and by somebody else


async def test_a_party_has_room_for_so_many_and_no_more(store, other):
    await asyncio.gather(*((store, other)[n % 2].quarantine(stranger(n)) for n in range(3 * MAX_WAITING)))
    assert len(await store.strangers()) == MAX_WAITING
    assert await store.quarantine(stranger(99)) == "full"
    assert await store.quarantine(stranger(99, party="t:FI")) == "new"  # another party's room is its own
    known = (await store.strangers(party="type:AP_EE_01"))[0]
    assert await store.decide(known.party, known.sha256, "REJECTED", entry(), reason="no")
    assert await store.quarantine(stranger(99)) == "new"


async def test_all_together_have_room_for_so_many(store):
    for number in range(MAX_STRANGERS):
        assert await store.quarantine(stranger(number, party=f"t:{number // MAX_WAITING}")) == "new"
    assert await store.quarantine(stranger(1, party="t:last")) == "full"
    assert await store.quarantine(stranger(0, party="t:0")) == "again"


async def test_a_decision_stays(store, other):
    one = stranger()
    await store.quarantine(one)
    assert not await store.decide(one.party, "ff", "REJECTED", entry(), reason="x")
    assert not await store.decide("p\0", one.sha256, "REJECTED", entry(), reason="x")
    assert await store.decide(one.party, one.sha256, "REJECTED", entry("certificate.rejected", "ada"), reason="not theirs")
    assert not await other.decide(one.party, one.sha256, "REJECTED", entry(), reason="again")
    assert await other.quarantine(one) == "again"
    [found] = await store.strangers(state="REJECTED")
    assert (found.decided_by, found.reason, found.seen) == ("ada", "not theirs", 2) and found.decided_at is not None
    assert await other.decide(one.party, one.sha256, "ACCEPTED", entry("certificate.accepted", "bob"), reason="it is")
    assert [s.decided_by for s in await store.strangers(party=one.party)] == ["bob"]
    assert await kinds(store) == ["certificate.rejected", "certificate.accepted"]
    assert await store.strangers(state="WAITING") == [] == await store.strangers(party="p\0")


async def test_what_is_not_seen_any_more_is_forgotten(store):
    await store.quarantine(stranger(1))
    await store.quarantine(stranger(2))
    await store.decide(stranger(2).party, stranger(2).sha256, "REJECTED", entry(), reason="x")
    assert await store.prune_strangers(waiting_before=3600, decided_before=3600) == 0
    assert await store.prune_strangers(waiting_before=-1, decided_before=3600) == 1
    assert [s.state for s in await store.strangers()] == ["REJECTED"]
    assert await store.prune_strangers(waiting_before=-1, decided_before=-1) == 1


GOOD = Revocation(
    certificate="aa", issuer="ca", subject="CN=EE", status="good", source="ocsp", host="ocsp.example", tried_at=NOW,
    this_update=NOW - timedelta(hours=1), next_update=NOW + timedelta(hours=1), answered_at=NOW,
)  # fmt: skip


async def test_what_an_issuer_says(store, other):
    assert await store.revocation("aa", "ca") is None
    unheard = Revocation(certificate="aa", issuer="ca", tried_at=NOW, failing_since=NOW, trouble="no answer")
    await store.save_revocation(unheard)
    assert await other.revocation("aa", "ca") == unheard
    await other.save_revocation(GOOD)
    assert await store.revocation("aa", "ca") == GOOD
    failing = replace(GOOD, tried_at=NOW + timedelta(minutes=5), failing_since=NOW + timedelta(minutes=5), trouble="503")
    await store.save_revocation(failing)
    assert await store.revocation("aa", "ca") == failing
    await store.save_revocation(replace(GOOD, certificate="bb"))
    assert [r.certificate for r in await store.revocations()] == ["aa", "bb"]
    assert await store.revocations(certificate="bb") == [replace(GOOD, certificate="bb")]


async def test_an_answer_never_gives_way_to_an_older_one(store):
    revoked = replace(GOOD, status="revoked", this_update=NOW, revoked_at=NOW, revocation_reason="keyCompromise")
    await store.save_revocation(revoked)
    await store.save_revocation(GOOD)  # a recorded answer, played again
    await store.save_revocation(Revocation(certificate="aa", issuer="ca", tried_at=NOW, failing_since=NOW, trouble="x"))
    assert await store.revocation("aa", "ca") == revoked
    later = replace(GOOD, this_update=NOW + timedelta(seconds=1))
    await store.save_revocation(later)  # it was on hold
    assert await store.revocation("aa", "ca") == later


async def test_what_nobody_asks_about_is_forgotten(store):
    await store.save_revocation(replace(GOOD, tried_at=NOW - timedelta(days=9)))
    await store.save_revocation(replace(GOOD, certificate="bb"))
    assert await store.prune_revocations(tried_before=86_400) == 1
    assert [r.certificate for r in await store.revocations()] == ["bb"]
