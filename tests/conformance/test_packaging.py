"""Exchange patterns and packaging: assertions 1 to 24."""

import re

import pytest
from msgspec.structs import replace

from gateway.as4.units import AgreementRef, PartyId, Property, Receipt, Service
from gateway.plugin import PartSubmission, PropertyValue, SubmissionRefused
from tests.peer import check_receipt, split
from tests.world import CORNERS, world

assertion = pytest.mark.assertion


@assertion(1)
@pytest.mark.parametrize("status", [200, 202, 204 + 2])
async def test_sends_by_post_and_takes_a_receipt_in_any_2xx(lv, status):
    def answer(content_type, body):
        _, kind, octets = lv.receipting(content_type, body)
        return status, kind, octets

    lv.listener.answer = answer
    submitted = await lv.submit()
    await lv.send_due()
    assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


@assertion(2, 14)
async def test_answers_a_push_with_a_receipt_on_the_same_connection(lv):
    sent = lv.peer.message()
    answer = await lv.give(sent)
    assert answer.status == 200
    check_receipt(answer, sent)


@assertion(3, 4)
async def test_two_way_response_refers_to_the_request_and_keeps_its_conversation(tmp_path):
    more = ""
    async with world(tmp_path / "lv", more=more) as lv:
        request = lv.peer.message()
        await lv.give(request)
        [delivery] = await lv.inbox()
        submitted = await lv.submit(
            action="ExecuteQueryResponse",
            ref_to_message_id=delivery.message.message_id,
            conversation_id=delivery.message.conversation_id,
        )
        await lv.send_due()
        message, _, _ = lv.peer.receive(*lv.listener.received[-1])
        assert message.ref_to_message_id == request.message.message_id
        assert message.conversation_id == request.message.conversation_id
        assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


@assertion(5)
async def test_outgoing_from_and_to_have_one_party_id(lv):
    await lv.submit()
    await lv.send_due()
    envelope, _ = split(*lv.listener.received[-1])
    for side in (b"From", b"To"):
        block = re.search(rb"<eb:%s>.*?</eb:%s>" % (side, side), envelope.octets, re.S)[0]
        assert block.count(b"<eb:PartyId") == 1


@assertion(6)
@pytest.mark.parametrize("side", ["From", "To"])
async def test_two_party_ids_are_refused(lv, side):
    sent = lv.peer.message()
    body = re.sub(rb"(<eb:%s>)(<eb:PartyId.*?</eb:PartyId>)" % side.encode(), rb"\1\2\2", sent.body, count=1)
    answer = await lv.post(sent.content_type, body)
    assert answer.code == "EBMS:0003"
    assert await lv.nothing_stored()


@assertion(7)
async def test_makes_a_conversation_id(lv):
    first, second = await lv.submit(), await lv.submit()
    assert first.conversation_id and first.conversation_id != second.conversation_id
    await lv.send_due()
    message, _, _ = lv.peer.receive(*lv.listener.received[0])
    assert message.conversation_id in (first.conversation_id, second.conversation_id)


@assertion(8)
async def test_outgoing_body_is_empty_and_payloads_are_parts(lv):
    await lv.submit([(b"<a/>", "application/xml"), (b"%PDF", "application/pdf")])
    await lv.send_due()
    envelope, parts = split(*lv.listener.received[-1])
    assert re.search(rb"<S12:Body [^>]*></S12:Body>", envelope.octets)
    assert len(parts) == 2


@assertion(9)
async def test_takes_a_plain_message_without_payload(lv):
    sent = lv.peer.message([])
    assert sent.content_type.startswith("application/soap+xml")
    check_receipt(await lv.give(sent), sent)
    [delivery] = await lv.inbox()
    assert delivery.message.parts == ()


@assertion(9)
async def test_takes_a_one_part_multipart_without_payload(lv):
    sent = lv.peer.message([])
    body = b"--b\r\nContent-Type: application/soap+xml; charset=UTF-8\r\n\r\n" + sent.body + b"\r\n--b--\r\n"
    answer = await lv.post('multipart/related; boundary="b"; type="application/soap+xml"', body)
    check_receipt(answer, sent)


@assertion(10)
@pytest.mark.parametrize("href", ["http://example.org/x", "https://example.org/x"])
async def test_external_payloads_are_refused(lv, href):
    sent = lv.peer.message([])
    body = sent.body.replace(
        b"</eb:UserMessage>",
        f'<eb:PayloadInfo><eb:PartInfo href="{href}"></eb:PartInfo></eb:PayloadInfo></eb:UserMessage>'.encode(),
    )
    answer = await lv.post(sent.content_type, body)
    assert answer.code == "EBMS:0011"
    assert await lv.nothing_stored()


