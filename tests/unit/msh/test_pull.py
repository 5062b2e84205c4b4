"""Messages that we pull from a partner: in-process, with a real gateway and the test's own MSH over HTTP."""

import asyncio
import datetime
import os
import re

import pytest

from gateway.as4 import receipts
from gateway.as4.signals import error_for
from gateway.as4.units import Error, Receipt
from gateway.errors import FailedAuthentication, StoreUnavailable
from gateway.store.api import MessageFilter
from tests.pulling import OURS, SOAP, pulling


@pytest.fixture
async def site(tmp_path):
    async with pulling(tmp_path) as found:
        found.offers()
        yield found


async def pull_job(site):
    return next(job for job in site.store._jobs.values() if job.kind == "pull")


async def received(site):
    return await site.store.messages(MessageFilter(direction="inbound"))


async def test_a_pulled_message_is_delivered_and_its_receipt_is_posted(site):
    sent = site.message()
    site.offers(sent)
    await site.pull()
    [delivery] = await site.world.inbox()
    assert (delivery.message.message_id, delivery.message.mpc) == (sent.message.message_id, OURS)
    assert await site.world.content(delivery) == [b"<query/>"]
    assert site.signals() == []  # stored first, then told
    assert await site.send_receipts() == 1
    [receipt] = site.signals()
    assert isinstance(receipt, Receipt)
    receipts.check(receipt, sent.wire.references, sent.message.message_id)
    assert await site.send_receipts() == 0


async def test_it_asks_again_at_once_while_messages_come(site):
    site.offers(*(site.message() for _ in range(4)))
    await site.pull()
    assert len(await received(site)) == 4
    assert len(site.world.listener.received) == 5  # the fifth says: empty
    job = await pull_job(site)
    rest = (job.due_at - datetime.datetime.now(datetime.UTC)).total_seconds()
    assert job.state == "READY" and job.error is None and job.attempt == 0 and 0.5 < rest <= 1.0


async def test_a_round_ends_so_that_other_channels_have_their_turn(site, monkeypatch):
    import gateway.msh.pull as module

    monkeypatch.setattr(module, "ROUND", 2)
    site.offers(*(site.message() for _ in range(3)))
    await site.pull()
    assert len(await received(site)) == 2
    job = await pull_job(site)
    assert job.due_at <= datetime.datetime.now(datetime.UTC)  # and it goes on at once


async def test_one_puller_at_a_time(site):
    queues = await site.gateway.puller.channels()
    assert len(await site.store.claim("pull", queues=queues, worker="a", limit=5, lease=60)) == 1
    assert await site.store.claim("pull", queues=queues, worker="b", limit=5, lease=60) == []


async def test_a_large_message(site):
    content = os.urandom(3_000_000)
    site.offers(site.message((("application/pdf", content),), compress=False))
    await site.pull()
    [delivery] = await site.world.inbox()
    assert await site.world.content(delivery) == [content]


async def test_a_message_that_comes_again_is_not_delivered_again_and_receipted_again(site):
    sent = site.message()
    site.offers(sent, sent)
    await site.pull()
    assert await site.send_receipts() == 1
    site.offers(sent)
    await site.pull()
    assert await site.send_receipts() == 1
    assert len(await site.world.inbox()) == 1
    first, second = (body for _, body in site.world.listener.received
                     if isinstance(site.peer.open(SOAP, body)[0].unit, Receipt))  # fmt: skip
    assert first == second  # octet for octet


async def test_one_that_is_signed_anew_gets_a_fitting_receipt(site, monkeypatch):
    import gateway.as4.outbound as outbound

    header = site.peer.header()
    same = {"cids": ["same@peer.example"], "message_id": header.message_id, "timestamp": header.timestamp,
            "conversation_id": header.conversation_id, "properties": header.properties}  # fmt: skip
    first = site.message(**same)
    monkeypatch.setattr(outbound, "_wsu_ids", lambda _: ("m-other", "b-other"))
    again = site.message(**same)
    monkeypatch.undo()
    assert again.wire.references != first.wire.references
    site.offers(first)
    await site.pull()
    await site.send_receipts()
    site.offers(again)
    await site.pull()
    await site.send_receipts()
    one, two = site.signals()
    receipts.check(one, first.wire.references, header.message_id)
    receipts.check(two, again.wire.references, header.message_id)
    assert len(await received(site)) == 1


async def test_a_receipt_that_does_not_arrive_is_sent_again_and_parked_in_the_end(site):
    site.offers(site.message())
    await site.pull()
    site.world.listener.answer = lambda *_: (503, None, b"")
    for _ in range(3):
        assert await site.send_receipts() == 1
        await asyncio.sleep(0.12)
    assert await site.send_receipts() == 0
    [job] = [job for job in site.store._jobs.values() if job.kind == "receipt"]
    assert job.state == "PARKED" and "503" in job.error
    # The partner hands it out again, and its receipt goes once more.
    site.offers(*[])
    sent = site.world.listener.received
    assert sum(isinstance(site.peer.open(*request)[0].unit, Receipt) for request in sent) == 3


