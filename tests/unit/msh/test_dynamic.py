"""Partners that no agreement names: they send to us by certificate path, we send to them by discovery [as4 4.9, 4.10]."""

import uuid

import pytest
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.units import PartyId, Service
from gateway.config import Discovery, Duration
from gateway.errors import DiscoveryFailed, SubmissionRefused
from gateway.keys.keyring import SoftwareSigningKey
from gateway.plugin import PartSubmission, PartyRef, Submission
from gateway.store.api import MessageFilter
from gateway.transport.discovery.bdxl import name_of
from gateway.transport.discovery.smp import EXCHANGE as SMP_EXCHANGE
from gateway.transport.discovery.smp import SIGNATURE as SMP_SIGNATURE
from tests.community import (
    AGREEMENT_2,
    EXCHANGE,
    ISSUING,
    LT,
    LT_KEY,
    POLICY,
    ROOT,
    SMP,
    TO_LT,
    TYPE,
    WHO,
    ZONE,
    communities,
    leaf,
    peer,
    receipt,
    signed,
)  # fmt: skip
from tests.discovery import DnsServer, Publisher, Signer, metadata_2, now, path_1, path_2
from tests.peer import Keys, Peer, check_receipt
from tests.pki import AGREE, BOTH, SIGN, Ca, build, key, name, policies, usage
from tests.world import CALLER, CORNERS, EE, LV, Listener, to_pem, world


@pytest.fixture
async def community(tmp_path):
    async with communities(tmp_path) as found:
        yield found


class TestReceiving:
    """Dynamic Receiver."""

    async def give(self, community, sender: Peer, *, token="pkipath", **more):
        sent = sender.message(key=sender.signer, signature_token=token, **more)
        return sent, await community.lv.give(sent)

    async def test_a_party_with_a_path(self, community):
        sent, answer = await self.give(community, community.lt)
        check_receipt(answer, sent)
        (delivery,) = await community.lv.inbox()
        assert delivery.message.from_party.id == "AP_LT_01"
        (message,) = await community.lv.store.messages(MessageFilter())
        assert (message.pmode_id, message.partner) == ("community:AP_LV_01:ExecuteQueryRequest", f"{TYPE}:AP_LT_01")
        message = await community.lv.store.message(message.id)
        assert message.signer == community.lt.keys.signing

    async def test_it_is_noted_in_the_audit_once(self, community):
        for _ in range(3):
            await self.give(community, community.lt)
        entries = [e for e in await community.lv.store.audit_entries() if e.kind == "partner.found"]
        assert [(e.subject, e.detail["party"]) for e in entries] == [("AP_LT_01", "community")]

    @pytest.mark.parametrize("token", ["bst", "x509"])
    async def test_the_leaf_alone_where_the_intermediate_is_configured(self, community, token):
        sent, answer = await self.give(community, community.lt, token=token)
        check_receipt(answer, sent)

    async def test_a_path_in_the_message_where_it_is_not(self, tmp_path):
        async with communities(tmp_path, trust="") as community:
            sent, answer = await self.give(community, community.lt)
            check_receipt(answer, sent)
            _, answer = await self.give(community, community.lt, token="bst")
            assert answer.code == "EBMS:0101"

    async def test_a_ping(self, community):
        sent, answer = await self.give(
            community, community.lt, payloads=[], service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION, properties=()
        )
        check_receipt(answer, sent)
        assert not await community.lv.inbox()

    async def test_a_duplicate_is_one(self, community):
        sent, first = await self.give(community, community.lt)
        again = await community.lv.give(sent)
        assert again.envelope == first.envelope
        assert len(await community.lv.inbox()) == 1

    async def test_two_parties_may_use_one_message_id(self, community):
        other = peer(leaf("AP_PL_01"), ISSUING.certificate, party=PartyId("AP_PL_01", TYPE), world_keys=community.lv.keys)
        for sender in (community.lt, other):
            sent, answer = await self.give(community, sender, message_id="same@example")
            check_receipt(answer, sent)
        assert len(await community.lv.inbox()) == 2


