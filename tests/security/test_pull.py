"""Attacks on pull: who may fetch, what a stranger learns, and what a repeated request can do [threats 1.0, G]."""

import dataclasses
import re
from uuid import UUID

import pytest

from gateway.as4.units import PartyId
from gateway.errors import FailedDecryption
from tests.peer import Keys, Peer
from tests.pulling import OURS, SOAP, THEIRS, pulling
from tests.world import to_pem

UNKNOWN = "urn:example:mpc:nobody"
FI = PartyId("AP_FI_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI")
#: A second partner with a channel of its own.
SECOND = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "http://127.0.0.1:9/as4"
certificate = "fi.pem"
"""
FINNISH = "urn:example:mpc:AP_FI_01"


@pytest.fixture
async def site(tmp_path):
    async with pulling(tmp_path) as found:
        yield found


def comparable(body: bytes) -> bytes:
    """An answer without what is fresh in every answer: ids, times, digests, signatures."""
    for element in (rb"eb:MessageId", rb"eb:RefToMessageId", rb"eb:Timestamp", rb"ds:DigestValue", rb"ds:SignatureValue"):
        body = re.sub(rb"<(%s)>[^<]*<" % element, rb"<\1><", body)
    body = re.sub(rb'refToMessageInError="[^"]*"', b"", body)
    return re.sub(rb'(wsu:Id|URI)="[^"]*"', b"", body)


def unsigned(request: bytes) -> bytes:
    return re.sub(rb"<wsse:Security.*</wsse:Security>", b"", request, flags=re.S)


async def test_a_stranger_learns_nothing_about_channels(site):
    """Existing with messages, existing and empty, not existing, the default one: one answer."""
    submitted = await site.submit()
    stranger = dataclasses.replace(site.peer, keys=Keys.make("AP_EE_01", "rsa", site.world.authority))
    for wrap in (lambda request: request, unsigned):
        answers = []
        for mpc in (THEIRS, OURS, UNKNOWN, "", "urn:example:mpc:" + "x" * 200):
            status, content_type, body = await site.ask(wrap(stranger.pull_request(mpc)))
            answers.append((status, content_type, comparable(body)))
        assert len(set(answers)) == 1
        assert b"EBMS:010" in answers[0][2] and b"ErrorDetail" not in answers[0][2]
    assert await site.state(submitted) == "READY_TO_PULL"


async def test_a_partner_does_not_learn_of_the_channels_of_others(tmp_path, monkeypatch):
    """FI is a partner of ours; what waits for EE is not for it, and it cannot even tell that it waits."""
    import tests.world as module

    plain = module.write_site

    def write_site(folder, keys, partner, **more):
        plain(folder, keys, partner, **more)
        (folder / "pmodes" / "fi.pem").write_bytes(to_pem(finnish.signing))

    from tests.peer import Authority

    finnish = Keys.make("AP_FI_01", "rsa", Authority())
    monkeypatch.setattr(module, "write_site", write_site)
    monkeypatch.setattr("tests.pulling.AGREEMENT", SECOND + __import__("tests.pulling", fromlist=["x"]).AGREEMENT)
    async with pulling(tmp_path) as site:
        submitted = await site.submit()
        fi = Peer(FI, site.peer.partner, finnish, site.peer.partner_signing, site.peer.partner_encryption)
        answers = [await site.ask(fi.pull_request(mpc)) for mpc in (THEIRS, OURS, UNKNOWN)]
        assert {comparable(body) for _, _, body in answers} == {comparable(answers[0][2])}
        assert all(b"EBMS:0001" in body for _, _, body in answers)
        # Its own is just empty, and EE gets what is EE's.
        assert b"EBMS:0006" in (await site.ask(fi.pull_request(FINNISH)))[2]
        assert (await site.fetch())[0].message_id == submitted.message_id
        # Nor can it settle what it has not got.
        [attempt] = await site.store.attempts(UUID(submitted.id))
        message = (await site.store.message(UUID(submitted.id))).user_message
        status, _, _ = await site.world.raw(SOAP, fi.receipt_for(message, attempt.references))
        assert status == 400 and await site.state(submitted) == "WAITING_FOR_RECEIPT"


async def test_a_repeated_request_takes_no_second_message(site):
    """Who listens could else drain a channel, or use up the retries of a message."""
    first, second = await site.submit(), await site.submit()
    request = site.peer.pull_request(THEIRS)
    _, content_type, body = await site.ask(request)
    assert site.peer.receive(content_type, body)[0].message_id == first.message_id
    for _ in range(5):
        assert (await site.refused(request)).code == "EBMS:0006"
    assert await site.state(second) == "READY_TO_PULL"
    assert (await site.fetch())[0].message_id == second.message_id


async def test_one_asked_of_an_empty_channel_cannot_be_kept_for_later(site):
    request = site.peer.pull_request(THEIRS)
    assert (await site.refused(request)).code == "EBMS:0006"
    submitted = await site.submit()
    assert (await site.refused(request)).code == "EBMS:0006"
    assert await site.state(submitted) == "READY_TO_PULL"


@pytest.mark.parametrize("age", [700, -700, 86_400 * 400])
async def test_one_of_another_time_is_refused(site, age):
    submitted = await site.submit()
    answer = await site.refused(site.peer.pull_request(THEIRS, age=age))
    assert answer.code == "EBMS:0003" and "Timestamp" in answer.unit.errors[0].detail
    assert await site.state(submitted) == "READY_TO_PULL"


@pytest.mark.parametrize("age", [300, -300])
async def test_clocks_may_be_minutes_apart(site, age):
    await site.submit()
    _, content_type, body = await site.ask(site.peer.pull_request(THEIRS, age=age))
    assert site.peer.receive(content_type, body)


async def test_what_is_pulled_can_be_read_by_the_partner_alone(site):
    """Even of a request that somebody else passed on."""
    await site.submit((b"the secret of the citizen" * 10, "text/plain"))
    _, content_type, body = await site.ask()
    assert b"the secret" not in body and b"EncryptedData" in body
    stranger = dataclasses.replace(site.peer, keys=Keys.make("AP_EE_01", "rsa", site.world.authority))
    with pytest.raises(FailedDecryption):
        stranger.receive(content_type, body)


async def test_a_request_with_parts_or_a_body_is_refused(site):
    submitted = await site.submit()
    request = site.peer.pull_request(THEIRS)
    root = b"--b\r\nContent-Type: application/soap+xml; charset=UTF-8\r\nContent-ID: <r>\r\n\r\n" + request
    part = b"\r\n--b\r\nContent-Type: text/plain\r\nContent-ID: <p>\r\n\r\nx\r\n--b--\r\n"
    _, _, body = await site.world.raw(
        'multipart/related; type="application/soap+xml"; boundary="b"; start="<r>"', root + part)
    assert b"EBMS:0007" in body
    spoilt = re.sub(rb"(<S12:Body[^>]*>)", rb"\1<x/>", request)
    assert (await site.refused(spoilt)).code == "EBMS:0003"
    assert await site.state(submitted) == "READY_TO_PULL"


async def test_refused_requests_leave_one_bounded_row_each(site):
    for _ in range(3):
        await site.ask(unsigned(site.peer.pull_request(THEIRS)))
    rows = [entry for entry in await site.store.audit_entries() if entry.kind == "message.refused"]
    assert len(rows) == 3 and {row.detail["code"] for row in rows} == {"EBMS:0103"}
    assert await site.world.nothing_stored()


async def test_a_pull_request_does_not_travel_on_an_answer(site):
    site.offers((200, SOAP, site.peer.pull_request(OURS)))
    await site.pull()
    assert site.signals() == []
    assert await site.world.nothing_stored()


async def test_a_holder_cannot_make_us_take_what_was_for_a_push(site):
    """A pushed exchange offered on a channel, and a message of the channel for another party."""
    site.offers(site.message(action="ExecuteQueryRequest", mpc=None), site.message(to_party=FI))
    await site.pull()
    assert await site.world.nothing_stored()
