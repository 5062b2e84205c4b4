"""What `gateway.store.api` promises, run against every store."""

import asyncio
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest

from gateway.as4 import ns
from gateway.as4.findings import Finding
from gateway.as4.units import (
    AgreementRef,
    PartInfo,
    PartyId,
    Property,
    Reference,
    Service,
    Transform,
    UserMessage,
)
from gateway.errors import ClaimLost, StoreUnavailable, SubmissionConflict
from gateway.scope import Scope
from gateway.stages import Step
from gateway.store.api import (
    AttemptResult,
    AuditEntry,
    Client,
    Credential,
    MessageFilter,
    NewEvent,
    NewInbound,
    NewOutbound,
    NewPart,
    Viewer,
)
from gateway.store.webhooks import Webhook

FINDINGS = (
    Finding("H-13", "fatal", "eb:ConversationId '\u2028' is not a UUID", "eb:CollaborationInfo", "R-EDM-ebMS-017", "2.0"),
    Finding("A-01", "warning", "something"),
)
BLUE, RED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV:AP_LV_01", "AP_EE_01"
LEASE = 30.0
REST = Viewer("rest")


# -- makers ---------------------------------------------------------------------


def unit(message_id=None, **changes):
    return msgspec.structs.replace(
        UserMessage(
            message_id=message_id or f"{uuid4()}@ee.example",
            timestamp=datetime(2026, 11, 21, 12, 0, 0, 123000, UTC),
            from_party=PartyId("AP_EE_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"),
            from_role="http://sdg.europa.eu/edelivery/gateway",
            to_party=PartyId("AP_LV_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"),
            to_role="http://sdg.europa.eu/edelivery/gateway",
            service=Service("QueryManager", "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"),
            action="ExecuteQueryRequest",
            conversation_id=str(uuid4()),
            agreement_ref=AgreementRef("http://sdg.europa.eu/agreements/access_point"),
            properties=(Property("originalSender", "Ķēniņš & Co \u2028", "urn:t"), Property("finalRecipient", "urn:c4")),
            parts=(PartInfo("cid:p1@x", (Property(ns.MIME_TYPE, "application/xml"),)),),
        ),
        **changes,
    )


def part(number=0, *, inline=b"sealed", chunks=0, size=11):
    return NewPart(
        number=number, info=PartInfo(f"cid:p{number}@x", (Property(ns.MIME_TYPE, "application/xml"),)), cid=f"p{number}@x",
        mime_type="application/xml", size=size, sha256=os.urandom(32), compressed=True, wire_size=size - 1,
        wire_digest=os.urandom(32), inline=inline, chunks=chunks,
    )  # fmt: skip


def inbound(message_id=None, **changes):
    return msgspec.structs.replace(
        NewInbound(
            id=uuid4(), tenant=BLUE, sender=RED, user_message=unit(message_id), fingerprint=os.urandom(32),
            references=os.urandom(32), envelope=b"<Envelope/>" * 400, signer=os.urandom(900), receipt=os.urandom(4000),
            parts=(part(),), wrapped_key=os.urandom(60), pmode_id="lv-ee", pmode_revision=7, backend="rest",
            findings=FINDINGS, steps=(Step("verify", 1763726400.25, 0.002), Step("store", 1763726401.0, 0.1, "X")),
        ),
        **changes,
    )  # fmt: skip


def again(message, **changes):
    """The same message come another time: its own row id, receipt and key."""
    return msgspec.structs.replace(
        message, id=uuid4(), receipt=os.urandom(4000), wrapped_key=os.urandom(60), **changes
    )


def outbound(message_id=None, **changes):
    return msgspec.structs.replace(
        NewOutbound(
            id=uuid4(), tenant=BLUE, receiver=RED, user_message=unit(message_id), fingerprint=os.urandom(32),
            parts=(part(0), part(1)), wrapped_key=os.urandom(60), pmode_id="lv-ee", pmode_revision=3, backend="rest",
            client="cl_1", steps=(Step("match", 1763726400.0, 0.001),),
        ),
        **changes,
    )  # fmt: skip


def references(count=3):
    return tuple(
        Reference(f"cid:p{n}@x", (Transform("urn:t"), Transform("urn:u", "S12 eb3")), "http://sha256", os.urandom(32), "dGV4dA==")
        for n in range(count)
    )


def result(state="ACKNOWLEDGED", **more):
    facts = {
        "ACKNOWLEDGED": dict(outcome="acknowledged", receipt=b"<Receipt/>", events=(NewEvent("message.acknowledged"),)),
        "WAITING_FOR_RETRY": dict(outcome="send-failed", retry_in=60.0, error_code="EBMS:0005", error_detail="no answer",
                                  events=(NewEvent("message.retrying", {"attempt": 1}),)),
        "FAILED": dict(outcome="error", error_code="EBMS:0301", error_detail="gave up", events=(NewEvent("message.failed"),)),
    }[state]  # fmt: skip
    return AttemptResult(state=state, **facts | more)


async def claim_one(store, kind="send", **more):
    jobs = await store.claim(kind, worker="w", limit=1, lease=LEASE, **more)
    return jobs[0] if jobs else None


async def attempt(store, state="ACKNOWLEDGED", **more):
    """Claim the next send job and end an attempt with it."""
    job = await claim_one(store)
    number = await store.begin_attempt(job, node="n", references=references())
    await store.finish_attempt(job, number, result(state, **more))
    return job


async def submitted(store, **changes):
    new = outbound(**changes)
    await store.submit_once(new)
    return new


async def content(store, id, number=0, first=0):
    return [chunk async for chunk in store.chunks(id, number, first=first)]


# -- receiving ------------------------------------------------------------------


async def test_what_is_received_can_be_read(store):
    new = inbound(parts=(part(0), part(1, inline=None, chunks=0), part(2, inline=b"")))
    received = await store.receive_once(new)
    assert (received.outcome, received.id, received.receipt) == ("stored", new.id, new.receipt)
    found = await store.message(new.id)
    assert found.user_message == new.user_message
    assert (found.direction, found.state, found.tenant, found.partner) == ("inbound", "RECEIVED", BLUE, RED)
    for name in ("wrapped_key", "pmode_id", "pmode_revision", "backend", "envelope", "signer", "receipt", "findings", "steps"):
        assert getattr(found, name) == getattr(new, name), name
    assert found.receipt_at is not None and found.client is None and found.attempts == 0
    assert [(p.number, p.info, p.cid, p.mime_type, p.size, p.sha256, p.compressed, p.wire_size, p.wire_digest, p.inline,
             p.chunks) for p in found.parts] == [
        (p.number, p.info, p.cid, p.mime_type, p.size, p.sha256, p.compressed, p.wire_size, p.wire_digest, p.inline, p.chunks)
        for p in new.parts
    ]  # fmt: skip


async def test_message_job_and_event_come_together(store, nodes):
    new = inbound()
    await store.receive_once(new)
    assert await nodes.census() == {"message": 1, "part": 1, "job": 1, "event": 1}
    job = await claim_one(store, "deliver", queues=("rest",))
    assert (job.kind, job.queue, job.message, job.attempt) == ("deliver", "rest", new.id, 1)
    [(_, at, kind, message, data)] = await store.events(message=new.id)
    assert (kind, message, data) == ("message.received", new.id, {"findings": 2}) and at.tzinfo is not None