@assertion(11)
@pytest.mark.parametrize("part", ["<eb:PartInfo></eb:PartInfo>", '<eb:PartInfo href="#body"></eb:PartInfo>'])
async def test_payloads_in_the_body_are_refused(lv, part):
    sent = lv.peer.message([])
    block = f"<eb:PayloadInfo>{part}</eb:PayloadInfo></eb:UserMessage>".encode()
    answer = await lv.post(sent.content_type, sent.body.replace(b"</eb:UserMessage>", block))
    assert answer.code in ("EBMS:0003", "EBMS:0011")
    assert await lv.nothing_stored()


@assertion(12, 13)
async def test_parts_keep_the_producers_order_outgoing(lv):
    await lv.submit([(b"<lead/>", "application/x-ebrs+xml"), (b"2", "application/pdf"), (b"3", "text/plain")])
    await lv.send_due()
    message, contents, _ = lv.peer.receive(*lv.listener.received[-1])
    assert contents == [b"<lead/>", b"2", b"3"]
    assert [p.mime_type for p in message.parts] == ["application/x-ebrs+xml", "application/pdf", "text/plain"]


@assertion(13, 34)
@pytest.mark.parametrize("count", [2, 30, 64])
async def test_all_payloads_are_delivered_in_order(lv, count):
    payloads = [("application/xml", f"<n>{n}</n>".encode() * (n + 1)) for n in range(count)]
    sent = lv.peer.message(payloads)
    check_receipt(await lv.give(sent), sent)
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == [content for _, content in payloads]
    assert [p.cid for p in delivery.message.parts] == list(sent.payloads)


@assertion(14)
async def test_takes_parts_in_another_order_than_part_info(lv):
    sent = lv.peer.message([("application/xml", b"<a/>"), ("application/pdf", b"%PDF-1")])
    boundary = re.search(r'boundary="([^"]+)"', sent.content_type)[1].encode()
    _, root, one, two, end = sent.body.split(b"--" + boundary)
    body = b"".join(b"--" + boundary + piece for piece in (root, two, one, end))
    check_receipt(await lv.post(sent.content_type, body), sent)
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == [b"<a/>", b"%PDF-1"]


@assertion(15)
async def test_the_producer_sets_ids_parts_and_properties(lv):
    parts = (
        PartSubmission(mime_type="application/xml", cid="lead@lv.example",
                       properties=(PropertyValue("PayloadName", "request.xml", "urn:x"),)),
    )
    await lv.submit(
        [(b"<a/>", "application/xml")], parts=parts, message_id="mine@lv.example", conversation_id="conv-1",
        ref_to_message_id="theirs@ee.example",
    )
    await lv.send_due()
    message, _, _ = lv.peer.receive(*lv.listener.received[-1])
    assert (message.message_id, message.conversation_id, message.ref_to_message_id) == (
        "mine@lv.example", "conv-1", "theirs@ee.example")
    assert message.parts[0].href == "cid:lead@lv.example"
    assert Property("PayloadName", "request.xml", "urn:x") in message.parts[0].properties


@assertion(15, 18, 73)
async def test_the_consumer_gets_ids_parts_and_properties(lv):
    extra = Property("PayloadName", "answer.xml", "urn:x")
    sent = lv.peer.message(part_properties=(extra,), ref_to_message_id="mine@lv.example")
    await lv.give(sent)
    [delivery] = await lv.inbox()
    seen = delivery.message
    assert (seen.message_id, seen.conversation_id, seen.ref_to_message_id) == (
        sent.message.message_id, sent.message.conversation_id, "mine@lv.example")
    assert [(p.name, p.value, p.type) for p in seen.properties] == [
        (p.name, p.value, p.type) for p in sent.message.properties]
    assert ("PayloadName", "answer.xml", "urn:x") in [(p.name, p.value, p.type) for p in seen.parts[0].properties]


