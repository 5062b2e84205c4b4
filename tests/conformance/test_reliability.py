"""Receipts, reception awareness, errors, four corners: assertions 60 to 75."""

import datetime
import re

import pytest
from msgspec.structs import replace

from gateway.as4.signals import error_for
from gateway.as4.units import Error, Property, Receipt
from gateway.errors import DeliveryFailure, FailedAuthentication, Other
from gateway.store.api import MessageFilter
from tests.peer import check_receipt, split

assertion = pytest.mark.assertion
NOW = datetime.datetime.now(datetime.UTC)


@assertion(60, 61)
async def test_the_receipt_repeats_every_reference(lv):
    sent = lv.peer.message([("application/xml", b"<a/>"), ("application/pdf", b"%PDF")])
    answer = await lv.give(sent)
    check_receipt(answer, sent)
    request, _ = split(sent.content_type, sent.body)
    digests = re.findall(rb"<ds:DigestValue>([^<]+)<", request.octets)
    assert re.findall(rb"<ds:DigestValue>([^<]+)<", re.search(rb"<eb:Receipt>.*</eb:Receipt>", answer.envelope, re.S)[0]) == digests
    assert b"MessagePartIdentifier" not in answer.envelope
    assert answer.signer == lv.peer.partner_signing[0]
    assert answer.unit.ref_to_message_id == sent.message.message_id


@assertion(62)
async def test_no_receipt_when_it_cannot_be_kept(lv, monkeypatch):
    from gateway.errors import OutcomeUnknown, StoreUnavailable

    for failure in (StoreUnavailable("gone"), OutcomeUnknown("perhaps")):
        async def fail(*_, failure=failure):
            raise failure

        monkeypatch.setattr(type(lv.store), "receive_once", fail)
        sent = lv.peer.message()
        answer = await lv.give(sent)
        assert (answer.status, answer.unit) == (503, None)
        monkeypatch.undo()
    check_receipt(await lv.give(sent), sent)  # the retry is a first delivery [threats G06]
    assert len(await lv.inbox()) == 1


def spoilt_receipts(lv):
    """What a peer may answer instead of a right receipt."""
    def altered(change):
        def answer(content_type, body):
            message, _, references = lv.peer.receive(content_type, body)
            return 200, "application/soap+xml", change(message, references)
        return answer

    def receipt(message, references, **changes):
        unit = Receipt("r@ee", NOW, message.message_id, tuple(references))
        return lv.peer.signal(replace(unit, **changes))

    wrong = lambda m, r: receipt(m, [replace(r[0], digest=b"x" * 32, digest_text="eHh4eA=="), *r[1:]])  # noqa: E731
    return {
        "wrong digest": altered(wrong),
        "missing reference": altered(lambda m, r: receipt(m, r[:-1])),
        "extra reference": altered(lambda m, r: receipt(m, [*r, replace(r[0], uri="#other")])),
        "no references": altered(lambda m, r: receipt(m, [])),
        "wrong RefToMessageId": altered(lambda m, r: receipt(m, r, ref_to_message_id="other@lv.example")),
        "unsigned": altered(lambda m, r: re.sub(rb"<wsse:Security.*</wsse:Security>", b"", receipt(m, r), flags=re.S)),
        "changed after signing": altered(lambda m, r: receipt(m, r).replace(b"r@ee", b"q@ee")),
        "signed by another": altered(lambda m, r: _foreign(lv, m, r)),
        "empty 200": lambda *_: (200, None, b""),
        "204": lambda *_: (204, None, b""),
        "HTML": lambda *_: (502, "text/html", b"<html>Bad gateway</html>"),
        "garbage": lambda *_: (200, "application/soap+xml", b"\x00\x01garbage"),
        "hangs up": lambda *_: None,
        "500 empty": lambda *_: (500, None, b""),
        "a user message": lambda *_: (200, "application/soap+xml", lv.peer.message([]).body),
    }


def _foreign(lv, message, references):
    from tests.peer import Keys

    other = replace_keys(lv.peer, Keys.make("AP_FI_01", "rsa", lv.authority))
    return other.receipt_for(message, references)


def replace_keys(peer, keys):
    import dataclasses

    return dataclasses.replace(peer, keys=keys)


@assertion(63)
@pytest.mark.parametrize("kind", [
    "wrong digest", "missing reference", "extra reference", "no references", "wrong RefToMessageId", "unsigned",
    "changed after signing", "signed by another", "empty 200", "204", "HTML", "garbage", "hangs up", "500 empty",
    "a user message",
])
async def test_only_a_right_receipt_completes(lv, kind):
    lv.listener.answer = spoilt_receipts(lv)[kind]
    submitted = await lv.submit()
    await lv.send_due()
    seen = await lv.view(submitted)
    assert seen.state == "WAITING_FOR_RETRY"
    assert seen.error_code in ("EBMS:0302", "EBMS:0005")