def refusals(keys):
    """Signers that must not be believed: (name, peer, token)."""
    stranger = Ca.root("Community Root", private=key("ec", 63))
    yield "another CA of that name", peer(leaf(ca=stranger), stranger.certificate, world_keys=keys), "pkipath"
    yield "self-signed", peer(_self_signed(), world_keys=keys), "pkipath"
    yield "expired", peer(leaf(start=-9, days=5), ISSUING.certificate, world_keys=keys), "pkipath"
    yield "not yet valid", peer(leaf(start=1), ISSUING.certificate, world_keys=keys), "pkipath"
    late = ROOT.ca("Late", start=-9, days=5, extensions=[policies(POLICY)])
    yield "an expired intermediate", peer(leaf(ca=late), late.certificate, world_keys=keys), "pkipath"
    yield "another party's", peer(leaf("AP_PL_01"), ISSUING.certificate, world_keys=keys), "pkipath"
    yield "another case", peer(leaf("ap_lt_01"), ISSUING.certificate, world_keys=keys), "pkipath"
    yield "two names", peer(leaf([("CN", "AP_LT_01"), ("CN", "AP_PL_01")]), ISSUING.certificate, world_keys=keys), "pkipath"
    yield "without the policy", peer(leaf(extensions=[]), ISSUING.certificate, world_keys=keys), "pkipath"
    yield "not for signing", peer(leaf(key_usage=_encrypt_only()), ISSUING.certificate, world_keys=keys), "pkipath"
    ca = ISSUING.ca("AP_LT_01", private=LT_KEY, key_usage=BOTH, extensions=[policies(POLICY)])
    yield "a CA as leaf", peer(ca.certificate, ISSUING.certificate, world_keys=keys), "pkipath"
    party = ISSUING.ca("AP_PL_01", private=key("rsa", 64), ca=False, key_usage=BOTH, extensions=[policies(POLICY)])
    forged = leaf(ca=party)
    yield "issued by a party", peer(forged, party.certificate, ISSUING.certificate, world_keys=keys), "pkipath"
    between = ISSUING.ca("Between", extensions=[policies(POLICY)])
    yield "without its intermediate", peer(leaf(ca=between), world_keys=keys), "bst"
    for token in ("ski", "issuer-serial", "thumbprint"):
        yield f"only named ({token})", peer(leaf(), ISSUING.certificate, world_keys=keys), token


def _self_signed():
    return build(name("AP_LT_01"), LT_KEY.public_key(), name("AP_LT_01"), LT_KEY, ca=False)


def _encrypt_only():
    return usage("key_encipherment")


class TestRefusing:
    async def test_whoever_has_no_right_path_is_refused_and_all_alike(self, community):
        answers = {}
        for who, sender, token in refusals(community.lv.keys):
            sent = sender.message(key=sender.signer, signature_token=token)
            answers[who] = await community.lv.give(sent)
            assert answers[who].code == "EBMS:0101", (who, answers[who].unit)
        seen = {
            (answer.status, *(replace(e, ref_to_message_in_error=None) for e in answer.unit.errors)) for answer in answers.values()
        }
        assert len(seen) == 1, seen
        assert await community.lv.nothing_stored()
        refused = [e for e in await community.lv.store.audit_entries() if e.kind == "message.refused"]
        assert len(refused) >= 10  # more in a second than are written are counted
        check = community.lt.message(key=community.lt.signer, signature_token="pkipath")
        check_receipt(await community.lv.give(check), check)

    async def test_a_path_does_not_stand_in_for_a_pin(self, community):
        """AP_EE_01 has an agreement and a pinned certificate: the CA of the community cannot sign for it."""
        forger = peer(leaf("AP_EE_01"), ISSUING.certificate, party=EE, world_keys=community.lv.keys)
        answer = await community.lv.give(forger.message(key=forger.signer, signature_token="pkipath"))
        assert answer.code == "EBMS:0101"
        assert await community.lv.nothing_stored()

    @pytest.mark.parametrize("value", ["AP_EE_01", "AP_LV_01"])
    async def test_nor_under_the_type_of_the_community(self, community, value):
        """The same name with another type is another party; the type is part of what the pattern says."""
        other = peer(leaf(value), ISSUING.certificate, party=PartyId(value, TYPE), world_keys=community.lv.keys)
        sent = other.message(key=other.signer, signature_token="pkipath")
        check_receipt(await community.lv.give(sent), sent)
        (message,) = await community.lv.store.messages(MessageFilter())
        assert message.partner == f"{TYPE}:{value}"

    async def test_another_type_is_no_party_of_the_community(self, community):
        other = peer(leaf(), ISSUING.certificate, party=PartyId("AP_LT_01", "urn:other"), world_keys=community.lv.keys)
        answer = await community.lv.give(other.message(key=other.signer, signature_token="pkipath"))
        assert answer.code == "EBMS:0010"

    async def test_the_pattern_itself_is_nobody(self, community):
        other = peer(leaf("x"), ISSUING.certificate, party=PartyId("*", TYPE), world_keys=community.lv.keys)
        answer = await community.lv.give(other.message(key=other.signer, signature_token="pkipath"))
        assert answer.code == "EBMS:0101"


