"""The test service and compression: assertions 25 to 37."""

import gzip
import hashlib
import os
import re

import pytest

from gateway.as4 import ns
from gateway.as4.units import PartInfo, Property, Service
from gateway.plugin import PartSubmission
from tests.peer import check_receipt, split

assertion = pytest.mark.assertion
PING = {"service": Service(ns.TEST_SERVICE), "action": ns.TEST_ACTION}


@assertion(25)
@pytest.mark.parametrize("payloads", [[], [("text/plain", b"ping")]])
async def test_a_ping_is_receipted_and_not_delivered(lv, payloads):
    sent = lv.peer.message(payloads, **PING)
    check_receipt(await lv.give(sent), sent)
    assert await lv.inbox() == []


@assertion(25)
async def test_a_ping_must_be_secured_like_any_message(lv):
    sent = lv.peer.message([], **PING)
    body = re.sub(rb"<wsse:Security .*</wsse:Security>", b"", sent.body, flags=re.S)
    answer = await lv.post(sent.content_type, body)
    assert answer.code == "EBMS:0103"


@assertion(25, 26)
async def test_we_can_ping(lv):
    submitted = await lv.submit([], parts=(), action=ns.TEST_ACTION, service=ns.TEST_SERVICE)
    await lv.send_due()
    message, contents, _ = lv.peer.receive(*lv.listener.received[-1])
    assert message.is_test and contents == []
    assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


@assertion(26)
def test_every_triple_has_a_test_leg(lv):
    pmodes = lv.gateway._rooms.agreements.value.pmodes
    triples = {(leg.from_party.party_id, leg.to_party.party_id, leg.agreement) for leg in pmodes.legs}
    tests = {(leg.from_party.party_id, leg.to_party.party_id, leg.agreement): leg for leg in pmodes.legs if leg.is_test}
    assert triples == set(tests)
    for leg in pmodes.legs:
        ping = tests[leg.from_party.party_id, leg.to_party.party_id, leg.agreement]
        assert (ping.profile, ping.from_party, ping.to_party, ping.mpc) == (
            leg.profile, leg.from_party, leg.to_party, leg.mpc)


@assertion(27, 28, 30, 36)
async def test_parts_go_out_compressed_and_say_so(lv):
    content = b"<query>" + b"x" * 1000 + b"</query>"
    await lv.submit([(content, "application/xml")])
    await lv.send_due()
    envelope, [(_, octets)] = split(*lv.listener.received[-1])
    assert b'MimeType="application/gzip"' in envelope.octets  # its type when signed: compressed before
    message, [received], references = lv.peer.receive(*lv.listener.received[-1])
    assert message.parts[0].value_of("CompressionType") == "application/gzip"
    assert message.parts[0].mime_type == "application/xml"
    assert received == content
    assert len(octets) < len(content)
    assert references[-1].uri == message.parts[0].href


@assertion(29)
async def test_compressed_without_mime_type_is_0003(lv):
    def without(part):
        info = PartInfo(part.info.href, tuple(p for p in part.info.properties if p.name != ns.MIME_TYPE))
        return type(part)(info, part.cid, part.content_type, part.wire_size, part.wire_digest)

    answer = await lv.give(_repaired(lv, change_part=without))
    assert answer.code == "EBMS:0003"
    assert await lv.nothing_stored()


@assertion(30, 31)
@pytest.mark.parametrize(("charset", "accepted"), [("UTF-8", True), ("UTF-16", True), ("utf-8", True), ("!utf*", False)])
async def test_character_set(lv, charset, accepted):
    sent = lv.peer.message(part_properties=(Property("CharacterSet", charset),))
    answer = await lv.give(sent)
    if accepted:
        check_receipt(answer, sent)
    else:
        assert answer.code == "EBMS:0003"


@assertion(32)
@pytest.mark.parametrize("spoil", [
    lambda o: o[:-5],
    lambda o: o + b"trailing",
    lambda o: o[:12] + bytes([o[12] ^ 0xFF]) + o[13:],
    lambda o: o[:-8] + b"\0\0\0\0" + o[-4:],
    lambda o: b"not gzip at all",
    lambda o: b"",
    lambda o: gzip.compress(b"\0" * (300 << 20), 9),  # a bomb: 1000 to one
])
async def test_a_corrupt_part_is_0303(lv, spoil):
    content = os.urandom(500)
    octets = spoil(gzip.compress(content, mtime=0))
    info = PartInfo("cid:bad@peer.example", (
        Property(ns.MIME_TYPE, "application/octet-stream"), Property(ns.COMPRESSION_TYPE, ns.GZIP)))
    sent = _message_of(lv.peer, info, octets, "application/gzip")
    answer = await lv.give(sent)
    assert answer.code == "EBMS:0303"
    assert await lv.nothing_stored()


