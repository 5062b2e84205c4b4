import hashlib
import itertools
import os
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from msgspec.structs import replace

from gateway.as4 import inbound, ns
from gateway.as4.inbound import PartLimits, PartProver, Proven, Terms, Unauthenticated, open_envelope, prove
from gateway.as4.outbound import secure_signal
from gateway.as4.signals import error_for, receipt_for
from gateway.as4.units import Property, Receipt
from gateway.as4.wss import verify
from gateway.as4.wss.algorithms import encode_base64
from gateway.as4.wss.decrypt import unwrap_content_key
from gateway.as4.wss.sign import element_reference, part_reference, signed_info
from gateway.as4.wss.verify import PartDigest, digest_form
from gateway.as4.xml import parse
from gateway.errors import (
    CertificateRefused,
    DecompressionFailure,
    EbmsError,
    FailedAuthentication,
    FailedDecryption,
    InvalidHeader,
    MimeInconsistency,
    Other,
    PolicyNoncompliance,
    ProcessingModeMismatch,
    ValueInconsistent,
)
from tests.unit.as4.wss.material import (
    EDDSA,
    NOW,
    RSA,
    SUITES,
    Payload,
    SoftSigningKey,
    accept_all,
    certify,
    craft,
    draft,
    envelope_of,
    mixed,
    on_curve,
    open_octets,
    receive,
    replace_profile,
    send,
    split,
    user_message,
    wire,
    with_terms,
)

FORMS = ["bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509"]
ALL_SUITES = [*SUITES, mixed(), on_curve(ec.SECP384R1), on_curve(ec.SECP521R1), on_curve(ec.BrainpoolP256R1)]


# -- round trips --------------------------------------------------------------------


@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize("encryption_token", FORMS)
@pytest.mark.parametrize("signature_token", FORMS)
@pytest.mark.parametrize("suite", ALL_SUITES, ids=repr)
def test_round_trip(suite, signature_token, encryption_token, parts):
    payloads = [Payload(b"<a>%d</a>" % number * 50, compress=number != 1) for number in range(parts)]
    content_type, body = send(suite, *payloads, signature_token=signature_token, encryption_token=encryption_token)
    proven, contents = receive(content_type, body, suite.terms, [suite.receiver])
    assert list(contents.values()) == [payload.content for payload in payloads]
    assert [part.cid for part in proven.parts] == [info.cid for info in proven.user_message.parts]
    assert proven.user_message == draft(*payloads).user_message
    assert proven.signer == suite.sender.certificate
    assert len(proven.references) == 2 + parts
    for part, payload in zip(proven.parts, payloads, strict=True):
        assert (part.size, part.sha256) == (len(payload.content), hashlib.sha256(payload.content).digest())
        assert (part.wire_size, part.wire_digest) == (len(payload.octets), hashlib.sha256(payload.octets).digest())
        assert (part.compressed, part.mime_type) == (payload.compress, "application/xml")


@given(contents=st.lists(st.binary(max_size=3000), max_size=4), block=st.integers(1, 4000), cut=st.integers(1, 4000))
@settings(max_examples=40, deadline=None)
def test_round_trip_whatever_the_blocks(contents, block, cut):
    payloads = [Payload(content, mime_type="application/octet-stream") for content in contents]
    content_type, body = send(EDDSA, *payloads, block=block)
    _, received = receive(content_type, body, EDDSA.terms, [EDDSA.receiver], block=cut)
    assert list(received.values()) == contents


@pytest.mark.parametrize("suite", SUITES, ids=repr)
def test_opened(suite):
    made = wire(suite, draft(Payload(b"<a/>")))
    octets = made.root[made.root.index(b"\r\n\r\n") + 4 :]
    opened = open_octets(octets, suite.terms)
    assert opened.references == made.references
    assert opened.promised == {"part-1@as4.example": made.references[2]}
    assert opened.encrypted_parts["part-1@as4.example"].mime_type == "application/gzip"
    assert opened.envelope == octets


# -- the order of things ---------------------------------------------------------------


class Watch:
    """Records which steps of the ladder were taken."""

    def __init__(self, monkeypatch) -> None:
        self.steps = []
        original = verify.check_signature

        def check(*arguments):
            self.steps.append("signature")
            return original(*arguments)

        monkeypatch.setattr(verify, "check_signature", check)

    def open(self, octets, terms, *, trust=accept_all):
        def choose(unit):
            self.steps.append("choose")
            return terms

        def trusted(der):
            self.steps.append("trust")
            trust(der)

        return open_envelope(octets, None, choose=choose, trust=trusted)


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def refuse_all(_):
    raise CertificateRefused("expired")


