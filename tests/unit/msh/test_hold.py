"""Messages that a partner pulls from us: in-process, with a real gateway and the test's own MSH."""

import asyncio
import contextlib
import os
from uuid import UUID

import pytest

from gateway.as4 import ns
from gateway.as4.units import Error
from gateway.errors import StoreUnavailable
from tests.pulling import THEIRS, pulling


@pytest.fixture
async def site(tmp_path):
    async with pulling(tmp_path) as found:
        yield found


async def test_a_submission_waits_to_be_pulled_and_is_not_sent(site):
    submitted = await site.submit()
    assert (submitted.state, await site.state(submitted)) == ("READY_TO_PULL", "READY_TO_PULL")
    await site.world.send_due()
    assert site.world.listener.received == []


async def test_what_is_pulled_is_acknowledged_by_a_receipt_of_its_own_request(site):
    image = os.urandom(1000)
    submitted = await site.submit((b"<query/>", "application/xml"), (image, "application/pdf"))
    message, contents, references = await site.fetch()
    assert (message.message_id, message.mpc, message.ref_to_message_id) == (submitted.message_id, THEIRS, None)
    assert contents == [b"<query/>", image]
    assert await site.state(submitted) == "WAITING_FOR_RECEIPT"
    assert await site.acknowledge(message, references) == 204
    seen = await site.world.view(submitted)
    assert (seen.state, seen.error_code, seen.attempts) == ("ACKNOWLEDGED", None, 1)
    [attempt] = await site.store.attempts(UUID(submitted.id))
    assert attempt.outcome == "acknowledged"
    kinds = [event[2] for event in await site.store.events(message=UUID(submitted.id))]
    assert kinds == ["message.accepted", "message.acknowledged"]


async def test_an_empty_channel_is_told_by_a_signed_warning(site):
    answer = await site.refused()
    assert isinstance(answer.unit, Error) and answer.signer == site.world.keys.signing
    assert (answer.status, answer.code, answer.unit.errors[0].severity) == (200, "EBMS:0006", "warning")
    assert await site.world.nothing_stored()
    assert "message.refused" not in [entry.kind for entry in await site.store.audit_entries()]


async def test_the_oldest_is_given_first_and_each_to_one_puller(site):
    submitted = [await site.submit() for _ in range(3)]
    first, second = await asyncio.gather(site.fetch(), site.fetch())
    ids = [s.message_id for s in submitted]
    assert sorted([first[0].message_id, second[0].message_id], key=ids.index) == ids[:2]
    assert (await site.fetch())[0].message_id == ids[2]
    assert (await site.refused()).code == "EBMS:0006"


async def test_without_a_receipt_it_is_given_again_with_the_same_octets(site):
    submitted = await site.submit((b"<a/>" * 100, "application/xml"))
    first = await site.fetch()
    assert (await site.refused()).code == "EBMS:0006"  # while its receipt may still come
    await asyncio.sleep(0.12)
    assert await site.review() == 1
    assert await site.state(submitted) == "READY_TO_PULL"
    second = await site.fetch()
    assert (first[0], first[1]) == (second[0], second[1])
    assert [(r.uri, r.digest) for r in first[2]] == [(r.uri, r.digest) for r in second[2]]
    # The receipt for the first copy arrives late, and fits.
    assert await site.acknowledge(first[0], first[2]) == 204
    assert await site.state(submitted) == "ACKNOWLEDGED"


async def test_a_receipt_that_comes_after_its_time_settles_what_is_ready_again(site):
    submitted = await site.submit()
    message, _, references = await site.fetch()
    await asyncio.sleep(0.12)
    await site.review()
    await site.acknowledge(message, references)
    assert await site.state(submitted) == "ACKNOWLEDGED"
    assert (await site.refused()).code == "EBMS:0006"


async def test_when_the_retries_are_used_up_the_producer_hears_of_0301(site):
    submitted = await site.submit()
    for _ in range(3):  # once, and two retries
        await site.fetch()
        await asyncio.sleep(0.12)
        assert await site.review() == 1
    seen = await site.world.view(submitted)
    assert (seen.state, seen.error_code, seen.attempts) == ("FAILED", "EBMS:0301", 3)
    assert (await site.refused()).code == "EBMS:0006"
    kinds = [event[2] for event in await site.store.events(message=UUID(submitted.id))]
    assert kinds == ["message.accepted", "message.retrying", "message.retrying", "message.failed"]


