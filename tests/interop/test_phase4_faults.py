"""What goes wrong between the gateway and phase4: lost answers, duplicates, absence, refusals [as4 4.2, 4.4, 6.6]."""

import threading
import time

import pytest

from tests.interop.phase4_sites import AGREEMENT_TYPE, FAULTS, RSA2048, RSA3072
from tests.interop.phase4_world import PROPERTIES, Payload, World

OUT, BACK = (pytest.mark.proves(FAULTS.title, direction) for direction in ("ours to phase4", "phase4 to ours"))
pytestmark = pytest.mark.peer
PAYLOADS = (Payload(b"<important/>"), Payload(b"second", "text/plain"))


@pytest.fixture
def peer(world):
    """The peer, which answers as usual afterwards."""
    yield world.peer
    world.peer.answer(FAULTS.name)
    world.out.lose(0)
    world.back.lose(0)


# -- from us to phase4 ------------------------------------------------------------------------


@OUT
def test_lost_answers_when_the_peer_repeats_its_receipt(world: World, peer):
    """Two answers are lost; the third copy is receipted. The peer delivered one."""
    peer.answer(FAULTS.name, repeatReceipts=True)
    world.out.lose(2)
    message_id = world.submit(FAULTS, PAYLOADS)
    world.check_sent(FAULTS, message_id, PAYLOADS)
    assert world.gateway.client.message(message_id)["attempts"] == 3
    assert len(peer.of(message_id)) == 1 and len(peer.of(message_id, "duplicate")) == 2


@OUT
def test_a_lost_answer_when_phase4_eliminates_the_duplicate(world: World, peer):
    """phase4's own duplicate elimination answers EBMS:0004 instead of a receipt (difference 1 in docs/interop.md):
    it has the message once, we have no proof of it, and the operator reads why."""
    world.out.lose(1)
    message_id = world.submit(FAULTS, PAYLOADS)
    view = world.gateway.client.wait(message_id, 60)
    assert (view["state"], view["error_code"]) == ("FAILED", "EBMS:0301")
    assert "EBMS:0004" in view["error_detail"] and "already handled (this is a duplicate)" in view["error_detail"]
    assert "unverified" not in view["error_detail"]  # the error is signed
    assert len(peer.of(message_id)) == 1


@OUT
def test_the_peer_is_down_and_comes_back(world: World, peer):
    peer.command("close")
    try:
        message_id = world.submit(FAULTS, PAYLOADS)
        until(lambda: world.gateway.client.message(message_id).get("attempts", 0) >= 2)
        assert world.gateway.client.message(message_id)["state"] == "WAITING_FOR_RETRY"
    finally:
        peer.command("open")
    world.check_sent(FAULTS, message_id, PAYLOADS)
    assert len(peer.of(message_id)) == 1


@OUT
@pytest.mark.parametrize("code", ["EBMS:0303", "EBMS:0001"])
def test_a_signed_final_error_ends_the_message_at_once(world: World, peer, code: str):
    peer.answer(FAULTS.name, error=code)
    message_id = world.submit(FAULTS, PAYLOADS)
    view = world.gateway.client.wait(message_id, 60)
    assert (view["state"], view["error_code"], view["attempts"]) == ("FAILED", code, 1)
    assert "as the test wants it" in view["error_detail"] and "unverified" not in view["error_detail"]


@OUT
def test_a_signed_delivery_failure_is_tried_again(world: World, peer):
    """EBMS:0202 says nothing about the message; it arrives once the peer can take it."""
    peer.answer(FAULTS.name, error="EBMS:0202", repeatReceipts=True)
    message_id = world.submit(FAULTS, PAYLOADS)
    until(lambda: len(peer.of(message_id, "rejected")) >= 2)
    peer.answer(FAULTS.name, repeatReceipts=True)
    world.check_sent(FAULTS, message_id, PAYLOADS)


@OUT
def test_an_unsigned_error_decides_nothing(world: World, peer):
    """Without a P-Mode phase4 does not sign its error (difference 2 in docs/interop.md): we go on trying, and say so."""
    message_id = world.submit(FAULTS, PAYLOADS, action="Refused")
    view = world.gateway.client.wait(message_id, 60)
    assert (view["state"], view["error_code"]) == ("FAILED", "EBMS:0301") and view["attempts"] > 2
    assert "EBMS:0010 unverified answer" in view["error_detail"]
    assert peer.of(message_id, "rejected")[0]["errors"][0]["code"] == "EBMS:0010"


# -- from phase4 to us ------------------------------------------------------------------------


@BACK
def test_a_lost_answer_and_the_same_octets_again(world: World, peer):
    """phase4's retry: our receipt is repeated, nothing is delivered twice."""
    message = world.message(FAULTS, PAYLOADS, retries=3, url=f"http://127.0.0.1:{world.back.port}/as4")
    world.back.lose(1)
    lost = world.back.lost
    (result,) = peer.send(FAULTS.name, [message])
    assert world.back.lost == lost + 1
    world.check_received(FAULTS, message, PAYLOADS, result)
    assert len(world.gateway.taken[message["messageId"]]) == 1