async def test_what_is_advised_is_kept_in_both_directions(store):
    document = {"kind": "request", "request_id": "urn:uuid:1", "requirements": ["ā", "\u2028"], "round": 1}
    for new, keep in ((inbound(), store.receive_once), (outbound(), store.submit_once)):
        new = msgspec.structs.replace(new, findings=FINDINGS, document=document, request_id=f"urn:uuid:{new.id}")
        await keep(new)
        found = await store.message(new.id)
        (listed,) = await store.messages(MessageFilter(message_id=new.user_message.message_id))
        assert found.findings == listed.findings == FINDINGS and found.document == listed.document == document
        [(_, _, _, _, data)] = await store.events(message=new.id)
        assert data == {"findings": 2}
        bare = msgspec.structs.replace(
            new, id=uuid4(), user_message=unit(), findings=(), document=None, request_id=None,
        )  # fmt: skip
        await keep(bare)
        found = await store.message(bare.id)
        assert (found.findings, found.document) == ((), None)
        [(_, _, _, _, data)] = await store.events(message=bare.id)
        assert data == {}


async def test_findings_of_the_release_before_are_read(nodes, store):
    """It wrote texts into a column of its own, and it may still run on the other node."""
    if not hasattr(nodes, "sql"):
        pytest.skip("a column of PostgreSQL")
    new = inbound()
    await store.receive_once(new)
    await nodes.sql.execute("UPDATE message SET advice = NULL, findings = '{said before}' WHERE id = $1", new.id)
    assert (await store.message(new.id)).findings == (Finding("A-01", "warning", "said before"),)


async def test_a_request_is_found_by_the_id_of_its_document(store):
    request_id = f"urn:uuid:{uuid4()}"
    sent = outbound(request_id=request_id)
    await store.submit_once(sent)
    ours = dict(direction="outbound", tenant=BLUE, partner=RED)
    assert await store.asked(request_id, **ours) == [sent.user_message]
    for other in (dict(direction="inbound"), dict(tenant=RED), dict(partner=BLUE)):
        assert await store.asked(request_id, **ours | other) == []
    assert await store.asked("urn:uuid:none", **ours) == [] and await store.asked("\0", **ours) == []
    for _ in range(3):
        await store.receive_once(inbound(request_id=request_id))
    assert len(await store.asked(request_id, **ours | {"direction": "inbound"})) == 2


async def test_a_message_of_the_test_service_is_delivered_to_nobody(store, nodes):
    await store.receive_once(inbound(backend=None))
    assert await claim_one(store, "deliver") is None
    assert "job" not in await nodes.census()


async def test_a_message_without_parts(store):
    new = inbound(parts=())
    await store.receive_once(new)
    assert (await store.message(new.id)).parts == ()


async def test_a_duplicate_gets_the_stored_receipt_after_a_barrier_write(store, nodes):
    new = inbound()
    await store.receive_once(new)
    copy = again(new)
    received = await store.receive_once(copy)
    assert (received.outcome, received.id, received.receipt, received.same_references) == (
        "duplicate", new.id, new.receipt, True)  # fmt: skip
    assert await nodes.census() == {"message": 1, "part": 1, "job": 1, "event": 1, "duplicate_seen": 1}


async def test_a_duplicate_signed_anew_says_so(store):
    new = inbound()
    await store.receive_once(new)
    received = await store.receive_once(again(new, references=os.urandom(32)))
    assert (received.outcome, received.same_references, received.receipt) == ("duplicate", False, new.receipt)


async def test_another_content_under_a_used_id_changes_nothing(store, nodes):
    new = inbound()
    await store.receive_once(new)
    before = await store.message(new.id)
    received = await store.receive_once(again(new, fingerprint=os.urandom(32)))
    assert (received.outcome, received.id, received.receipt) == ("conflict", new.id, b"")
    assert await store.message(new.id) == before
    assert await nodes.census() == {"message": 1, "part": 1, "job": 1, "event": 1}


async def test_ids_of_other_senders_and_tenants_are_other_messages(store):
    """G03: who used an id first does not keep others from using it."""
    new = inbound()
    for change in ({}, {"sender": "AP_FI_01"}, {"tenant": "AP_LT_01"}):
        assert (await store.receive_once(again(new, **change))).outcome == "stored"


async def test_ids_are_compared_byte_by_byte(store):
    for message_id in ("Case@x", "case@x", "case@x ", "cäse@x", "ca\u0308se@x"):
        assert (await store.receive_once(inbound(message_id))).outcome == "stored"


async def test_what_we_send_and_what_we_receive_do_not_clash(store):
    await store.submit_once(outbound("one@x"))
    assert (await store.receive_once(inbound("one@x"))).outcome == "stored"


@pytest.mark.parametrize("copies", [20])
async def test_of_many_copies_at_once_one_is_stored(store, other, nodes, copies):
    """G04, with two processes."""
    new = inbound()
    received = await asyncio.gather(*((store, other)[n % 2].receive_once(again(new)) for n in range(copies)))
    assert Counter(r.outcome for r in received) == {"stored": 1, "duplicate": copies - 1}
    assert len({r.receipt for r in received}) == len({r.id for r in received}) == 1
    census = await nodes.census()
    assert census["message"] == census["job"] == 1 and census["duplicate_seen"] == copies - 1


async def test_an_integrity_violation_is_no_duplicate(store, nodes):
    """G05: a row id that is taken, under a fresh MessageId."""
    new = inbound()
    await store.receive_once(new)
    with pytest.raises(StoreUnavailable):
        await store.receive_once(inbound(id=new.id))
    assert (await nodes.census())["message"] == 1


# -- receiving in chunks --------------------------------------------------------


async def test_five_mebibytes_in_chunks(store, nodes):
    chunks = [os.urandom(512 << 10) for _ in range(10)]
    new = inbound(parts=(part(0), part(1, inline=None, chunks=10, size=5 << 20)))
    async with store.receiving(new.id) as receiving:
        for number, chunk in enumerate(chunks):
            await receiving.chunk(1, number, chunk)
        received = await receiving.accept(new)
    assert received.outcome == "stored"
    assert await content(store, new.id, 1) == chunks
    assert await content(store, new.id, 1, first=8) == chunks[8:]
    assert await content(store, new.id, 0) == []
    found = await store.message(new.id)
    assert (found.parts[0].inline, found.parts[1].inline, found.parts[1].chunks) == (b"sealed", None, 10)
    assert (await nodes.census())["chunk"] == 10
    assert await claim_one(store, "deliver") is not None


async def test_without_accept_nothing_remains(store, nodes):
    async with store.receiving(uuid4()) as receiving:
        await receiving.chunk(0, 0, b"x" * 1000)
    assert await nodes.census() == {}


async def test_an_error_on_the_way_leaves_nothing(store, nodes):
    with pytest.raises(ZeroDivisionError):
        async with store.receiving(uuid4()) as receiving:
            await receiving.chunk(0, 0, b"x" * 1000)
            raise ZeroDivisionError
    assert await nodes.census() == {}
    assert (await store.receive_once(inbound())).outcome == "stored"


async def test_a_cancelled_reception_leaves_nothing(store, nodes):
    begun = asyncio.Event()

    async def receive():
        async with store.receiving(uuid4()) as receiving:
            await receiving.chunk(0, 0, b"x" * 1000)
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(receive())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await nodes.census() == {}


async def test_chunks_that_do_not_fit_the_message_are_refused(store, nodes):
    for written, promised in ((1, 2), (2, 1), (1, 0)):
        new = inbound(parts=(part(0, inline=None, chunks=promised),))
        with pytest.raises(StoreUnavailable):
            async with store.receiving(new.id) as receiving:
                for number in range(written):
                    await receiving.chunk(0, number, b"x")
                await receiving.accept(new)
    with pytest.raises(StoreUnavailable):
        await store.receive_once(inbound(parts=(part(0, inline=None, chunks=1),)))
    assert await nodes.census() == {}


