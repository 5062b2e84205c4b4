"""What the sender does when it is not the peer that fails."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.world import world


@pytest.fixture
async def lv(tmp_path):
    async with world(tmp_path / "lv") as found:
        yield found


async def test_a_message_that_kills_every_attempt_is_given_up(lv):
    submitted = await lv.submit()
    retries = next(leg.retry.count for leg in lv.gateway._rooms.agreements.value.pmodes.legs)
    for _ in range(retries + 6):  # each attempt begins, and its process dies
        [job] = await lv.store.claim("send", worker="dying", limit=1, lease=0.0)
        await lv.store.begin_attempt(job, node="dying", references=())
    await lv.send_due()
    seen = await lv.view(submitted)
    assert seen.state == "FAILED" and "without an outcome" in seen.error_detail
    assert lv.listener.received == []


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