async def test_what_nobody_pulls_is_given_up_with_the_patience_of_the_agreement(site):
    import datetime

    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.15)
    submitted = await site.submit(deadline=soon)
    assert await site.review() == 0
    await asyncio.sleep(0.2)
    assert await site.review() == 1
    seen = await site.world.view(submitted)
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0301")


async def test_a_failed_one_can_be_made_ready_again(site):
    submitted = await site.submit()
    for _ in range(3):
        await site.fetch()
        await asyncio.sleep(0.12)
        await site.review()
    assert await site.store.requeue(UUID(submitted.id))
    message, _, references = await site.fetch()
    await site.acknowledge(message, references)
    assert await site.state(submitted) == "ACKNOWLEDGED"


async def test_an_error_of_the_partner_ends_it(site):
    import datetime

    from gateway.as4.signals import error_for
    from gateway.errors import ValueInconsistent
    from tests.pulling import SOAP

    submitted = await site.submit()
    message, _, _ = await site.fetch()
    unit = error_for(ValueInconsistent(), ref_to=message.message_id, message_id="e@ee.example",
                     now=datetime.datetime.now(datetime.UTC))  # fmt: skip
    await site.world.raw(SOAP, site.peer.signal(unit))
    seen = await site.world.view(submitted)
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0003")


async def test_one_that_cannot_be_sent_does_not_stand_in_the_way_of_the_others(site, monkeypatch):
    from gateway.errors import CertificateRefused

    bad, good = await site.submit(), await site.submit()
    real = type(site.gateway.sender).secured

    def secured(self, message, leg):
        if message.user_message.message_id == bad.message_id:
            raise CertificateRefused("expired")
        return real(self, message, leg)

    monkeypatch.setattr(type(site.gateway.sender), "secured", secured)
    message, _, _ = await site.fetch()
    assert message.message_id == good.message_id
    assert (await site.state(bad), await site.state(good)) == ("FAILED", "WAITING_FOR_RECEIPT")


async def test_without_our_key_nothing_is_given_and_nothing_is_lost(site, monkeypatch):
    from gateway.errors import KeyUnavailable

    submitted = await site.submit()

    def secured(*_):
        raise KeyUnavailable("the HSM is away")

    monkeypatch.setattr(type(site.gateway.sender), "secured", secured)
    assert (await site.ask())[0] == 503
    monkeypatch.undo()
    assert await site.state(submitted) == "READY_TO_PULL"
    assert (await site.fetch())[0].message_id == submitted.message_id


async def test_when_the_store_is_gone_the_puller_hears_503(site, monkeypatch):
    submitted = await site.submit()

    async def fail(*_, **__):
        raise StoreUnavailable("gone")

    for verb in ("note_pull_request", "claim_held", "hand_out"):
        monkeypatch.setattr(type(site.store), verb, fail)
        assert (await site.ask())[0] == 503
        monkeypatch.undo()
    # The last one had claimed it: who comes after the lease makes it ready.
    assert await site.state(submitted) == "READY_TO_PULL"


async def test_a_claim_of_a_process_that_died_is_released(site):
    submitted = await site.submit()
    [channel] = site.gateway._rooms.agreements.value.channels.authorised(THEIRS, site.peer.keys.signing)
    key = channel.key
    assert await site.store.claim_held(key, worker="dead", lease=0.05)
    assert (await site.refused()).code == "EBMS:0006"
    await asyncio.sleep(0.06)
    assert await site.review() == 1
    assert (await site.fetch())[0].message_id == submitted.message_id


async def test_a_large_message(site):
    content = os.urandom(3_000_000)
    submitted = await site.submit((content, "application/pdf"))
    status, content_type, body = await site.ask()
    message, contents, _ = site.peer.receive(content_type, body)
    assert status == 200 and contents == [content] and message.message_id == submitted.message_id


