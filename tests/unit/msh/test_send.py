"""What the sender does when it is not the peer that fails."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import StoreUnavailable
from tests.world import CALLER, world


@pytest.fixture
async def lv(tmp_path):
    async with world(tmp_path / "lv") as found:
        yield found


@pytest.mark.parametrize("begun", [True, False])
async def test_a_message_that_kills_who_sends_it_is_isolated_until_it_is_resent(lv, begun):
    """Also one that kills before its attempt is noted: while it is signed, for one."""
    submitted = await lv.submit()
    for _ in range(3):  # its process dies
        [job] = await lv.store.claim("send", worker="dying", limit=1, lease=0.0)
        if begun:
            await lv.store.begin_attempt(job, node="dying", references=())
    loop = asyncio.create_task(lv.gateway._workers._suspects())
    for _ in range(200):
        if (seen := await lv.view(submitted)).state == "FAILED":
            break
        await asyncio.sleep(0.01)
    loop.cancel()
    assert seen.error_code == "EBMS:0004" and "3 processes in a row died" in seen.error_detail
    assert lv.listener.received == []
    lv.listener.answer = lv.receipting
    await lv.door.resend(CALLER, submitted.id)
    await lv.send_due()
    assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


async def test_what_the_database_kept_from_being_finished_is_given_back_and_not_counted(lv, monkeypatch):
    lv.listener.answer = lv.receipting
    submitted = await lv.submit()

    async def away(*_, **__):
        raise StoreUnavailable("away")

    monkeypatch.setattr(lv.store, "finish_attempt", away)
    [job] = await lv.store.claim("send", worker="w", limit=1, lease=0.0)
    await lv.gateway._workers._run(lv.gateway.sender.send, job)
    monkeypatch.undo()
    [job] = await lv.store.claim("send", worker="w", limit=1, lease=60.0, losses=1)
    assert job.lost == 0
    await lv.gateway.sender.send(job)
    assert (await lv.view(submitted)).state == "ACKNOWLEDGED"


async def test_a_message_whose_deadline_has_passed_is_not_sent(lv):
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    submitted = await lv.submit(deadline=soon)
    await lv.gateway._rooms.clock.sleep(0.3)
    await lv.send_due()
    seen = await lv.view(submitted)
    assert seen.state == "FAILED" and "deadline" in seen.error_detail
    assert lv.listener.received == []


async def test_no_retry_goes_beyond_the_deadline(lv):
    lv.listener.answer = lambda *_: (503, None, b"")
    submitted = await lv.submit(deadline=datetime.now(UTC) + timedelta(seconds=5))
    await lv.send_due()
    seen = await lv.view(submitted)  # the agreement would wait 30 s
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0301")


async def test_an_expired_encryption_certificate_is_not_used(lv):
    """E14: nothing leaves, the message fails with that reason."""
    from msgspec.structs import replace

    der = lv.authority.issue("AP_EE_01", lv.peer.keys.signing_private.public_key(), start=-10, days=5)
    cell = lv.gateway._rooms.agreements
    legs = tuple(replace(leg, to_party=replace(leg.to_party, encryption=der)) if leg.to_party.encryption else leg
                 for leg in cell.value.pmodes.legs)
    cell.value = type(cell.value)(replace(cell.value.pmodes, legs=legs))
    submitted = await lv.submit()
    await lv.send_due()
    seen = await lv.view(submitted)
    assert seen.state == "FAILED" and "certificate" in seen.error_detail
    assert lv.listener.received == []


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=3650), timedelta(hours=-1)])
async def test_no_clock_that_jumps_ends_the_patience_of_an_agreement(lv, jump):
    """That of the database, and so both where they are one; the message has minutes left by rights."""
    lv.listener.answer = lambda *_: (503, None, b"")
    clock = lv.gateway._rooms.clock
    submitted = await lv.submit(deadline=datetime.now(UTC) + timedelta(minutes=30))
    await lv.send_due()
    real = lv.store._clock.now
    lv.store._clock = Off(clock, jump)
    for job in lv.store._jobs.values():
        job.due_at = real() + jump
    await lv.send_due()
    seen = await lv.view(submitted)
    assert (seen.state, seen.attempts) == ("WAITING_FOR_RETRY", 2)
    # One that is submitted afterwards has its own time.
    later = await lv.submit()
    await lv.send_due()
    assert (await lv.view(later)).state == "WAITING_FOR_RETRY"


class Off:
    """A clock that is off."""

    def __init__(self, clock, by) -> None:
        self._clock, self._by = clock, by

    def now(self):
        return self._clock.now() + self._by

    def monotonic(self):
        return self._clock.monotonic()

    async def sleep(self, seconds):
        await self._clock.sleep(seconds)