@pytest.mark.parametrize("same", [True, False])
async def test_chunks_of_a_duplicate_are_dropped(store, nodes, same):
    new = inbound()
    await store.receive_once(new)
    copy = again(new, parts=(part(0, inline=None, chunks=1),), fingerprint=new.fingerprint if same else os.urandom(32))
    async with store.receiving(copy.id) as receiving:
        await receiving.chunk(0, 0, b"x")
        received = await receiving.accept(copy)
    assert received.outcome == ("duplicate" if same else "conflict")
    census = await nodes.census()
    assert "chunk" not in census and census["message"] == census["part"] == 1
    assert census.get("duplicate_seen", 0) == same


async def test_copies_at_once_in_chunks(store, other, nodes):
    new = inbound(parts=(part(0, inline=None, chunks=2),))

    async def receive(store, copy):
        async with store.receiving(copy.id) as receiving:
            for number in range(2):
                await receiving.chunk(0, number, os.urandom(1000))
                await asyncio.sleep(0)
            return await receiving.accept(copy)

    received = await asyncio.gather(*(receive(s, again(new)) for s in (store, other) * 3))
    assert Counter(r.outcome for r in received) == {"stored": 1, "duplicate": 5}
    assert len({r.receipt for r in received}) == 1
    assert (await nodes.census())["chunk"] == 2
    stored = next(r for r in received if r.outcome == "stored")
    assert len(await content(store, stored.id)) == 2


async def test_the_first_copy_that_fails_does_not_make_the_second_a_duplicate(store, other):
    """G06."""
    new = inbound()
    with pytest.raises(ZeroDivisionError):
        async with store.receiving(new.id):
            raise ZeroDivisionError
    assert (await other.receive_once(again(new))).outcome == "stored"


# -- submitting -----------------------------------------------------------------


async def test_what_is_submitted_can_be_read(store, nodes):
    deadline = datetime(2027, 1, 1, 12, 0, 0, 5000, UTC)
    new = outbound(deadline=deadline)
    stored = await store.submit_once(new)
    assert (stored.id, stored.message_id, stored.conversation_id, stored.state, stored.replayed) == (
        new.id, new.user_message.message_id, new.user_message.conversation_id, "SUBMITTED", False)  # fmt: skip
    found = await store.message(new.id)
    assert found.user_message == new.user_message
    assert (found.direction, found.state, found.tenant, found.partner, found.client, found.backend, found.deadline) == (
        "outbound", "SUBMITTED", BLUE, RED, "cl_1", "rest", deadline)  # fmt: skip
    assert found.next_attempt_at is not None and found.attempts == 0 and found.steps == new.steps
    assert (found.envelope, found.receipt, found.signer) == (None, None, None)
    assert await nodes.census() == {"message": 1, "part": 2, "job": 1, "event": 1}
    assert [e[2] for e in await store.events(message=new.id)] == ["message.accepted"]
    job = await claim_one(store, "send")
    assert (job.queue, job.message) == (RED, new.id)


async def test_submission_in_chunks(store, nodes):
    new = outbound(parts=(part(0, inline=None, chunks=3), part(1)))
    async with store.submitting(new.id) as submitting:
        for number in range(3):
            await submitting.chunk(0, number, bytes([number]) * 1000)
        assert not (await submitting.accept(new)).replayed
    assert [c[:1] for c in await content(store, new.id)] == [b"\0", b"\1", b"\2"]


async def test_submission_without_accept_leaves_nothing(store, nodes):
    async with store.submitting(uuid4()) as submitting:
        await submitting.chunk(0, 0, b"x")
    assert await nodes.census() == {}


async def test_the_same_message_id_again_is_replayed(store, nodes):
    new = await submitted(store)
    stored = await store.submit_once(msgspec.structs.replace(new, id=uuid4()))
    assert (stored.id, stored.replayed, stored.message_id) == (new.id, True, new.user_message.message_id)
    census = await nodes.census()
    assert (census["message"], census["job"], census["duplicate_seen"]) == (1, 1, 1)


async def test_a_replay_tells_the_state_of_today(store):
    new = await submitted(store)
    await attempt(store)
    assert (await store.submit_once(msgspec.structs.replace(new, id=uuid4()))).state == "ACKNOWLEDGED"


@pytest.mark.parametrize("change", ["fingerprint", "backend"])
async def test_a_used_message_id_with_something_else_is_a_conflict(store, nodes, change):
    new = await submitted(store)
    before = await nodes.census()
    with pytest.raises(SubmissionConflict):
        await store.submit_once(msgspec.structs.replace(
            new, id=uuid4(), idempotency_key="fresh", **{change: os.urandom(32) if change == "fingerprint" else "else"}))
    assert await nodes.census() == before
    # The key was not used up.
    assert not (await store.submit_once(outbound(idempotency_key="fresh"))).replayed


async def test_the_idempotency_key_finds_the_first_submission(store, nodes):
    new = await submitted(store, idempotency_key="k1")
    same = outbound(idempotency_key="k1", fingerprint=new.fingerprint)  # another generated MessageId
    stored = await store.submit_once(same)
    assert (stored.id, stored.replayed, stored.message_id) == (new.id, True, new.user_message.message_id)
    assert (await nodes.census())["message"] == 1
    with pytest.raises(SubmissionConflict):
        await store.submit_once(outbound(idempotency_key="k1"))
    # Keys are the client's own.
    assert not (await store.submit_once(outbound(idempotency_key="k1", client="cl_2"))).replayed


async def test_a_new_key_is_bound_to_a_known_message(store):
    new = await submitted(store)
    assert (await store.submit_once(msgspec.structs.replace(new, id=uuid4(), idempotency_key="k2"))).replayed
    assert (await store.submit_once(outbound(idempotency_key="k2", fingerprint=new.fingerprint))).id == new.id
    with pytest.raises(SubmissionConflict):
        await store.submit_once(outbound(idempotency_key="k2"))


@pytest.mark.parametrize("key", [None, "k"])
async def test_of_many_submissions_at_once_one_is_stored(store, other, nodes, key):
    new = outbound(idempotency_key=key)
    copies = [msgspec.structs.replace(new, id=uuid4()) for _ in range(12)]
    stored = await asyncio.gather(*((store, other)[n % 2].submit_once(copy) for n, copy in enumerate(copies)))
    assert Counter(s.replayed for s in stored) == {False: 1, True: 11}
    assert len({s.id for s in stored}) == 1
    assert (await nodes.census())["job"] == 1


async def test_a_replayed_submission_drops_its_chunks(store, nodes):
    new = await submitted(store)
    for fingerprint in (new.fingerprint, os.urandom(32)):
        copy = outbound(new.user_message.message_id, fingerprint=fingerprint, parts=(part(0, inline=None, chunks=1),))
        async with store.submitting(copy.id) as submitting:
            await submitting.chunk(0, 0, b"x")
            if fingerprint == new.fingerprint:
                assert (await submitting.accept(copy)).id == new.id
            else:
                with pytest.raises(SubmissionConflict):
                    await submitting.accept(copy)
    assert "chunk" not in await nodes.census()


# -- claims ---------------------------------------------------------------------