@assertion(33)
async def test_the_producer_hears_of_errors(lv):
    from datetime import UTC, datetime

    from gateway.as4.signals import error_for
    from gateway.errors import ProcessingModeMismatch

    def refuse(content_type, body):
        message, _, _ = lv.peer.receive(content_type, body)
        error = error_for(ProcessingModeMismatch(), ref_to=message.message_id, message_id="e@ee", now=datetime.now(UTC))
        return 200, "application/soap+xml", lv.peer.signal(error)

    lv.listener.answer = refuse
    submitted = await lv.submit()
    await lv.send_due()
    seen = await lv.view(submitted)
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0010")
    assert "message.failed" in [event[2] for event in await lv.store.events()]


@assertion(34)
@pytest.mark.parametrize("content", [b"", b"x", b"<a>\r\n</a>", os.urandom(200_000), os.urandom(900_000).hex().encode()])
async def test_payloads_are_delivered_as_they_were(lv, content):
    sent = lv.peer.message([("application/octet-stream", content)])
    check_receipt(await lv.give(sent), sent)
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == [content]
    part = delivery.message.parts[0]
    assert (part.size, part.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert "CompressionType" not in [p.name for p in part.properties]


@assertion(35)
@pytest.mark.parametrize(("mime", "content"), [
    ("application/octet-stream", os.urandom(1000)), ("application/pdf", b"%PDF-1.4"), ("image/png", b"\x89PNG"),
])
async def test_uncompressed_parts_are_taken(lv, mime, content):
    sent = lv.peer.message([(mime, content)], compress=False)
    check_receipt(await lv.give(sent), sent)
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == [content]


@assertion(35)
async def test_uncompressed_parts_are_sent_where_asked(lv):
    await lv.submit([(b"<a/>", "application/xml")], parts=(PartSubmission(mime_type="application/xml", compress=False),))
    await lv.send_due()
    message, [content], _ = lv.peer.receive(*lv.listener.received[-1])
    assert content == b"<a/>" and not message.parts[0].compressed


@assertion(37)
async def test_a_digest_over_uncompressed_data_is_refused(lv):
    content = b"<query>" + os.urandom(50).hex().encode() + b"</query>"
    answer = await lv.give(lv.peer.message(
        [("application/xml", content)], digest=lambda octets, _: hashlib.sha256(content).digest()))
    assert answer.code in ("EBMS:0101", "EBMS:0103")
    assert await lv.nothing_stored()


@assertion(37)
async def test_a_digest_over_ciphertext_is_refused(lv):
    answer = await lv.give(lv.peer.message(digest=lambda octets, _: hashlib.sha256(os.urandom(16) + octets).digest()))
    assert answer.code == "EBMS:0101"
    assert await lv.nothing_stored()


def _repaired(lv, **hooks):
    """A message whose header is made of the changed parts."""
    from msgspec.structs import replace

    changed = []

    def remember(part):
        part = hooks["change_part"](part)
        changed.append(part.info)
        return part

    return lv.peer.message(change_part=remember, change_header=lambda m: replace(m, parts=tuple(changed)))


def _message_of(peer, info, octets, content_type):
    """A message with one part whose octets are exactly these."""
    from msgspec.structs import replace

    from gateway.as4.outbound import Draft, OutboundPart, secure
    from gateway.as4.profiles import PROFILES
    from tests.peer import Sent

    message = replace(peer.header(), parts=(info,))
    part = OutboundPart(info, info.cid, content_type, len(octets), hashlib.sha256(octets).digest())
    wire = secure(Draft(message, (part,)), profile=PROFILES[peer.profile], key=peer.keys.signing_key,
                  recipient=peer.partner_encryption, signature_token="bst", encryption_token="bst", entropy=os.urandom)
    return Sent(wire.content_type, b"".join(wire.stream(lambda _: [octets])), wire, message)
