"""Signers that were revoked; two certificates that overlap, and no third [as4 3.11 (6), 4.11; threats F04, F08]."""

import pytest

from gateway.keys.keyring import SoftwareSigningKey
from tests.peer import check_receipt
from tests.pki import Ca, key
from tests.revoked import cases
from tests.world import to_pem, world

assertion = pytest.mark.assertion
CA = Ca.root("Partner CA")


@assertion(49)
@pytest.mark.parametrize("status", ["revoked", "unknown"])
async def test_a_revoked_signer_is_refused_before_a_receipt(tmp_path, status):
    async with cases(tmp_path, pinned=False) as case:
        case.says(status)
        _, answer = await case.give()
        assert answer.code == "EBMS:0101" and await case.lv.nothing_stored()


@assertion(49)
async def test_two_certificates_may_overlap_and_no_third(tmp_path):
    active, following, third = ((key("rsa", n), CA.leaf("AP_EE_01", key("rsa", n).public_key())) for n in (501, 502, 503))
    pmodes = tmp_path / "pmodes"
    pmodes.mkdir()
    for name, (_, der) in (("next", following), ("previous", active)):
        (pmodes / f"{name}.pem").write_bytes(to_pem(der))
    for more in ('next = "next.pem"', 'previous = "previous.pem"'):
        async with world(tmp_path, more=more) as lv:
            pinned = following if more.startswith("next") else active
            for private, der in (pinned, (lv.peer.keys.signing_private, lv.peer.keys.signing)):
                sent = lv.peer.message(key=SoftwareSigningKey(private, der, ()))
                check_receipt(await lv.give(sent), sent)
            refused = await lv.give(lv.peer.message(key=SoftwareSigningKey(*third, ())))
            assert refused.code == "EBMS:0101" and len(await lv.store.strangers()) == 1