class TestOrder:
    def test_a_good_message(self, watch):
        watch.open(craft(RSA, Payload(b"x")), RSA.terms)
        assert watch.steps == ["choose", "trust", "signature"]

    def test_shape_comes_before_everything(self, watch):
        octets = craft(RSA).replace(b"</S12:Header>", b"<eb:Messaging xmlns:eb='" + ns.EB.encode() + b"'/></S12:Header>")
        with pytest.raises(InvalidHeader):
            watch.open(octets, RSA.terms)
        assert watch.steps == []

    def test_terms_come_before_security(self, watch):
        def none(_):
            raise ProcessingModeMismatch("no agreement")

        with pytest.raises(ProcessingModeMismatch):
            open_envelope(craft(RSA, security=lambda c: ["<x/>"]), None, choose=none, trust=accept_all)

    @pytest.mark.parametrize("security", [lambda c: [], lambda c: c[:-1], lambda c: [*c, c[-1].replace("#signer", "#x")]])
    def test_the_shape_of_security_before_certificates(self, watch, security):
        with pytest.raises(PolicyNoncompliance):
            watch.open(craft(RSA, security=security), RSA.terms)
        assert watch.steps == ["choose"]

    def test_a_stranger_before_algorithms(self, watch):
        """[threats 1.1 step 6 before 7]"""
        octets = craft(RSA, info=lambda text: text.replace("rsa-sha256", "rsa-sha1"))
        with pytest.raises(FailedAuthentication):
            watch.open(octets, Terms(RSA.profile, (RSA.answerer.certificate,)))
        assert watch.steps == ["choose"]

    def test_trust_before_algorithms(self, watch):
        octets = craft(RSA, info=lambda text: text.replace("rsa-sha256", "rsa-sha1"))
        with pytest.raises(FailedAuthentication):
            watch.open(octets, RSA.terms, trust=refuse_all)
        assert watch.steps == ["choose", "trust"]

    @pytest.mark.parametrize("spoil", [
        {"info": lambda text: text.replace("rsa-sha256", "rsa-sha1")},
        {"references": lambda r: r[:-1]},
        {"security": lambda c: [x.replace("aes128-gcm", "aes256-gcm") for x in c]},
    ], ids=["algorithm", "coverage", "encryption"])
    def test_policy_before_the_signature_value(self, watch, spoil):
        with pytest.raises(PolicyNoncompliance):
            watch.open(craft(RSA, Payload(b"x"), **spoil), RSA.terms)
        assert watch.steps == ["choose", "trust"]

    def test_the_value_before_the_digests(self, watch):
        octets = craft(RSA).replace(b">act<", b">tca<")
        with pytest.raises(FailedAuthentication, match="digest"):
            watch.open(octets, RSA.terms)
        assert watch.steps[-1] == "signature"
        with pytest.raises(FailedAuthentication, match="SignatureValue"):
            watch.open(octets.replace(b"<ds:DigestValue>", b"<ds:DigestValue> "), RSA.terms)


# -- the signer ----------------------------------------------------------------------


class TestSigner:
    @pytest.mark.parametrize("form", FORMS)
    def test_another_partner(self, form):
        """F01: a valid signature of somebody else whom we trust."""
        octets = envelope_of(*send(RSA, signature_token=form))
        with pytest.raises(FailedAuthentication):
            open_octets(octets, Terms(RSA.profile, (RSA.answerer.certificate,)))
        with pytest.raises(FailedAuthentication):
            open_octets(octets, Terms(RSA.profile, ()))

    def test_same_name_other_key(self):
        """F02: subject and issuer equal, key and serial not."""
        keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(2)]
        pinned, rogue = (certify(key.public_key(), name="AP", serial=7) for key in keys)
        suite_key = SoftSigningKey(keys[1], rogue)
        octets = craft(EDDSA, key=suite_key)
        with pytest.raises(FailedAuthentication):
            open_octets(octets, Terms(EDDSA.profile, (pinned,)))
        # The same serial and issuer: the name fits the pinned certificate, and its key decides.
        octets = envelope_of(*_signed(EDDSA, suite_key, "issuer-serial"))
        with pytest.raises(FailedAuthentication, match="SignatureValue"):
            open_octets(octets, Terms(EDDSA.profile, (pinned,)))

    def test_overlap_of_two_certificates(self):
        """F08: active and next are taken, a third is not."""
        for signers in ([RSA.sender.certificate, b"x"], [b"x", RSA.sender.certificate]):
            assert open_octets(craft(RSA), Terms(RSA.profile, tuple(signers))).signer == RSA.sender.certificate

    def test_renewal_with_the_same_key(self):
        """One SKI names the expired and the new certificate: the one that is trusted counts."""
        key = ed25519.Ed25519PrivateKey.generate()
        old, new = certify(key.public_key()), certify(key.public_key())
        octets = envelope_of(*_signed(EDDSA, SoftSigningKey(key, old), "ski"))

        def only_new(der):
            if der == old:
                raise CertificateRefused("expired")

        opened = open_octets(octets, Terms(EDDSA.profile, (old, new)), trust=only_new)
        assert opened.signer == new

    def test_refused_certificate(self):
        with pytest.raises(FailedAuthentication) as refusal:
            open_octets(craft(RSA), RSA.terms, trust=refuse_all)
        assert "expired" in refusal.value.detail and refusal.value.where is None

    def test_token_and_reference_disagree(self):
        """F10: what KeyInfo names counts; a token beside it does not."""
        octets = envelope_of(*send(RSA, signature_token="ski"))
        token = re.search(rb"<wsse:BinarySecurityToken.*</wsse:BinarySecurityToken>", craft(EDDSA))[0]
        with_token = octets.replace(b"<ds:Signature ", token + b"<ds:Signature ", 1)
        assert open_octets(with_token, RSA.terms).signer == RSA.sender.certificate
        with pytest.raises(FailedAuthentication):
            open_octets(with_token, Terms(RSA.profile, (EDDSA.sender.certificate,)))

    def test_weak_keys_of_pinned_certificates(self):
        """C09, C11: pinned by mistake, refused all the same."""
        weak = rsa.generate_private_key(65537, 1024)
        key = SoftSigningKey(weak, certify(weak.public_key()))
        with pytest.raises(FailedAuthentication):
            open_octets(craft(RSA, key=key), Terms(RSA.profile, (key.certificate,)))
        small = ed25519.Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))
        forged = certify(small)

        class Forger:
            certificate, chain, algorithm = forged, (), ns.ED25519

            def sign(self, octets):
                return b"\x01" + bytes(63)

        with pytest.raises(FailedAuthentication):
            open_octets(craft(EDDSA, key=Forger()), Terms(EDDSA.profile, (forged,)))

    def test_suites_do_not_mix(self):
        for suite in SUITES:
            for other in SUITES:
                terms = Terms(other.profile, (suite.sender.certificate,))
                if suite is other:
                    assert open_octets(craft(suite), terms)
                else:
                    with pytest.raises(PolicyNoncompliance):
                        open_octets(craft(suite), terms)

    def test_a_curve_the_profile_does_not_name(self):
        suite = on_curve(ec.SECP384R1)
        with pytest.raises(PolicyNoncompliance):
            open_octets(craft(suite), with_terms(suite, accept_curves=frozenset({"urn:oid:1.2.840.10045.3.1.7"})))