@assertion(64, 65, 69)
async def test_a_retry_sends_the_same_message(lv):
    answers = iter([lambda *_: None, lambda *_: (500, None, b""), lv.receipting])
    lv.listener.answer = lambda *request: next(answers)(*request)
    submitted = await lv.submit([(b"<a/>" * 1000, "application/xml"), (b"b", "text/plain")])
    for _ in range(3):
        await lv.send_due()
        await lv.store.requeue(__import__("uuid").UUID(submitted.id))
    seen = await lv.view(submitted)
    assert (seen.state, seen.attempts) == ("ACKNOWLEDGED", 3)
    tries = [lv.peer.receive(*request) for request in lv.listener.received]
    assert len(tries) == 3
    messages = [message for message, _, _ in tries]
    assert messages[0] == messages[1] == messages[2]  # MessageId and Timestamp included
    digests = [[(r.uri, r.digest) for r in references] for _, _, references in tries]
    assert digests[0] == digests[1] == digests[2]


@assertion(65, 67)
async def test_a_duplicate_gets_the_stored_receipt_and_is_not_delivered_again(lv):
    sent = lv.peer.message()
    first, second, third = [await lv.raw(sent.content_type, sent.body) for _ in range(3)]
    assert first[2] == second[2] == third[2]  # octet for octet [threats G01]
    assert len(await lv.inbox()) == 1


@assertion(67)
async def test_a_duplicate_signed_anew_gets_a_fitting_receipt(lv):
    """Products that make new ids for each attempt: same header, same parts, other references."""
    message = lv.peer.header()
    payload = [("application/xml", b"<a/>")]
    cids = ["same@peer.example"]
    first = lv.peer.message(payload, cids=cids, change_header=lambda m: replace(message, parts=m.parts))
    check_receipt(await lv.give(first), first)
    import gateway.as4.outbound as outbound

    original = outbound._wsu_ids
    outbound._wsu_ids = lambda _: ("m-other", "b-other")
    try:
        again = lv.peer.message(payload, cids=cids, change_header=lambda m: replace(message, parts=m.parts))
    finally:
        outbound._wsu_ids = original
    assert again.wire.references != first.wire.references
    check_receipt(await lv.give(again), again)
    assert len(await lv.inbox()) == 1


@assertion(67)
@pytest.mark.parametrize("change", [
    lambda peer, m: peer.message([("application/xml", b"<other/>")], message_id=m.message_id),
    lambda peer, m: peer.message([("application/xml", b"<a/>")], message_id=m.message_id, conversation_id="another"),
])
async def test_another_content_under_a_used_id_is_refused(lv, change):
    sent = lv.peer.message([("application/xml", b"<a/>")])
    check_receipt(await lv.give(sent), sent)
    answer = await lv.give(change(lv.peer, sent.message))
    assert answer.code == "EBMS:0003"
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == [b"<a/>"]


@assertion(66)
async def test_after_the_last_retry_the_producer_gets_0301(lv):
    lv.listener.answer = lambda *_: (503, None, b"")
    submitted = await lv.submit()
    uid = __import__("uuid").UUID(submitted.id)
    for _ in range(30):
        await lv.send_due()
        if (await lv.view(submitted)).state == "FAILED":
            break
        await lv.store.requeue(uid)
    seen = await lv.view(submitted)
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0301")
    kinds = [event[2] for event in await lv.store.events(limit=500)]
    assert "message.retrying" in kinds and kinds[-1] == "message.failed"


@assertion(69)
async def test_errors_are_synchronous_and_signed(lv):
    answer = await lv.give(lv.peer.message(action="Nothing"))
    assert isinstance(answer.unit, Error)
    assert answer.signer == lv.peer.partner_signing[0]


@assertion(69)
async def test_a_late_receipt_corrects_a_failure(lv):
    lv.listener.answer = lambda *_: (503, None, b"")
    submitted = await lv.submit()
    for _ in range(30):
        await lv.send_due()
        if (await lv.view(submitted)).state == "FAILED":
            break
        await lv.store.requeue(__import__("uuid").UUID(submitted.id))
    message, _, references = lv.peer.receive(*lv.listener.received[-1])
    answer = await lv.post("application/soap+xml", lv.peer.receipt_for(message, references))
    assert answer.status == 204
    assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


