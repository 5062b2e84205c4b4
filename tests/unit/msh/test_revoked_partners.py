"""Messages of and to partners whose certificates may be revoked: refused before a receipt, or before they are sent."""

import datetime
import hashlib
import os
import time

import pytest

from gateway.as4.outbound import secure_signal
from gateway.as4.profiles import PROFILES
from gateway.as4.signals import error_for
from gateway.errors import ValueInconsistent
from gateway.store.api import MessageFilter
from tests.peer import check_receipt
from tests.revoked import cases


@pytest.mark.parametrize(("pinned", "more"), [(True, {"pinned": "hard"}), (False, {})])
@pytest.mark.parametrize(("status", "code"), [("good", None), ("revoked", "EBMS:0101"), ("unknown", "EBMS:0101")])
async def test_received(tmp_path, pinned, more, status, code):
    more = {"paths": "hard"} if not pinned else more
    party = "" if not pinned else 'revocation = "hard"'
    async with cases(tmp_path, pinned=pinned, party=party, **{k: v for k, v in more.items() if k == "paths"}) as case:
        case.says(status)
        sent, answer = await case.give()
        assert answer.code == code and case.responder.asked == ["/ocsp/x"]
        if code is None:
            check_receipt(answer, sent)
        else:
            assert await case.lv.nothing_stored()
            [entry] = [e for e in await case.lv.store.audit_entries() if e.kind == "message.refused"]
            assert "the signer's certificate is refused" in entry.detail["reason"]


@pytest.mark.parametrize(("policy", "code"), [("soft", None), ("hard", "EBMS:0101"), ("off", None)])
async def test_a_responder_that_is_down(tmp_path, policy, code):
    async with cases(tmp_path, pinned=False, party=f', revocation = "{policy}"') as case:
        case.says("nothing")
        _, answer = await case.give()
        assert answer.code == code and bool(case.responder.asked) == (policy != "off")


async def test_soft_is_what_paths_have_and_off_what_pins_have(tmp_path):
    async with cases(tmp_path) as case:
        case.says("revoked")
        assert (await case.give())[1].code is None and case.responder.asked == []
    async with cases(tmp_path / "path", pinned=False) as case:
        case.says("nothing")
        assert (await case.give())[1].code is None
        case.lv.gateway._rooms.revocations._known.clear()
        case.lv.store._revocations.clear()
        case.says("revoked")
        assert (await case.give())[1].code == "EBMS:0101"


async def test_the_next_message_waits_for_nobody(tmp_path):
    async with cases(tmp_path, pinned=False) as case:
        await case.give()
        case.responder.delay = 5
        began = time.monotonic()
        for _ in range(5):
            assert (await case.give())[1].code is None
        assert time.monotonic() - began < 3 and case.responder.asked == ["/ocsp/x"]


async def test_nothing_is_encrypted_for_a_revoked_certificate(tmp_path):
    async with cases(tmp_path, party='revocation = "hard"') as case:
        case.says("revoked")
        submitted = await case.lv.submit()
        await case.lv.send_due()
        view = await case.lv.view(submitted)
        assert (view.state, view.error_code) == ("FAILED", "EBMS:0101") and case.lv.listener.received == []


async def test_while_nobody_answers_a_message_waits(tmp_path):
    async with cases(tmp_path, party='revocation = "hard"') as case:
        case.says("nothing")
        submitted = await case.lv.submit()
        await case.lv.send_due()
        assert (await case.lv.view(submitted)).state == "WAITING_FOR_RETRY"


@pytest.mark.parametrize("answer", ["receipt", "error"])
async def test_the_word_of_whoever_holds_a_revoked_key_settles_nothing(tmp_path, answer):
    async with cases(tmp_path, party='revocation = "soft"') as case:
        submitted = await case.lv.submit()
        revoking = case.lv.receipting if answer == "receipt" else _failing(case)

        def revoke(*arguments):
            """The certificate is revoked while the message is under way."""
            case.lv.gateway._rooms.revocations._known.clear()
            case.lv.store._revocations.clear()
            case.says("revoked")
            return revoking(*arguments)

        case.lv.listener.answer = revoke
        await case.lv.send_due()
        view = await case.lv.view(submitted)
        assert (view.state, view.error_code) == ("WAITING_FOR_RETRY", "EBMS:0302")


def _failing(case):
    def answer(content_type, body):
        message, _, _ = case.peer.receive(content_type, body)
        unit = error_for(ValueInconsistent("no", where="x"), ref_to=message.message_id, message_id="e@peer",
                         now=datetime.datetime.now(datetime.UTC))  # fmt: skip
        octets = secure_signal(unit, profile=PROFILES["oots/2.0"], key=case.peer.keys.signing_key, token="bst", entropy=os.urandom)
        return 200, "application/soap+xml; charset=UTF-8", octets

    return answer


async def test_what_is_known_is_there_to_be_seen(tmp_path):
    async with cases(tmp_path, pinned=False) as case:
        await case.give()
        [message] = await case.lv.store.messages(MessageFilter())
        [known] = await case.lv.store.revocations()
        assert (known.status, known.host) == ("good", "127.0.0.1") and "AP_EE_01" in known.subject
        assert hashlib.sha256((await case.lv.store.message(message.id)).signer).hexdigest() == known.certificate