def _signed(suite, key, form):
    from gateway.as4.outbound import secure

    made = secure(draft(), profile=suite.profile, key=key, recipient=None, signature_token=form,
                  encryption_token="bst", entropy=os.urandom)
    return made.content_type, b"".join(made.stream(lambda _: ()))


# -- what is signed --------------------------------------------------------------------


def c14n(element, prefixes: str) -> bytes:
    return etree.tostring(element, method="c14n", exclusive=True, inclusive_ns_prefixes=prefixes.split() or None)


class TestCoverage:
    """C06 and B07-B13: exactly {Messaging, Body} and one reference a part."""

    @pytest.mark.parametrize("edit", [
        pytest.param(lambda r: [], id="none"),
        pytest.param(lambda r: r[1:], id="no Messaging"),
        pytest.param(lambda r: [r[0], *r[2:]], id="no Body"),
        pytest.param(lambda r: r[:-1], id="no part"),
        pytest.param(lambda r: [*r, r[0]], id="Messaging twice"),
        pytest.param(lambda r: [r[0], r[0], r[2]], id="Messaging instead of Body"),
        pytest.param(lambda r: [r[1], r[1], r[2]], id="Body instead of Messaging"),
        pytest.param(lambda r: [r[0], r[1], r[2], r[2]], id="a part twice"),
        pytest.param(lambda r: [*r, part_reference("other@x", b"0" * 32)], id="a part that is not described"),
        pytest.param(lambda r: [*r[:2], part_reference("other@x", b"0" * 32)], id="another part"),
        pytest.param(lambda r: [*r, element_reference("signer", b"0" * 32)], id="the token too"),
        pytest.param(lambda r: [element_reference("none", b"0" * 32), *r[1:]], id="nothing"),
        pytest.param(lambda r: r * 30, id="many"),
        *(pytest.param(lambda r, uri=uri: [replace(r[0], uri=uri), *r[1:]], id=uri or "empty") for uri in (
            "", "#", "m", "#xpointer(/)", "#xpointer(id('m'))", "#%6d", "#m ", "http://x/#m", "file:///etc/passwd",
            "cid:m", "CID:part-1@as4.example",
        )),
    ])  # fmt: skip
    def test_another_set(self, edit):
        with pytest.raises(PolicyNoncompliance):
            open_octets(craft(RSA, Payload(b"x"), references=edit), RSA.terms)

    def test_any_order(self):
        opened = open_octets(craft(RSA, Payload(b"x"), references=lambda r: r[::-1]), RSA.terms)
        assert [reference.uri for reference in opened.references] == ["cid:part-1@as4.example", "#b", "#m"]

    @pytest.mark.parametrize(("old", "new"), [
        pytest.param(ns.EXC_C14N + '"></ds:Canon', ns.EXC_C14N + 'WithComments"></ds:Canon', id="c14n with comments"),
        pytest.param(ns.EXC_C14N + '"></ds:Canon', 'http://www.w3.org/TR/2001/REC-xml-c14n-20010315"></ds:Canon', id="inclusive c14n"),
        pytest.param(ns.EXC_C14N + '"></ds:Trans', ns.EXC_C14N + 'WithComments"></ds:Trans', id="transform with comments"),
        pytest.param(ns.EXC_C14N + '"></ds:Trans', 'http://www.w3.org/2006/12/xml-c14n11"></ds:Trans', id="transform c14n 1.1"),
        pytest.param(ns.SWA_SIGNATURE, ns.SWA + "Attachment-Complete-Signature-Transform", id="complete attachment"),
        pytest.param(ns.SWA_SIGNATURE, ns.EXC_C14N, id="c14n of a part"),
        pytest.param(ns.EXC_C14N + '"></ds:Trans', ns.SWA_SIGNATURE + '"></ds:Trans', id="attachment transform of an element"),
        pytest.param("<ds:Transforms>", "<ds:Transforms><ds:Transform Algorithm='http://www.w3.org/TR/1999/REC-xslt-19991116'></ds:Transform>", id="xslt"),
        pytest.param("<ds:Transforms>", "<ds:Transforms><ds:Transform Algorithm='http://www.w3.org/2000/09/xmldsig#enveloped-signature'></ds:Transform>", id="enveloped"),
        pytest.param("<ds:Transforms>", "<ds:Transforms><ds:Transform Algorithm='http://www.w3.org/TR/1999/REC-xpath-19991116'><ds:XPath>1</ds:XPath></ds:Transform>", id="xpath"),
        pytest.param("<ds:Transforms>.*?</ds:Transforms>", "<ds:Transforms></ds:Transforms>", id="no transform"),
        pytest.param("<ds:Transforms>.*?</ds:Transforms>", "", id="no transforms"),
        pytest.param(ns.SHA256, ns.DS + "sha1", id="sha1"),
        pytest.param("(.*)" + ns.SHA256, r"\1" + ns.DS + "sha1", id="sha1 in the last"),
        pytest.param(ns.SHA256, ns.XENC + "sha512", id="sha512"),
        pytest.param("rsa-sha256", "rsa-sha1", id="rsa-sha1"),
        pytest.param("rsa-sha256", "hmac-sha256", id="hmac"),
        pytest.param("rsa-sha256", "ecdsa-sha256", id="another key kind"),
        pytest.param("xmldsig-more#rsa-sha256", "xmldsig-more#sha256-rsa-MGF1", id="pss"),
        pytest.param("</ds:SignatureMethod>", "<ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>", id="truncated hmac"),
        pytest.param("<ds:SignatureMethod.*?</ds:SignatureMethod>", "", id="no method"),
        pytest.param("<ds:CanonicalizationMethod.*?</ds:CanonicalizationMethod>", "", id="no c14n"),
        pytest.param("</ds:CanonicalizationMethod>", "<x></x></ds:CanonicalizationMethod>", id="c14n with a parameter"),
        pytest.param("<ds:DigestMethod.*?</ds:DigestMethod>", "", id="no digest method"),
        pytest.param("</ds:Reference>", "<ds:Object></ds:Object></ds:Reference>", id="object in a reference"),
        pytest.param("</ds:SignedInfo>", "<ds:Object></ds:Object></ds:SignedInfo>", id="object in signed info"),
    ])
    def test_algorithms_and_transforms(self, old, new):
        """C01-C05, C08: each of these is properly signed by the right party."""
        def edit(text):
            assert re.search(old, text), old
            return re.sub(old, new, text)

        with pytest.raises(PolicyNoncompliance):
            open_octets(craft(RSA, Payload(b"x"), info=edit), RSA.terms)

    @pytest.mark.parametrize("value", ["", "A", "AAAA", "ÄÄÄÄ", "<x></x>"])
    def test_digest_values(self, value):
        def edit(text):
            return re.sub("<ds:DigestValue>[^<]*", "<ds:DigestValue>" + value, text, count=1)

        with pytest.raises(FailedAuthentication if "<" not in value else PolicyNoncompliance):
            open_octets(craft(RSA, info=edit), RSA.terms)

    def test_digests_changed_about(self):
        """C07: the digests of Messaging and Body change places."""
        swap = lambda r: [replace(r[0], digest_text=r[1].digest_text), replace(r[1], digest_text=r[0].digest_text)]  # noqa: E731
        with pytest.raises(FailedAuthentication):
            open_octets(craft(RSA, references=swap), RSA.terms)

    @pytest.mark.parametrize("spoil", [
        lambda text: re.sub("<ds:SignatureValue>.*</ds:SignatureValue>", "", text),
        lambda text: re.sub("(<ds:SignatureValue>.*</ds:SignatureValue>)", r"\1\1", text),
        lambda text: re.sub("<ds:KeyInfo>.*</ds:KeyInfo>", "", text),
        lambda text: re.sub("(<ds:KeyInfo>.*</ds:KeyInfo>)", r"\1\1", text),
        lambda text: re.sub("<ds:SignedInfo.*</ds:SignedInfo>", "", text),
        lambda text: text.replace("</ds:Signature>", "<ds:Object/></ds:Signature>"),
        lambda text: re.sub("(<ds:SignatureValue>)", r"\1<x/>", text),
    ])
    def test_the_frame_of_the_signature(self, spoil):
        with pytest.raises(PolicyNoncompliance):
            open_octets(craft(RSA, security=lambda c: [*c[:-1], spoil(c[-1])]), RSA.terms)

    @pytest.mark.parametrize("value", ["", "=", "AAAA", "ä", "A" * 100_000])
    def test_signature_values(self, value):
        def edit(children):
            return [*children[:-1], re.sub("<ds:SignatureValue>[^<]*", "<ds:SignatureValue>" + value, children[-1])]

        for suite in SUITES:
            with pytest.raises(FailedAuthentication):
                open_octets(craft(suite, security=edit), suite.terms)

    @pytest.mark.parametrize("extra", [
        "<x xmlns='urn:x'/>", f"<wsse:UsernameToken xmlns:wsse='{ns.WSSE}'/>", "<saml:Assertion xmlns:saml='urn:s'/>",
        f"<xenc:ReferenceList xmlns:xenc='{ns.XENC}'/>", f"<ds:Signature xmlns:ds='{ns.DS}'/>",
        *[f"<wsse:BinarySecurityToken wsu:Id='t{n}'/>" * n for n in (2,)],
    ])
    def test_what_else_may_not_stand_in_security(self, extra):
        with pytest.raises((PolicyNoncompliance, InvalidHeader)):
            open_octets(craft(RSA, security=lambda c: [*c, extra]), RSA.terms)

    def test_a_timestamp_is_tolerated(self):
        stamp = "<wsu:Timestamp><wsu:Created>2026-01-01T00:00:00Z</wsu:Created></wsu:Timestamp>"
        assert open_octets(craft(RSA, security=lambda c: [stamp, *c]), RSA.terms)

    def test_any_order_in_security(self):
        for turn in range(4):
            edit = lambda c, turn=turn: c[turn:] + c[:turn]  # noqa: E731
            assert open_octets(craft(RSA, Payload(b"x"), security=edit), RSA.terms)

    @pytest.mark.parametrize("prefixes", ["S12", "S12 eb", "eb wsu S12 unknown", "#default S12", ""])
    def test_prefix_lists_are_honoured(self, prefixes):
        """[as4 6.54]: in the transforms and in CanonicalizationMethod."""
        inclusive = f'<ec:InclusiveNamespaces xmlns:ec="{ns.EC}" PrefixList="{prefixes}"></ec:InclusiveNamespaces>'
        # An envelope that declares more than it uses, so that the list makes a difference.
        plain = craft(RSA).replace(
            b"<S12:Envelope ", f'<S12:Envelope xmlns:eb="{ns.EB}" xmlns="urn:default" '.encode(), 1
        )
        root = parse(plain)
        made = [
            element_reference("m", hashlib.sha256(c14n(root[0][1], prefixes)).digest()),
            element_reference("b", hashlib.sha256(c14n(root[1], prefixes)).digest()),
        ]
        info = signed_info(ns.RSA_SHA256, made).replace(f'{ns.EXC_C14N}">', f'{ns.EXC_C14N}">{inclusive}')
        placed = re.sub(rb"<ds:SignedInfo.*</ds:SignedInfo>", lambda _: info.encode(), plain)
        octets = c14n(next(parse(placed).iter(ns.qn(ns.DS, "SignedInfo"))), prefixes)
        value = encode_base64(RSA.sender.sign(octets)).encode()
        placed = re.sub(rb"(<ds:SignatureValue>)[^<]*", lambda match: match[1] + value, placed)
        assert open_octets(placed, RSA.terms).references[0].transforms[0].prefix_list == prefixes

    def test_too_many_prefixes(self):
        """A12: refused before anything is canonicalised."""
        prefixes = " ".join(f"p{number}" for number in range(17))
        inclusive = f'<ec:InclusiveNamespaces xmlns:ec="{ns.EC}" PrefixList="{prefixes}"></ec:InclusiveNamespaces>'

        def edit(text):
            return text.replace("</ds:CanonicalizationMethod>", inclusive + "</ds:CanonicalizationMethod>")

        with pytest.raises(InvalidHeader):
            open_octets(craft(RSA, info=edit), RSA.terms)


