"""Trust by path and parties by pattern, as agreement files say them."""

import pytest
from msgspec.structs import replace

from gateway.as4.matching import Matcher
from gateway.as4.units import PartyId, Service, UserMessage
from gateway.errors import ConfigError, ProcessingModeMismatch, SubmissionRefused
from gateway.pmodes.lint import lint
from gateway.pmodes.toml import load
from tests.pki import NOW, Ca, key
from tests.world import to_pem

ROOT = Ca.root("Root")
HEAD = """
profile = "edelivery-as4/1.15"
self = "us"

[parties.us]
type = "urn:type"

[[exchanges]]
service = "urn:srv"
action = "urn:act"
from_role = "urn:r1"
to_role = "urn:r2"
properties = ["originalSender", "finalRecipient"]
"""
PATTERN = """
[parties.community]
any = true
type = "urn:community"
trust = { anchors = "root.pem" }
"""
NAMED = '[parties.them]\ntype = "urn:community"\nendpoint = "https://them.example/as4"\ncertificate = "them.pem"\n'
DISCOVERY = '[parties.community.discovery]\nzone = "sml.example"\npublisher_trust = { anchors = "root.pem", subject = "SMP" }\n'


@pytest.fixture
def made(tmp_path):
    (tmp_path / "root.pem").write_bytes(to_pem(ROOT.certificate))
    (tmp_path / "them.pem").write_bytes(to_pem(ROOT.leaf("them")))

    def make(*texts):
        (tmp_path / "a.toml").write_text(HEAD + "\n".join(texts))
        return tmp_path / "a.toml"

    return make


def wrong(path) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(path)
    return error.value


def message(sender, receiver, **more) -> UserMessage:
    found = UserMessage(
        "m@x", NOW, sender, "urn:r1", receiver, "urn:r2", Service("urn:srv"), "urn:act", "c",
    )  # fmt: skip
    return replace(found, **more)


US, THEM, OTHER = PartyId("us", "urn:type"), PartyId("them", "urn:community"), PartyId("other", "urn:community")


class TestFiles:
    def test_a_pattern_receives(self, made):
        pmodes = load(made(PATTERN))
        assert [leg.pmode_id for leg in pmodes.legs] == ["community:us:act", "community:us:test"]
        (party,) = {leg.from_party for leg in pmodes.legs}
        assert (party.pattern, party.trust.anchors, party.trust.party_id) == (True, (ROOT.certificate,), "CN")

    def test_and_sends_where_it_says_how(self, made):
        pmodes = load(made(PATTERN, DISCOVERY))
        leg = next(leg for leg in pmodes.legs if leg.pmode_id == "us:community:act")
        how = leg.discovery
        assert (how.zone, how.document, how.process, how.transport_profile) == (
            "sml.example", "urn:act", "urn:srv", "bdxr-transport-ebms3-as4-v1p0"
        )  # fmt: skip
        assert how.publisher_trust.subject == (("CN", "SMP"),)
        assert all(leg.discovery is None for leg in pmodes.legs if not leg.to_party.pattern)

    def test_version_2(self, made):
        path = made(PATTERN, DISCOVERY, 'smp_version = "2.0"\n')
        path.write_text(path.read_text().replace("edelivery-as4/1.15", "edelivery-as4/2.0"))
        leg = next(leg for leg in load(path).legs if leg.to_party.pattern)
        assert (leg.discovery.participant_path, leg.discovery.transport_profile) == ("scheme", "bdxr-transport-ebms3-as4-v2p0")

    def test_what_an_exchange_is_called_elsewhere(self, made):
        metadata = 'metadata = { document = "urn:d", document_scheme = "s", process = "urn:p" }\n'
        leg = next(leg for leg in load(made(metadata, PATTERN, DISCOVERY)).legs if leg.to_party.pattern)
        how = leg.discovery
        assert (how.document, how.document_scheme, how.process, how.process_scheme) == ("urn:d", "s", "urn:p", None)

    def test_a_named_party_by_path(self, made):
        text = 'certificate = "them.pem"\ntrust = { anchors = "root.pem", subject = { O = "X", CN = "/them-[0-9]+/" }, party_id = "none" }\n'
        pmodes = load(made(NAMED.replace('certificate = "them.pem"\n', text)))
        party = next(party for party in pmodes.parties if party.name == "them")
        assert party.signing and party.trust.subject == (("O", "X"), ("CN", "/them-[0-9]+/"))
        assert not party.pattern

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (PATTERN.replace('type = "urn:community"\n', ""), "type"),
            (PATTERN.replace('trust = { anchors = "root.pem" }', ""), "trust"),
            (PATTERN + 'endpoint = "https://x.example/as4"\n', "one party"),
            (PATTERN + 'certificate = "them.pem"\n', "one party"),
            (PATTERN + 'id = "x"\n', "one party"),
            (PATTERN.replace("root.pem", "them.pem"), "not a CA"),
            (PATTERN.replace("root.pem", "absent.pem"), "there is no"),
            (PATTERN.replace('"root.pem" }', '"root.pem", party_id = "none", subject = "x" }'), "under every name"),
            (PATTERN.replace('"root.pem" }', '"root.pem", party_id = "OU" }'), "party_id"),
            (PATTERN.replace('"root.pem" }', '"root.pem", policies = ["1.2.x"] }'), "object identifier"),
            (PATTERN.replace('"root.pem" }', '"root.pem", subject = "/(/" }'), "cannot be read"),
            (PATTERN.replace('"root.pem" }', '"root.pem", subject = { X = "y" } }'), "none of"),
            (PATTERN.replace('"root.pem" }', '"root.pem", anchor = 1 }'), "unknown key"),
            (PATTERN + DISCOVERY.replace("publisher_trust", "publisher_rust"), "unknown key"),
            (PATTERN + DISCOVERY.replace('zone = "sml.example"', ""), "zone"),
            (PATTERN + DISCOVERY + 'smp = "https://smp.example/"\n', "either"),
            (PATTERN + DISCOVERY + 'publishers = "root.pem"\n', "either"),
            (PATTERN + DISCOVERY.replace("sml.example", "sml example"), "not a DNS domain"),
            (PATTERN + DISCOVERY.replace('zone = "sml.example"', 'smp = "ftp://x"'), "URL"),
            (NAMED + '[parties.them.discovery]\nzone = "x.y"\npublishers = "root.pem"\n', "any = true"),
            (NAMED.replace('certificate = "them.pem"', 'trust = { anchors = "root.pem", party_id = "none" }'), "which with subject"),
            (PATTERN + PATTERN.replace("community]", "second]"), "same id"),
        ],
    )  # fmt: skip
    def test_what_is_refused(self, made, text, words):
        assert words in str(wrong(made(text)))

    def test_a_channel_is_for_one_party(self, made):
        error = wrong(made('mep = "one-way-pull"\nmpc = "urn:mpc"\n', PATTERN))
        assert "channel" in str(error) or "mpc" in str(error) or "mep" in str(error)