async def test_claims_are_disjoint_and_oldest_first(store, other):
    made = [await submitted(store) for _ in range(12)]
    claims = await asyncio.gather(*(s.claim("send", worker="w", limit=3, lease=LEASE) for s in (store, other) * 2))
    jobs = [job for jobs in claims for job in jobs]
    assert sorted(job.message for job in jobs) == sorted(new.id for new in made)
    assert len({job.claim for job in jobs}) == 12
    order = [new.id for new in made]
    for claimed in claims:
        places = [order.index(job.message) for job in claimed]
        assert places == sorted(places)
    assert await store.claim("send", worker="w", limit=3, lease=LEASE) == []


async def test_queues_separate_claimers(store):
    await store.receive_once(inbound(backend="a"))
    await store.receive_once(inbound(backend="b"))
    assert [j.queue for j in await store.claim("deliver", queues=("b", "c"), worker="w", limit=9, lease=LEASE)] == ["b"]
    assert [j.queue for j in await store.claim("deliver", worker="w", limit=9, lease=LEASE)] == ["a"]
    await submitted(store, receiver="X")
    await submitted(store, receiver="Y")
    assert [j.queue for j in await store.claim("send", queues=("Y",), worker="w", limit=9, lease=LEASE)] == ["Y"]
    assert await store.claim("send", queues=(), worker="w", limit=9, lease=LEASE) == []


async def test_kinds_do_not_mix(store):
    await store.receive_once(inbound())
    await submitted(store)
    assert [j.kind for j in await store.claim("send", worker="w", limit=9, lease=LEASE)] == ["send"]
    assert await store.claim("notify", worker="w", limit=9, lease=LEASE) == []
    assert [j.kind for j in await store.claim("deliver", worker="w", limit=9, lease=LEASE)] == ["deliver"]


async def test_an_expired_lease_is_claimed_by_another_and_the_old_claim_is_worth_nothing(store, other):
    new = await submitted(store)
    [old] = await store.claim("send", worker="dead", limit=1, lease=0.05)
    assert await claim_one(other) is None
    await asyncio.sleep(0.1)
    job = await claim_one(other)
    assert (job.id, job.attempt) == (old.id, 2) and job.claim != old.claim
    for verb in (
        store.begin_attempt(old, node="n", references=()),
        store.finish_attempt(old, 1, result()),
        store.renew(old.id, old.claim, 60),
        store.release(old.id, old.claim),
        store.park(old.id, old.claim, error="x"),
        store.finish_notify(old.id, old.claim),
        store.finish_delivery(old.id, old.claim, ()),
    ):
        with pytest.raises(ClaimLost):
            await verb
    assert (await store.message(new.id)).state == "SUBMITTED"
    number = await other.begin_attempt(job, node="n", references=())
    await other.finish_attempt(job, number, result())
    assert (await store.message(new.id)).state == "ACKNOWLEDGED"


async def test_a_worker_lost_in_an_attempt_is_taken_over(store, other):
    """R03: the frozen worker wakes up and finds that nothing it writes counts."""
    new = await submitted(store)
    [old] = await store.claim("send", worker="frozen", limit=1, lease=0.05)
    assert await store.begin_attempt(old, node="a", references=references()) == 1
    await asyncio.sleep(0.1)
    job = await claim_one(other)
    assert await other.begin_attempt(job, node="b", references=references()) == 2
    with pytest.raises(ClaimLost):
        await store.finish_attempt(old, 1, result())
    await other.finish_attempt(job, 2, result("WAITING_FOR_RETRY"))
    first, second = await store.attempts(new.id)
    assert (first.outcome, second.outcome) == ("lost", "send-failed") and first.ended_at is not None
    assert (await store.message(new.id)).state == "WAITING_FOR_RETRY"


async def test_renewing_keeps_a_claim(store):
    await submitted(store)
    [job] = await store.claim("send", worker="w", limit=1, lease=0.1)
    until = await store.renew(job.id, job.claim, LEASE)
    assert until > job.lease_until + timedelta(seconds=20)
    await asyncio.sleep(0.15)
    assert await claim_one(store) is None


async def test_claims_without_a_finished_attempt_are_counted(store):
    """What a poisonous message shows: its worker dies every time."""
    await submitted(store)
    for count in (1, 2, 3):
        [job] = await store.claim("send", worker="w", limit=1, lease=0.01)
        assert job.attempt == count
        await asyncio.sleep(0.03)
    job = await claim_one(store)
    number = await store.begin_attempt(job, node="n", references=())
    await store.finish_attempt(job, number, result("WAITING_FOR_RETRY", retry_in=0.0))
    assert (await claim_one(store)).attempt == 1


async def test_claims_that_nobody_gave_back_are_counted_and_set_apart(store):
    """What a poisonous message shows; a consumer that claims for himself may come as often as he likes."""
    await submitted(store)
    await store.receive_once(inbound())
    kinds = ("send", "deliver")

    async def lose(kind, count, **more):
        [job] = await store.claim(kind, worker="w", limit=5, lease=0.01, **more)
        assert job.lost == count
        await asyncio.sleep(0.03)

    for kind in kinds:
        for count in (0, 1):
            await lose(kind, count, losses=2)
        assert await store.claim(kind, worker="w", limit=5, lease=LEASE, losses=2) == []
    await lose("deliver", 1)
    await lose("deliver", 1)
    # One at a time, and of others' deliveries none.
    suspect = await store.claim_suspect(pushed=(), worker="w", lease=LEASE, losses=2)
    assert (suspect.kind, suspect.lost) == ("send", 2)
    assert await store.claim_suspect(pushed=(), worker="w", lease=LEASE, losses=2) is None
    other = await store.claim_suspect(pushed=(inbound().backend,), worker="w", lease=0.01, losses=2)
    assert (other.kind, other.lost) == ("deliver", 2)
    await asyncio.sleep(0.03)
    assert (await store.claim_suspect(pushed=(other.queue,), worker="w", lease=LEASE, losses=2)).lost == 3
    # Given back, it is like any other; so is what came to an end.
    await store.release(suspect.id, suspect.claim)
    assert await store.claim_suspect(pushed=(), worker="w", lease=LEASE, losses=2) is None
    [job] = await store.claim("send", worker="w", limit=1, lease=0.01, losses=2)
    await store.begin_attempt(job, node="n", references=())
    await asyncio.sleep(0.03)
    [job] = await store.claim("send", worker="w", limit=1, lease=LEASE, losses=2)
    assert job.lost == 1
    number = await store.begin_attempt(job, node="n", references=())
    await store.finish_attempt(job, number, result("FAILED"))
    assert await store.requeue(job.message)
    assert (await claim_one(store)).lost == 0


async def test_release_gives_back_now_or_later(store):
    await store.receive_once(inbound())
    job = await claim_one(store, "deliver")
    await store.release(job.id, job.claim)
    job = await claim_one(store, "deliver")
    assert job.attempt == 2
    await store.release(job.id, job.claim, due_in=0.1, error="later")
    assert await claim_one(store, "deliver") is None
    with pytest.raises(ClaimLost):
        await store.release(job.id, job.claim)
    await asyncio.sleep(0.15)
    assert (await claim_one(store, "deliver")).attempt == 3


async def test_a_parked_job_stays_visible_and_comes_back_on_demand(store):
    new = inbound()
    await store.receive_once(new)
    job = await claim_one(store, "deliver")
    assert await store.requeue(new.id) is False  # somebody is at it
    await store.park(job.id, job.claim, error="refused")
    assert await claim_one(store, "deliver") is None
    assert await store.backlog() == {"deliver.PARKED": 1}
    assert (await store.message(new.id)).state == "RECEIVED"
    assert await store.requeue(new.id) is True
    assert (await claim_one(store, "deliver")).id == job.id