# -- unsigned and spoiled messages ------------------------------------------------------


class TestUnsigned:
    def test_a_user_message(self):
        """B06"""
        plain = craft(RSA)
        for octets in (
            re.sub(rb"<wsse:Security.*</wsse:Security>", b"", plain),
            re.sub(rb"(<wsse:Security[^>]*>).*(</wsse:Security>)", rb"\1\2", plain),
        ):
            for allow in (False, True):
                with pytest.raises(PolicyNoncompliance):
                    open_octets(octets, RSA.terms, allow_unsigned=allow)

    def error(self):
        return error_for(Other(), ref_to="m@x", message_id="e@x", now=NOW)

    def test_an_error(self):
        octets = secure_signal(self.error(), profile=RSA.profile, key=None, token="bst", entropy=os.urandom)
        opened = open_octets(octets, RSA.terms, allow_unsigned=True)
        assert isinstance(opened, Unauthenticated)
        assert opened.unit == self.error()
        with pytest.raises(PolicyNoncompliance):
            open_octets(octets, RSA.terms)

    def test_a_signature_that_is_there_must_be_right(self):
        octets = secure_signal(self.error(), profile=RSA.profile, key=RSA.sender, token="bst", entropy=os.urandom)
        assert open_octets(octets, RSA.terms, allow_unsigned=True).signer == RSA.sender.certificate
        with pytest.raises(FailedAuthentication):
            open_octets(octets.replace(b">m@x<", b">n@x<"), RSA.terms, allow_unsigned=True)
        with pytest.raises(FailedAuthentication):
            open_octets(octets, Terms(RSA.profile, (EDDSA.sender.certificate,)), allow_unsigned=True)


