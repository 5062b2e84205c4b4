"""What every store promises about the ledger of agreement updates."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.api import AuditEntry
from gateway.store.updates import NewUpdate, UpdateChange

NOTE = AuditEntry(kind="update.received", actor="lv-test", subject="AP_EE_01", detail={"reference": "r-1"})
DEADLINE = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)


def new(**changes):
    facts = {
        "id": uuid4(), "direction": "inbound", "kind": "update", "partner": "urn:EE:AP_EE_01", "party": "AP_EE_01", "ours": "AP_LV_01",
        "reference": "r-1", "document": b"<au/>", "message_id": "m@ee", "conversation_id": "c", "current": "old",
        "updated": "new", "certificates": ("ab", "cd"), "signer": "ef", "respond_by": DEADLINE,
    }
    return NewUpdate(**facts | changes)


async def test_a_request_is_noted_once(store, other, nodes):
    first = new()
    made, fresh = await store.add_update(first, NOTE)
    assert fresh and made.state == "RECEIVED" and made.claim is None and made.due_at is not None
    assert {name: getattr(made, name) for name in NewUpdate.__struct_fields__} == {
        name: getattr(first, name) for name in NewUpdate.__struct_fields__}
    again, fresh = await other.add_update(new(document=b"<other/>"), NOTE)
    assert (again, fresh) == (made, False)
    assert await other.update(made.id) == made == await store.update_of("inbound", made.partner, "r-1")
    assert await store.update(uuid4()) is None and await store.update_of("outbound", made.partner, "r-1") is None
    assert await store.update_of("inbound", "x\0", "r") is None
    await store.add_update(new(partner="urn:FI:AP_FI_01"), NOTE)  # another partner's ids are its own
    assert (await nodes.census())["audit"] == 2 and await store.verify_audit() is None


async def test_listing(store):
    kept = []
    for n, direction in enumerate(["inbound", "outbound", "inbound"]):
        kept.append((await store.add_update(new(direction=direction, reference=f"r-{n}"), NOTE))[0])
    assert [u.reference for u in await store.updates()] == ["r-2", "r-1", "r-0"]
    assert [u.reference for u in await store.updates(direction="inbound", limit=1)] == ["r-2"]
    assert [u.state for u in await store.updates(states=("PREPARED",))] == ["PREPARED"]
    assert await store.updates(partner="nobody") == []


async def test_a_claim_is_one_process_s_until_it_ends(store, other):
    made, _ = await store.add_update(new(), NOTE)
    found = [u for some in await asyncio.gather(store.claim_updates(limit=5, lease=0.3), other.claim_updates(limit=5, lease=0.3))
             for u in some]
    assert [u.id for u in found] == [made.id] and found[0].attempt == 1
    await asyncio.sleep(0.4)
    [again] = await other.claim_updates(limit=5, lease=30)
    assert again.attempt == 2 and again.claim != found[0].claim
    taken = UpdateChange(state="APPROVED", due_in=0.0)
    assert await store.change_update(made.id, taken, before=("RECEIVED",), claim=found[0].claim, audit=NOTE) is None
    assert (await store.change_update(made.id, taken, before=("RECEIVED",), claim=again.claim)).state == "APPROVED"


async def test_changes(store, nodes):
    made, _ = await store.add_update(new(), NOTE)
    waits = await store.change_update(
        made.id, UpdateChange(state="WAITING", due_in=3600, detail="another CA"), before=("RECEIVED",), audit=NOTE)
    assert (waits.state, waits.detail, waits.claim) == ("WAITING", "another CA", None)
    assert timedelta(minutes=59) < waits.due_at - waits.changed_at < timedelta(minutes=61)
    assert await store.claim_updates(limit=5, lease=9) == []
    approve, refuse = (UpdateChange(state=s, due_in=0.0, actor=a) for s, a in (("APPROVED", "ann"), ("REFUSED", "bob")))
    both = await asyncio.gather(*(store.change_update(made.id, c, before=("WAITING",), audit=NOTE) for c in (approve, refuse)))
    [won] = [u for u in both if u is not None]  # two who decide at once do not both win
    assert (await store.update(made.id)) == won and (await nodes.census())["audit"] == 3
    if won.state == "REFUSED":
        made, _ = await store.add_update(new(reference="r-2"), NOTE)
        await store.change_update(made.id, UpdateChange(state="APPROVED"), before=("RECEIVED",))
    done = await store.change_update(made.id, UpdateChange(state="TAKEN", answer=b"<yes/>", answer_message_id="a@lv", answered=True),
                                     before=("APPROVED",))
    assert (done.answer, done.answer_message_id, done.due_at, done.late) == (b"<yes/>", "a@lv", None, False)
    again = await store.change_update(made.id, UpdateChange(state="TAKEN", receipted=True, late=True), before=("TAKEN",))
    assert again.answered_at == done.answered_at and again.receipted_at and again.late and again.answer == b"<yes/>"


async def test_no_other_change_of_state(store):
    made, _ = await store.add_update(new(), NOTE)
    for state in ("TAKEN", "SENT", "ACCEPTED"):
        with pytest.raises(StoreUnavailable):
            await store.change_update(made.id, UpdateChange(state=state), before=("RECEIVED",), audit=NOTE)
    assert (await store.update(made.id)).state == "RECEIVED"