async def test_backlog_counts_by_kind_and_state(store):
    for _ in range(3):
        await submitted(store)
    await store.receive_once(inbound())
    await claim_one(store)
    await attempt(store)
    assert await store.backlog() == {"send.READY": 1, "send.CLAIMED": 1, "deliver.READY": 1}


# -- attempts -------------------------------------------------------------------


async def test_an_acknowledged_attempt(store):
    new = await submitted(store)
    job = await claim_one(store)
    signed = references()
    assert await store.begin_attempt(job, node="node-a", references=signed) == 1
    [open_] = await store.attempts(new.id)
    assert (open_.number, open_.node, open_.references, open_.ended_at) == (1, "node-a", signed, None)
    assert (await store.message(new.id)).next_attempt_at is None
    steps = (Step("sign", 1.5, 0.1), Step("send", 1.6, 0.2, "Oh"))
    await store.finish_attempt(job, 1, result(http_status=200, steps=steps))
    found = await store.message(new.id)
    assert (found.state, found.receipt, found.attempts, found.error_code) == ("ACKNOWLEDGED", b"<Receipt/>", 1, None)
    assert found.receipt_at is not None and found.changed_at >= found.created_at
    [ended] = await store.attempts(new.id)
    assert (ended.outcome, ended.http_status, ended.steps, ended.references) == ("acknowledged", 200, steps, signed)
    assert ended.ended_at >= ended.started_at
    assert [e[2] for e in await store.events(message=new.id)] == ["message.accepted", "message.acknowledged"]
    assert await claim_one(store) is None and await store.backlog() == {}
    with pytest.raises(ClaimLost):
        await store.finish_attempt(job, 1, result())


async def test_a_retry_waits_for_its_time(store):
    new = await submitted(store)
    await attempt(store, "WAITING_FOR_RETRY", retry_in=0.15)
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.error_detail, found.attempts) == (
        "WAITING_FOR_RETRY", "EBMS:0005", "no answer", 1)  # fmt: skip
    assert found.next_attempt_at > found.changed_at
    assert await claim_one(store) is None
    await asyncio.sleep(0.2)
    job = await claim_one(store)
    assert await store.begin_attempt(job, node="n", references=()) == 2
    await store.finish_attempt(job, 2, result())
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.attempts) == ("ACKNOWLEDGED", None, 2)
    assert [(e[2], e[4]) for e in await store.events(message=new.id)] == [
        ("message.accepted", {}), ("message.retrying", {"attempt": 1}), ("message.acknowledged", {})]  # fmt: skip


async def test_a_failed_attempt_ends_it(store):
    new = await submitted(store)
    await attempt(store, "FAILED")
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.error_detail, found.receipt) == ("FAILED", "EBMS:0301", "gave up", None)
    assert await claim_one(store) is None


async def test_what_failed_has_an_error(store):
    new = await submitted(store)
    await attempt(store, "FAILED", error_code=None, error_detail=None)
    assert (await store.message(new.id)).error_code == "EBMS:0004"
    assert [m.id for m in await store.messages(MessageFilter(state="FAILED"))] == [new.id]


async def test_pages_by_every_state(store):
    await store.receive_once(inbound())
    await submitted(store)
    for state in ("WAITING_FOR_RETRY", "FAILED", "ACKNOWLEDGED"):
        while (job := await claim_one(store)) is None:
            await submitted(store)
        number = await store.begin_attempt(job, node="n", references=())
        await store.finish_attempt(job, number, result(state))
        await submitted(store)
    await store.cancel((await submitted(store)).id)
    for state, count in (("RECEIVED", 1), ("SUBMITTED", 1), ("WAITING_FOR_RETRY", 1), ("FAILED", 1), ("ACKNOWLEDGED", 1),
                         ("CANCELLED", 1), ("DELIVERED", 0), ("PURGED", 0), ("NONSENSE", 0)):  # fmt: skip
        found = await store.messages(MessageFilter(state=state))
        assert [m.state for m in found] == [state] * count
        assert await store.messages(MessageFilter(state=state, direction="inbound")) == (found if state == "RECEIVED" else [])


async def test_an_attempt_opens_once_a_claim(store):
    await submitted(store)
    job = await claim_one(store)
    with pytest.raises(ClaimLost):
        await store.finish_attempt(job, 1, result())  # nothing was begun
    await store.begin_attempt(job, node="n", references=())
    with pytest.raises(ClaimLost):
        await store.begin_attempt(job, node="n", references=())
    with pytest.raises(ClaimLost):
        await store.finish_attempt(job, 2, result())  # an attempt there is not
    await store.finish_attempt(job, 1, result())


async def test_deliveries_are_not_sent_and_messages_to_send_not_delivered(store):
    await store.receive_once(inbound())
    await submitted(store)
    deliver, send = await claim_one(store, "deliver"), await claim_one(store, "send")
    with pytest.raises(ClaimLost):
        await store.begin_attempt(deliver, node="n", references=())
    with pytest.raises(ClaimLost):
        await store.finish_delivery(send.id, send.claim, ())
    with pytest.raises(ClaimLost):
        await store.finish_notify(deliver.id, deliver.claim)


# -- settled outside an attempt -------------------------------------------------

LATE = (NewEvent("message.acknowledged", {"late": True}),)


async def test_a_late_receipt_settles_what_waits(store):
    new = await submitted(store)
    await attempt(store, "WAITING_FOR_RETRY", retry_in=0.0)
    assert await store.settle_late(new.id, b"<Late/>", LATE) is True
    found = await store.message(new.id)
    assert (found.state, found.receipt, found.error_code, found.next_attempt_at) == ("ACKNOWLEDGED", b"<Late/>", None, None)
    assert await claim_one(store) is None
    assert await store.audit_entries() == []
    assert (await store.events(message=new.id))[-1][4] == {"late": True}
    assert await store.settle_late(new.id, b"<Later/>", LATE) is False
    assert (await store.message(new.id)).receipt == b"<Late/>"


async def test_a_late_receipt_turns_failed_into_acknowledged_and_is_audited(store):
    """R21."""
    new = await submitted(store)
    await attempt(store, "FAILED")
    assert await store.settle_late(new.id, b"<Late/>", LATE) is True
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.error_detail) == ("ACKNOWLEDGED", None, None)
    [entry] = await store.audit_entries()
    assert (entry.kind, entry.actor, entry.subject) == ("receipt.late", RED, new.user_message.message_id)
    assert entry.detail == {"from": "FAILED", "to": "ACKNOWLEDGED"}
    assert await store.verify_audit() is None


async def test_a_late_receipt_takes_the_claim_from_whoever_sends(store):
    new = await submitted(store)
    job = await claim_one(store)
    number = await store.begin_attempt(job, node="n", references=())
    assert await store.settle_late(new.id, b"<Late/>", LATE) is True
    with pytest.raises(ClaimLost):
        await store.finish_attempt(job, number, result("FAILED"))
    assert (await store.message(new.id)).state == "ACKNOWLEDGED"
    assert (await store.attempts(new.id))[0].outcome == "settled"


async def test_a_late_error_fails_what_waits_and_nothing_else(store):
    new = await submitted(store)
    failed = (NewEvent("message.failed", {"code": "EBMS:0003"}),)
    assert await store.fail_late(new.id, "EBMS:0003", "why", failed) is True
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.error_detail) == ("FAILED", "EBMS:0003", "why")
    assert await store.fail_late(new.id, "EBMS:0004", "again", failed) is False
    done = await submitted(store)
    await attempt(store)
    assert await store.fail_late(done.id, "EBMS:0004", "late", failed) is False
    assert (await store.message(done.id)).state == "ACKNOWLEDGED"