class TestSignals:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("suite", ALL_SUITES, ids=repr)
    def test_a_receipt(self, suite, form):
        from gateway.as4 import receipts

        made = wire(suite, draft(Payload(b"<a/>")))
        opened = open_octets(made.root[made.root.index(b"\r\n\r\n") + 4 :], suite.terms)
        receipt = receipt_for(opened.references, ref_to="8d1f3c52@a.example", message_id="r@b.example", now=NOW)
        octets = secure_signal(receipt, profile=suite.profile, key=suite.sender, token=form, entropy=os.urandom)
        answer = open_octets(octets, suite.terms)
        assert isinstance(answer.unit, Receipt) and answer.promised == {} and answer.encrypted_key is None
        receipts.check(answer.unit, made.references, "8d1f3c52@a.example")

    def test_a_signal_does_not_reference_parts(self):
        """[as4 7.6]"""
        receipt = receipt_for((), ref_to="m@x", message_id="r@x", now=NOW)
        octets = craft(RSA, message=receipt, references=lambda r: [*r, part_reference("p@x", b"0" * 32)])
        with pytest.raises(PolicyNoncompliance):
            open_octets(octets, RSA.terms)


@pytest.mark.parametrize("suite", SUITES, ids=repr)
def test_no_octet_of_the_header_can_be_changed(suite):
    """Every octet of what was signed, spoiled one at a time: nothing opens to another unit."""
    good = craft(suite, Payload(b"x"))
    opened = open_octets(good, suite.terms)
    start, end = good.index(b"<eb:Messaging"), good.index(b"</S12:Envelope>")
    for at in range(start, end, 3):
        spoiled = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        try:
            other = open_octets(spoiled, suite.terms)
        except EbmsError:
            continue
        assert (other.unit, other.references) == (opened.unit, opened.references), good[at - 20 : at + 20]


