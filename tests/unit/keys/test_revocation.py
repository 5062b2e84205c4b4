"""What counts as an answer about a certificate, and what does not: OCSP and CRL, judged without a network."""

import datetime
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Trust
from gateway.keys.revocation import NoAnswer, Sources, judge_crl, judge_ocsp, ocsp_request, sources
from tests.pki import ISSUE, SIGN, Ca, key, usage
from tests.responder import HOUR, access, crl, delegated, now, ocsp_answer, points, serial_of

CA = Ca.root("Issuing")
OTHER = Ca.root("Issuing", private=key("ec", 302))  # the same name, another key
LEAF = CA.leaf("AP_EE_01")
NONCE = b"n" * 32
DAY = datetime.timedelta(days=1)
RSA = Ca.root("RSA", private=key("rsa", 306))
RSA_LEAF = RSA.leaf("x")


def as_sha1(octets):
    """Says that it is signed with SHA-1, as the library makes none. (sha256WithRSA and sha1WithRSA are one octet apart.)"""
    changed = octets.replace(bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105"))
    assert changed != octets
    return changed


def resigned(octets):
    """The same with one bit of the signature changed."""
    response = ocsp.load_der_ocsp_response(octets)
    at = octets.index(response.signature) + len(response.signature) - 1
    return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]


def by_ocsp(octets, leaf=LEAF, ca=CA, **more):
    return judge_ocsp(octets, leaf, ca.certificate, nonce=NONCE, now=now(), **more)


def by_crl(octets, leaf=LEAF, ca=CA, **more):
    return judge_crl(octets, leaf, ca.certificate, now=now(), **more)


class TestSources:
    def test_where_to_ask(self):
        leaf = CA.leaf("x", extensions=[access("http://o/1", "https://o/2"), points("http://c/1", "ldap://c/2")])
        assert sources(leaf) == Sources(("http://o/1", "https://o/2"), ("http://c/1",))

    @pytest.mark.parametrize("extensions", [
        [], [access("http://ca/issuer.cer", method=AuthorityInformationAccessOID.CA_ISSUERS)],
        [access("ldap://x", "file:///etc/passwd", "gopher://x")], [points("ldap://x/y")],
        [points("http://c/1", reasons=frozenset([x509.ReasonFlags.key_compromise]))],
        [points("http://c/1", crl_issuer=[x509.DirectoryName(CA.subject)])],
    ])  # fmt: skip
    def test_nowhere(self, extensions):
        assert sources(CA.leaf("x", extensions=extensions)) == Sources()

    def test_not_more_than_three_of_each(self):
        leaf = CA.leaf("x", extensions=[access(*(f"http://o/{n}" for n in range(9))), points(*(f"http://c/{n}" for n in range(9)))])
        assert [len(found) for found in (sources(leaf).ocsp, sources(leaf).crls)] == [3, 3]
        assert sources(b"no certificate") == Sources()


class TestOcsp:
    @pytest.mark.parametrize("private", [key("rsa", 303), key("ec", 304), key("ed25519", 305)])
    def test_good_from_the_ca_itself(self, private):
        ca = Ca.root("Any", private=private)
        leaf = ca.leaf("x")
        digest = None if private is key("ed25519", 305) else "default"
        found = by_ocsp(ocsp_answer(ca, leaf, nonce=NONCE, digest=digest), leaf, ca)
        assert (found.status, found.source) == ("good", "ocsp") and found.until - found.this_update == HOUR

    def test_revoked(self):
        found = by_ocsp(ocsp_answer(CA, LEAF, status="revoked"))
        assert (found.status, found.reason) == ("revoked", "keyCompromise") and found.revoked_at < now()

    def test_unknown(self):
        assert by_ocsp(ocsp_answer(CA, LEAF, status="unknown")).status == "unknown"

    def test_from_whom_the_ca_has_charged_with_it(self):
        assert by_ocsp(ocsp_answer(CA, LEAF, signer=delegated(CA))).status == "good"

    def test_without_an_end_it_counts_for_an_hour(self):
        found = by_ocsp(ocsp_answer(CA, LEAF, until=None))
        assert found.until - found.this_update == HOUR

    def test_a_request_names_the_certificate_and_its_nonce(self):
        request = ocsp.load_der_ocsp_request(ocsp_request(LEAF, CA.certificate, NONCE))
        assert request.serial_number == serial_of(LEAF)
        assert request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE

    def test_sha1_is_looked_at_only_where_the_operator_allows_it(self):
        octets = as_sha1(ocsp_answer(RSA, RSA_LEAF))
        with pytest.raises(NoAnswer, match="signed with sha1"):
            by_ocsp(octets, RSA_LEAF, RSA)
        with pytest.raises(NoAnswer, match="signature of the answer is wrong"):
            by_ocsp(octets, RSA_LEAF, RSA, allow=Trust(sha1_signatures=True))

    @pytest.mark.parametrize(("make", "words"), [
        pytest.param(lambda: ocsp_answer(CA, LEAF, signer=delegated(OTHER)), "not the issuer's", id="another CA's responder"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, signer=delegated(CA, purpose=None)), "not for OCSP", id="any leaf"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, signer=delegated(CA, purpose=ExtendedKeyUsageOID.SERVER_AUTH)),
                     "not for OCSP", id="a TLS server"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, signer=delegated(CA, key_usage=usage("key_encipherment"))),
                     "not for signing", id="a key that may not sign"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, signer=delegated(CA, start=-9, days=5)), "expired", id="expired responder"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, signer=delegated(CA, start=1)), "valid from", id="responder of tomorrow"),
        pytest.param(lambda: resigned(ocsp_answer(CA, LEAF)), "wrong|cannot be used", id="wrong signature"),
        pytest.param(lambda: resigned(ocsp_answer(CA, LEAF, signer=delegated(CA))), "wrong|cannot be used",
                     id="wrong signature of a responder"),
        pytest.param(lambda: ocsp_answer(OTHER, LEAF, issuer=CA), "nobody we know", id="signed by another CA"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, serial=4711), "another certificate", id="another certificate"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, issuer=OTHER), "another certificate", id="another issuer's of that serial"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, nonce=b"m" * 32), "somebody else", id="another nonce"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, this=now() - 2 * DAY), "run out", id="expired"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, this=now() - DAY, until=None), "run out", id="old, without an end"),
        pytest.param(lambda: ocsp_answer(CA, LEAF, this=now() + DAY), "future", id="of the future"),
        pytest.param(lambda: ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER),
                     "try later", id="try later"),
        pytest.param(lambda: b"<html>", "cannot be used", id="html"),
        pytest.param(lambda: b"", "cannot be used", id="nothing"),
    ])  # fmt: skip
    def test_what_is_no_answer(self, make, words):
        with pytest.raises(NoAnswer, match=words):
            by_ocsp(make())

    @settings(max_examples=60, deadline=None)
    @given(at=st.integers(0, 400), bit=st.integers(0, 7))
    def test_a_changed_bit_never_makes_an_answer_of_another_kind(self, at, bit):
        octets = bytearray(ocsp_answer(CA, LEAF, status="revoked", nonce=NONCE))
        octets[at % len(octets)] ^= 1 << bit
        try:
            assert by_ocsp(bytes(octets)).status == "revoked"
        except NoAnswer:
            pass


