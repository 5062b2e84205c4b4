"""A signer that nobody pinned: accepted by a rule, as one party, and only where the terms say so [as4 4.9]."""

import functools

import pytest
from msgspec.structs import replace

from gateway.as4.inbound import Opened, Terms, Voucher, open_envelope, prove
from gateway.as4.pmode import Leg, Party, PathTrust
from gateway.as4.policy import accept
from gateway.as4.profiles import PROFILES
from gateway.as4.units import PartyId
from gateway.as4.wss.tokens import KeyReference
from gateway.errors import CertificateRefused, FailedAuthentication, ProcessingModeMismatch
from gateway.keys.keyring import SoftwareSigningKey
from tests.peer import Authority, Keys, Peer, split
from tests.world import EE, LV

TRUST = PathTrust(anchors=(b"anchor",))
VOUCHER = Voucher(TRUST, EE)


@functools.cache
def made():
    """A peer, a message of it without payload, and the certificates beside its own."""
    authority = Authority()
    keys = Keys.make("AP_EE_01", "rsa", authority)
    peer = Peer(EE, LV, keys, (), keys.encryption)
    return authority, peer


def message(token="pkipath", chain=None):
    authority, peer = made()
    chain = (authority.certificate,) if chain is None else chain
    signer = SoftwareSigningKey(peer.keys.signing_private, peer.keys.signing, chain)
    sent = peer.message([], key=signer, signature_token=token)
    return split(sent.content_type, sent.body)[0]


class Judge:
    """A `Vouch` callback that remembers what it was asked, and refuses what it is told to."""

    def __init__(self, refuse=()):
        self.asked, self._refuse = [], refuse

    def __call__(self, certificate, carried, voucher):
        self.asked.append((certificate, carried, voucher))
        if voucher in self._refuse:
            raise CertificateRefused("no-path")


def opened(*, signers=(), vouchers=(VOUCHER,), vouch=None, trust=lambda _: None, **more) -> Opened:
    envelope = message(**more)
    terms = Terms(PROFILES["oots/2.0"], tuple(signers), tuple(vouchers))
    return open_envelope(envelope.octets, envelope.charset, choose=lambda _: terms, trust=trust, vouch=vouch)


def test_a_rule_is_asked_with_what_the_message_carries():
    authority, peer = made()
    judge = Judge()
    found = opened(vouch=judge)
    assert (found.signer, found.voucher) == (peer.keys.signing, VOUCHER)
    assert judge.asked == [(peer.keys.signing, (authority.certificate,), VOUCHER)]


def test_the_chain_comes_issuer_first():
    judge = Judge()
    opened(vouch=judge, chain=(b"\x30\x01a", b"\x30\x01b", b"\x30\x01c"))
    assert judge.asked[0][1] == (b"\x30\x01a", b"\x30\x01b", b"\x30\x01c")


def test_the_first_rule_that_accepts_counts():
    other = Voucher(PathTrust(anchors=(b"other",)), EE)
    judge = Judge(refuse=[other])
    assert opened(vouchers=(other, VOUCHER), vouch=judge).voucher == VOUCHER
    assert len(judge.asked) == 2


@pytest.mark.parametrize("vouchers", [(), (VOUCHER,)])
def test_without_a_judge_or_a_rule_there_is_none(vouchers):
    judge = None if vouchers else Judge()
    with pytest.raises(FailedAuthentication):
        opened(vouchers=vouchers, vouch=judge)
    assert judge is None or not judge.asked


@pytest.mark.parametrize("token", ["ski", "thumbprint", "issuer-serial"])
def test_a_name_alone_is_no_certificate(token):
    judge = Judge()
    with pytest.raises(FailedAuthentication):
        opened(vouch=judge, token=token)
    assert not judge.asked


def test_a_pinned_signer_is_not_asked_about():
    _, peer = made()
    judge = Judge()
    found = opened(signers=[peer.keys.signing], vouch=judge)
    assert found.voucher is None and not judge.asked


def test_a_pinned_signer_that_is_refused_gets_no_second_chance():
    """Expired is expired: the path of the same certificate would say the same, or worse, something else."""
    _, peer = made()
    judge = Judge()

    def expired(_):
        raise CertificateRefused("expired")

    with pytest.raises(FailedAuthentication):
        opened(signers=[peer.keys.signing], vouch=judge, trust=expired)
    assert not judge.asked


def test_a_wrong_signature_is_wrong_whoever_vouches():
    envelope = message()
    terms = Terms(PROFILES["oots/2.0"], (), (VOUCHER,))
    octets = envelope.octets.replace(b"ExecuteQueryRequest", b"ExecuteQueryResponse")
    with pytest.raises(FailedAuthentication):
        open_envelope(octets, envelope.charset, choose=lambda _: terms, trust=lambda _: None, vouch=Judge())


def test_what_is_carried_beside_names_nothing():
    assert KeyReference(certificate=b"leaf", chain=(b"ca",)).names(b"leaf")
    assert not KeyReference(certificate=b"leaf", chain=(b"ca",)).names(b"ca")


class TestAccept:
    LEG = Leg(
        pmode_id="x", profile="oots/2.0", from_party=Party("EE", EE, trust=TRUST), from_role="", to_party=Party("LV", LV),
        to_role="", service=None, action="",
    )  # fmt: skip

    def proven(self, **more):
        return prove(opened(vouch=Judge(), **more), ())

    def test_the_rule_of_the_leg_and_its_party(self):
        assert accept(self.proven(), self.LEG).signer == made()[1].keys.signing

    @pytest.mark.parametrize(
        "voucher",
        [Voucher(PathTrust(anchors=(b"other",)), EE), Voucher(TRUST, PartyId("AP_LT_01", EE.type)), Voucher(TRUST)],
        ids=["another rule", "another party", "no party"],
    )
    def test_another_rule_or_party_is_none(self, voucher):
        with pytest.raises(FailedAuthentication):
            accept(self.proven(vouchers=(voucher,)), self.LEG)

    def test_a_leg_of_pins_takes_no_voucher(self):
        leg = replace(self.LEG, from_party=Party("EE", EE, signing=(b"pin",)))
        with pytest.raises(FailedAuthentication):
            accept(self.proven(), leg)

    def test_a_pattern_takes_parties_of_its_type(self):
        pattern = Party("any", PartyId("*", EE.type), trust=TRUST, pattern=True)
        assert accept(self.proven(), replace(self.LEG, from_party=pattern))
        with pytest.raises(FailedAuthentication):
            accept(self.proven(), replace(self.LEG, from_party=replace(pattern, party_id=PartyId("*", "urn:other"))))
        with pytest.raises((FailedAuthentication, ProcessingModeMismatch)):
            accept(self.proven(), replace(self.LEG, from_party=replace(pattern, pattern=False)))
