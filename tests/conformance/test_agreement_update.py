"""ebCore Agreement Update: assertion 96."""

from dataclasses import replace

import pytest

from gateway.as4 import ns
from gateway.as4.units import Receipt, Service
from gateway.as4.updates.documents import UpdateException, UpdateResponse
from gateway.operate.updates import deciding
from tests.peer import Authority, check_receipt
from tests.updating import ask, renewed, request, run, settle, updates_world

assertion = pytest.mark.assertion


@assertion(96)
async def test_a_secured_request_leads_to_confirm_and_both_agreements_work(tmp_path):
    async with updates_world(tmp_path) as w:
        new = renewed(w)
        sent, answer = await ask(w, request(w, new.signing))
        check_receipt(answer, sent)
        [(message, said)] = w.answers  # the peer takes nothing that is not signed and encrypted
        assert (message.service, message.action) == (Service(ns.UPDATE_SERVICE), "ConfirmCertificateUpdate")
        assert isinstance(said, UpdateResponse)
        await settle(w)
        # The test service with the certificate of the old agreement and of the new one, and ours to them.
        for key in (None, new.signing_key):
            ping = w.peer.message([], service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION, properties=(), key=key)
            assert isinstance((await w.give(ping)).unit, Receipt)
        w.peer.keys = replace(w.peer.keys, signing=new.signing, signing_private=new.signing_private)
        w.listener.answer = w.receipting  # receipts are signed with the new certificate from now on
        submitted = await w.submit()
        await w.send_due()
        assert (await w.view(submitted)).state == "ACKNOWLEDGED"


@assertion(96)
async def test_or_to_reject(tmp_path):
    async with updates_world(tmp_path, approve="operator") as w:
        await ask(w, request(w, renewed(w).signing))
        [row] = await w.store.updates()
        await deciding.reject(w.store, str(row.id), actor="ann", reason="not now")
        await run(w)
        [(message, said)] = w.answers
        assert message.action == "RejectCertificateUpdate" and isinstance(said, UpdateException)


@assertion(96)
async def test_what_a_stranger_signs_is_no_request(tmp_path):
    async with updates_world(tmp_path) as w:
        stranger = renewed(w, authority=Authority(), number=9)
        _, answer = await ask(w, request(w, stranger.signing), key=stranger.signing_key)
        assert answer.code == "EBMS:0101" and await w.store.updates() == []