def spoilt(site):
    """Messages that must not be taken, with the code the partner is told."""
    foreign = site.peer.message(action="FetchedRequest")
    return {
        "a bad signature": (lambda: site.message(key=_stranger(site)), "EBMS:0101"),
        "another digest": (lambda: site.message(digest=lambda *_: b"\0" * 32), "EBMS:0101"),
        "the default channel": (lambda: foreign, "EBMS:0010"),
        "another channel": (lambda: site.message(mpc="urn:example:mpc:other"), "EBMS:0010"),
        "a message that is pushed": (lambda: site.message(action="ExecuteQueryRequest", mpc=None), "EBMS:0010"),
        "no corner": (lambda: site.message(properties=site.peer.header().properties[1:]), "EBMS:0003"),
    }


def _stranger(site):
    from tests.peer import Keys

    return Keys.make("AP_EE_01", "rsa", site.world.authority).signing_key


@pytest.mark.parametrize("kind", [
    "a bad signature", "another digest", "the default channel", "another channel", "a message that is pushed", "no corner",
])
async def test_what_is_refused_leaves_nothing_and_the_partner_is_told(site, kind):
    make, code = spoilt(site)[kind]
    sent, good = make(), site.message()
    site.offers(sent, good)
    await site.pull()
    # The next one is taken all the same.
    assert [m.user_message.message_id for m in await received(site)] == [good.message.message_id]
    [error] = site.signals()
    assert isinstance(error, Error) and error.errors[0].code == code
    assert error.about == sent.message.message_id
    refusals = [entry for entry in await site.store.audit_entries() if entry.kind == "message.refused"]
    assert [entry.detail["code"] for entry in refusals] == [code]


async def test_who_sends_nothing_but_refuse_is_not_asked_without_end(site):
    site.offers(*(site.message(mpc=None) for _ in range(10)))
    await site.pull()
    assert len([r for r in site.signals() if isinstance(r, Error)]) == 3
    assert (await pull_job(site)).due_at > datetime.datetime.now(datetime.UTC)


async def test_the_same_message_cannot_be_pushed(site):
    answer = await site.world.give(site.message())
    assert answer.code == "EBMS:0010"
    assert await site.world.nothing_stored()


def failures(site):
    unsigned = lambda octets: re.sub(rb"<wsse:Security.*</wsse:Security>", b"", octets, flags=re.S)  # noqa: E731
    error = site.peer.signal(error_for(FailedAuthentication(), ref_to=None, message_id="e@ee",
                                       now=datetime.datetime.now(datetime.UTC)))  # fmt: skip
    return {
        "an error": (200, SOAP, error),
        "an unsigned error": (200, SOAP, unsigned(error)),
        "HTML": (502, "text/html", b"<html>Bad gateway</html>"),
        "an empty body": (200, SOAP, b""),
        "nothing": (204, None, b""),
    }


@pytest.mark.parametrize("kind", ["an error", "an unsigned error", "HTML", "an empty body", "nothing"])
async def test_after_a_failure_the_channel_rests_longer_each_time(site, kind):
    failure = failures(site)[kind]
    rests = []
    for _ in range(3):
        site.offers(failure)
        await site.pull()
        job = await pull_job(site)
        rests.append((job.due_at - datetime.datetime.now(datetime.UTC)).total_seconds())
        if kind != "an empty body":
            assert job.error
    if kind != "an empty body":
        assert 1.5 < rests[0] < 2.1 < 3.5 < rests[1] < 4.1 < 7.5 < rests[2] < 8.1
        await site.pull()
        assert (await pull_job(site)).error is None and (await pull_job(site)).attempt == 0
    assert await received(site) == []


async def test_an_unsigned_empty_channel_is_believed(site):
    def answer(content_type, body):
        opened, _ = site.peer.open(content_type, body)
        status, kind, octets = site.empty(opened.unit)
        return status, kind, re.sub(rb"<wsse:Security.*</wsse:Security>", b"", octets, flags=re.S)

    site.world.listener.answer = answer
    await site.pull()
    assert (await pull_job(site)).error is None


async def test_a_partner_that_hangs_up_in_the_middle(site):
    sent = site.message((("application/pdf", os.urandom(400_000)),), compress=False)
    site.offers((200, sent.content_type, sent.body[:200_000]))
    await site.pull()
    assert await received(site) == [] and site.gateway.as4._receiver._uploads == {}
    site.offers(sent)
    await site.pull()
    assert len(await received(site)) == 1


async def test_when_it_cannot_be_stored_no_receipt_is_owed(site, monkeypatch):
    async def fail(*_):
        raise StoreUnavailable("gone")

    monkeypatch.setattr(type(site.store), "receive_once", fail)
    sent = site.message()
    site.offers(sent)
    with pytest.raises(StoreUnavailable):
        await site.pull()
    monkeypatch.undo()
    assert await site.send_receipts() == 0
    for job in site.store._jobs.values():  # the lease of the one that could not go on
        job.state, job.claim = "READY", None
    site.offers(sent)
    await site.pull()
    assert await site.send_receipts() == 1
