import os
import re
from datetime import timedelta

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.as4 import ns, outbound
from gateway.as4.outbound import Draft, secure, secure_signal
from gateway.as4.profiles import PROFILES
from gateway.as4.signals import error_for, receipt_for
from gateway.as4.units import PullRequest
from gateway.as4.wss.algorithms import algorithm_for
from gateway.as4.xml import parse
from gateway.errors import (
    CertificateRefused,
    FailedAuthentication,
    InvalidHeader,
    KeyUnavailable,
    SendFailed,
    ValueInconsistent,
)
from tests.unit.as4.wss.material import (
    ECDSA,
    EDDSA,
    NOW,
    RSA,
    SUITES,
    Payload,
    certify,
    draft,
    mixed,
    open_octets,
    outbound_part,
    split,
    user_message,
    wire,
)

FORMS = ["bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509"]
TWO = [Payload(b"<a/>"), Payload(b"binary", "application/octet-stream", compress=False)]


def envelope_in(made) -> bytes:
    body = b"".join(made.stream(lambda index: [b"x" * made._parts[index].wire_size]))
    return split(made.content_type, body)[0].octets


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suite", [*SUITES, mixed()], ids=repr)
def test_what_is_signed_is_canonical_as_it_stands(suite, form):
    """Nothing is parsed on the way out, so the text must be its own exclusive canonical form."""
    octets = envelope_in(wire(suite, draft(*TWO), signature_token=form, encryption_token=form))
    root = parse(octets)
    assert root[0][0].tag == ns.qn(ns.WSSE, "Security")
    for tag in (ns.qn(ns.EB, "Messaging"), ns.qn(ns.S12, "Body"), ns.qn(ns.DS, "SignedInfo")):
        element = next(root.iter(tag))
        canonical = etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
        assert canonical in octets
    assert b">\n" not in octets and b"> " not in octets  # [as4 7.3]


@pytest.mark.parametrize("suite", SUITES, ids=repr)
def test_order_and_attributes_that_peers_check(suite):
    """BSP as far as WSS4J enforces it [as4 3.2]."""
    root = parse(envelope_in(wire(suite, draft(*TWO))))
    security = root[0][0]
    assert security.get(ns.qn(ns.S12, "mustUnderstand")) == "true"
    names = [etree.QName(child).localname for child in security]
    assert names == ["BinarySecurityToken", "EncryptedKey", "EncryptedData", "EncryptedData", "BinarySecurityToken", "Signature"]
    for token in security.findall(ns.qn(ns.WSSE, "BinarySecurityToken")):
        assert token.get("EncodingType") == ns.BASE64_BINARY and token.get("ValueType") == ns.X509V3  # R3029, R3031
    key = security.find(ns.qn(ns.XENC, "EncryptedKey"))
    assert dict(key.attrib) == {"Id": "EK"}  # R5602, R3209, R5622, R5623
    listed = [reference.get("URI") for reference in key.iter(ns.qn(ns.XENC, "DataReference"))]
    data = security.findall(ns.qn(ns.XENC, "EncryptedData"))
    assert listed == ["#" + each.get("Id") for each in data]  # R3214
    assert [each.get("MimeType") for each in data] == ["application/gzip", "application/octet-stream"]
    for each in data:
        reference = each.find(f".//{ns.qn(ns.WSSE, 'SecurityTokenReference')}")
        assert reference.get(ns.qn(ns.WSSE11, "TokenType")) == ns.TOKEN_ENCRYPTED_KEY  # R3069
        assert each.get("Type") == ns.SWA_CONTENT_ONLY
    info = security.find(f"{ns.qn(ns.DS, 'Signature')}/{ns.qn(ns.DS, 'KeyInfo')}")
    assert len(info) == len(info[0]) == 1  # R5402, R5417, R3061
    assert not list(root.iter(ns.qn(ns.EC, "InclusiveNamespaces")))  # R5407
    ids = [value for element in root.iter() for name, value in element.attrib.items() if name.endswith("Id")]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[A-Za-z_][\w.-]*", value) for value in ids)


@pytest.mark.parametrize("suite", SUITES, ids=repr)
def test_every_attempt_signs_equal_references(suite):
    """[as4 6.64]: so a receipt for one attempt fits them all; and nothing secret is used twice."""
    one, two = wire(suite, draft(*TWO)), wire(suite, draft(*TWO))
    assert one.references == two.references
    secrets = [(made._content_key, *made._ivs, re.search(rb"<xenc:CipherValue>(.*?)<", made.root)[1]) for made in (one, two)]
    assert not set(secrets[0]) & set(secrets[1])
    assert len(set(secrets[0])) == 4
    assert re.search(rb"<dsigmore:Salt>.*?<", one.root) is None or (
        re.search(rb"<dsigmore:Salt>.*?<", one.root)[0] != re.search(rb"<dsigmore:Salt>.*?<", two.root)[0])


