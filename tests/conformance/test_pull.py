"""Pull: assertions 83 to 88."""

import asyncio
import re
from uuid import UUID

import pytest

from gateway.as4 import ns
from gateway.as4.units import Error, PullRequest, Receipt
from gateway.errors import ConfigError
from tests.peer import Keys, check_receipt
from tests.pulling import ACTION, OURS, SOAP, THEIRS, pulling
from tests.world import CORNERS, world

assertion = pytest.mark.assertion

TWO_WAY = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "Ask"
mep = "{mep}"
{mpc}
"""


@pytest.fixture
async def site(tmp_path):
    async with pulling(tmp_path) as found:
        yield found


@assertion(83)
async def test_one_way_pull_as_the_one_who_holds_and_as_the_one_who_pulls(site):
    submitted = await site.submit()
    message, _, references = await site.fetch()
    assert (message.message_id, message.ref_to_message_id) == (submitted.message_id, None)
    assert await site.acknowledge(message, references) == 204
    sent = site.message()
    site.offers(sent)
    await site.pull()
    [delivery] = await site.world.inbox()
    assert delivery.message.message_id == sent.message.message_id


@assertion(83)
async def test_push_and_pull(tmp_path):
    """The question is pushed to us, our answer is pulled and refers to it."""
    more = TWO_WAY.format(mep="two-way-push-and-pull", mpc='reply = { action = "Tell", mpc = "urn:example:mpc:{to}" }')
    async with world(tmp_path, more=more) as lv:
        legs = {leg.action: leg for leg in lv.gateway._rooms.agreements.value.pmodes.legs if leg.number == 2 or leg.action == "Ask"}
        assert {leg.mep_binding for leg in legs.values()} == {ns.BINDING_PUSH_AND_PULL}
        asked = lv.peer.message(action="Ask")
        check_receipt(await lv.give(asked), asked)
        told = await lv.submit(action="Tell", ref_to_message_id=asked.message.message_id, properties=CORNERS)
        assert told.state == "READY_TO_PULL"
        _, headers, body = await lv.raw(SOAP, lv.peer.pull_request(THEIRS))
        message, _, _ = lv.peer.receive(headers["content-type"], body)
        assert (message.message_id, message.ref_to_message_id) == (told.message_id, asked.message.message_id)


@assertion(83)
async def test_pull_and_push(tmp_path):
    """Our question is pulled from us, the answer is pushed."""
    more = TWO_WAY.format(mep="two-way-pull-and-push", mpc='mpc = "urn:example:mpc:{to}"\nreply = { action = "Tell" }')
    async with world(tmp_path, more=more) as lv:
        asked = await lv.submit(action="Ask")
        assert asked.state == "READY_TO_PULL"
        _, headers, body = await lv.raw(SOAP, lv.peer.pull_request(THEIRS))
        message, _, references = lv.peer.receive(headers["content-type"], body)
        assert message.message_id == asked.message_id and message.mpc == THEIRS
        await lv.raw(SOAP, lv.peer.receipt_for(message, references))
        told = lv.peer.message(action="Tell", ref_to_message_id=asked.message_id)
        check_receipt(await lv.give(told), told)
        assert (await lv.view(asked)).state == "ACKNOWLEDGED"


@assertion(84)
async def test_our_pull_request_is_signed_and_has_no_body_and_no_parts(site):
    site.offers()
    await site.pull()
    [(content_type, body)] = site.world.listener.received
    opened, parts = site.peer.open(content_type, body)
    assert isinstance(opened.unit, PullRequest) and opened.unit.mpc == OURS and not parts
    assert opened.signer == site.world.keys.signing
    assert content_type.startswith("application/soap+xml") and re.search(rb"<S12:Body[^>]*></S12:Body>", body)


@assertion(84)
@pytest.mark.parametrize("kind", ["unsigned", "another certificate", "changed after signing"])
async def test_without_the_right_signature_there_is_no_message(site, kind):
    submitted = await site.submit()
    request = site.peer.pull_request(THEIRS)
    if kind == "unsigned":
        request = re.sub(rb"<wsse:Security.*</wsse:Security>", b"", request, flags=re.S)
    elif kind == "another certificate":
        site.peer.keys = Keys.make("AP_EE_01", "rsa", site.world.authority)
        request = site.peer.pull_request(THEIRS)
    else:
        request = request.replace(THEIRS.encode(), OURS.encode())
    answer = await site.refused(request)
    assert isinstance(answer.unit, Error)
    assert answer.code == ("EBMS:0103" if kind == "unsigned" else "EBMS:0101")
    assert await site.state(submitted) == "READY_TO_PULL"


@assertion(85)
async def test_an_empty_channel(site):
    request = site.peer.pull_request(THEIRS)
    answer = await site.refused(request)
    assert (answer.status, answer.code, answer.unit.errors[0].severity) == (200, "EBMS:0006", "warning")
    assert answer.unit.ref_to_message_id == re.search(rb"<eb:MessageId>([^<]+)<", request)[1].decode()


@assertion(86)
async def test_the_oldest_first_and_to_each_another(site):
    submitted = [(await site.submit()).message_id for _ in range(3)]
    assert (await site.fetch())[0].message_id == submitted[0]
    both = await asyncio.gather(site.fetch(), site.fetch())
    assert sorted(message.message_id for message, _, _ in both) == sorted(submitted[1:])


@assertion(87)
async def test_the_receipt_comes_in_a_request_of_its_own(site):
    submitted = await site.submit()
    message, _, references = await site.fetch()
    assert await site.acknowledge(message, references) in (202, 204)
    assert await site.state(submitted) == "ACKNOWLEDGED"


@assertion(87)
async def test_our_receipt_goes_to_where_we_pulled(site):
    sent = site.message()
    site.offers(sent)
    await site.pull()
    await site.send_receipts()
    [receipt] = site.signals()
    assert isinstance(receipt, Receipt) and receipt.ref_to_message_id == sent.message.message_id


@assertion(87)
async def test_unacknowledged_it_can_be_pulled_again_and_in_the_end_there_is_0301(site):
    submitted = await site.submit((b"<a/>", "application/xml"))
    pulled = []
    for _ in range(3):
        pulled.append(await site.fetch())
        await asyncio.sleep(0.12)
        await site.review()
    assert pulled[0][0] == pulled[1][0] == pulled[2][0]
    assert [r.digest for r in pulled[0][2]] == [r.digest for r in pulled[2][2]]
    seen = await site.world.view(submitted)
    assert (seen.state, seen.error_code) == ("FAILED", "EBMS:0301")
    kinds = [event[2] for event in await site.store.events(message=UUID(submitted.id))]
    assert kinds[-1] == "message.failed"


@assertion(88)
@pytest.mark.parametrize("mpc", ["", f'mpc = "{ns.DEFAULT_MPC}"', 'mpc = "no uri"'])
async def test_the_default_channel_is_not_pulled(tmp_path, mpc):
    with pytest.raises(ConfigError, match="mpc"):
        async with world(tmp_path, more=TWO_WAY.format(mep="one-way-pull", mpc=mpc)):
            pass


@assertion(88)
async def test_a_channel_belongs_to_one_party(tmp_path):
    """In both directions it would be theirs and ours."""
    with pytest.raises(ConfigError, match="two parties"):
        async with world(tmp_path, more=TWO_WAY.format(mep="one-way-pull", mpc='mpc = "urn:example:mpc"')):
            pass


@assertion(88)
async def test_what_is_pulled_from_us_names_its_channel_and_no_other(site):
    await site.submit()
    assert (await site.fetch())[0].mpc == THEIRS
    assert (await site.world.give(site.peer.message(action=ACTION, mpc=None))).code == "EBMS:0010"