async def test_late_signals_do_not_touch_inbound_or_unknown_messages(store):
    new = inbound()
    await store.receive_once(new)
    for id in (new.id, uuid4()):
        assert await store.settle_late(id, b"x", LATE) is False
        assert await store.fail_late(id, "c", "d", ()) is False
        assert await store.cancel(id) is False
        assert await store.requeue(id) is False
    assert (await store.message(new.id)).state == "RECEIVED"


async def test_cancel(store):
    new = await submitted(store)
    assert await store.cancel(new.id) is True
    assert (await store.message(new.id)).state == "CANCELLED"
    assert await claim_one(store) is None
    assert await store.cancel(new.id) is False and await store.requeue(new.id) is False
    assert await store.settle_late(new.id, b"x", LATE) is False


async def test_cancel_takes_a_claim_but_not_a_running_attempt(store):
    new = await submitted(store)
    job = await claim_one(store)
    assert await store.cancel(new.id) is True
    with pytest.raises(ClaimLost):
        await store.begin_attempt(job, node="n", references=())
    new = await submitted(store)
    job = await claim_one(store)
    await store.begin_attempt(job, node="n", references=())
    assert await store.cancel(new.id) is False
    await store.finish_attempt(job, 1, result())
    assert (await store.message(new.id)).state == "ACKNOWLEDGED"


async def test_requeue(store):
    new = await submitted(store)
    await attempt(store, "WAITING_FOR_RETRY")
    assert await claim_one(store) is None
    assert await store.requeue(new.id) is True
    job = await claim_one(store)
    assert await store.requeue(new.id) is False  # somebody is at it
    await store.finish_attempt(job, await store.begin_attempt(job, node="n", references=()), result("FAILED"))
    assert await store.requeue(new.id) is True
    found = await store.message(new.id)
    assert (found.state, found.error_code, found.attempts) == ("WAITING_FOR_RETRY", None, 2)
    await attempt(store)
    assert await store.requeue(new.id) is False
    assert (await store.message(new.id)).user_message.message_id == new.user_message.message_id


# -- delivery -------------------------------------------------------------------

DELIVERED = (NewEvent("message.delivered"),)


async def test_delivery(store):
    new = inbound()
    await store.receive_once(new)
    job = await claim_one(store, "deliver")
    steps = (Step("deliver", 2.0, 0.5),)
    await store.finish_delivery(job.id, job.claim, DELIVERED, steps)
    found = await store.message(new.id)
    assert (found.state, found.steps) == ("DELIVERED", new.steps + steps)
    assert [e[2] for e in await store.events(message=new.id)] == ["message.received", "message.delivered"]
    assert await store.backlog() == {}


async def test_an_acknowledgement_may_come_again_but_only_by_the_same_claim(store):
    """L04."""
    new = inbound()
    await store.receive_once(new)
    [old] = await store.claim("deliver", worker="w", limit=1, lease=0.03)
    await asyncio.sleep(0.06)
    job = await claim_one(store, "deliver")
    await store.finish_delivery(job.id, job.claim, DELIVERED)
    await store.finish_delivery(job.id, job.claim, DELIVERED)
    with pytest.raises(ClaimLost):
        await store.finish_delivery(job.id, old.claim, DELIVERED)
    with pytest.raises(ClaimLost):
        await store.release(job.id, job.claim)
    with pytest.raises(ClaimLost):
        await store.renew(job.id, job.claim, 5)
    assert len(await store.events(message=new.id)) == 2


async def test_an_expired_claim_still_acknowledges_while_nobody_else_has_it(store):
    await store.receive_once(inbound())
    [job] = await store.claim("deliver", worker="w", limit=1, lease=0.01)
    await asyncio.sleep(0.03)
    await store.finish_delivery(job.id, job.claim, DELIVERED)


async def test_delivery_as_it_stands(store):
    new = inbound()
    await store.receive_once(new)
    job = await claim_one(store, "deliver")
    found = await store.delivery(job.id, REST)
    assert (found.id, found.message, found.claim, found.attempt) == (job.id, new.id, job.claim, 1)
    assert await store.delivery(job.id, Viewer("other")) is None
    assert await store.delivery(uuid4(), REST) is None
    await store.release(job.id, job.claim)
    assert (await store.delivery(job.id, REST)).claim is None
    await submitted(store)
    send = await claim_one(store)
    assert await store.delivery(send.id, Viewer(send.queue)) is None


async def test_waiting_for_work_ends_when_there_is_some(store, other):
    await store.wait_for_work(0.01)

    async def waits(waiter, cause):
        await waiter.wait_for_work(0.05)  # a ring from before counts once
        task = asyncio.create_task(waiter.wait_for_work(10))
        await asyncio.sleep(0.2)
        assert not task.done()
        await cause()
        await asyncio.wait_for(task, 2)

    await waits(store, lambda: store.receive_once(inbound()))
    await waits(other, lambda: store.submit_once(outbound()))
    await waits(store, lambda: other.submit_once(outbound()))


async def test_waiting_for_work_ends_when_a_retry_is_due(store, other):
    await submitted(store)
    await attempt(store, "WAITING_FOR_RETRY", retry_in=0.3)
    loop = asyncio.get_running_loop()
    until = loop.time() + 3
    while await claim_one(other) is None:
        assert loop.time() < until
        await other.wait_for_work(3)


async def test_waiting_for_work_ends_in_time(store):
    begun = asyncio.get_running_loop().time()
    await store.wait_for_work(0.2)
    await store.wait_for_work(0.2)
    assert asyncio.get_running_loop().time() - begun < 2


# -- events and webhooks --------------------------------------------------------


async def test_events_go_to_the_webhooks_that_want_them(store):
    for id, backend, events, disabled in (
        ("all", "rest", (), False),
        ("some", "rest", ("message.delivered", "message.failed"), False),
        ("other", "else", (), False),
        ("off", "rest", (), True),
    ):
        await store.add_webhook(Webhook(id=id, backend=backend, url="https://x", sealed_secret=b"s", events=events, disabled=disabled))
    new = inbound()
    await store.receive_once(new)
    [job] = await store.claim("notify", worker="w", limit=9, lease=LEASE)
    assert (job.queue, job.message, job.kind) == ("all", new.id, "notify")
    assert job.data.pop("id")
    assert job.data == {"type": "message.received", "findings": 2, "message_id": new.user_message.message_id,
                        "conversation_id": new.user_message.conversation_id}  # fmt: skip
    await store.finish_notify(job.id, job.claim)
    with pytest.raises(ClaimLost):
        await store.finish_notify(job.id, job.claim)
    deliver = await claim_one(store, "deliver")
    await store.finish_delivery(deliver.id, deliver.claim, (NewEvent("message.delivered", {"by": "me"}),))
    jobs = await store.claim("notify", worker="w", limit=9, lease=LEASE)
    assert sorted(j.queue for j in jobs) == ["all", "some"]
    assert len({j.data["id"] for j in jobs}) == 1 and all(j.data["by"] == "me" for j in jobs)


async def test_every_change_is_told(store):
    await store.add_webhook(Webhook(id="w", backend="rest", url="https://x", sealed_secret=b"s"))
    await submitted(store)
    await attempt(store, "WAITING_FOR_RETRY", retry_in=0.0)
    await attempt(store, "FAILED")
    jobs = await store.claim("notify", queues=("w",), worker="w", limit=9, lease=LEASE)
    assert [j.data["type"] for j in jobs] == ["message.accepted", "message.retrying", "message.failed"]
    assert jobs[1].data["attempt"] == 1


