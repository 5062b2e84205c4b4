import pytest
from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.pmode import Party, PropertyRule
from gateway.as4.policy import accept, check_properties
from gateway.as4.profiles import PROFILES
from gateway.as4.units import PartInfo, PartyId, Property, Service
from gateway.errors import FailedAuthentication, MimeInconsistency, ProcessingModeMismatch, ValueInconsistent
from tests.unit.as4.wss.material import EDDSA, RSA, Payload, receive, send, user_message

CORNERS = (Property(ns.ORIGINAL_SENDER, "C1"), Property(ns.FINAL_RECIPIENT, "C4"))


def proven(*payloads):
    return receive(*send(RSA, *payloads), RSA.terms, [RSA.receiver])[0]


class TestAccept:
    def test_a_good_message(self):
        message = proven(Payload(b"<a/>"), Payload(b"x", compress=False))
        accepted = accept(message, RSA.leg())
        assert accepted.user_message is message.user_message
        assert (accepted.parts, accepted.signer, accepted.findings) == (message.parts, message.signer, ())

    def test_only_what_was_proven(self):
        with pytest.raises(TypeError):
            accept(user_message(), RSA.leg())

    def test_the_signer_belongs_to_the_sending_party(self):
        """F01, at the last rung too."""
        message = proven()
        party = RSA.leg().from_party
        for other in (
            replace(party, signing=(RSA.answerer.certificate,)),
            replace(party, signing=()),
            replace(party, party_id=PartyId("gw-c", "urn:test:party")),
            replace(party, party_id=PartyId("gw-a")),
        ):
            with pytest.raises(FailedAuthentication):
                accept(message, RSA.leg(from_party=other))
        both = replace(party, signing=(EDDSA.sender.certificate, RSA.sender.certificate))
        assert accept(message, RSA.leg(from_party=both))

    def test_the_receiver_of_the_agreement(self):
        with pytest.raises(ProcessingModeMismatch):
            accept(proven(), RSA.leg(to_party=Party("c", PartyId("gw-c", "urn:test:party"))))

    def test_sizes(self):
        message = proven(Payload(b"x" * 100), Payload(b"y" * 50, compress=False))
        assert accept(message, RSA.leg(max_part=100, max_message=150))
        for limits in ({"max_part": 99}, {"max_message": 149}):
            with pytest.raises(MimeInconsistency) as refusal:
                accept(message, RSA.leg(**limits))
            assert refusal.value.status == 413

    def test_findings(self):
        message = proven(
            Payload(b"<a/>", compress=False, signed_as="text/xml", digest_of=b"<a></a>"), Payload(b"x"),
            Payload(b"a\nb", "text/plain", compress=False, signed_as="text/plain", digest_of=b"a\r\nb"),
        )
        findings = accept(message, RSA.leg()).findings
        assert [f.where for f in findings] == ["MIME part 1", "MIME part 3"]
        assert {(f.rule, f.severity) for f in findings} == {("A-01", "warning")}


def check(message, profile="edelivery-as4/1.15", **leg):
    check_properties(message, RSA.leg(**leg), PROFILES[profile])