@assertion(16)
@pytest.mark.parametrize(("agreement", "accepted"), [
    (AgreementRef("urn:agreements:42", "urn:t"), True),
    (AgreementRef("urn:agreements:42", "urn:t", pmode="whatever"), True),
    (AgreementRef("urn:agreements:42"), False),
    (AgreementRef("urn:agreements:43", "urn:t"), False),
    (None, False),
])
async def test_agreement_ref_takes_part_in_the_selection(tmp_path, agreement, accepted):
    more = """
[[exchanges]]
service = "urn:example:service"
action = "submit"
from_role = "http://sdg.europa.eu/edelivery/gateway"
to_role = "http://sdg.europa.eu/edelivery/gateway"
agreement = { value = "urn:agreements:42", type = "urn:t" }
"""
    async with world(tmp_path / "lv", profile="edelivery-as4/1.15", more=more) as lv:
        sent = lv.peer.message(service=Service("urn:example:service"), action="submit", agreement_ref=agreement)
        answer = await lv.give(sent)
        if accepted:
            check_receipt(answer, sent)
            await lv.submit(action="submit")
            await lv.send_due()
            message, _, _ = lv.peer.receive(*lv.listener.received[-1])
            assert message.agreement_ref == AgreementRef("urn:agreements:42", "urn:t")
        else:
            assert answer.code == "EBMS:0010"