class TestSending:
    """Dynamic Sender."""

    async def test_a_receiver_is_discovered(self, community):
        submitted = await community.submit()
        view = await community.lv.view(submitted)
        assert (view.state, view.to_party.id, view.to_party.type) == ("SUBMITTED", "AP_LT_01", TYPE)
        await community.lv.send_due()
        view = await community.lv.view(submitted)
        assert view.state == "ACKNOWLEDGED"
        assert len(community.listener.received) == 1
        # Encrypted to the certificate that was found, or the peer could not have read it.
        assert len(community.smp.asked) == 1

    async def test_where_it_was_found_stands_with_the_message_and_in_the_audit(self, community):
        submitted = await community.submit()
        await community.lv.send_due()
        message = await community.lv.store.message(uuid.UUID(submitted.id))
        (attempt,) = await community.lv.store.attempts(message.id)
        assert "match" in [step.stage for step in attempt.steps]
        entries = [e for e in await community.lv.store.audit_entries() if e.kind == "partner.found"]
        assert [(e.subject, e.detail["participant"], e.detail["endpoint"]) for e in entries] == [
            ("AP_LT_01", str(WHO), community.listener.url)
        ]

    async def test_the_receiver_may_be_named(self, community):
        assert (await community.submit(to_party=PartyRef("AP_LT_01", TYPE))).state == "SUBMITTED"
        assert (await community.submit(to_party=PartyRef("AP_LT_01"))).state == "SUBMITTED"
        with pytest.raises(SubmissionRefused, match="served by AP_LT_01, not by AP_PL_01"):
            await community.submit(to_party=PartyRef("AP_PL_01", TYPE))
        with pytest.raises(SubmissionRefused, match="to_party"):
            await community.submit(to_party=PartyRef("AP_LT_01", "urn:other"))

    async def test_who_has_an_agreement_is_not_looked_up(self, community):
        submitted = await community.submit(to_party=PartyRef("AP_EE_01"), properties=CORNERS)
        await community.lv.send_due()
        assert (await community.lv.view(submitted)).state == "ACKNOWLEDGED"
        assert not community.dns.asked

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda c: c.dns.records.clear(), "there is no"),
            (lambda c: c.smp.resources.clear(), "no metadata"),
            (lambda c: c.publish(dates=(None, now(days=-1))), "expired"),
            (lambda c: c.publish(signer=Signer(LT_KEY, Ca.root("Other").leaf("SMP", LT_KEY.public_key()))), "publisher"),
            (lambda c: c.publish(signer=Signer(LT_KEY, ROOT.leaf("AP_LT_01", LT_KEY.public_key()))), "subject"),
            (lambda c: c.publish(certificate=leaf(ca=Ca.root("Other"))), "no path"),
            (lambda c: c.publish(certificate=leaf(start=-9, days=5)), "expired"),
            (lambda c: c.publish(certificate=leaf(extensions=[])), "policy"),
            (lambda c: c.publish(certificate=leaf(key_usage=SIGN)), "key usage"),
            (lambda c: c.publish(certificate=leaf({"O": "nobody"})), "exactly one CN"),
            (lambda c: c.publish(certificate=b"garbage"), "refused"),
        ],
    )
    async def test_a_failure_is_told_at_once(self, community, spoil, words):
        spoil(community)
        with pytest.raises(SubmissionRefused, match=words) as error:
            await community.submit()
        assert error.value.field == "properties"
        assert not await community.lv.store.messages(MessageFilter())

    async def test_what_may_be_better_later_is_told_as_such(self, community):
        community.smp.resources[path_1(str(WHO), "::ExecuteQueryRequest")] = 503
        with pytest.raises(DiscoveryFailed) as error:
            await community.submit()
        assert error.value.temporary

    async def test_without_a_final_recipient(self, community):
        for properties in (CORNERS[:1], (*TO_LT, TO_LT[-1])):
            with pytest.raises(SubmissionRefused, match="finalRecipient"):
                await community.submit(properties=properties)

    async def test_a_pattern_cannot_serve_who_has_an_agreement(self, tmp_path):
        more = f'[parties.AP_PL_01]\ntype = "{TYPE}"\nendpoint = "http://127.0.0.1:9/as4"\ncertificate = "ee-sign.pem"\n'
        async with communities(tmp_path, more=more) as community:
            community.publish(certificate=leaf("AP_PL_01"))
            with pytest.raises(SubmissionRefused, match="agreement with AP_PL_01"):
                await community.submit()