def test_entropy_is_an_argument():
    drawn = []

    def entropy(size):
        drawn.append(size)
        return bytes([len(drawn)]) * size

    made = wire(EDDSA, draft(*TWO), entropy=entropy)
    assert sorted(drawn) == [12, 12, 16, 16, 32]  # two IVs, content key, boundary, salt
    assert made.content_type.count("=_")


def test_rsa_sends_the_same_octets_with_the_same_entropy():
    message = wire(RSA, draft(), entropy=bytes)
    assert message.root == wire(RSA, draft(), entropy=bytes).root


class TestWire:
    def test_plain_soap_without_parts(self):
        made = wire(RSA, draft())
        assert made.content_type == "application/soap+xml; charset=UTF-8"
        assert list(made.stream(lambda _: ())) == [made.root]
        assert made.content_length == len(made.root)

    def test_multipart(self):
        made = wire(RSA, draft(*TWO))
        body = b"".join(made.stream(lambda index: [TWO[index].octets]))
        assert len(body) == made.content_length
        assert made.content_type.startswith("multipart/related; ") and "charset" not in made.content_type
        _, parts = split(made.content_type, body)
        assert list(parts) == ["part-1@as4.example", "part-2@as4.example"]
        assert body.count(b"Content-Type: application/octet-stream\r\n") == 2

    def test_the_pieces_are_the_stream(self):
        made = wire(RSA, draft(*TWO))
        body = [made.root]
        for index, payload in enumerate(TWO):
            sealer = made.sealer(index)
            body += [made.part_head(index), sealer.update(payload.octets[:2]), sealer.update(payload.octets[2:]), sealer.finish()]
        body.append(made.epilogue)
        assert sum(map(len, body)) == made.content_length
        split(made.content_type, b"".join(body))

    def test_a_part_is_encrypted_once(self):
        """E13"""
        made = wire(RSA, draft(*TWO))
        made.sealer(0)
        with pytest.raises(RuntimeError):
            made.sealer(0)
        made.sealer(1)

    @pytest.mark.parametrize("octets", [b"", b"x", b"x" * 1000])
    def test_octets_of_another_length_end_the_attempt(self, octets):
        made = wire(RSA, draft(*TWO))
        with pytest.raises(SendFailed) as failure:
            list(made.stream(lambda _: [octets]))
        assert not failure.value.temporary


class TestRefusals:
    def secure(self, suite, what, **changes):
        fields = {
            "profile": suite.profile, "key": suite.sender, "recipient": suite.receiver.certificate,
            "signature_token": "bst", "encryption_token": "bst", "entropy": os.urandom,
        }
        return secure(what, **{**fields, **changes})

    def test_keys_that_do_not_fit(self):
        for suite in SUITES:
            for other in SUITES:
                if suite is other:
                    assert self.secure(suite, draft(Payload(b"")))
                    continue
                with pytest.raises(KeyUnavailable):
                    self.secure(suite, draft(), key=other.sender)
                with pytest.raises(CertificateRefused) as refusal:
                    self.secure(suite, draft(Payload(b"")), recipient=other.receiver.certificate)
                assert refusal.value.reason == "key-type"

    def test_no_recipient(self):
        with pytest.raises(KeyUnavailable):
            self.secure(RSA, draft(Payload(b"")), recipient=None)
        assert self.secure(RSA, draft(), recipient=None)

    @pytest.mark.parametrize("recipient", [b"", b"garbage"])
    def test_a_certificate_that_is_none(self, recipient):
        with pytest.raises(CertificateRefused):
            self.secure(RSA, draft(Payload(b"")), recipient=recipient)

    def test_a_weak_recipient(self):
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        weak = rsa.generate_private_key(65537, 1024)
        with pytest.raises(CertificateRefused):
            self.secure(RSA, draft(Payload(b"")), recipient=certify(weak.public_key()))
        koblitz = ec.generate_private_key(ec.SECP256K1())
        with pytest.raises(CertificateRefused):
            self.secure(ECDSA, draft(Payload(b"")), recipient=certify(koblitz.public_key()))

    @pytest.mark.parametrize("cid", ["a b", "a+b", "a%20b", "a&b", 'a"b', "a/b", "ä", ""])
    def test_content_ids_that_peers_misread(self, cid):
        """[as4 7.1]"""
        with pytest.raises(ValueInconsistent):
            self.secure(RSA, draft(Payload(b"", cid=cid)))

    @pytest.mark.parametrize("mime", ['a"b', "a\r\nX: y"])
    def test_media_types_cannot_break_out(self, mime):
        made = draft(Payload(b"", compress=False, signed_as=mime))
        octets = envelope_in(self.secure(RSA, made))
        data = next(parse(octets).iter(ns.qn(ns.XENC, "EncryptedData")))
        assert data.get("MimeType") == mime

    def test_parts_and_header_must_agree(self):
        part = outbound_part(1, Payload(b""))
        for what in (
            Draft(user_message(), (part,)),
            Draft(user_message([part])),
            Draft(user_message([part]), (part, part)),
            Draft(user_message([part]), (replace(part, cid="other@x"),)),
        ):
            with pytest.raises(ValueInconsistent):
                self.secure(RSA, what)

    def test_a_character_that_xml_cannot_carry(self):
        with pytest.raises(InvalidHeader):
            self.secure(RSA, draft(action="a\x00b"))

    def test_markup_in_values_stays_text(self):
        nasty = "</eb:Action><eb:Action>&\"'<!--"
        octets = envelope_in(self.secure(RSA, draft(action=nasty)))
        assert open_octets(octets, RSA.terms).unit.action == nasty