@assertion(17)
@pytest.mark.parametrize("change", [
    {"from_party": PartyId("AP_EE_02", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE")},
    {"from_party": PartyId("AP_EE_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI")},
    {"from_party": PartyId("ap_ee_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE")},
    {"to_party": PartyId("AP_LV_02", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV")},
    {"from_role": "urn:another:role"},
    {"to_role": "urn:another:role"},
    {"service": Service("QueryManager", "urn:another:type")},
    {"service": Service("AnotherManager", "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0")},
    {"action": "executequeryrequest"},
    {"mpc": "urn:another:mpc"},
])
async def test_a_header_outside_the_agreement_is_refused(lv, change):
    answer = await lv.give(lv.peer.message(**change))
    assert answer.code == "EBMS:0010"
    assert await lv.nothing_stored()


@assertion(18)
async def test_property_types_are_sent(lv):
    await lv.submit()
    await lv.send_due()
    message, _, _ = lv.peer.receive(*lv.listener.received[-1])
    assert [(p.name, p.value, p.type) for p in message.properties] == [(p.name, p.value, p.type) for p in CORNERS]


@assertion(19)
async def test_takes_a_byte_order_mark(lv):
    sent = lv.peer.message([])
    check_receipt(await lv.post(sent.content_type, b"\xef\xbb\xbf" + sent.body), sent)


@assertion(20)
@pytest.mark.parametrize("change", [
    lambda t: re.sub(r'; start="[^"]*"', "", t),
    lambda t: re.sub(r'; start-info="[^"]*"', "", t),
    lambda t: t.replace('type="application/soap+xml"', "type=application/soap+xml"),
    lambda t: re.sub(r'start="<([^"]*)>"', r'start="\1"', t),
    lambda t: t.replace("multipart/related", "Multipart/Related").replace("boundary=", "BOUNDARY="),
    lambda t: t + '; charset="UTF-8"',
    lambda t: t + "; action=\"urn:x\"",
])
async def test_takes_the_content_type_in_all_its_forms(lv, change):
    sent = lv.peer.message()
    check_receipt(await lv.post(change(sent.content_type), sent.body), sent)


@assertion(20)
@pytest.mark.parametrize("charset", ["", ";charset=utf-8", '; charset="UTF-8"'])
async def test_takes_the_root_part_in_all_its_forms(lv, charset):
    sent = lv.peer.message()
    body = re.sub(rb"Content-Type: application/soap\+xml[^\r]*", b"content-type: application/soap+xml" + charset.encode(),
                  sent.body, count=1)
    check_receipt(await lv.post(sent.content_type, body), sent)


@assertion(21)
@pytest.mark.parametrize(("value", "accepted"), [("1", True), ("true", True), ("0", False), (None, False)])
async def test_must_understand(lv, value, accepted):
    # The attribute is inside what is signed, so the peer signs it as it stands.
    sent = _with_must_understand(lv.peer, value)
    answer = await lv.post("application/soap+xml; charset=UTF-8", sent)
    assert isinstance(answer.unit, Receipt) is accepted


def _with_must_understand(peer, value):
    """A payload-less message, signed over another spelling of mustUnderstand."""
    import hashlib

    from gateway.as4 import outbound
    from gateway.as4.header import write_messaging
    from gateway.as4.soap import envelope
    from gateway.as4.wss.security import security_header
    from gateway.as4.wss.sign import element_reference, sign

    message = peer.header()
    text = write_messaging(message, "m-1")
    assert ' S12:mustUnderstand="true"' in text
    text = text.replace(' S12:mustUnderstand="true"', "" if value is None else f' S12:mustUnderstand="{value}"')
    references = (
        element_reference("m-1", hashlib.sha256(text.encode()).digest()),
        element_reference("b-1", hashlib.sha256(outbound.body_canonical("b-1").encode()).digest()),
    )
    security = security_header(sign(peer.keys.signing_key, references, token="bst", token_id="t"))
    return envelope(text, "b-1", security)


@assertion(21)
async def test_must_understand_is_on_everything_sent(lv):
    answer = await lv.give(lv.peer.message())
    error = await lv.give(lv.peer.message(action="Nothing"))
    await lv.submit()
    await lv.send_due()
    request, _ = split(*lv.listener.received[-1])
    for envelope in (answer.envelope, error.envelope, request.octets):
        messaging = re.search(rb"<eb:Messaging[^>]*>", envelope)[0]
        assert b'mustUnderstand="true"' in messaging


@assertion(22)
async def test_signals_are_plain_soap(lv):
    for sent in (lv.peer.message(), lv.peer.message(action="Nothing")):
        _, headers, _ = await lv.raw(sent.content_type, sent.body)
        assert headers["content-type"].startswith("application/soap+xml")


@assertion(24)
@pytest.mark.parametrize("spoil", [
    lambda b: b.replace(b"<eb:MessageInfo>", b"<eb:MessageInfos>").replace(b"</eb:MessageInfo>", b"</eb:MessageInfos>"),
    lambda b: re.sub(rb"<eb:Timestamp>[^<]*</eb:Timestamp>", b"<eb:Timestamp>yesterday</eb:Timestamp>", b),
    lambda b: re.sub(rb"<eb:MessageId>[^<]*</eb:MessageId>", b"", b),
    lambda b: b.replace(b"<eb:Action>ExecuteQueryRequest</eb:Action>", b""),
    lambda b: re.sub(rb"<eb:PartyInfo>.*?</eb:PartyInfo>", b"", b, flags=re.S),
])
async def test_a_malformed_header_is_0009(lv, spoil):
    sent = lv.peer.message([])
    answer = await lv.post(sent.content_type, spoil(sent.body))
    assert answer.code == "EBMS:0009"
    assert await lv.nothing_stored()


@assertion(24)
@pytest.mark.parametrize("spoil", [
    lambda t, b: (t, b[: len(b) // 2]),
    lambda t, b: (t, b[:-8]),
    lambda t, b: (re.sub(r'boundary="[^"]*"', 'boundary="another"', t), b),
    lambda t, b: (re.sub(r'boundary="[^"]*"', "boundary=" + "x" * 71, t), b),
    lambda t, b: (re.sub(r'; boundary="[^"]*"', "", t), b),
    lambda t, b: (re.sub(r'start="[^"]*"', 'start="<nobody@x>"', t), b),
    lambda t, b: (t, re.sub(rb"Content-ID: <p0[^>]*>", b"Content-ID: <other@x>", b)),
])
async def test_broken_mime_is_0007(lv, spoil):
    sent = lv.peer.message()
    answer = await lv.post(*spoil(sent.content_type, sent.body))
    assert answer.code == "EBMS:0007"
    assert await lv.nothing_stored()


@assertion(23)
async def test_ipv6(tmp_path):
    """The peer listens on ::1; what listens on our side is tested with the real server (tests/failover)."""
    import socket

    from aiohttp import web

    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
    async with world(tmp_path / "lv", change=lambda c: replace(
            c, egress=replace(c.egress, allow_networks=("127.0.0.0/8", "::1/128")))) as lv:
        runner = web.ServerRunner(web.Server(lv.listener.handle))
        await runner.setup()
        site = web.TCPSite(runner, "::1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        pmodes = lv.gateway._rooms.agreements.value.pmodes
        url = f"http://[::1]:{port}/as4"
        legs = tuple(replace(leg, to_party=replace(leg.to_party, endpoint=url)) if leg.to_party.endpoint else leg
                     for leg in pmodes.legs)
        lv.gateway._rooms.agreements.value = type(lv.gateway._rooms.agreements.value)(replace(pmodes, legs=legs))
        submitted = await lv.submit()
        await lv.send_due()
        await runner.cleanup()
        assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


async def test_a_submission_a_peer_would_refuse_is_refused_at_once(lv):
    with pytest.raises(SubmissionRefused):
        await lv.submit(properties=())
    with pytest.raises(SubmissionRefused):
        await lv.submit(message_id="two words@lv.example")
    with pytest.raises(SubmissionRefused):
        await lv.submit(parts=(PartSubmission(mime_type="application/xml", cid="a b@x"),))