class TestMatching:
    def matcher(self, made, *texts) -> Matcher:
        return Matcher(load(made(*texts)))

    def test_who_is_named_is_matched_by_name(self, made):
        matcher = self.matcher(made, PATTERN, DISCOVERY, NAMED)
        assert matcher.find_leg(message(THEM, US)).pmode_id == "them:us:act"
        assert matcher.find_leg(message(OTHER, US)).pmode_id == "community:us:act"
        assert matcher.find_leg(message(US, OTHER)).pmode_id == "us:community:act"
        assert [leg.pmode_id for leg in matcher.candidates(message(THEM, US))] == ["them:us:act", "them:us:test"]
        assert [leg.pmode_id for leg in matcher.candidates(message(OTHER, US))] == ["community:us:act", "community:us:test"]

    def test_a_pattern_never_softens_an_agreement(self, made):
        """THEM may send one action only; that the community may send another does not matter."""
        more = HEAD[HEAD.index("[[exchanges]]") :].replace('"urn:act"', '"urn:more"') + 'parties = ["community"]\n'
        matcher = self.matcher(made, 'parties = ["them"]', more, PATTERN, DISCOVERY, NAMED)
        assert matcher.find_leg(message(OTHER, US, action="urn:more")).pmode_id == "community:us:more"
        with pytest.raises(ProcessingModeMismatch) as error:
            matcher.find_leg(message(THEM, US, action="urn:more"))
        assert error.value.where == "eb:Action"
        with pytest.raises(SubmissionRefused):
            matcher.outbound(to_party=THEM, action="urn:more")
        # Nor can we be played to ourselves.
        with pytest.raises(ProcessingModeMismatch):
            matcher.find_leg(message(US, US))

    @pytest.mark.parametrize("sender", [PartyId("other", "urn:else"), PartyId("urn:other"), PartyId("*", "urn:type")])
    def test_another_type_is_nobody(self, made, sender):
        with pytest.raises(ProcessingModeMismatch) as error:
            self.matcher(made, PATTERN).find_leg(message(sender, US))
        assert error.value.where == "eb:From/eb:PartyId"

    def test_the_first_parameter_that_is_wrong_is_told(self, made):
        matcher = self.matcher(made, PATTERN)
        with pytest.raises(ProcessingModeMismatch) as error:
            matcher.find_leg(message(OTHER, US, action="urn:x"))
        assert error.value.where == "eb:Action"
        (miss, *_) = matcher.near_misses(message(OTHER, US, action="urn:x"))
        assert miss.differs == ("eb:Action",)

    def test_submissions(self, made):
        matcher = self.matcher(made, PATTERN, DISCOVERY, NAMED)
        assert matcher.outbound(to_party=THEM, action="urn:act").pmode_id == "us:them:act"
        assert matcher.outbound(to_party=PartyId("them"), action="urn:act").pmode_id == "us:them:act"
        for to_party in (None, OTHER, PartyId("other")):
            assert matcher.outbound(to_party=to_party, action="urn:act").pmode_id == "us:community:act"
        with pytest.raises(SubmissionRefused) as error:
            matcher.outbound(to_party=PartyId("other", "urn:else"), action="urn:act")
        assert error.value.field == "to_party"
        with pytest.raises(SubmissionRefused) as error:
            matcher.outbound(to_party=None, action="urn:x")
        assert error.value.field == "action"

    def test_without_discovery_a_receiver_is_needed(self, made):
        with pytest.raises(SubmissionRefused) as error:
            self.matcher(made, PATTERN, NAMED).outbound(to_party=None, action="urn:act")
        assert error.value.field == "to_party"


class TestLint:
    def test_a_pattern_needs_no_certificate_and_no_endpoint(self, made):
        findings = lint(made(PATTERN, DISCOVERY), now=NOW)
        assert not [f for f in findings if f.severity in ("error", "warning")], findings

    def test_anchors_end(self, made, tmp_path):
        path = made(PATTERN)
        for days, severity in ((5, "error"), (20, "warning")):
            ending = Ca.root("Ending", private=key("ec", 3), start=-10, days=days)
            (tmp_path / "root.pem").write_bytes(to_pem(ending.certificate))
            assert [f.severity for f in lint(path, now=NOW) if f.rule == "P007"] == [severity]
