"""Dynamic Receiver and Dynamic Sender: assertions 77, 78, 80, 81, 82."""

import uuid

import pytest

from gateway.errors import DiscoveryFailed, SubmissionRefused
from gateway.store.api import MessageFilter
from gateway.transport.discovery.bdxl import name_of
from tests.community import ISSUING, ROOT, WHO, ZONE, communities, leaf, peer
from tests.discovery import Signer, now, path_1
from tests.peer import check_receipt
from tests.pki import Ca, key

assertion = pytest.mark.assertion


@pytest.fixture
async def community(tmp_path):
    async with communities(tmp_path) as found:
        yield found


async def give(community, sender):
    sent = sender.message(key=sender.signer, signature_token="pkipath")
    return sent, await community.lv.give(sent)


@assertion(77)
async def test_an_unregistered_sender_with_a_path_is_accepted(community):
    sent, answer = await give(community, community.lt)
    check_receipt(answer, sent)
    (delivery,) = await community.lv.inbox()
    assert delivery.message.from_party.id == "AP_LT_01"


@assertion(78)
@pytest.mark.parametrize("case", ["untrusted CA", "policy not satisfied", "subject is another party"])
async def test_other_senders_are_refused(community, case):
    other = Ca.root("Untrusted", private=key("ec", 71))
    sender = {
        "untrusted CA": peer(leaf(ca=other), other.certificate, world_keys=community.lv.keys),
        "policy not satisfied": peer(leaf(extensions=[]), ISSUING.certificate, world_keys=community.lv.keys),
        "subject is another party": peer(leaf("AP_PL_01"), ISSUING.certificate, world_keys=community.lv.keys),
    }[case]
    _, answer = await give(community, sender)
    assert answer.code == "EBMS:0101"
    assert await community.lv.nothing_stored()


@assertion(80)
async def test_party_url_and_certificates_are_discovered(community):
    submitted = await community.submit()
    await community.lv.send_due()
    view = await community.lv.view(submitted)
    assert (view.state, view.to_party.id) == ("ACKNOWLEDGED", "AP_LT_01")
    (body,) = community.listener.received
    message, contents, _ = community.lt.receive(*body)
    assert (message.to_party.value, contents) == ("AP_LT_01", [b"<query/>"])


@assertion(80)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.dns.records.clear(),
        lambda c: c.dns.records.update({name_of(WHO, ZONE): "SERVFAIL"}),
        lambda c: c.smp.resources.clear(),
        lambda c: c.publish(dates=(now(days=1),)),
    ],
    ids=["not registered", "no locator", "no metadata", "not active"],
)
async def test_a_discovery_that_fails_makes_the_submission_fail(tmp_path, spoil):
    from gateway.config import Duration

    async with communities(tmp_path, dns_timeout=Duration(0.5)) as community:
        spoil(community)
        with pytest.raises((SubmissionRefused, DiscoveryFailed)):
            await community.submit()
        assert not await community.lv.store.messages(MessageFilter())
        assert not community.listener.received


@assertion(81)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.publish(certificate=leaf(ca=Ca.root("Untrusted", private=key("ec", 71)))),
        lambda c: c.publish(certificate=leaf(extensions=[])),
        lambda c: c.publish(signer=Signer(key("rsa", 72), Ca.root("Untrusted").leaf("SMP", key("rsa", 72).public_key()))),
        lambda c: c.publish(signer=Signer(key("rsa", 72), ROOT.leaf("other", key("rsa", 72).public_key()))),
    ],
    ids=["anchor", "policy", "anchor of the publisher", "subject of the publisher"],
)
async def test_discovered_certificates_and_metadata_are_judged(community, spoil):
    spoil(community)
    with pytest.raises(SubmissionRefused):
        await community.submit()


@assertion(81)
async def test_the_discovered_certificate_is_encrypted_to_and_signs_the_receipt(community):
    submitted = await community.submit()
    await community.lv.send_due()
    message = await community.lv.store.message(uuid.UUID(submitted.id))
    assert message.state == "ACKNOWLEDGED"
    # A receipt of somebody else, with a path as good, settles nothing.
    other = peer(leaf("AP_PL_01"), ISSUING.certificate, world_keys=community.lv.keys)
    submitted = await community.submit()

    def answer(content_type, body):
        found, _, references = community.lt.receive(content_type, body)
        return 200, "application/soap+xml", other.receipt_for(found, references)

    community.listener.answer = answer
    await community.lv.send_due()
    assert (await community.lv.view(submitted)).state != "ACKNOWLEDGED"


@assertion(82)
async def test_the_names_that_are_asked_for(community):
    await community.submit()
    (_, name, kind), *_ = community.dns.asked
    assert kind == "NAPTR"
    label, scheme, *zone = name.split(".")
    assert (scheme, ".".join(zone)) == ("iso6523-actorid-upis", ZONE)
    assert len(label) == 52 and "=" not in label
    assert community.smp.asked == [path_1(str(WHO), "::ExecuteQueryRequest")]


@assertion(82)
async def test_other_services_than_metadata_are_none(community):
    community.dns.naptr(name_of(WHO, ZONE), f'1 1 "U" "E2U+http" "!.*!{community.smp.url}!" .')
    with pytest.raises(SubmissionRefused, match="no NAPTR"):
        await community.submit()