class TestCrl:
    def test_good_and_revoked(self):
        assert by_crl(crl(CA, 1, 2, 3)).status == "good"
        found = by_crl(crl(CA, 1, serial_of(LEAF)))
        assert (found.status, found.source, found.reason) == ("revoked", "crl", "keyCompromise")
        assert by_crl(crl(CA, serial_of(LEAF), reason=x509.ReasonFlags.certificate_hold)).status == "revoked"

    def test_pem(self):
        octets = x509.load_der_x509_crl(crl(CA, serial_of(LEAF))).public_bytes(Encoding.PEM)
        assert by_crl(octets).status == "revoked"

    def test_the_scope_of_a_list(self):
        def scoped(**said):
            plain = {"full_name": None, "relative_name": None, "only_contains_user_certs": False, "indirect_crl": False,
                     "only_contains_ca_certs": False, "only_some_reasons": None, "only_contains_attribute_certs": False}  # fmt: skip
            point = x509.IssuingDistributionPoint(**plain | said)
            return crl(CA, extensions=[x509.Extension(point.oid, True, point)])

        below = CA.ca("Below").certificate
        assert by_crl(scoped(only_contains_user_certs=True)).status == "good"
        assert by_crl(scoped(only_contains_ca_certs=True), below).status == "good"
        named = CA.leaf("x", extensions=[points("http://c/1")])
        here = [x509.UniformResourceIdentifier("http://c/1")]
        assert by_crl(scoped(full_name=here), named).status == "good"
        for said, leaf in (({"only_contains_user_certs": True}, below), ({"only_contains_ca_certs": True}, LEAF),
                           ({"indirect_crl": True}, LEAF), ({"full_name": here}, LEAF),
                           ({"only_some_reasons": frozenset([x509.ReasonFlags.key_compromise])}, LEAF)):  # fmt: skip
            with pytest.raises(NoAnswer):
                by_crl(scoped(**said), leaf)

    @pytest.mark.parametrize(("make", "words"), [
        pytest.param(lambda: crl(CA, extensions=[x509.Extension(x509.DeltaCRLIndicator.oid, True, x509.DeltaCRLIndicator(1))]),
                     "delta", id="delta"),
        pytest.param(lambda: crl(OTHER), "wrong", id="another key of that name"),
        pytest.param(lambda: crl(Ca.root("Else")), "another issuer", id="another issuer"),
        pytest.param(lambda: crl(CA, this=now() - 3 * DAY), "run out", id="expired"),
        pytest.param(lambda: crl(CA, this=now() + DAY), "future", id="of the future"),
        pytest.param(lambda: crl(CA, extensions=[x509.Extension(
            x509.ObjectIdentifier("1.2.3"), True, x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"))]),
            "critical", id="unknown critical extension"),
        pytest.param(lambda: crl(CA, serial_of(LEAF), reason=x509.ReasonFlags.remove_from_crl), "delta", id="remove from CRL"),
        pytest.param(lambda: b"<html>not found</html>", "cannot be used", id="html"),
        pytest.param(lambda: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "cannot be used", id="broken pem"),
    ])  # fmt: skip
    def test_what_is_no_answer(self, make, words):
        with pytest.raises(NoAnswer, match=words):
            by_crl(make())

    def test_sha1(self):
        with pytest.raises(NoAnswer, match="signed with sha1"):
            by_crl(as_sha1(crl(RSA)), RSA_LEAF, RSA)

    def test_an_issuer_that_may_not_sign_lists(self):
        ca = Ca.root("Only certificates", key_usage=usage("key_cert_sign"))
        leaf = ca.leaf("x")
        with pytest.raises(NoAnswer, match="may not sign lists"):
            by_crl(crl(ca), leaf, ca)
        assert ISSUE.crl_sign and not SIGN.crl_sign

    def test_a_hundred_thousand_entries_take_a_moment(self):
        octets = crl(CA, *range(10**40, 10**40 + 100_000), serial_of(LEAF), reason=None)
        assert len(octets) > 3 << 20
        began = time.process_time()
        assert by_crl(octets).status == "revoked"
        assert time.process_time() - began < 0.5
