"""We ask a partner to take our next certificate: from the ledger to the partner's answer."""

import datetime
import uuid

import msgspec
import pytest

from gateway.as4 import ns
from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    TerminationException,
    TerminationRequest,
    TerminationResponse,
    UpdateError,
    UpdateException,
    UpdateRequest,
    UpdateResponse,
)
from gateway.errors import NotFound, NotPossible
from gateway.operate.updates import asking
from tests.updating import AGREEMENT, ask, partner, renewed, request, run, settle, updates_world

UTC = datetime.UTC


def now():
    return datetime.datetime.now(UTC).replace(microsecond=0)


async def prepared(w, **more):
    new = renewed(w, name="AP_LV_01")
    renewal = asking.Renewal(replaces=w.keys.signing, certificate=new.signing, chain=(w.authority.certificate,))
    pmodes = await settle(w)
    return await asking.ask(w.store, pmodes, "AP_EE_01", [renewal], host="lv.example", actor="ann@lv", now=now(), **more), new


def answer(asked, kind=UpdateResponse, **more):
    facts = {"id": str(uuid.uuid4()), "reference": asked.id, "created_at": now(), "current": asked.current}
    if isinstance(asked, UpdateRequest):
        facts["updated"] = asked.updated
    return kind(**facts | more)


async def state(w):
    [row] = await w.store.updates(direction="outbound")
    return row


def make_due(w):
    w.store._updates = {id: msgspec.structs.replace(u, due_at=u.due_at and u.created_at) for id, u in w.store._updates.items()}


async def test_asked_receipted_and_accepted(tmp_path):
    async with updates_world(tmp_path) as w:
        row, new = await prepared(w)
        assert (row.state, row.current, row.actor) == ("PREPARED", AGREEMENT, "ann@lv")
        await run(w)
        [(message, asked)] = w.answers
        assert (message.service.value, message.action, message.message_id) == (
            ns.UPDATE_SERVICE, "UpdateCertificate", row.message_id)
        assert asked.updates[0].replaces.names(w.keys.signing) and asked.updates[0].certificate == new.signing
        assert asked.updates[0].certificates[1:] == (w.authority.certificate,)
        assert asked.updated.value.startswith(f"{AGREEMENT}:") and asked.respond_by > now() + datetime.timedelta(days=6)
        make_due(w)
        await run(w)
        assert ((await state(w)).state, (await state(w)).receipted_at is not None) == ("SENT", True)
        await ask(w, answer(asked), ns.UPDATE_CONFIRMED, ref_to_message_id=message.message_id)
        row = await state(w)
        assert (row.state, row.late, row.answered_at is not None) == ("ACCEPTED", False, True)
        # Once more, and the contrary: what was said first stands.
        await ask(w, answer(asked), ns.UPDATE_CONFIRMED)
        error = UpdateError(code="AU:0099", short="Changed", description="our mind")
        await ask(w, answer(asked, UpdateException, errors=(error,)), ns.UPDATE_REJECTED)
        assert (await state(w)).state == "ACCEPTED" and await w.inbox() == []
        kinds = [e.kind for e in await w.store.audit_entries(limit=100) if e.kind.startswith("update.")]
        assert kinds == ["update.prepared", "update.sent", "update.accepted"]


async def test_refused_with_a_code(tmp_path):
    async with updates_world(tmp_path) as w:
        await prepared(w)
        await run(w)
        [(_, asked)] = w.answers
        error = UpdateError(code="AU:0006", short="ActivateByRejected", description="ten \x85 days", about="ur1")
        await ask(w, answer(asked, UpdateException, errors=(error,)), ns.UPDATE_REJECTED)
        row = await state(w)
        assert (row.state, row.code, row.detail) == ("REJECTED", "AU:0006", "ActivateByRejected ten \\x85 days")


async def test_a_partner_that_never_answers_and_then_does(tmp_path):
    async with updates_world(tmp_path) as w:
        await prepared(w, respond_by=now() + datetime.timedelta(seconds=1))
        await run(w)
        [(_, asked)] = w.answers
        import asyncio

        await asyncio.sleep(1.1)
        make_due(w)
        await run(w)
        assert (await state(w)).state == "TIMED_OUT" and (await state(w)).due_at is None
        await ask(w, answer(asked), ns.UPDATE_CONFIRMED)
        assert ((await state(w)).state, (await state(w)).late) == ("ACCEPTED", True)


async def test_a_partner_that_cannot_be_reached(tmp_path):
    async with updates_world(tmp_path) as w:
        row, _ = await prepared(w)
        await w.desk.work.round()
        [message] = await w.store.find(row.message_id, direction="outbound")
        assert await w.store.cancel(message.id)
        make_due(w)
        await run(w)
        assert (await state(w)).state == "UNDELIVERED"


async def test_answers_that_are_to_nothing_or_do_not_fit(tmp_path):
    async with updates_world(tmp_path) as w:
        await prepared(w)
        await run(w)
        [(_, asked)] = w.answers
        for wrong in (answer(asked, reference="unknown"), answer(asked, current=AgreementRef("urn:other")),
                      answer(asked, updated=AgreementRef("urn:other"))):
            await ask(w, wrong, ns.UPDATE_CONFIRMED)
        assert (await state(w)).state == "SENT"
        kinds = [e.kind for e in await w.store.audit_entries(limit=100)]
        assert kinds.count("update.unusable") == 3