async def test_events_of_a_test_message_are_told_to_nobody(store):
    await store.add_webhook(Webhook(id="w", backend="rest", url="https://x", sealed_secret=b"s"))
    await store.receive_once(inbound(backend=None))
    assert await claim_one(store, "notify") is None


async def test_the_feed(store):
    await store.receive_once(inbound(backend="a"))
    await store.receive_once(inbound(backend="b"))
    await submitted(store, backend="a")
    feed = await store.events(viewer=Viewer("a"))
    assert [e[2] for e in feed] == ["message.received", "message.accepted"]
    numbers = [e[0] for e in await store.events()]
    assert numbers == sorted(numbers) and len(numbers) == 3
    assert [e[0] for e in await store.events(after=numbers[0])] == numbers[1:]
    assert [e[0] for e in await store.events(limit=2)] == numbers[:2]
    assert await store.events(message=feed[0][3], viewer=Viewer("b")) == []


# -- reading --------------------------------------------------------------------


async def test_a_backend_sees_only_its_own(store):
    """L01."""
    new = inbound(backend="a")
    await store.receive_once(new)
    assert await store.message(new.id, viewer=Viewer("b")) is None
    assert (await store.message(new.id, viewer=Viewer("a"))).id == new.id
    assert await store.find(new.user_message.message_id, viewer=Viewer("b")) == []
    assert await store.find(str(new.id), viewer=Viewer("b")) == []
    assert await store.messages(MessageFilter(backend="b")) == []
    assert await store.message(uuid4()) is None


async def test_find(store):
    one = inbound("aaaaaaaa-1@ee.example")
    two = outbound("aaaaaaaa-2@ee.example")
    await store.receive_once(one)
    await store.submit_once(two)

    async def found(*args, **more):
        return [m.id for m in await store.find(*args, **more)]

    assert await found("aaaaaaaa-1@ee.example") == [one.id]
    assert await found("aaaaaaaa") == [two.id, one.id]
    assert await found("aaaaaaaa", direction="inbound") == [one.id]
    assert await found("aaaaaaa") == []  # too short for a prefix
    assert await found(str(one.id)) == [one.id]
    assert await found(str(one.id)[:8]) == [one.id]
    assert await found(str(one.id)[:13]) == [one.id]
    assert await found(str(one.id).upper()[:20]) == [one.id]
    assert await found(str(two.id), direction="inbound") == []
    assert (await store.find("aaaaaaaa-1@ee.example"))[0] == await store.message(one.id)


@pytest.mark.parametrize("text", ["%%%%%%%%", "a%aaaaaa", "________", "aaaaaaa_", "\\aaaaaaaa", "aaaaaaaa\0", "\ud800aaaaaaa",
                                  "'; DROP TABLE message; --", "", "--------", "a" * 5000])  # fmt: skip
async def test_nothing_in_a_search_is_a_wildcard(store, text):
    """L08."""
    await store.receive_once(inbound("aaaaaaaa@x"))
    assert await store.find(text) == []
    assert await store.messages(MessageFilter(message_id=text)) == []
    assert await store.messages(MessageFilter(backend=text, conversation_id=text, state=text)) == []


async def test_an_exact_match_comes_first(store):
    exact = inbound("aaaaaaaa")
    await store.receive_once(exact)
    await store.receive_once(inbound("aaaaaaaab"))
    assert [m.user_message.message_id for m in await store.find("aaaaaaaa")] == ["aaaaaaaa", "aaaaaaaab"]


async def test_pages_newest_first(store):
    made = []
    for _ in range(5):
        made.append(inbound())
        await store.receive_once(made[-1])
    first = await store.messages(MessageFilter(limit=2))
    second = await store.messages(MessageFilter(limit=2, after=(first[-1].created_at, first[-1].id)))
    third = await store.messages(MessageFilter(limit=2, after=(second[-1].created_at, second[-1].id)))
    assert [m.id for m in first + second + third] == [m.id for m in reversed(made)]


async def test_a_page_has_no_envelope_receipt_or_content(store):
    new = inbound()
    await store.receive_once(new)
    [found] = await store.messages(MessageFilter())
    assert (found.envelope, found.receipt, found.signer) == (None, None, None)
    assert found.parts[0].inline is None and found.parts[0].cid == "p0@x"
    assert found.user_message == new.user_message and found.wrapped_key is not None and found.receipt_at is not None


async def test_filters(store):
    one = inbound(backend="a", user_message=unit(conversation_id="c1", action="X"))
    await store.receive_once(one)
    two = outbound(backend="b", receiver="AP_FI_01", user_message=unit(conversation_id="c2", action="Y"))
    await store.submit_once(two)
    for wanted in (
        {"backend": "a"}, {"direction": "inbound"}, {"state": "RECEIVED"}, {"conversation_id": "c1"}, {"action": "X"},
        {"message_id": one.user_message.message_id}, {"partner": RED}, {"backend": "a", "direction": "inbound", "state": "RECEIVED"},
    ):  # fmt: skip
        assert [m.id for m in await store.messages(MessageFilter(**wanted))] == [one.id], wanted
    assert await store.messages(MessageFilter(backend="a", direction="outbound")) == []
    assert len(await store.messages(MessageFilter())) == 2


async def test_readers_of_what_is_not_there(store):
    assert await store.attempts(uuid4()) == []
    assert await content(store, uuid4()) == []
    assert await store.events(message=uuid4()) == []


# -- retention ------------------------------------------------------------------

NOW = {"delivered_before": 0.0, "settled_before": 0.0}


async def test_purging_what_was_delivered(store, nodes):
    new = inbound(parts=(part(0), part(1, inline=None, chunks=2)))
    async with store.receiving(new.id) as receiving:
        await receiving.chunk(1, 0, b"x")
        await receiving.chunk(1, 1, b"y")
        await receiving.accept(new)
    assert await store.purge(**NOW) == 0  # not delivered yet
    job = await claim_one(store, "deliver")
    await store.finish_delivery(job.id, job.claim, ())
    await asyncio.sleep(0.01)
    assert await store.purge(delivered_before=3600, settled_before=0) == 0
    assert await store.purge(**NOW) == 1
    found = await store.message(new.id)
    assert (found.state, found.wrapped_key, found.parts[0].inline) == ("PURGED", None, None)
    assert await content(store, new.id, 1) == []
    # What proves the exchange stays.
    assert (found.envelope, found.receipt, found.signer) == (new.envelope, new.receipt, new.signer)
    assert found.parts[0].sha256 == new.parts[0].sha256 and found.user_message == new.user_message
    census = await nodes.census()
    assert "chunk" not in census and "job" not in census and census["part"] == 2
    assert await store.purge(**NOW) == 0


async def test_a_purged_message_is_still_known(store):
    new = inbound()
    await store.receive_once(new)
    job = await claim_one(store, "deliver")
    await store.finish_delivery(job.id, job.claim, ())
    await asyncio.sleep(0.01)
    assert await store.purge(**NOW) == 1
    received = await store.receive_once(again(new))
    assert (received.outcome, received.receipt) == ("duplicate", new.receipt)
    assert (await store.receive_once(again(new, fingerprint=b"other"))).outcome == "conflict"