@pytest.mark.parametrize("suite", SUITES, ids=repr)
def test_encryption_elements_are_not_signed_and_can_still_do_no_harm(suite):
    """Every octet between the header and the signature, spoiled: refused, or the same content."""
    payload = Payload(b"<evidence/>" * 20)
    content_type, body = send(suite, payload)
    start, end = body.index(b"<wsse:Security"), body.index(b"<ds:Signature")
    for at in range(start, end, 7):
        for bit in (1, 0x20):
            spoiled = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
            try:
                _, contents = receive(content_type, spoiled, suite.terms, [suite.receiver])
            except EbmsError:
                continue
            assert list(contents.values()) == [payload.content], body[at - 20 : at + 20]


def test_all_causes_of_a_code_look_alike():
    """[threats 1.0]: nothing but class constants for 0101, 0102, 0103."""
    for error in (FailedAuthentication, FailedDecryption, PolicyNoncompliance):
        one, other = error("detail", where="eb:x"), error()
        assert (one.wire, one.where, one.code, one.status) == (other.wire, None, other.code, other.status)


# -- parts -----------------------------------------------------------------------------


def prover(suite, *payloads, limits=PartLimits(1 << 30, 8 << 20), **options):
    content_type, body = send(suite, *payloads, **options)
    ready, parts = split(content_type, body)
    opened = open_octets(ready.octets, suite.terms)
    key = unwrap_content_key(opened, [suite.receiver])
    cid, octets = next(iter(parts.items()))
    return PartProver(opened, cid, key, limits), octets, opened, key


def drain(made: PartProver, octets: bytes, step: int = 1 << 16) -> bytes:
    out = bytearray()
    for at in range(0, len(octets), step):
        for piece in made.feed(octets[at : at + step]):
            out += piece
    list(made.finish())
    return bytes(out)


XML = b'<?xml version="1.0"?>\n<a  b=\'1\'><!-- c --><c/>&#65;<![CDATA[<]]></a>\n'
XML_CANONICAL = b'<a b="1"><c></c>A&lt;</a>'
TEXT = b"one\ntwo\rthree\r\nfour\r"
TEXT_CRLF = b"one\r\ntwo\r\nthree\r\nfour\r\n"


