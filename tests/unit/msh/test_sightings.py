"""Certificates partners are seen to use: the next one noted once, a stranger's kept for a decision, nothing trusted."""

import hashlib

import pytest

from gateway.keys.keyring import SoftwareSigningKey
from gateway.msh import sightings
from gateway.store.partner_certificates import MAX_WAITING
from tests.pki import BOTH, Ca, key, usage
from tests.world import EE, to_pem, world

CA = Ca.root("Partner CA")
KEY = key("rsa", 71)
PARTY = f"{EE.type}:{EE.value}"


def leaf(cn="AP_EE_01", private=KEY, **more):
    return CA.leaf(cn, private.public_key(), **more)


def sha256(der):
    return hashlib.sha256(der).hexdigest()


def signed_by(lv, certificate, private=KEY, **more):
    return lv.peer.message(key=SoftwareSigningKey(private, certificate, ()), **more)


async def audited(lv, kind):
    return [e for e in await lv.store.audit_entries(limit=1000) if e.kind == kind]


@pytest.fixture
async def lv(tmp_path):
    async with world(tmp_path / "lv") as found:
        yield found


@pytest.fixture
async def overlap(tmp_path):
    """A partner with two certificates: its active one, and `next`."""
    following = leaf()
    (tmp_path / "lv" / "pmodes").mkdir(parents=True)
    (tmp_path / "lv" / "pmodes" / "ee-next.pem").write_bytes(to_pem(following))
    async with world(tmp_path / "lv", more='next = "ee-next.pem"') as found:
        found.next = following
        yield found


class TestNext:
    async def test_its_first_use_is_noted_once(self, overlap):
        for certificate, private in ((overlap.peer.keys.signing, overlap.peer.keys.signing_private), *[(overlap.next, KEY)] * 3):
            assert (await overlap.give(signed_by(overlap, certificate, private))).code is None
        [use] = await overlap.store.next_uses()
        assert (use.party, use.sha256) == (PARTY, sha256(overlap.next))
        [entry] = await audited(overlap, "certificate.next_used")
        assert (entry.subject, entry.detail["certificate_sha256"]) == ("AP_EE_01", sha256(overlap.next))
        assert await overlap.store.strangers() == []

    async def test_a_process_that_did_not_see_it_notes_nothing_again(self, overlap):
        await overlap.give(signed_by(overlap, overlap.next))
        overlap.gateway._rooms.sightings._next.clear()
        await overlap.give(signed_by(overlap, overlap.next))
        assert len(await audited(overlap, "certificate.next_used")) == 1

    async def test_a_receipt_tells_it_too(self, overlap):
        peer = overlap.peer
        peer.keys, keys = peer.keys.__class__(KEY, overlap.next, peer.keys.decryption_private, peer.keys.encryption), peer.keys
        try:
            submitted = await overlap.submit()
            await overlap.send_due()
            assert (await overlap.view(submitted)).state == "ACKNOWLEDGED"
        finally:
            peer.keys = keys
        assert [use.sha256 for use in await overlap.store.next_uses()] == [sha256(overlap.next)]

    async def test_a_third_is_none_of_them(self, overlap):
        assert (await overlap.give(signed_by(overlap, leaf()))).code == "EBMS:0101"


