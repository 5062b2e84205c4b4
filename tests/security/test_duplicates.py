"""G: the same MessageId again, from many at once, from somebody else, after a failure."""

import asyncio
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.msh import spool
from gateway.store.api import MessageFilter
from tests.peer import Keys, Peer, check_receipt
from tests.world import LV, PartyId, to_pem, world

FI = PartyId("AP_FI_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI")
SECOND_PARTNER = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "http://127.0.0.1:9/as4"
certificate = "fi.pem"
"""


# -- at once, on two processes and a real database ------------------------------------------


@pytest.mark.parametrize("size", [300, 2_000_000], ids=["in its row", "in chunks"])
def test_many_at_once_are_stored_once(site, size):
    """G04: one message, and every sender gets the same octets."""
    sent = site.peer.message([("application/octet-stream", bytes(range(256)) * (size // 256))], compress=False)
    counts, senders = site.counts(), 30 if size < 1000 else 8
    with ThreadPoolExecutor(senders) as pool:
        replies = list(pool.map(lambda _: site.post(sent.content_type, sent.body), range(senders)))
    # A partner who is turned away for lack of room comes again, as AS4 has it.
    replies = [r if r.status == 200 else site.post(sent.content_type, sent.body) for r in replies]
    assert {r.status for r in replies} == {200}
    assert len({hashlib.sha256(r.body).digest() for r in replies}) == 1
    check_receipt(site.read(replies[0]), sent)
    after = site.counts()
    assert {name: after[name] - counts[name] for name in ("message", "part", "job", "event")} == {
        "message": 1, "part": 1, "job": 1, "event": 1}
    assert after["chunk"] - counts["chunk"] == int(site.sql(
        "SELECT coalesce(sum(chunks), 0) AS n FROM part JOIN message ON message.id = part.message "
        f"WHERE message_id = '{sent.message.message_id}'")[0]["n"])
    assert "deadlock" not in site.logged()


def test_another_integrity_violation_is_no_duplicate(site):
    """G05: what keeps a row out is not always its key. No receipt; and the retry is a first delivery [G06]."""
    sent = site.peer.message()
    counts = site.counts()
    site.sql("ALTER TABLE part ADD CONSTRAINT planted CHECK (number < 0) NOT VALID")
    try:
        reply = site.post(sent.content_type, sent.body)
        assert reply.status == 503 or site.read(reply).code == "EBMS:0004"
        assert b"eb:Receipt" not in reply.body and b"planted" not in reply.body
        assert site.counts() == counts
    finally:
        site.sql("ALTER TABLE part DROP CONSTRAINT planted")
    site.accepted(sent)
    assert site.counts()["job"] == counts["job"] + 1


# -- in this process --------------------------------------------------------------------------


async def test_an_exact_replay_and_another_content(lv):
    """G01, G02: the original keeps its place and its receipt."""
    sent = lv.peer.message([("application/xml", b"<original/>")])
    receipts = [(await lv.raw(sent.content_type, sent.body))[2] for _ in range(2)]
    before = await lv.store.messages(MessageFilter())
    other = lv.peer.message([("application/xml", b"<forged/>")], message_id=sent.message.message_id)
    answer = await lv.give(other)
    assert answer.code == "EBMS:0003" and answer.signer == lv.peer.partner_signing[0]
    [entry] = [e for e in await lv.store.audit_entries(limit=100) if e.kind == "message.refused"]
    assert entry.subject == sent.message.message_id  # what an alert is made of
    assert await lv.store.messages(MessageFilter()) == before
    receipts.append((await lv.raw(sent.content_type, sent.body))[2])
    assert len(set(receipts)) == 1
    [delivery] = await lv.inbox()
    assert await lv.content(delivery) == [b"<original/>"]


async def test_an_id_cannot_be_squatted(tmp_path: Path):
    """G03: another partner who uses the id first does not keep the true one's message out."""
    folder = tmp_path / "lv"
    (folder / "pmodes").mkdir(parents=True)
    async with world(tmp_path / "first") as first:
        authority = first.authority
    keys = Keys.make("AP_FI_01", "rsa", authority)
    (folder / "pmodes" / "fi.pem").write_bytes(to_pem(keys.signing))
    async with world(folder, more=SECOND_PARTNER) as lv:
        squatter = Peer(FI, LV, keys, lv.peer.partner_signing, lv.peer.partner_encryption)
        theirs = squatter.message([("application/xml", b"<squat/>")])
        check_receipt(await lv.give(theirs), theirs)
        true = lv.peer.message([("application/xml", b"<true/>")], message_id=theirs.message.message_id)
        check_receipt(await lv.give(true), true)
        found = {d.message.from_party.id: (await lv.content(d))[0] for d in await lv.inbox()}
        assert found == {"AP_EE_01": b"<true/>", "AP_FI_01": b"<squat/>"}
        # F01 in passing: one partner's signature does not carry the other's name.
        stolen = lv.peer.message(key=keys.signing_key)
        assert (await lv.give(stolen)).code == "EBMS:0101"
        assert (await lv.give(squatter.message(from_party=lv.peer.party))).code == "EBMS:0101"
        assert len(await lv.inbox()) == 2


async def test_many_at_once_in_one_process(lv):
    sent = lv.peer.message([("application/xml", b"<a/>")])
    answers = await asyncio.gather(*(lv.raw(sent.content_type, sent.body, step=700) for _ in range(30)))
    assert {status for status, _, _ in answers} <= {200, 503}
    assert len({body for status, _, body in answers if status == 200}) == 1
    assert len(await lv.inbox()) == 1




async def test_a_full_disk_is_no_refusal(lv, monkeypatch):
    """H08, G06: the partner is asked to come again, and is a first-comer then."""
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    sent = lv.peer.message([("application/octet-stream", os.urandom(3_000_000))])
    monkeypatch.setattr(spool.os, "write", full)
    status, headers, body = await lv.raw(sent.content_type, sent.body)
    monkeypatch.undo()
    assert (status, body) == (503, b"") and "retry-after" in headers
    assert await lv.nothing_stored()
    assert "message.refused" not in {entry.kind for entry in await lv.store.audit_entries(limit=10)}
    check_receipt(await lv.give(sent), sent)