@assertion(70)
@pytest.mark.parametrize("both", ["ref_to", "in_error"])
async def test_errors_correlate_by_either_reference(lv, both):
    def refuse(content_type, body):
        message, _, _ = lv.peer.receive(content_type, body)
        unit = error_for(FailedAuthentication(), ref_to=message.message_id, message_id="e@ee", now=NOW)
        if both == "in_error":
            unit = replace(unit, ref_to_message_id=None)
        return 200, "application/soap+xml", lv.peer.signal(unit)

    lv.listener.answer = refuse
    submitted = await lv.submit()
    await lv.send_due()
    seen = await lv.view(submitted)
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0101")


@assertion(70)
@pytest.mark.parametrize("error", [DeliveryFailure(), Other()])
async def test_passing_troubles_of_the_peer_are_retried(lv, error):
    def refuse(content_type, body):
        message, _, _ = lv.peer.receive(content_type, body)
        return 200, "application/soap+xml", lv.peer.signal(
            error_for(error, ref_to=message.message_id, message_id="e@ee", now=NOW))

    lv.listener.answer = refuse
    submitted = await lv.submit()
    await lv.send_due()
    assert (await lv.view(submitted)).state == "WAITING_FOR_RETRY"


@assertion(70)
async def test_an_unsigned_error_decides_nothing(lv):
    def refuse(content_type, body):
        message, _, _ = lv.peer.receive(content_type, body)
        unit = error_for(FailedAuthentication(), ref_to=message.message_id, message_id="e@ee", now=NOW)
        return 200, "application/soap+xml", re.sub(rb"<wsse:Security.*</wsse:Security>", b"", lv.peer.signal(unit), flags=re.S)

    lv.listener.answer = refuse
    submitted = await lv.submit()
    await lv.send_due()
    seen = await lv.view(submitted)
    assert (seen.state, seen.error_code) == ("WAITING_FOR_RETRY", "EBMS:0101")
    assert "unverified" in seen.error_detail


@assertion(69)
async def test_an_error_signal_is_never_answered_with_one(lv):
    unit = error_for(FailedAuthentication(), ref_to="nothing@lv.example", message_id="e@ee", now=NOW)
    answer = await lv.post("application/soap+xml", lv.peer.signal(unit))
    assert answer.unit is None and answer.status in (204, 400)


@assertion(71)
async def test_reliable_messaging_gets_a_soap_fault(lv):
    sent = lv.peer.message([])
    block = b'<r:Sequence xmlns:r="http://docs.oasis-open.org/ws-rx/wsrm/200702" S12:mustUnderstand="true"/></S12:Header>'
    status, _, body = await lv.raw(sent.content_type, sent.body.replace(b"</S12:Header>", block))
    assert status == 500 and b"MustUnderstand" in body
    await lv.submit()
    await lv.send_due()
    assert b"wsrm" not in lv.listener.received[-1][1]


@assertion(72, 74)
async def test_corners_and_tracking_go_out_as_the_producer_set_them(lv):
    from gateway.plugin import PropertyValue
    from tests.world import CORNERS

    await lv.submit(properties=(*CORNERS, PropertyValue("trackingIdentifier", "trk-1")))
    await lv.send_due()
    message, _, _ = lv.peer.receive(*lv.listener.received[-1])
    assert message.value_of("originalSender") == "C1" and message.value_of("finalRecipient") == "C4"
    assert message.value_of("trackingIdentifier") == "trk-1"
    assert (message.from_party.value, message.to_party.value) == ("AP_LV_01", "AP_EE_01")


@assertion(73, 74)
async def test_corners_are_delivered(lv):
    header = lv.peer.header()
    properties = (*header.properties, Property("trackingIdentifier", "trk-2"))
    await lv.give(lv.peer.message(properties=properties))
    [delivery] = await lv.inbox()
    assert {p.name for p in delivery.message.properties} >= {"originalSender", "finalRecipient", "trackingIdentifier"}


@assertion(75)
@pytest.mark.parametrize("missing", ["originalSender", "finalRecipient"])
async def test_a_missing_corner_is_refused(lv, missing):
    header = lv.peer.header()
    answer = await lv.give(lv.peer.message(properties=tuple(p for p in header.properties if p.name != missing)))
    assert answer.code == "EBMS:0003"
    assert await lv.nothing_stored()
    assert missing.encode() in answer.envelope  # a partner's engineer can act on it


async def test_what_is_refused_leaves_one_security_event(lv):
    before = len(await lv.store.audit_entries(limit=100))
    await lv.give(lv.peer.message(action="Nothing"))
    entries = (await lv.store.audit_entries(limit=100))[before:]
    assert [entry.kind for entry in entries] == ["message.refused"]
    assert entries[0].detail["code"] == "EBMS:0010"
    assert not await lv.store.messages(MessageFilter())
