"""What `gateway.store.rotation` promises, run against every store."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.errors import ClaimLost
from gateway.store.api import AttemptResult, Held, NewEvent
from gateway.store.webhooks import Webhook
from tests.contract.test_store_contract import LEASE, RED, claim_one, outbound, references, submitted

OLD, NEXT = b"o" * 32, b"n" * 32
ALL = ("signature", "tls", "none")


async def attempted(store, state, *, signer=NEXT, refusal=None, code=None, message=None, retry_in=0.0, **changes):
    """One attempt to send a message (a new one without `message`), signed with `signer`; its row id."""
    new = message or (await submitted(store, **changes)).id
    job = await claim_one(store)
    assert job.message == new
    number = await store.begin_attempt(job, node="n", references=references(), signer=signer)
    await store.finish_attempt(job, number, AttemptResult(
        state=state, outcome="error" if refusal else "acknowledged", retry_in=retry_in, error_code=code, refusal=refusal,
        receipt=b"<r/>" if state == "ACKNOWLEDGED" else None))
    return new


async def refused(store, *, state="FAILED", refusal="signature", code="EBMS:0101", retry_in=600.0, **more):
    return await attempted(store, state, refusal=refusal, code=code, retry_in=retry_in, **more)


async def taken(store, **more):
    return await attempted(store, "ACKNOWLEDGED", **more)


async def count(store, within=600.0, proofs=("signature", "tls")):
    return {(r.partner, r.certificate): r.count for r in await store.refusing(within=within, proofs=proofs)}


# -- the ledger ---------------------------------------------------------------------


async def test_the_ledger_has_a_row_for_each_partner_and_certificate(store, other):
    await store.note_announced(RED, NEXT, means="package", actor="anna@lv")
    await other.note_asked(RED, NEXT, "amber", why="refuses \0 \ud800", code="EBMS:0101", proof="signature")
    await store.note_asked("AP_FI_01", NEXT, "unknown", why="no answer", code=None, proof=None)
    await store.note_announced(RED, OLD, means="agreement-update", actor="anna@lv")
    [finland, estonia] = sorted(await other.ledger(NEXT), key=lambda s: s.partner == RED)
    assert (estonia.verdict, estonia.code, estonia.proof, estonia.announced_by) == ("amber", "EBMS:0101", "signature", "package")
    assert (finland.verdict, finland.announced_at, finland.used_at) == ("unknown", None, None)
    assert len(await store.ledger()) == 3 and len(await store.ledger(partner=RED)) == 2
    await store.note_asked(RED, NEXT, "green", why="a receipt", code=None, proof="signature")
    again = next(s for s in await store.ledger(NEXT) if s.partner == RED)
    assert (again.verdict, again.code) == ("green", None) and again.asked_at >= estonia.asked_at
    assert again.announced_at == estonia.announced_at
    kinds = [(e.kind, e.actor, e.subject, e.detail["fingerprint"], e.detail["means"]) for e in await store.audit_entries()]
    assert kinds == [("certificates.announced", "anna@lv", RED, NEXT.hex(), "package"),
                     ("certificates.announced", "anna@lv", RED, OLD.hex(), "agreement-update")]
    assert await store.verify_audit() is None


async def test_the_first_use_is_noted_once(store, other):
    found = await asyncio.gather(*(s.note_use(RED, NEXT, "sign") for s in (store, other, store, other)))
    assert sorted(found) == [False, False, False, True]
    [row] = await store.ledger(NEXT)
    assert row.used_at is not None
    await store.note_asked(RED, NEXT, "green", why="x", code=None, proof="signature")
    assert (await store.ledger(NEXT))[0].used_at == row.used_at
    assert not await store.note_use(RED, NEXT, "sign") and await store.note_use(RED, OLD, "sign")
    assert await store.note_use(RED, NEXT, "decrypt") and not await store.note_use(RED, NEXT, "decrypt")
    assert (await store.ledger(NEXT))[0].encrypted_at is not None


# -- refusals -----------------------------------------------------------------------


async def test_an_attempt_knows_its_signer(store):
    new = await taken(store, signer=OLD)
    assert [a.signer for a in await store.attempts(new)] == [OLD]


async def test_refusals_are_counted_until_a_receipt_outlives_them(store, other):
    first, second = await refused(store), await refused(store, state="WAITING_FOR_RETRY", refusal="tls", code="EBMS:0103")
    await refused(store, refusal="none", state="WAITING_FOR_RETRY")
    assert await count(other) == {(RED, NEXT): 2}
    assert await count(other, proofs=ALL) == {(RED, NEXT): 3}
    [found] = await other.refusing(within=600, proofs=ALL)
    assert found.party == "AP_LV_01", "the party id the message names, without type"
    listed = await store.refusals(within=600)
    assert [(r.message, r.code, r.proof) for r in listed[:2]] == [(first, "EBMS:0101", "signature"), (second, "EBMS:0103", "tls")]
    # Other certificates and other partners are other matters.
    await taken(store, signer=OLD)
    await taken(store, receiver="AP_FI_01")
    assert await count(store) == {(RED, NEXT): 2}
    await taken(other)
    assert await count(store) == {} and await count(store, proofs=ALL) == {}
    await refused(store)
    assert await count(store) == {(RED, NEXT): 1}, "it begins anew"
    assert len(await store.refusals(within=600, partner=RED)) == 4 and await store.refusals(within=600, partner="x") == []


async def test_an_attempt_that_was_lost_refuses_nothing(store):
    await submitted(store)
    job = await claim_one(store)
    number = await store.begin_attempt(job, node="n", references=references(), signer=NEXT)
    await store.release(job.id, job.claim)
    with pytest.raises(ClaimLost):
        await store.finish_attempt(job, number, AttemptResult(
            state="FAILED", outcome="error", error_code="EBMS:0101", refusal="signature"))
    assert await store.refusals(within=600) == []


async def test_only_so_long_ago(store):
    await refused(store)
    assert await count(store, within=600) and await count(store, within=0) == {}
    assert await store.prune_refusals(before=600) == 0 and await store.prune_refusals(before=-1) == 1
    assert await store.refusals(within=600) == []


async def test_an_error_outside_an_attempt_refuses_too_and_a_late_receipt_outlives(store):
    waiting = await attempted(store, "WAITING_FOR_RETRY", retry_in=600.0)
    assert await store.fail_late(waiting, "EBMS:0101", "not trusted", ())
    assert await count(store) == {(RED, NEXT): 1}
    other = await attempted(store, "WAITING_FOR_RETRY", retry_in=600.0)
    assert await store.fail_late(other, "EBMS:0003", "something else", ())
    assert await count(store) == {(RED, NEXT): 1}
    assert await store.settle_late(other, b"<r/>", ())
    assert await count(store) == {}


async def test_attempts_without_a_known_signer_refuse_nothing(store):
    await refused(store, signer=None)
    assert await store.refusals(within=600) == []


# -- sent again -----------------------------------------------------------------------


async def test_what_failed_or_waits_is_due_at_once_with_its_message_id(store, other):
    failed = await refused(store)
    waiting = await refused(store, state="WAITING_FOR_RETRY")
    given_up = await refused(store, code="EBMS:0301", state="FAILED")
    assert await claim_one(store) is None
    [found] = await store.unsettled()
    assert (found.partner, found.certificate, found.count) == (RED, NEXT, 3)
    before = {id: (await store.message(id)).user_message.message_id for id in (failed, waiting, given_up)}
    assert await other.resend_refused(RED, NEXT) == [failed, waiting, given_up]
    jobs = await store.claim("send", worker="w", limit=10, lease=LEASE)
    assert {job.message for job in jobs} == {failed, waiting, given_up}
    for id in before:
        found = await store.message(id)
        assert (found.state, found.error_code) == ("WAITING_FOR_RETRY", None)
        assert found.user_message.message_id == before[id] and found.attempts == 1
        events = [(kind, data.get("because")) for _, _, kind, _, data in await store.events(message=id)]
        assert events[-1] == ("message.retrying", "certificate")
    assert await store.unsettled() == [] and await store.resend_refused(RED, NEXT) == []


async def test_nothing_twice_when_several_look(store, other):
    messages = [await refused(store) for _ in range(6)]
    found = await asyncio.gather(*(s.resend_refused(RED, NEXT) for s in (store, other, store, other)))
    assert sorted(id for ids in found for id in ids) == sorted(messages)
    for id in messages:
        kinds = [kind for _, _, kind, _, _ in await store.events(message=id)]
        assert kinds.count("message.retrying") == 1


async def test_what_ended_otherwise_is_left_alone(store):
    acknowledged = await refused(store, state="WAITING_FOR_RETRY", retry_in=0.0)
    await taken(store, message=acknowledged)
    other_reason = await refused(store, state="WAITING_FOR_RETRY", retry_in=0.0)
    await attempted(store, "FAILED", message=other_reason, code="EBMS:0010")
    cancelled = await refused(store, state="WAITING_FOR_RETRY")
    assert await store.cancel(cancelled)
    suspended = await refused(store, state="WAITING_FOR_RETRY")
    assert await store.suspend(suspended)
    assert await store.resend_refused(RED, NEXT) == []
    states = [(await store.message(id)).state for id in (acknowledged, other_reason, cancelled, suspended)]
    assert states == ["ACKNOWLEDGED", "FAILED", "CANCELLED", "WAITING_FOR_RETRY"]
    assert (await store.message(suspended)).held
    assert await store.unsettled() == []


async def test_who_is_at_it_is_not_disturbed(store):
    busy = await refused(store, state="WAITING_FOR_RETRY", retry_in=0.0)
    job = await claim_one(store)
    number = await store.begin_attempt(job, node="n", references=references(), signer=NEXT)
    assert await store.resend_refused(RED, NEXT) == []
    assert [r.count for r in await store.unsettled()] == [1], "left for the next look"
    await store.finish_attempt(job, number, AttemptResult(
        state="FAILED", outcome="error", error_code="EBMS:0101", refusal="signature"))
    assert await store.resend_refused(RED, NEXT) == [busy]
    assert await store.unsettled() == []


async def test_so_many_at_once_the_oldest_first(store):
    messages = [await refused(store) for _ in range(3)]
    assert await store.resend_refused(RED, NEXT, limit=2) == messages[:2]
    assert await store.resend_refused(RED, NEXT, limit=2) == messages[2:]
    assert await store.resend_refused(RED, OLD) == []


async def test_erased_payloads_cannot_be_sent_again(store, nodes):
    gone = await refused(store)
    await store.purge(delivered_before=-1, settled_before=-1)
    assert await store.resend_refused(RED, NEXT) == []
    assert (await store.message(gone)).state == "FAILED" and await store.unsettled() == []


async def test_a_held_message_is_ready_to_be_pulled_again(store):
    queue = "AP_LV_01 AP_EE_01 urn:mpc:ee"
    new = outbound(held=Held(queue, 600.0))
    await store.submit_once(new)
    job = await store.claim_held(queue, worker="w", lease=LEASE)
    await store.hand_out(job, node="n", references=references(), receipt_within=60.0, signer=NEXT, envelope=os.urandom(5))
    assert await store.fail_late(new.id, "EBMS:0101", "not trusted", (NewEvent("message.failed"),))
    assert await count(store) == {(RED, NEXT): 1}
    assert await store.resend_refused(RED, NEXT) == [new.id]
    assert (await store.message(new.id)).state == "READY_TO_PULL"
    assert (await store.claim_held(queue, worker="w", lease=LEASE)).message == new.id


async def test_a_message_that_is_gone(store):
    assert await store.resend_refused(RED, NEXT) == []
    assert await store.message(uuid4()) is None


# -- gone back -------------------------------------------------------------------------


async def test_who_went_back_is_told_of_once(store, other):
    for id, backend in (("wh_1", "rest"), ("wh_2", "rest"), ("wh_3", "files")):
        await store.add_webhook(Webhook(id=id, backend=backend, url="http://x", sealed_secret=b"s"))
    data = {"party": "AP_EE_01", "refused": NEXT.hex(), "fingerprint": OLD.hex()}
    since = datetime.now(UTC) - timedelta(minutes=1)
    found = await asyncio.gather(*(s.note_returned(RED, NEXT, since=since, data=data) for s in (store, other, store)))
    assert sorted(found) == [False, False, True]
    [entry] = await store.audit_entries()
    assert (entry.kind, entry.actor, entry.subject, entry.detail) == ("certificates.returned", "automatic", RED, data)
    jobs = await store.claim("notify", worker="w", limit=10, lease=LEASE)
    assert sorted(job.queue for job in jobs) == ["wh_1", "wh_2", "wh_3"]
    assert {(j.message, j.data["type"], j.data["party"]) for j in jobs} == {(None, "certificate.returned", "AP_EE_01")}
    [row] = await store.ledger(NEXT)
    assert row.returned_at is not None
    assert await store.note_returned(RED, NEXT, since=datetime.now(UTC) + timedelta(minutes=1), data=data), "a later ring"