async def test_a_puller_that_goes_away_leaves_it_for_the_next_time(site):
    """The connection ends in the middle: streaming stops, and the message comes again."""
    submitted = await site.submit((os.urandom(3_000_000), "application/pdf"))
    sent, request = [], site.peer.pull_request(THEIRS)
    events = [{"type": "http.request", "body": request, "more_body": False}]
    gone = asyncio.Event()

    async def receive():
        if not events:
            await gone.wait()
            return {"type": "http.disconnect"}
        return events.pop(0)

    async def send(event):
        sent.append(event)
        if len(sent) == 3:
            gone.set()
            await asyncio.sleep(0)

    scope = {"type": "http", "method": "POST", "path": "/as4", "client": ("192.0.2.1", 1), "state": {},
             "headers": [(b"content-type", b"application/soap+xml; charset=UTF-8")]}  # fmt: skip
    await site.gateway.as4(scope, receive, send)
    assert sum(len(event.get("body", b"")) for event in sent) < 2_500_000
    assert await site.state(submitted) == "WAITING_FOR_RECEIPT"
    assert site.gateway.as4._receiver._uploads == {}
    await asyncio.sleep(0.15)
    await site.review()
    assert (await site.fetch())[0].message_id == submitted.message_id


async def test_a_payload_that_cannot_be_read_ends_the_connection(site, monkeypatch):
    """It is too late for an error signal: the partner sees that the message is not whole."""
    submitted = await site.submit((os.urandom(1_500_000), "application/pdf"))

    async def chunks(*_, **__):
        raise StoreUnavailable("gone")
        yield b""

    monkeypatch.setattr(type(site.store), "chunks", chunks)
    status, _, body = await site.ask()
    assert status == 200 and len(body) < 100_000
    monkeypatch.undo()
    assert site.gateway.as4._receiver._uploads == {}
    await asyncio.sleep(0.15)
    await site.review()
    assert (await site.fetch())[0].message_id == submitted.message_id


async def test_pulls_of_one_partner_at_once_are_bounded(site):
    receiver = site.gateway.as4._receiver
    with contextlib.ExitStack() as stack:
        limit = site.gateway._rooms.config.limits.uploads_per_partner
        for _ in range(limit):
            receiver._enter(__import__("hashlib").sha256(site.peer.keys.signing).hexdigest())
        stack.callback(receiver._uploads.clear)
        assert (await site.ask())[0] == 503


async def test_a_ping_goes_the_way_of_the_messages(tmp_path):
    """Where everything is pushed there is a pushed test leg; the pulled exchange does not change it."""
    async with pulling(tmp_path) as site:
        legs = site.gateway._rooms.agreements.value.pmodes.legs
        assert not any(leg.pulled for leg in legs if leg.is_test)
        assert {leg.mep_binding for leg in legs if leg.pulled} == {ns.BINDING_PULL}


async def test_two_parties_of_ours_hold_for_one_partner(tmp_path, monkeypatch):
    """One MPC, because it belongs to the one that pulls; what both hold comes over it."""
    import tests.world as module
    from tests.peer import Authority, Keys
    from tests.pulling import AGREEMENT

    plain, second = module.write_site, Keys.make("AP_LV_02", "rsa", Authority())

    def write_site(folder, keys, partner, **more):
        plain(folder, keys, partner, **more)
        text = (folder / "pmodes" / "agreement.toml").read_text()
        (folder / "pmodes" / "second.toml").write_text(text.replace("AP_LV_01", "AP_LV_02"))
        (folder / "lv2.pem").write_bytes(module.key_pem(second.signing_private) + module.to_pem(second.signing))
        (folder / "lv2.pem").chmod(0o600)
        config = (folder / "gateway.toml").read_text()
        (folder / "gateway.toml").write_text(config + '[[keys.store]]\npath = "lv2.pem"\nparty = "AP_LV_02"\n')

    monkeypatch.setattr(module, "write_site", write_site)
    monkeypatch.setattr("tests.pulling.AGREEMENT", AGREEMENT.replace('mep =', 'direction = "send"\nmep ='))
    async with pulling(tmp_path) as site:
        from gateway.plugin import PartyRef

        site.peer.partner_signing += (second.signing,)
        one = await site.submit(from_party=PartyRef("AP_LV_01"))
        two = await site.submit(from_party=PartyRef("AP_LV_02"))
        pulled = [await site.fetch() for _ in range(2)]
        assert [message.message_id for message, _, _ in pulled] == [one.message_id, two.message_id]
        assert [message.from_party.value for message, _, _ in pulled] == ["AP_LV_01", "AP_LV_02"]
        assert (await site.refused()).code == "EBMS:0006"