async def test_who_can_be_asked(tmp_path):
    async with updates_world(tmp_path) as w:
        row, new = await prepared(w)
        pmodes = await settle(w)
        renewal = asking.Renewal(replaces=w.keys.signing, certificate=new.signing)
        common = {"host": "lv.example", "actor": "a", "now": now()}
        with pytest.raises(NotPossible, match="asked already"):
            await asking.ask(w.store, pmodes, "AP_EE_01", [renewal], **common)
        with pytest.raises(NotFound):
            await asking.ask(w.store, pmodes, "AP_XX_01", [renewal], **common)
        with pytest.raises(NotPossible):
            await asking.terminate(w.store, pmodes, row, **common)


async def test_the_old_agreement_ends(tmp_path):
    async with updates_world(tmp_path) as w:
        await prepared(w)
        await run(w)
        asked = w.answers[0][1]
        await ask(w, answer(asked), ns.UPDATE_CONFIRMED)
        accepted = await state(w)
        ended = await asking.terminate(w.store, await settle(w), accepted, host="lv.example", actor="ann@lv", now=now(),
                                       terminate_by=now() + datetime.timedelta(days=30))
        await run(w)
        message, said = w.answers[-1]
        assert (message.action, said.current.value) == ("TerminateAgreement", AGREEMENT)
        assert said.terminate_by > now() and said.id == ended.reference
        await ask(w, answer(said, TerminationResponse), ns.TERMINATE_CONFIRMED)
        assert (await w.store.update(ended.id)).state == "ACCEPTED"


async def test_a_partner_ends_an_old_agreement_but_never_the_one_there_is(tmp_path):
    async with updates_world(tmp_path) as w:
        end = TerminationRequest(id="t-1", created_at=now(), current=AgreementRef(AGREEMENT))
        await ask(w, end, ns.TERMINATE_ACTION)
        assert isinstance(w.answers[-1][1], TerminationException)
        await ask(w, request(w, renewed(w).signing))
        await ask(w, msgspec.structs.replace(end, id="t-2"), ns.TERMINATE_ACTION)
        message, said = w.answers[-1]
        assert message.action == "ConfirmAgreementTermination"
        assert (type(said), said.reference) == (TerminationResponse, "t-2")
        pinned = partner(await settle(w))
        assert w.peer.keys.signing in pinned.signing  # messages on their way still count


@pytest.mark.parametrize("where", ["AU06", "AU07"])
async def test_a_process_that_dies_sends_nothing_twice(tmp_path, monkeypatch, where):
    from gateway.operate.updates import desk, work

    class Died(BaseException):
        pass

    async with updates_world(tmp_path) as w:
        struck = []

        def point(name):
            if name == where and not struck:
                struck.append(name)
                raise Died

        for module in (desk, work):
            monkeypatch.setattr(module, "point", point)
        await prepared(w)
        for _ in range(2):
            try:
                await run(w)
                await ask(w, answer(w.answers[0][1], id="a-1"), ns.UPDATE_CONFIRMED)
            except Died:
                for job in w.store._jobs.values():
                    job.due_at, job.state = job.created_at, "READY" if job.state == "CLAIMED" else job.state
                make_due(w)
        await run(w)
        assert struck == [where] and len(w.answers) == 1 and (await state(w)).state == "ACCEPTED"


# -- where messages say which agreement they are under -------------------------------------------

NAMED = """
[[exchanges]]
action = "Order"
service = "urn:orders"
from_role = "urn:buyer"
to_role = "urn:seller"
agreement = "urn:agreements:orders"
parties = ["AP_EE_01"]
"""


async def test_messages_may_say_the_new_name_after_an_update(tmp_path):
    async with updates_world(tmp_path, more=NAMED, profile="edelivery-as4/1.15", suite="rsa") as w:
        w.peer.profile = "edelivery-as4/1.15"
        from gateway.as4.units import Property, Service

        def order(name):
            return w.peer.message(service=Service("urn:orders"), action="Order", from_role="urn:buyer", to_role="urn:seller",
                                  agreement_ref=AgreementRef(name),
                                  properties=(Property("originalSender", "a"), Property("finalRecipient", "b")))

        assert (await w.give(order("urn:agreements:orders"))).code is None
        assert (await w.give(order("urn:agreements:orders:2"))).code == "EBMS:0010"
        document = request(w, renewed(w).signing, current=AgreementRef("urn:agreements:orders"),
                           updated=AgreementRef("urn:agreements:orders:2"))
        await ask(w, document, agreement_ref=AgreementRef("urn:agreements:orders"))
        assert w.answers[-1][0].agreement_ref == AgreementRef("urn:agreements:orders")
        await settle(w)
        for name in ("urn:agreements:orders", "urn:agreements:orders:2"):
            assert (await w.give(order(name))).code is None
        # A request of ours names the agreement as its message does, and the partner may answer with either.
        row, _ = await prepared(w)
        assert row.current == "urn:agreements:orders"
        await run(w)
        message, asked = w.answers[-1]
        assert message.agreement_ref.value == asked.current.value == "urn:agreements:orders"
        await ask(w, answer(asked), ns.UPDATE_CONFIRMED)
        await settle(w)
        assert (await w.give(order(asked.updated.value))).code is None
        assert (await w.store.active_agreements()).number == 3