class TestMessageProperties:
    @pytest.mark.parametrize(("properties", "missing"), [
        ((), ns.ORIGINAL_SENDER),
        (CORNERS[:1], ns.FINAL_RECIPIENT),
        (CORNERS[1:], ns.ORIGINAL_SENDER),
        ((Property("OriginalSender", "C1"), CORNERS[1]), ns.ORIGINAL_SENDER),
        ((*CORNERS, CORNERS[0]), ns.ORIGINAL_SENDER),
        ((Property(ns.ORIGINAL_SENDER, " "), CORNERS[1]), ns.ORIGINAL_SENDER),
    ])
    def test_four_corners(self, properties, missing):
        message = user_message(properties=properties)
        with pytest.raises(ValueInconsistent) as refusal:
            check(message)
        assert refusal.value.where == f"eb:MessageProperties/eb:Property[{missing}]"
        check(message, "edelivery-as4/1.15-two-corner")
        check(replace(message, service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION))

    def test_what_the_agreement_demands(self):
        rules = (PropertyRule("ExchangeId"), PropertyRule("note", required=False))
        with pytest.raises(ValueInconsistent):
            check(user_message(), properties=rules)
        check(user_message(properties=(*CORNERS, Property("ExchangeId", "1"))), properties=rules)
        check(user_message(properties=(*CORNERS, Property("ExchangeId", "1"), Property("other", "1"))), properties=rules)

    def test_closed_properties(self):
        rules = (PropertyRule("note", required=False),)
        check(user_message(), properties=rules, closed_properties=True)
        check(user_message(properties=(*CORNERS, Property("note", "1"))), properties=rules, closed_properties=True)
        with pytest.raises(ProcessingModeMismatch):
            check(user_message(properties=(*CORNERS, Property("other", "1"))), properties=rules, closed_properties=True)

    def test_the_property_is_named(self):
        with pytest.raises(ValueInconsistent) as refusal:
            check(user_message(), properties=(PropertyRule("ExchangeId"),))
        assert refusal.value.where == "eb:MessageProperties/eb:Property[ExchangeId]"

    def test_a_name_from_outside_is_told_short_and_harmless(self):
        hostile = Property("x\u202e<b>&'\"\x1b[31m${jndi}" + "y" * 200, "secret value")
        with pytest.raises(ProcessingModeMismatch) as refusal:
            check(user_message(properties=(*CORNERS, hostile)), closed_properties=True)
        assert refusal.value.where == "eb:MessageProperties/eb:Property[x__b______31m__jndi_yyyyyyyyyyyyyyyyyyyy]"


def part(*properties, href="cid:p@x"):
    info = PartInfo(href, tuple(Property(name, value) for name, value in properties))
    return replace(user_message(), parts=(info,))


MIME, GZIP, CHARSET = (ns.MIME_TYPE, "text/xml"), (ns.COMPRESSION_TYPE, ns.GZIP), (ns.CHARACTER_SET, "UTF-8")


class TestParts:
    @pytest.mark.parametrize("properties", [
        (), (MIME,), (MIME, GZIP), (MIME, GZIP, CHARSET), (CHARSET,), ((ns.CHARACTER_SET, "UTF-16"), MIME),
        (("other", "1"), ("other", "2")), ((ns.MIME_TYPE, "text/xml; charset=utf-8"), GZIP),
        ((ns.CHARACTER_SET, "windows-1252"),),
    ])
    def test_right(self, properties):
        check(part(*properties))

    @pytest.mark.parametrize(("properties", "where"), [
        ((GZIP,), "MimeType"),
        ((MIME, (ns.COMPRESSION_TYPE, "application/zip")), "CompressionType"),
        ((MIME, (ns.COMPRESSION_TYPE, "")), "CompressionType"),
        ((MIME, (ns.COMPRESSION_TYPE, "application/x-gzip")), "CompressionType"),
        ((MIME, GZIP, GZIP), "CompressionType"),
        ((MIME, MIME, GZIP), "MimeType"),
        ((MIME, (ns.CHARACTER_SET, "!utf*")), "CharacterSet"),
        ((MIME, (ns.CHARACTER_SET, "8859-1")), "CharacterSet"),
        ((MIME, (ns.CHARACTER_SET, "")), "CharacterSet"),
        ((MIME, CHARSET, CHARSET), "CharacterSet"),
        (((ns.MIME_TYPE, "nonsense"),), "MimeType"),
        (((ns.MIME_TYPE, "text/xml\r\nX: y"),), "MimeType"),
        (((ns.MIME_TYPE, "text/xml; ü"),), "MimeType"),
    ])
    def test_wrong(self, properties, where):
        """[as4 6.28-31]"""
        with pytest.raises(ValueInconsistent) as refusal:
            check(part(*properties))
        assert refusal.value.where == f"eb:PartInfo[1]/eb:PartProperties/eb:Property[{where}]"

    @pytest.mark.parametrize("href", [None, "#body", "http://x/y"])
    def test_payloads_elsewhere(self, href):
        with pytest.raises(ValueInconsistent):
            check(part(MIME, href=href))
