"""Is a partner ready for the next certificate: every answer a partner or somebody on the way may give."""

import asyncio
import datetime
import functools

import pytest
from msgspec.structs import replace

from gateway import app
from gateway.as4.outbound import secure_signal
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, SignalError
from gateway.operate import readiness
from gateway.transport.client import Timeouts
from tests.interop.inside import inside  # noqa: F401 - the fixture lv
from tests.interop.test_ping import over_tls, pki  # noqa: F401 - a fixture
from tests.peer import Authority, Keys

SOAP = "application/soap+xml; charset=UTF-8"
TIMEOUTS = Timeouts(connect=5, idle=5, answer=5)


@functools.cache
def following() -> Keys:
    """The next keys of AP_LV_01."""
    return Keys.make("AP_LV_01", "rsa", Authority())


def refusing(lv, *certificates: bytes, code="EBMS:0101", signed=True):
    """A partner that trusts nothing signed with `certificates`."""
    lv.peer.partner_signing = (lv.keys.signing, following().signing)

    def answer(content_type, body):
        opened, _ = lv.peer.open(content_type, body)
        if opened.signer not in certificates:
            return lv.receipting(content_type, body)
        about = opened.unit.message_id
        told = SignalError(code=code, severity="failure", ref_to_message_in_error=about, description="not trusted")
        unit = Error("e-1@peer.example", datetime.datetime.now(datetime.UTC), about, (told,))
        key = lv.peer.keys.signing_key if signed else None
        return 200, SOAP, secure_signal(unit, profile=PROFILES[lv.peer.profile], key=key, token="bst", entropy=bytes)

    return answer


async def asked(lv, answer, **changes):
    """What `ask_all` says of AP_EE_01 with this answer."""
    lv.listener.answer = answer
    pmodes = lv.gateway._rooms.agreements.value.pmodes
    legs = tuple(replace(leg, to_party=replace(leg.to_party, **changes)) for leg in pmodes.legs)
    pmodes = replace(pmodes, legs=legs)
    rooms = app.trial(lv.gateway._rooms.config, pmodes, timeouts=TIMEOUTS)
    try:
        meant = readiness.askable(pmodes, "AP_LV_01")
        [found] = [one async for one in readiness.ask_all(rooms, meant, following().signing_key, parallel=2)]
        return found
    finally:
        await rooms.client.close()
        rooms.cpu.close()


async def test_a_receipt_is_green_and_was_asked_for_with_the_next_key(lv):
    answer = refusing(lv)
    signers = []

    def noting(content_type, body):
        signers.append(lv.peer.open(content_type, body)[0].signer)
        return answer(content_type, body)

    found = await asked(lv, noting)
    assert (found.verdict, found.proof, found.party) == ("green", "signature", "AP_EE_01")
    assert signers == [following().signing]


@pytest.mark.parametrize("code", sorted(readiness.REFUSALS))
async def test_a_signed_refusal_of_the_next_certificate_alone_is_amber(lv, code):
    found = await asked(lv, refusing(lv, following().signing, code=code))
    assert (found.verdict, found.code, found.proof) == ("amber", code, "signature")
    assert "announce" in found.todo and "AP_EE_01" in found.todo


async def test_who_refuses_the_certificate_in_use_as_well_says_nothing_about_the_next(lv):
    found = await asked(lv, refusing(lv, following().signing, lv.keys.signing, code="EBMS:0103"))
    assert found.verdict == "unknown" and "the certificate in use is not taken either" in found.why


async def test_an_error_about_something_else_is_unknown(lv):
    found = await asked(lv, refusing(lv, following().signing, code="EBMS:0010"))
    assert found.verdict == "unknown" and "says nothing about the certificate" in found.why
    assert found.todo


async def test_an_unsigned_refusal_over_plain_http_may_be_anybody_s(lv):
    found = await asked(lv, refusing(lv, following().signing, signed=False))
    assert (found.verdict, found.proof) == ("unknown", "none")
    assert len(lv.listener.received) == 1, "nothing more is asked of somebody who may not be the partner"


async def test_an_unsigned_refusal_over_tls_is_that_of_the_server(lv, pki):  # noqa: F811
    async with over_tls(lv, pki.server_context()) as url:
        answer = refusing(lv, following().signing, signed=False)
        found = await asked(lv, answer, endpoint=url, tls_ca=pki.ca.read_bytes())
    assert (found.verdict, found.proof, found.code) == ("amber", "tls", "EBMS:0101")


async def test_no_answer_is_unknown(lv):
    for answer in (lambda *_: None, lambda *_: (502, "text/html", b"<title>Bad gateway</title>")):
        found = await asked(lv, answer)
        assert (found.verdict, found.proof) == ("unknown", None)
        assert "no answer that is AS4" in found.why


async def test_slow_partners_do_not_hold_up_the_others(lv):
    """Five of six say nothing for a while; with room for all of them the sixth is done meanwhile."""
    pmodes = lv.gateway._rooms.agreements.value.pmodes
    [legs] = readiness.askable(pmodes, "AP_LV_01").values()
    answer, go_on, heard = refusing(lv), asyncio.Event(), []

    async def slow(content_type, body):
        if len(lv.listener.received) < 6:
            await go_on.wait()
        return answer(content_type, body)

    lv.listener.answer = slow
    rooms = app.trial(lv.gateway._rooms.config, pmodes, timeouts=TIMEOUTS)
    try:
        async with asyncio.timeout(4):
            asked = {str(n): legs for n in range(6)}
            async for found in readiness.ask_all(rooms, asked, following().signing_key, parallel=6):
                heard.append(found.verdict)
                go_on.set()  # the others answer only after the first verdict
    finally:
        await rooms.client.close()
        rooms.cpu.close()
    assert heard == ["green"] * 6


async def test_only_partners_of_the_party(lv):
    pmodes = lv.gateway._rooms.agreements.value.pmodes
    assert readiness.askable(pmodes, "AP_XX_01") == {} and readiness.askable(pmodes).keys() == readiness.askable(pmodes, "AP_LV_01").keys()