class TestParts:
    @pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 16])
    @pytest.mark.parametrize(("payload", "form"), [
        (Payload(XML, compress=False, signed_as="application/xml", digest_of=XML_CANONICAL), "xml"),
        (Payload(XML, compress=False, signed_as="text/xml; charset=utf-8", digest_of=XML_CANONICAL), "xml"),
        (Payload(XML, compress=False, signed_as="image/svg+xml", digest_of=XML_CANONICAL), "xml"),
        (Payload(XML, compress=False, signed_as="application/xml"), "raw"),
        (Payload(XML, compress=False, digest_of=XML_CANONICAL), "xml"),
        (Payload(TEXT, "text/plain", compress=False, signed_as="text/plain", digest_of=TEXT_CRLF), "text"),
        (Payload(TEXT, "text/plain", compress=False, signed_as="text/plain"), "raw"),
        (Payload(TEXT, "text/plain", compress=False, digest_of=TEXT_CRLF), "text"),
        (Payload(TEXT, "application/octet-stream", compress=False), "raw"),
        (Payload(XML), "raw"),
    ])
    def test_forms_of_digest(self, payload, form, step):
        """[as4 3.6], with its tolerance: the octets, or the form the media type asks for."""
        made, octets, *_ = prover(RSA, payload)
        assert drain(made, octets, step) == payload.content
        assert made.proven.digest_form == form
        assert made.proven.sha256 == hashlib.sha256(payload.content).digest()

    @pytest.mark.parametrize("payload", [
        Payload(XML, "application/octet-stream", compress=False, digest_of=XML_CANONICAL),
        Payload(TEXT, "text/plain", compress=False, digest_of=TEXT.replace(b"\r\n", b"\n")),
        Payload(XML, digest_of=XML),
        Payload(b"<!DOCTYPE a><a/>", compress=False, signed_as="text/xml", digest_of=b"<a></a>"),
        Payload(b"not xml", compress=False, signed_as="text/xml", digest_of=b""),
        Payload(XML, compress=False, signed_as="application/xml", digest_of=XML + b" "),
    ], ids=["type says nothing", "LF", "signed before compression", "doctype", "not xml", "other octets"])
    def test_other_digests(self, payload):
        made, octets, *_ = prover(RSA, payload)
        with pytest.raises(FailedAuthentication):
            drain(made, octets)
        with pytest.raises(RuntimeError):
            _ = made.proven

    def test_xml_beyond_the_cap_counts_by_its_octets_only(self):
        limits = PartLimits(1 << 30, 10)
        made, octets, *_ = prover(RSA, Payload(XML, compress=False, digest_of=XML_CANONICAL), limits=limits)
        with pytest.raises(FailedAuthentication):
            drain(made, octets)
        made, octets, *_ = prover(RSA, Payload(XML, compress=False, signed_as="text/xml"), limits=limits)
        assert drain(made, octets) == XML

    @given(st.binary(max_size=60).map(lambda b: bytes(b"a\r\n"[c % 3] for c in b)), st.lists(st.integers(0, 60), max_size=5))
    def test_line_ends_whatever_the_cuts(self, octets, cuts):
        digest = PartDigest(ns.SHA256, "text", 0)
        cuts = sorted({0, *(c for c in cuts if c < len(octets)), len(octets)})
        for start, end in itertools.pairwise(cuts):
            digest.update(octets[start:end])
        assert digest.meets(hashlib.sha256(re.sub(rb"\r\n|\r|\n", b"\r\n", octets)).digest())

    def test_media_types(self):
        assert [digest_form(t) for t in ("text/xml", "Application/XML; x", "application/a+xml", "image/svg+xml")] == ["xml"] * 4
        assert [digest_form(t) for t in ("text/plain", "TEXT/html")] == ["text"] * 2
        assert [digest_form(t) for t in (None, "", "application/gzip", "audio/x+xml", "application/json")] == ["raw"] * 5

    @pytest.mark.parametrize("step", [1, 16, 1 << 16])
    def test_causes_in_their_order(self, step):
        """A flipped bit is 0102, though the inflater stumbles over it first."""
        made, octets, *_ = prover(RSA, Payload(os.urandom(2000)))
        with pytest.raises(FailedDecryption):
            drain(made, octets[:50] + bytes([octets[50] ^ 1]) + octets[51:], step)
        made, octets, opened, key = prover(RSA, Payload(b"not gzip" * 9, compress=False))
        info = replace(opened.unit.parts[0], properties=(Property(ns.COMPRESSION_TYPE, ns.GZIP),))
        opened = replace(opened, unit=replace(opened.unit, parts=(info,)))
        cid = info.cid
        with pytest.raises(DecompressionFailure):
            drain(PartProver(opened, cid, key, PartLimits(1 << 20, 0)), octets, step)
        wrong = replace(opened, promised={cid: replace(opened.promised[cid], digest=bytes(32))})
        with pytest.raises(FailedAuthentication):
            drain(PartProver(wrong, cid, key, PartLimits(1 << 20, 0)), octets, step)

    def test_bombs(self):
        """I01: stops at the limit, and says so only after the proof."""
        bomb = Payload(bytes(8 << 20))
        made, octets, *_ = prover(RSA, bomb, limits=PartLimits(1 << 20, 0))
        out = 0
        for piece in made.feed(octets):
            out += len(piece)
        assert out <= 1 << 20
        with pytest.raises(DecompressionFailure):
            made.finish()
        made, octets, *_ = prover(RSA, bomb, limits=PartLimits(1 << 30, 0, ratio=10, grace=0))
        with pytest.raises(DecompressionFailure):
            drain(made, octets)

    def test_an_uncompressed_part_too_large(self):
        payload = Payload(bytes(1000), "application/octet-stream", compress=False)
        made, octets, *_ = prover(RSA, payload, limits=PartLimits(999, 0))
        with pytest.raises(MimeInconsistency) as refusal:
            drain(made, octets)
        assert refusal.value.status == 413
        made, octets, *_ = prover(RSA, payload, limits=PartLimits(1000, 0))
        assert len(drain(made, octets)) == 1000

    def test_what_no_prover_is_made_for(self):
        _, _, opened, key = prover(RSA, Payload(b"x"))
        with pytest.raises(FailedDecryption):
            PartProver(opened, "part-1@as4.example", None, PartLimits(1, 1))
        with pytest.raises(MimeInconsistency):
            PartProver(opened, "other", key, PartLimits(1, 1))
        info = replace(opened.unit.parts[0], properties=(Property(ns.COMPRESSION_TYPE, "application/zip"),))
        opened = replace(opened, unit=replace(opened.unit, parts=(info,)))
        with pytest.raises(ValueInconsistent):
            PartProver(opened, "part-1@as4.example", key, PartLimits(1, 1))

    def test_the_media_type_is_the_signed_property(self):
        """D06: @MimeType of EncryptedData is not signed and changes nothing but a digest form."""
        content_type, body = send(RSA, Payload(b"<a/>"))
        changed = body.replace(b'MimeType="application/gzip"', b'MimeType="text/evil-type"')
        assert changed != body
        proven, _ = receive(content_type, changed, RSA.terms, [RSA.receiver])
        assert proven.parts[0].mime_type == "application/xml"

    def test_parts_changed_about(self):
        """D04"""
        payloads = [Payload(b"one", compress=False), Payload(b"two", compress=False)]
        content_type, body = send(RSA, *payloads)
        one, two = b"part-1@as4.example>", b"part-2@as4.example>"
        swapped = body.replace(one, b"tmp").replace(two, one).replace(b"tmp", two)
        with pytest.raises(FailedAuthentication):
            receive(content_type, swapped, RSA.terms, [RSA.receiver])