async def test_purging_what_was_sent(store):
    acknowledged = await submitted(store, idempotency_key="k")
    await attempt(store)
    failed = await submitted(store)
    await attempt(store, "FAILED")
    cancelled = await submitted(store)
    await store.cancel(cancelled.id)
    waiting = await submitted(store)
    await asyncio.sleep(0.01)
    assert await store.purge(delivered_before=0, settled_before=3600) == 0
    assert await store.purge(**NOW) == 3
    states = {new.id: (await store.message(new.id)) for new in (acknowledged, failed, cancelled, waiting)}
    assert [(m.state, m.wrapped_key is None) for m in states.values()] == [
        ("PURGED", True), ("FAILED", True), ("PURGED", True), ("SUBMITTED", False)]  # fmt: skip
    assert await store.requeue(failed.id) is False  # there is nothing left to send
    assert await store.settle_late(failed.id, b"<Late/>", ()) is True
    assert (await store.submit_once(msgspec.structs.replace(acknowledged, id=uuid4()))).replayed
    assert (await claim_one(store)).message == waiting.id


async def test_purging_test_messages(store):
    new = inbound(backend=None)
    await store.receive_once(new)
    await asyncio.sleep(0.01)
    assert await store.purge(**NOW) == 1
    assert (await store.message(new.id)).state == "PURGED"


async def test_purging_in_batches_by_several_at_once(store, other):
    for _ in range(9):
        await store.cancel((await submitted(store)).id)
    await asyncio.sleep(0.01)
    assert await store.purge(**NOW, limit=2) == 2
    assert sum(await asyncio.gather(*(s.purge(**NOW) for s in (store, other)))) == 7
    assert await store.purge(**NOW) == 0


# -- registry -------------------------------------------------------------------


def token(id, client, key, **more):
    return Credential(id=id, client=client, kind="token", key=key, **more)


async def test_clients(store):
    scope = Scope(actions=("A", "Ā"), final_recipients=("urn:x:C4",))
    await store.add_client(Client(id="c1", name="Portal", backend="rest", scope=scope), token("k1", "c1", "hash-1"))
    await store.add_client(Client(id="c2", name="Ķīlis", backend="rest"), token("k2", "c2", "hash-2"))
    found, credential = await store.client_by("token", "hash-1")
    assert (found.id, found.name, found.backend, found.scope, found.revoked) == ("c1", "Portal", "rest", scope, False)
    assert (credential.id, credential.client, credential.verifier) == ("k1", "c1", None)
    assert found.created_at is not None and credential.created_at is not None
    assert await store.client_by("token", "hash-3") is None and await store.client_by("certificate", "hash-1") is None
    assert [c.id for c in await store.clients()] == ["c1", "c2"]
    assert await store.revoke_client("c1") is True
    assert await store.revoke_client("c1") is False and await store.revoke_client("c9") is False
    assert await store.client_by("token", "hash-1") is None
    with pytest.raises(StoreUnavailable):
        await store.add_client(Client(id="c3", name="Thief", backend="rest"), token("k3", "c3", "hash-2"))
    assert [c.id for c in await store.clients()] == ["c1", "c2"]  # the whole was one commit


async def test_credentials(store):
    await store.add_client(Client(id="c1", name="Portal", backend="rest"), token("k1", "c1", "hash-1"))
    await store.add_credential(Credential(id="k2", client="c1", kind="password", key="portal", verifier="$2b$"))
    await store.add_credential(token("k3", "c1", "hash-3", expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert (await store.client_by("password", "portal"))[1].verifier == "$2b$"
    assert await store.client_by("token", "hash-3") is None  # its time is over
    assert [c.id for c in await store.credentials(client="c1")] == ["k1", "k2", "k3"]
    assert await store.credentials(client="c2") == []
    assert await store.revoke_credential("k2") is True
    assert await store.revoke_credential("k2") is False and await store.revoke_credential("k9") is False
    assert await store.client_by("password", "portal") is None
    assert (await store.client_by("token", "hash-1"))[0].id == "c1"
    with pytest.raises(StoreUnavailable):
        await store.add_credential(token("k4", "c1", "hash-1"))
    with pytest.raises(StoreUnavailable):
        await store.add_credential(token("k4", "nobody", "hash-4"))


async def test_a_scope_is_changed(store):
    await store.add_client(Client(id="c1", name="Portal", backend="rest"), token("k1", "c1", "hash-1"))
    assert await store.set_scope("c1", Scope(actions=("A",))) is True
    assert (await store.client_by("token", "hash-1"))[0].scope == Scope(actions=("A",))
    assert await store.set_scope("c9", Scope()) is False


async def test_webhooks(store):
    hook = Webhook(id="w1", backend="rest", url="https://x/y", sealed_secret=b"\0\1", events=("message.failed",), client="c1")
    await store.add_webhook(hook)
    await store.add_webhook(Webhook(id="w2", backend="else", url="https://z", sealed_secret=b"s"))
    assert await store.webhooks(backend="rest") == [hook]
    assert len(await store.webhooks()) == 2 and await store.webhooks(client="c1") == [hook]
    await store.disable_webhook("w1")
    assert (await store.webhooks(backend="rest"))[0].disabled
    assert await store.remove_webhook("w1", "c2") is False
    assert await store.remove_webhook("w1", "c1") is True
    assert await store.remove_webhook("w1", "c1") is False


async def test_a_removed_webhook_takes_its_jobs_along(store):
    await store.add_webhook(Webhook(id="w1", backend="rest", url="https://x", sealed_secret=b"s", client="c1"))
    await submitted(store)
    job = await claim_one(store, "notify")
    await store.remove_webhook("w1", "c1")
    with pytest.raises(ClaimLost):
        await store.finish_notify(job.id, job.claim)


# -- audit ----------------------------------------------------------------------


def entry(number):
    return AuditEntry(kind="test.made", actor="operator", subject=f"subject {number} ķ\u2028", detail={"b": number, "a": "č", "n": None})


async def test_audit(store):
    assert await store.audit_entries() == [] and await store.verify_audit() is None
    for number in range(1, 6):
        await store.audit(entry(number))
    found = await store.audit_entries()
    assert [e.number for e in found] == [1, 2, 3, 4, 5]
    assert (found[2].kind, found[2].actor, found[2].subject, found[2].detail) == (
        "test.made", "operator", "subject 3 ķ\u2028", {"a": "č", "b": 3, "n": None})  # fmt: skip
    assert all(e.at is not None for e in found)
    assert [e.number for e in await store.audit_entries(after=3, limit=1)] == [4]
    assert await store.verify_audit() is None


async def test_many_appenders_make_one_chain(store, other):
    await asyncio.gather(*((store, other)[n % 2].audit(entry(n)) for n in range(30)))
    assert [e.number for e in await store.audit_entries()] == list(range(1, 31))
    assert await store.verify_audit() is None


@pytest.mark.parametrize("change", [{"actor": "somebody else"}, {"subject": "x"}, {"detail": '{"a":"č","b":9,"n":null}'},
                                    {"kind": "test.gone"}, {"hash": b"\0" * 32}, {}])  # fmt: skip
async def test_tampering_is_detected(store, nodes, change):
    """M06: changed, or deleted."""
    for number in range(1, 6):
        await store.audit(entry(number))
    await nodes.tamper(3, **change)
    assert await store.verify_audit() == 3


async def test_hostile_text_does_not_keep_a_row_out(store):
    await store.audit(AuditEntry(kind="k", actor="a\0b", subject="\ud800", detail={"x\0": "\0"}))
    assert await store.verify_audit() is None


# -- life -----------------------------------------------------------------------


async def test_health(store):
    health = await store.health()
    assert health.writable and not health.in_recovery and health.migrations_pending == 0
    assert health.synchronous_commit in ("on", "remote_apply") and health.version