class TestStrangers:
    async def test_it_is_refused_kept_and_not_trusted(self, lv):
        stranger = leaf({"CN": "AP_EE_01", "C": "EE"})
        for _ in range(3):
            assert (await lv.give(signed_by(lv, stranger))).code == "EBMS:0101"
        [found] = await lv.store.strangers()
        assert (found.party, found.sha256, found.der, found.state) == (PARTY, sha256(stranger), stranger, "WAITING")
        assert "AP_EE_01" in found.subject and "Partner CA" in found.issuer
        assert await lv.nothing_stored()
        _, *refused = await lv.store.audit_entries()  # after the agreements of the start
        assert [e.kind for e in refused] == ["message.refused"] * 3  # one event each, and nothing else
        assert {e.detail["certificate_sha256"] for e in refused} == {sha256(stranger)}

    async def test_the_answer_is_that_of_every_other_refusal(self, lv, monkeypatch):
        import re

        def bare(answer):
            return re.sub(rb"<eb:(MessageId|Timestamp|RefToMessageId)>[^<]*|<(ds:DigestValue|ds:SignatureValue)>[^<]*|refToMessageInError=\"[^\"]*\"|Id=\"[^\"]*\"|URI=\"#[^\"]*\"", b"", answer.envelope)

        kept, expired = await lv.give(signed_by(lv, leaf())), await lv.give(signed_by(lv, leaf(start=-9, days=5)))
        borrowed = await lv.give(signed_by(lv, leaf(), key("rsa", 72)))
        assert {kept.code, expired.code, borrowed.code} == {"EBMS:0101"}
        assert bare(kept) == bare(expired) == bare(borrowed)

    async def test_it_is_counted_and_written_now_and_then(self, lv, monkeypatch):
        stranger = leaf()
        for _ in range(4):
            await lv.give(signed_by(lv, stranger))
        assert [s.seen for s in await lv.store.strangers()] == [1]
        monkeypatch.setattr(sightings, "WRITE_EVERY", 0.0)
        await lv.give(signed_by(lv, stranger))
        assert [s.seen for s in await lv.store.strangers()] == [5]

    @pytest.mark.parametrize("make", [
        pytest.param(lambda lv: signed_by(lv, leaf(), key("rsa", 72)), id="the key is another's"),
        pytest.param(lambda lv: signed_by(lv, leaf(start=-9, days=5)), id="expired"),
        pytest.param(lambda lv: signed_by(lv, leaf(start=1)), id="not yet valid"),
        pytest.param(lambda lv: signed_by(lv, CA.ca("AP_EE_01", private=KEY, key_usage=BOTH).certificate), id="a CA"),
        pytest.param(lambda lv: signed_by(lv, leaf(key_usage=usage("key_encipherment"))), id="not for signing"),
        pytest.param(lambda lv: signed_by(lv, leaf("x" * 60, extensions=[(_large(), False)])), id="too large"),
        pytest.param(lambda lv: signed_by(lv, leaf(), signature_token="ski"), id="only named"),
    ])  # fmt: skip
    async def test_what_nobody_could_accept_is_not_kept(self, lv, make):
        assert (await lv.give(make(lv))).code == "EBMS:0101"
        assert await lv.store.strangers() == []

    async def test_a_changed_message_tells_nothing_of_whoever_signed_it(self, lv):
        sent = signed_by(lv, leaf())
        changed = sent.body.replace(b"ExecuteQueryRequest", b"ExecuteQueryResponse")
        assert changed != sent.body
        await lv.post(sent.content_type, changed)
        assert await lv.store.strangers() == []

    async def test_the_certificate_of_another_partner_is_offered_to_nobody(self, tmp_path):
        other = leaf("AP_FI_01")
        (tmp_path / "lv" / "pmodes").mkdir(parents=True)
        (tmp_path / "lv" / "pmodes" / "fi.pem").write_bytes(to_pem(other))
        more = '[parties.AP_FI_01]\ntype = "urn:fi"\nendpoint = "http://127.0.0.1:9/x"\ncertificate = "fi.pem"\n'
        async with world(tmp_path / "lv", more=more) as lv:
            assert (await lv.give(signed_by(lv, other))).code == "EBMS:0101"
            assert await lv.store.strangers() == []

    async def test_a_flood_fills_its_own_room_and_then_costs_no_look_at_the_store(self, lv, monkeypatch):
        for number in range(MAX_WAITING):
            await lv.give(signed_by(lv, leaf(f"n{number}")))
        asked = []
        keep = lv.store.quarantine
        monkeypatch.setattr(lv.store, "quarantine", lambda *a: asked.append(a) or keep(*a))
        for number in range(5):
            await lv.give(signed_by(lv, leaf(f"m{number}")))
        assert len(await lv.store.strangers()) == MAX_WAITING and len(asked) == 1

    async def test_an_answer_to_a_message_of_ours(self, lv):
        stranger, peer = leaf(), lv.peer
        peer.keys, keys = peer.keys.__class__(KEY, stranger, peer.keys.decryption_private, peer.keys.encryption), peer.keys
        try:
            submitted = await lv.submit()
            await lv.send_due()
            assert (await lv.view(submitted)).state != "ACKNOWLEDGED"
        finally:
            peer.keys = keys
        assert [s.sha256 for s in await lv.store.strangers()] == [sha256(stranger)]


def _large():
    from cryptography import x509

    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x04\x82\x24\x00" + bytes(9216))
