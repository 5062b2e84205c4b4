"""The signals we answer with: constants only."""

from datetime import UTC, datetime

import pytest

from gateway.as4 import ns
from gateway.as4.header import read_messaging, write_messaging
from gateway.as4.signals import error_for, receipt_for
from gateway.as4.units import Error, Receipt, Reference, SignalError, Transform
from gateway.as4.xml import parse
from gateway.errors import EBMS_ERRORS, FailedAuthentication, InvalidHeader

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
SECRET = "/etc/gateway/key.pem: password 'hunter2'"


def test_a_receipt_repeats_the_references_in_their_order():
    references = [Reference(uri, (Transform(ns.EXC_C14N),), ns.SHA256, b"\0", "AA==") for uri in ("#b", "#a", "cid:c")]
    receipt = receipt_for(references, ref_to="m@x", message_id="r@x", now=NOW)
    assert receipt == Receipt("r@x", NOW, "m@x", tuple(references))
    assert read_messaging(parse(write_messaging(receipt, "_r").encode())) == receipt


@pytest.mark.parametrize("error", EBMS_ERRORS.values(), ids=lambda e: e.code)
@pytest.mark.parametrize("ref_to", ["m@x", None])
def test_an_error_says_constants(error, ref_to):
    signal = error_for(error(SECRET, where="eb:Messaging"), ref_to=ref_to, message_id="e@x", now=NOW)
    assert signal == Error(
        "e@x",
        NOW,
        ref_to,
        (
            SignalError(
                error.code,
                error.severity,
                error.short_description,
                error.category,
                error.origin,
                ref_to,
                error.wire,
                None if error.uniform else "eb:Messaging",
            ),
        ),
    )
    text = write_messaging(signal, "_e")
    assert "hunter2" not in text
    assert ("RefToMessageId" in text) == (ref_to is not None)
    assert read_messaging(parse(text.encode())) == signal
    assert signal.about == ref_to


def test_all_causes_of_a_security_error_look_alike():
    texts = {
        write_messaging(error_for(error, ref_to="m@x", message_id="e@x", now=NOW), "_e")
        for error in (FailedAuthentication("expired"), FailedAuthentication("bad digest", where="ds:Signature"))
    }
    assert len(texts) == 1


def test_the_place_is_told():
    text = write_messaging(
        error_for(InvalidHeader(SECRET, where="eb:From/eb:PartyId"), ref_to=None, message_id="e@x", now=NOW), "_e"
    )
    assert text == (
        f'<eb:Messaging xmlns:S12="{ns.S12}" xmlns:eb="{ns.EB}" xmlns:wsu="{ns.WSU}" wsu:Id="_e" S12:mustUnderstand="true">'
        "<eb:SignalMessage><eb:MessageInfo><eb:Timestamp>2026-01-02T03:04:05.678Z</eb:Timestamp><eb:MessageId>e@x</eb:MessageId>"
        '</eb:MessageInfo><eb:Error category="Unpackaging" errorCode="EBMS:0009" origin="ebMS" severity="failure"'
        ' shortDescription="InvalidHeader"><eb:Description xml:lang="en">The ebMS header is missing or not valid.</eb:Description>'
        "<eb:ErrorDetail>eb:From/eb:PartyId</eb:ErrorDetail></eb:Error></eb:SignalMessage></eb:Messaging>"
    )