class TestProven:
    def parts(self, count=2):
        payloads = [Payload(b"%d" % n) for n in range(count)]
        content_type, body = send(RSA, *payloads)
        proven, _ = receive(content_type, body, RSA.terms, [RSA.receiver])
        return open_octets(envelope_of(content_type, body), RSA.terms), proven.parts

    def test_order_of_the_header(self):
        opened, parts = self.parts()
        assert prove(opened, parts[::-1]).parts == parts

    @pytest.mark.parametrize("spoil", [
        lambda parts: parts[:1], lambda parts: [*parts, parts[0]], lambda parts: [parts[0], parts[0]], lambda parts: [],
        lambda parts: [*parts, replace(parts[0], cid="other")],
    ])
    def test_missing_and_repeated_parts(self, spoil):
        opened, parts = self.parts()
        with pytest.raises(MimeInconsistency):
            prove(opened, spoil(parts))

    def test_another_digest(self):
        opened, (one, two) = self.parts()
        with pytest.raises(FailedAuthentication):
            prove(opened, (one, replace(two, wire_digest=bytes(32))))

    def test_nobody_else_makes_one(self):
        with pytest.raises(TypeError):
            Proven(user_message(), (), b"", (), b"")
        with pytest.raises(TypeError):
            Proven(user_message(), (), b"", (), b"", maker=object())
        with pytest.raises(TypeError):
            prove(user_message(), ())
        receipt = receipt_for((), ref_to="m@x", message_id="r@x", now=NOW)
        opened = open_octets(craft(RSA, message=receipt), RSA.terms)
        with pytest.raises(TypeError):
            prove(opened, ())

    def test_it_cannot_be_changed(self):
        opened, parts = self.parts()
        with pytest.raises(AttributeError):
            prove(opened, parts).signer = b""


# -- crash points -----------------------------------------------------------------------


def test_points_are_passed_in_their_order(monkeypatch):
    seen = []
    monkeypatch.setattr(inbound, "point", seen.append)
    receive(*send(RSA, Payload(b"x")), RSA.terms, [RSA.receiver])
    assert seen == ["IB08", "IB09", "IB10", "IB11"]
    seen.clear()
    made, octets, *_ = prover(RSA, Payload(b"x", compress=False, digest_of=b"y"))
    with pytest.raises(FailedAuthentication):
        drain(made, octets)
    assert seen == ["IB08", "IB09", "IB10", "IB11", "IB12"]


def test_the_profile_of_the_suite_is_what_counts():
    profile = replace_profile(RSA.profile, accept_digest=frozenset({ns.XENC + "sha512"}))
    with pytest.raises(PolicyNoncompliance):
        open_octets(craft(RSA), Terms(profile, (RSA.sender.certificate,)))
