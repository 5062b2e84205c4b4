"""What the end of an attempt says of the partner, and what becomes of its messages."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import tests.world
from gateway.config.sections import Circuit
from gateway.errors import DiscoveryFailed, InvalidReceipt, KeyUnavailable, PeerAnswered, SendFailed
from gateway.msh.send import answered
from gateway.plugin import PartSubmission, PartyRef, Submission
from tests.world import CALLER, CORNERS, Listener, world


def without_wait(monkeypatch, window):
    """Attempts follow one another at once, for so long."""
    policy = f'retry = {{{{ first = "0.01s", factor = 1, max = "0.01s", count = 50, window = "{window}" }}}}'
    monkeypatch.setattr(tests.world, "AGREEMENT", tests.world.AGREEMENT.replace("allow_http = true", f"allow_http = true\n{policy}"))


async def until_shut(lv) -> int:
    """Try what waits until the partner, who hangs up, is shut; how often it was asked until then."""
    async with asyncio.timeout(60):
        while not await lv.store.circuits() or (await lv.store.circuits())[0].shut_until is None:
            await lv.send_due()
    return len(lv.listener.received)


@pytest.mark.parametrize(("error", "expected"), [
    (SendFailed("refused", stage="connect"), False),
    (SendFailed("reset", stage="send"), False),
    (SendFailed("HTTP 500 without an AS4 answer", stage="receipt"), False),
    (SendFailed("all connections to this partner are busy", stage="wait"), None),
    (SendFailed("the agreement has no endpoint", temporary=False, stage="connect"), None),
    (PeerAnswered("EBMS:0004", "no", authenticated=True), True),
    (PeerAnswered("EBMS:0101", "no", authenticated=False), True),
    (InvalidReceipt("mismatch"), True),
    (KeyUnavailable("none"), None),
    (DiscoveryFailed("dns", "no DNS", temporary=True), None),
])  # fmt: skip
def test_what_an_error_says_of_the_partner(error, expected):
    assert answered(error) is expected


async def test_a_partner_that_hangs_up_is_shut_and_found_again(tmp_path, monkeypatch):
    without_wait(monkeypatch, "1h")
    async with world(tmp_path / "lv") as lv:
        lv.listener.answer = lambda *_: None
        messages = [await lv.submit() for _ in range(8)]
        tried = await until_shut(lv)
        assert tried >= Circuit().failures
        await lv.send_due()
        assert len(lv.listener.received) == tried  # nobody knocks any more
        # It is well again; an operator does not wait until somebody tries.
        lv.listener.answer = lv.receipting
        waiting = [m for m in messages if (await lv.view(m)).state != "ACKNOWLEDGED"]
        assert len(waiting) == 8
        await lv.store.requeue((await lv.store.find(waiting[0].message_id))[0].id)
        await lv.send_due()
        assert len(lv.listener.received) == tried + 1 and await lv.store.circuits() == []
        async with asyncio.timeout(60):
            while {(await lv.view(m)).state for m in messages} != {"ACKNOWLEDGED"}:
                await asyncio.sleep(0.01)  # the wait after the attempt before
                await lv.send_due()


async def test_a_message_whose_time_is_over_fails_without_an_attempt(tmp_path, monkeypatch):
    without_wait(monkeypatch, "1s")
    async with world(tmp_path / "lv") as lv:
        lv.listener.answer = lambda *_: None
        for _ in range(7):
            await lv.submit()
        tried = await until_shut(lv)
        await asyncio.sleep(1.1)
        jobs = await lv.store.claim_overdue(worker="w", limit=10, lease=9)
        assert jobs
        for job in jobs:
            await lv.gateway.sender.send(job)
        assert len(lv.listener.received) == tried
        for job in jobs:
            message = await lv.store.message(job.message)
            assert (message.state, message.error_code) == ("FAILED", "EBMS:0301")
            assert "does not answer" in message.error_detail


async def test_a_deadline_shorter_than_the_agreements_patience_ends_a_message_whose_partner_is_shut(tmp_path, monkeypatch):
    without_wait(monkeypatch, "1h")
    async with world(tmp_path / "lv") as lv:
        lv.listener.answer = lambda *_: None
        for _ in range(7):
            await lv.submit()
        tried = await until_shut(lv)
        sent = await lv.submit(deadline=datetime.now(UTC) + timedelta(seconds=0.5))
        await asyncio.sleep(0.6)
        jobs = await lv.store.claim_overdue(worker="w", limit=10, lease=9)
        assert [str(job.message) for job in jobs] == [sent.id]
        for job in jobs:
            await lv.gateway.sender.send(job)
        assert len(lv.listener.received) == tried
        assert ((await lv.view(sent)).state, (await lv.view(sent)).error_code) == ("FAILED", "EBMS:0301")


async def test_a_partner_that_never_answers_keeps_only_its_own_hands(tmp_path):
    """Bulkheads: another partner's message goes out while every hand for the silent one is busy."""
    more = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "{}"
signing = "ee-sign.pem"
encryption = "ee-enc.pem"
"""
    other = Listener()
    async with other.running():
        async with world(tmp_path / "lv", more=more.format(other.url)) as lv:
            silent = asyncio.Event()

            async def never(*_):
                await silent.wait()
                return None

            lv.listener.answer = lambda *_: never()
            other.answer = lv.receipting
            for _ in range(12):
                await lv.submit()
            lv.gateway._workers.start()
            async with asyncio.timeout(30):
                while len(lv.listener.received) < 4:
                    await asyncio.sleep(0.01)

            async def content(_):
                yield b"<x/>"

            sent = await lv.door.submit(CALLER, Submission(
                to_party=PartyRef("AP_FI_01"), action="ExecuteQueryRequest", properties=CORNERS,
                parts=(PartSubmission(mime_type="application/octet-stream"),)), content)  # fmt: skip
            async with asyncio.timeout(30):
                while not other.received:
                    await asyncio.sleep(0.01)
            assert len(lv.listener.received) == 4  # claimers
            assert (await lv.view(sent)).state in ("SUBMITTED", "ACKNOWLEDGED", "WAITING_FOR_RETRY")
            silent.set()
            await lv.gateway._workers.drain(5)