class TestSignals:
    @pytest.mark.parametrize("unit", [
        receipt_for((), ref_to="m@x", message_id="r@x", now=NOW),
        error_for(FailedAuthentication("secret detail"), ref_to="m@x", message_id="e@x", now=NOW),
        PullRequest("p@x", NOW + timedelta(days=1), "urn:example:mpc"),
    ], ids=lambda unit: type(unit).__name__)
    @pytest.mark.parametrize("suite", SUITES, ids=repr)
    def test_round_trip(self, suite, unit):
        octets = secure_signal(unit, profile=suite.profile, key=suite.sender, token="bst", entropy=os.urandom)
        if type(unit).__name__ == "Receipt":
            unit = replace(unit, references=open_octets(octets, suite.terms).unit.references)
        assert open_octets(octets, suite.terms).unit == unit
        assert b"secret" not in octets and b"EncryptedKey" not in octets

    def test_fresh_ids(self):
        unit = PullRequest("p@x", NOW, "urn:example:mpc")
        one, two = (secure_signal(unit, profile=RSA.profile, key=RSA.sender, token="bst", entropy=os.urandom) for _ in "ab")
        assert one != two

    def test_only_errors_may_go_unsigned(self):
        error = error_for(FailedAuthentication(), ref_to=None, message_id="e@x", now=NOW)
        assert b"Security" not in secure_signal(error, profile=RSA.profile, key=None, token="bst", entropy=os.urandom)
        for unit in (PullRequest("p@x", NOW, "u"), receipt_for((), ref_to="m@x", message_id="r@x", now=NOW)):
            with pytest.raises(KeyUnavailable):
                secure_signal(unit, profile=RSA.profile, key=None, token="bst", entropy=os.urandom)

    def test_the_key_must_fit(self):
        with pytest.raises(KeyUnavailable):
            secure_signal(PullRequest("p@x", NOW, "u"), profile=RSA.profile, key=EDDSA.sender, token="bst", entropy=os.urandom)


def test_points(monkeypatch):
    seen = []
    monkeypatch.setattr(outbound, "point", seen.append)
    wire(RSA, draft(*TWO))
    assert seen == ["OB06", "OB07"]


def test_profiles():
    assert set(PROFILES) == {
        "edelivery-as4/1.15", "edelivery-as4/1.15-two-corner", "edelivery-as4/2.0", "edelivery-as4/2.0-two-corner",
        "edelivery-as4/2.0-ecdsa", "edelivery-as4/2.0-ecdsa-two-corner", "oots/1.2", "oots/2.0",
    }  # fmt: skip
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert profile.four_corner == ("two-corner" not in name)
        assert profile.accept_signature == {profile.send_signature}
        assert profile.accept_encryption == {ns.AES128_GCM} and profile.accept_digest == {ns.SHA256}
        assert bool(profile.accept_oaep) == (profile.key_protection == "key-transport")
        assert bool(profile.accept_agreement) == (profile.key_protection == "key-agreement")
    assert {algorithm_for(suite.sender.key.public_key()) for suite in SUITES} == {ns.RSA_SHA256, ns.ED25519, ns.ECDSA_SHA256}
    assert PROFILES["oots/1.2"].accept_oaep == {(ns.SHA256, ns.MGF1_SHA256)}