@BACK
def test_the_same_message_secured_anew(world: World, peer):
    """Another signature, another content key, the same content: a receipt for each copy, one delivery."""
    message = world.message(FAULTS, PAYLOADS)
    for _ in range(2):
        (result,) = peer.send(FAULTS.name, [message])
        world.check_received(FAULTS, message, PAYLOADS, result)
    other = world.message(FAULTS, PAYLOADS)
    (result,) = peer.send(FAULTS.name, [other])
    world.check_received(FAULTS, other, PAYLOADS, result)  # later than any second delivery would be
    assert len(world.gateway.taken[message["messageId"]]) == 1


@BACK
def test_two_copies_at_once(world: World, peer):
    message = world.message(FAULTS, PAYLOADS)
    results = peer.send(FAULTS.name, [message] * 4, concurrency=4)
    for result in results:
        world.check_received(FAULTS, message, PAYLOADS, result)
    assert len(world.gateway.taken[message["messageId"]]) == 1


@BACK
def test_other_content_under_a_used_id_is_refused(world: World, peer):
    message = world.message(FAULTS, PAYLOADS)
    (result,) = peer.send(FAULTS.name, [message])
    world.check_received(FAULTS, message, PAYLOADS, result)
    assert refusal(world, FAULTS, world.message(FAULTS, (Payload(b"<other/>"),), messageId=message["messageId"])) == "EBMS:0003"


@BACK
def test_the_gateway_is_down_and_comes_back(world: World, peer):
    message = world.message(FAULTS, PAYLOADS, retries=60)
    results: list[dict] = []
    world.gateway.node.stop()
    sending = threading.Thread(target=lambda: results.extend(peer.send(FAULTS.name, [message])), daemon=True)
    sending.start()
    world.gateway.node.start()
    sending.join(120)
    world.check_received(FAULTS, message, PAYLOADS, results[0])
    assert len(world.gateway.taken[message["messageId"]]) == 1


def refusal(world: World, site, message: dict) -> str:
    """The code of the Error that phase4 got for a message, signed by us and verified there; nothing was delivered."""
    before = len(world.gateway.taken.get(message["messageId"], []))
    (result,) = world.peer.send(site.name, [message])
    assert result["ok"] is False and result["signal"].get("present") is False, result
    assert result["signal"]["signed"] is True and result["signal"]["refToMessageId"] == message["messageId"], result
    assert len(world.gateway.taken.get(message["messageId"], [])) == before
    (error,) = result["errors"]
    assert error["refToMessageInError"] == message["messageId"] and error["severity"] == "failure"
    return error["code"]


@BACK
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("EBMS:0010", {"action": "Unheard"}),
        ("EBMS:0010", {"service": "other"}),
        ("EBMS:0010", {"fromRole": "urn:other"}),
        ("EBMS:0010", {"action": "Agreed", "agreement": "other", "agreementType": AGREEMENT_TYPE}),
        ("EBMS:0003", {"properties": [p for p in PROPERTIES if p["name"] != "finalRecipient"]}),
    ],
    ids=["action", "service", "role", "agreement", "corner"],
)
def test_what_we_say_to_wrong_headers(world: World, peer, code: str, change: dict):
    message = {k: v for k, v in world.message(FAULTS, PAYLOADS, **change).items() if v is not None}
    assert refusal(world, FAULTS, message) == code


@BACK
def test_what_we_say_to_a_header_that_cannot_be_read(world: World, peer):
    """Our node has several parties here, and nobody can tell which one was meant: the Error is not signed."""
    message = world.message(FAULTS, PAYLOADS, service="no-uri")
    del message["serviceType"]
    (result,) = peer.send(FAULTS.name, [message])
    assert [e["code"] for e in result["errors"]] == ["EBMS:0003"] and result["signal"]["signed"] is False


@BACK
def test_what_we_say_to_a_part_that_is_no_gzip(world: World, peer):
    part = Payload(b"not compressed at all", "application/octet-stream", compress=False, properties=(("CompressionType", "application/gzip", None),))
    assert refusal(world, FAULTS, world.message(FAULTS, (part,))) == "EBMS:0303"


@BACK
def test_what_we_say_to_the_signature_of_another_party(world: World, peer):
    """RSA-3072's keys under RSA-2048's name: well signed, and not by the party of the agreement."""
    message = world.message(RSA2048, PAYLOADS)
    (result,) = peer.send(RSA3072.name, [message])
    assert result["ok"] is False and message["messageId"] not in world.gateway.taken
    assert "EBMS:0101" in str(result) or result["signal"].get("signed") is not True


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