class TestRetries:
    """Discovery at the time of an attempt."""

    async def failing_once(self, community):
        submitted = await community.submit()
        good, community.listener.answer = community.listener.answer, lambda *_: (503, "text/plain", b"later")
        await community.lv.send_due()
        community.listener.answer = good
        assert (await community.lv.view(submitted)).state == "WAITING_FOR_RETRY"
        return submitted

    @pytest.fixture
    async def community(self, tmp_path):
        async with communities(tmp_path, ttl=Duration(0.001)) as found:
            yield found

    async def test_a_partner_that_has_moved_is_found_where_it_is_now(self, community):
        submitted = await self.failing_once(community)
        elsewhere = Listener(answer=community.listener.answer)
        async with elsewhere.running():
            community.publish(endpoint=elsewhere.url)
            await community.again()
        assert (await community.lv.view(submitted)).state == "ACKNOWLEDGED"
        assert len(elsewhere.received) == 1

    async def test_another_partner_that_serves_the_participant_now_does_not_get_it(self, community):
        submitted = await self.failing_once(community)
        community.publish(certificate=leaf("AP_PL_01"))
        await community.again()
        view = await community.lv.view(submitted)
        assert (view.state, view.error_code) == ("FAILED", "EBMS:0010")
        assert "served by AP_PL_01, not by AP_LT_01" in view.error_detail
        assert len(community.listener.received) == 1

    async def test_a_participant_that_is_gone_is_final(self, community):
        submitted = await self.failing_once(community)
        community.dns.records.clear()
        await community.again()
        view = await community.lv.view(submitted)
        assert (view.state, view.error_code) == ("FAILED", "EBMS:0010")
        message = await community.lv.store.message(uuid.UUID(submitted.id))
        steps = [step for attempt in await community.lv.store.attempts(message.id) for step in attempt.steps]
        assert [step.error for step in steps if step.stage == "match"][-1] == "DiscoveryFailed"

    async def test_a_locator_that_is_down_is_not(self, community):
        submitted = await self.failing_once(community)
        community.dns.records[name_of(WHO, ZONE)] = "SERVFAIL"
        await community.again()
        assert (await community.lv.view(submitted)).state == "ACKNOWLEDGED"  # what is known is used meanwhile

    async def test_nothing_known_and_nobody_to_ask(self, tmp_path):
        async with communities(tmp_path / "x", ttl=Duration(0.001), stale=Duration(0.001), dns_timeout=Duration(0.3)) as community:
            submitted = await self.failing_once(community)
            community.dns.records[name_of(WHO, ZONE)] = "SERVFAIL"
            await community.again()
            view = await community.lv.view(submitted)
            assert (view.state, view.error_code) == ("WAITING_FOR_RETRY", "EBMS:0005")

    async def test_a_certificate_that_has_expired_since_gets_nothing(self, community):
        submitted = await self.failing_once(community)
        community.publish(certificate=leaf(start=-9, days=8))
        await community.again()
        view = await community.lv.view(submitted)
        assert (view.state, view.error_code) == ("FAILED", "EBMS:0010")
        assert len(community.listener.received) == 1

    @pytest.mark.parametrize("endpoint", ["http://10.1.2.3/as4", "http://169.254.169.254/as4", "https://[fd00::1]/as4", "ftp://x/"])
    async def test_an_endpoint_within_our_network_is_not_connected_to(self, community, endpoint):
        """The endpoint was named by a publisher, not by our operator: private networks only where they are listed."""
        community.publish(endpoint=endpoint)
        submitted = await community.submit()
        await community.lv.send_due()
        view = await community.lv.view(submitted)
        assert view.state == "WAITING_FOR_RETRY"
        assert "endpoint that was discovered" in view.error_detail


class TestVersion2:
    """eDelivery AS4 2.0: SMP 2.0, an Ed25519 certificate for signing and an X25519 certificate for encryption."""

    async def test_an_exchange(self, tmp_path):
        signing, agreeing = key("ed25519", 1), key("x25519", 1)
        keys = Keys(signing, ISSUING.leaf("AP_LT_01", signing.public_key(), key_usage=SIGN), agreeing,
                    ISSUING.leaf("AP_LT_01", agreeing.public_key(), key_usage=AGREE))  # fmt: skip
        site = tmp_path / "lv"
        (site / "pmodes").mkdir(parents=True)
        for file, ca in (("community.pem", ROOT), ("issuing.pem", ISSUING)):
            (site / "pmodes" / file).write_bytes(to_pem(ca.certificate))
        more = AGREEMENT_2 + EXCHANGE
        listener = Listener()
        async with DnsServer().running() as dns, Publisher().running() as smp, listener.running():
            dns.naptr(name_of(WHO, ZONE), f'100 10 "U" "Meta:SMP" "!.*!{smp.url}!" .')
            made = metadata_2(
                participant=(WHO.scheme, WHO.value), document=("urn:scheme", "urn:doc"), process=(None, "urn:proc"),
                endpoints=[("bdxr-transport-ebms3-as4-v2p0", listener.url, [(SMP_EXCHANGE, keys.encryption), (SMP_SIGNATURE, keys.signing)])],
            )  # fmt: skip
            smp.resources[path_2(str(WHO), "urn:scheme::urn:doc")] = SMP.sign(made)
            change = lambda config: replace(config, discovery=Discovery(dns_servers=(dns.address,)))  # noqa: E731
            async with world(site, suite="ed25519", profile="edelivery-as4/2.0", more=more, change=change) as lv:
                lt = Peer(LT, LV, keys, (lv.keys.signing,), lv.keys.encryption, "edelivery-as4/2.0")
                listener.answer = lambda content_type, body: (200, "application/soap+xml", receipt(lt, content_type, body))
                submission = Submission(action="urn:act", service="urn:srv", properties=TO_LT, parts=(PartSubmission("text/plain"),))

                async def content(number):
                    yield b"x"

                submitted = await lv.door.submit(CALLER, submission, content)
                await lv.send_due()
                view = await lv.view(submitted)
                assert (view.state, view.to_party.id) == ("ACKNOWLEDGED", "AP_LT_01")
                chained = SoftwareSigningKey(signing, keys.signing, (ISSUING.certificate,))
                header = {"from_role": "urn:r1", "to_role": "urn:r2", "service": Service("urn:srv"), "action": "urn:act"}
                sent = lt.message(key=chained, signature_token="pkipath", **header)
                check_receipt(await lv.give(sent), sent)


class TestPing:
    async def test_a_participant_can_be_pinged(self, community):
        """The test service goes where an exchange would go: looked up by the document and process of the first one."""
        legs = community.lv.gateway._rooms.agreements.value.pmodes.legs
        (test,) = (leg for leg in legs if leg.is_test and leg.to_party.pattern)
        assert test.discovery.document in {leg.action for leg in legs}
        community.publish(document=test.discovery.document)
        submission = Submission(action=ns.TEST_ACTION, service=ns.TEST_SERVICE, properties=TO_LT[-1:])

        async def content(number):
            raise AssertionError
            yield

        submitted = await community.lv.door.submit(CALLER, submission, content)
        await community.lv.send_due()
        assert (await community.lv.view(submitted)).state == "ACKNOWLEDGED"


class TestReceipts:
    async def outcome(self, community, answer) -> str:
        submitted = await community.submit()
        community.listener.answer = lambda content_type, body: (200, "application/soap+xml", answer(content_type, body))
        await community.lv.send_due()
        view = await community.lv.view(submitted)
        return view.state

    async def test_signed_with_another_certificate_of_the_party(self, community):
        """Renewed since it was published: the path vouches for it."""
        renewed = peer(leaf(), ISSUING.certificate, world_keys=community.lv.keys)

        def answer(content_type, body):
            message, _, references = community.lt.receive(content_type, body)
            return signed(renewed, message, references)

        assert await self.outcome(community, answer) == "ACKNOWLEDGED"

    @pytest.mark.parametrize("who", ["another party", "another CA", "a pinned partner"])
    async def test_signed_by_another(self, community, who):
        keys = community.lv.keys
        stranger = Ca.root("Stranger")
        signer = {
            "another party": peer(leaf("AP_PL_01"), ISSUING.certificate, world_keys=keys),
            "another CA": peer(leaf(ca=stranger), stranger.certificate, world_keys=keys),
            "a pinned partner": community.lv.peer,
        }[who]

        def answer(content_type, body):
            message, _, references = community.lt.receive(content_type, body)
            return signed(signer, message, references)

        assert await self.outcome(community, answer) in ("WAITING_FOR_RETRY", "FAILED")

    async def test_a_late_one(self, community):
        submitted = await community.submit()
        kept = []

        def answer(content_type, body):
            kept.append((content_type, body))
            return 503, "text/plain", b"later"

        community.listener.answer = answer
        await community.lv.send_due()
        assert (await community.lv.view(submitted)).state == "WAITING_FOR_RETRY"
        message, _, references = community.lt.receive(*kept[0])
        other = peer(leaf("AP_PL_01"), ISSUING.certificate, world_keys=community.lv.keys)
        for signer, state in ((other, "WAITING_FOR_RETRY"), (community.lt, "ACKNOWLEDGED")):
            await community.lv.raw("application/soap+xml; charset=UTF-8", signed(signer, message, references))
            assert (await community.lv.view(submitted)).state == state
