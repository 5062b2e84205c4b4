"""Certificate paths: what ends at an anchor, and every way in which it must not."""

import datetime
import functools
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.path import MAX_LENGTH, check_path
from tests.pki import AGREE, BOTH, NOW, SIGN, Ca, build, key, name, policies, usage


@functools.cache
def pki():
    root = Ca.root("Root")
    issuing = root.ca("Issuing")
    return root, issuing, issuing.leaf("AP_EE_01")


def check(leaf, *, anchors=None, carried=(), use="sign", now=NOW, **more):
    root, _, _ = pki()
    return check_path(leaf, use=use, now=now, anchors=anchors or [root.certificate], carried=carried, **more)


def refused(leaf, **more) -> str:
    with pytest.raises(CertificateRefused) as error:
        check(leaf, **more)
    return error.value.reason


class TestPaths:
    def test_leaf_intermediate_anchor(self):
        root, issuing, leaf = pki()
        assert check(leaf, carried=[issuing.certificate]) == (leaf, issuing.certificate, root.certificate)

    def test_a_leaf_of_the_anchor_itself(self):
        root, *_ = pki()
        leaf = root.leaf("direct")
        assert check(leaf) == (leaf, root.certificate)

    def test_the_order_of_what_is_carried_does_not_matter_and_what_is_not_needed_does_no_harm(self):
        _, issuing, _ = pki()
        second = issuing.ca("Second")
        leaf = second.leaf("deep")
        stranger = Ca.root("Stranger").certificate
        bag = [stranger, issuing.certificate, leaf, second.certificate]
        assert len(check(leaf, carried=bag)) == 4

    def test_a_configured_intermediate_completes_a_path(self):
        _, issuing, leaf = pki()
        assert refused(leaf) == "no-path"
        assert len(check(leaf, intermediates=[issuing.certificate])) == 3

    def test_an_intermediate_may_be_the_anchor(self):
        _, issuing, leaf = pki()
        assert check(leaf, anchors=[issuing.certificate]) == (leaf, issuing.certificate)

    def test_another_ca_of_the_same_name_is_no_anchor(self):
        root, issuing, leaf = pki()
        twin = Ca.root("Root", private=key("ec", 7))
        assert refused(leaf, anchors=[twin.certificate], carried=[issuing.certificate]) == "no-path"
        # Where both are known, the right one is found.
        assert check(leaf, anchors=[twin.certificate, root.certificate], carried=[issuing.certificate])[-1] == root.certificate

    def test_a_renewed_ca_with_the_same_key_is_as_good(self):
        root, issuing, leaf = pki()
        old = root.ca("Issuing", private=issuing.key, start=-400, days=30)
        assert check(leaf, carried=[old.certificate, issuing.certificate])[1] == issuing.certificate

    def test_names_are_compared_as_der(self):
        root, *_ = pki()
        spelled = Ca(name("ROOT"), root.key, root.certificate, None)
        assert refused(spelled.leaf("x")) == "no-path"

    @pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519", "brainpool"])
    def test_keys_that_sign(self, kind):
        root, *_ = pki()
        assert check(root.leaf("x", key(kind, 3).public_key(), key_usage=SIGN))

    @pytest.mark.parametrize(("kind", "key_usage"), [("rsa", BOTH), ("x25519", AGREE), ("brainpool", AGREE)])
    def test_keys_that_are_encrypted_to(self, kind, key_usage):
        root, *_ = pki()
        assert check(root.leaf("x", key(kind, 4).public_key(), key_usage=key_usage), use="encrypt")

    def test_eddsa_and_rsa_authorities(self):
        for kind in ("ed25519", "rsa"):
            root = Ca.root(f"Root {kind}", private=key(kind, 5))
            assert check(root.leaf("x"), anchors=[root.certificate])

    def test_cross_signed_authorities_in_a_circle(self):
        a, b = Ca.root("A", private=key("ec", 11)), Ca.root("B", private=key("ec", 12))
        a_by_b, b_by_a = b.ca("A", private=a.key), a.ca("B", private=b.key)
        leaf = a.leaf("x")
        assert refused(leaf, carried=[a_by_b.certificate, b_by_a.certificate]) == "no-path"
        assert len(check(leaf, anchors=[b.certificate], carried=[a_by_b.certificate, b_by_a.certificate])) == 3


class TestTime:
    @pytest.mark.parametrize("which", ["leaf", "intermediate", "anchor"])
    @pytest.mark.parametrize(("start", "days", "reason"), [(-10, 9, "expired"), (1, 10, "not-yet-valid")])
    def test_everything_must_be_valid(self, which, start, days, reason):
        when = {"start": start, "days": days}
        root = Ca.root("R", **(when if which == "anchor" else {}))
        issuing = root.ca("I", **(when if which == "intermediate" else {}))
        leaf = issuing.leaf("x", **(when if which == "leaf" else {}))
        assert refused(leaf, anchors=[root.certificate], carried=[issuing.certificate]) == reason

    def test_there_is_no_tolerance(self):
        root = Ca.root("R")
        leaf = root.leaf("x", days=20)
        end = x509.load_der_x509_certificate(leaf).not_valid_after_utc
        assert check(leaf, anchors=[root.certificate], now=end)
        assert refused(leaf, anchors=[root.certificate], now=end + datetime.timedelta(seconds=1)) == "expired"

    def test_it_is_judged_at_the_time_that_is_asked_about(self):
        root = Ca.root("R", start=-4000, days=8000)
        leaf = root.leaf("x", start=-3000, days=100)
        assert refused(leaf, anchors=[root.certificate]) == "expired"
        assert check(leaf, anchors=[root.certificate], now=NOW - datetime.timedelta(days=2950))


class TestAuthorities:
    def test_a_leaf_is_no_issuer(self):
        root, *_ = pki()
        private = key("ec", 21)
        party = root.ca("AP_LT_01", private=private, ca=False, key_usage=SIGN)
        assert refused(party.leaf("AP_EE_01"), carried=[party.certificate]) == "key-usage"
        party = root.ca("AP_LT_01", private=private, ca=False, key_usage=None)
        assert refused(party.leaf("AP_EE_01"), carried=[party.certificate]) == "not-a-ca"
        party = root.ca("AP_LT_01", private=private, constraints=False, key_usage=None)
        assert refused(party.leaf("AP_EE_01"), carried=[party.certificate]) == "not-a-ca"

    def test_a_ca_without_the_usage_is_no_issuer(self):
        root, *_ = pki()
        signing = root.ca("I", key_usage=usage("crl_sign"))
        assert refused(signing.leaf("x"), carried=[signing.certificate]) == "key-usage"

    def test_a_ca_without_any_usage_is_one(self):
        root, *_ = pki()
        issuing = root.ca("I", key_usage=None)
        assert check(issuing.leaf("x"), carried=[issuing.certificate])

    @pytest.mark.parametrize("allow", [Trust(), Trust(self_signed_ca=True, key_usage=False, sha1_signatures=True)])
    def test_a_ca_is_no_leaf(self, allow):
        root, issuing, _ = pki()
        assert refused(issuing.certificate, allow=allow) == "ca-as-leaf" or allow == Trust()
        assert refused(root.certificate, allow=Trust(self_signed_ca=True, key_usage=False)) == "ca-as-leaf"

    def test_the_length_of_a_path(self):
        root = Ca.root("R", path_length=1)
        first = root.ca("1", path_length=0)
        second = first.ca("2")
        anchors, carried = [root.certificate], [first.certificate, second.certificate]
        assert check(first.leaf("x"), anchors=anchors, carried=carried)
        assert refused(second.leaf("x"), anchors=anchors, carried=carried) == "path-too-long"
        # A CA that certified itself anew does not count.
        again = first.ca("1", private=key("ec", 31))
        leaf = again.leaf("x")
        assert len(check(leaf, anchors=anchors, carried=[first.certificate, again.certificate])) == 4

    def test_only_so_many_certificates(self):
        root = at = Ca.root("R")
        carried = []
        for n in range(MAX_LENGTH - 2):
            at = at.ca(f"C{n}")
            carried.append(at.certificate)
        assert len(check(at.leaf("x"), anchors=[root.certificate], carried=carried)) == MAX_LENGTH
        at = at.ca("one more")
        carried.append(at.certificate)
        assert refused(at.leaf("x"), anchors=[root.certificate], carried=carried) == "no-path"

    def test_critical_extensions_that_nobody_knows(self):
        strange = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)
        root, *_ = pki()
        assert refused(root.leaf("x", extensions=[strange])) == "unknown-critical-extension"
        issuing = root.ca("I", extensions=[strange])
        assert refused(issuing.leaf("x"), carried=[issuing.certificate]) == "unknown-critical-extension"

    def test_a_ca_for_servers_only(self):
        root, *_ = pki()
        server = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        issuing = root.ca("I", extensions=[server])
        assert refused(issuing.leaf("x"), carried=[issuing.certificate]) == "extended-key-usage"

    def test_weak_signatures_and_keys(self):
        rsa_root = Ca.root("R", private=key("rsa", 41))
        leaf = build(name("x"), key("rsa", 1).public_key(), rsa_root.subject, rsa_root.key, ca=False, digest=hashes.SHA224())
        assert refused(leaf, anchors=[rsa_root.certificate]) == "weak-signature"
        weak = build(name("I"), key("ec", 42).public_key(), rsa_root.subject, rsa_root.key, ca=True, digest=hashes.SHA224())
        issuing = Ca(name("I"), key("ec", 42), weak, rsa_root)
        assert refused(issuing.leaf("x"), anchors=[rsa_root.certificate], carried=[weak]) == "weak-signature"
        from cryptography.hazmat.primitives.asymmetric import rsa

        small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        root = Ca.root("small", private=small)
        assert refused(root.leaf("x"), anchors=[root.certificate]) == "weak-key"

    def test_a_forged_signature(self):
        root, *_ = pki()
        leaf = bytearray(root.leaf("x"))
        leaf[-1] ^= 1
        assert refused(bytes(leaf)) == "no-path"


class TestBounds:
    def test_a_bag_of_certificates_that_name_each_other(self):
        """Forty CAs of one name, each signed by each: a search without bounds would never end [threats F06]."""
        privates = [key("ec", 5000 + n) for n in range(8)]
        carried = [
            build(name("same"), privates[n % 8].public_key(), name("same"), privates[(n // 8 + n) % 8], ca=True) for n in range(40)
        ]
        leaf = build(name("x"), key("rsa", 1).public_key(), name("same"), privates[0], ca=False)
        began = time.process_time()
        assert refused(leaf, carried=carried) == "no-path"
        assert time.process_time() - began < 1.0

    def test_too_many_or_too_large(self):
        _, issuing, leaf = pki()
        assert refused(leaf, carried=[issuing.certificate] + [bytes([n]) * 3 for n in range(3)]) == "malformed"
        many = [issuing.leaf("x", serial=n + 1) for n in range(65)]
        assert refused(leaf, carried=many) == "no-path"

    @pytest.mark.parametrize("octets", [b"", b"\x30\x03\x02\x01", b"\x00" * 100, b"\x30\x82\xff\xff"])
    def test_what_is_no_certificate(self, octets):
        _, _, leaf = pki()
        assert refused(octets) == "malformed"
        assert refused(leaf, carried=[octets]) in ("malformed", "no-path")


class TestRevocation:
    def test_it_is_asked_with_the_whole_path_and_decides(self):
        root, issuing, leaf = pki()
        asked = []
        check(leaf, carried=[issuing.certificate], revocation=lambda path, now: asked.append((path, now)))
        assert asked == [((leaf, issuing.certificate, root.certificate), NOW)]

        def revoked(path, now):
            raise CertificateRefused("revoked", "said the CRL")

        assert refused(leaf, carried=[issuing.certificate], revocation=revoked) == "revoked"

    def test_it_is_not_asked_about_a_path_that_is_wrong(self):
        _, _, leaf = pki()

        def never(path, now):
            raise AssertionError

        assert refused(leaf, revocation=never) == "no-path"


class TestNameConstraints:
    CASES = (
        (x509.DirectoryName(name({"C": "EE"})), {"C": "EE", "CN": "AP_EE_01"}, None, True),
        (x509.DirectoryName(name({"C": "EE"})), {"C": "ee", "CN": "AP_EE_01"}, None, True),
        (x509.DirectoryName(name({"C": "EE"})), {"C": "LV", "CN": "AP_EE_01"}, None, False),
        (x509.DirectoryName(name({"C": "EE"})), {"CN": "AP_EE_01", "C": "EE"}, None, False),
        (x509.DNSName("example.ee"), "x", x509.DNSName("ap.example.ee"), True),
        (x509.DNSName("example.ee"), "x", x509.DNSName("apexample.ee"), False),
        (x509.RFC822Name("example.ee"), "x", x509.RFC822Name("a@example.ee"), True),
        (x509.RFC822Name("example.ee"), "x", x509.RFC822Name("a@mail.example.ee"), False),
        (x509.RFC822Name(".example.ee"), "x", x509.RFC822Name("a@mail.example.ee"), True),
        (x509.RFC822Name("example.ee"), {"CN": "x", "E": "a@example.lv"}, None, False),
        (x509.UniformResourceIdentifier(".example.ee"), "x", x509.UniformResourceIdentifier("https://ap.example.ee/as4"), True),
        (x509.UniformResourceIdentifier(".example.ee"), "x", x509.UniformResourceIdentifier("https://example.lv/"), False),
        (x509.UniformResourceIdentifier(".example.ee"), "x", x509.UniformResourceIdentifier("urn:a:b"), False),
        (x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), "x", x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), False),
    )

    @pytest.mark.parametrize(("tree", "subject", "other", "permitted"), CASES)
    def test_permitted(self, tree, subject, other, permitted):
        anchors, carried, leaf = self.under(x509.NameConstraints([tree], None), subject, other)
        if permitted:
            assert check(leaf, anchors=anchors, carried=carried)
        else:
            assert refused(leaf, anchors=anchors, carried=carried) == "name-constraints"

    @pytest.mark.parametrize(("tree", "subject", "other", "permitted"), CASES[:-2])
    def test_excluded_is_the_opposite(self, tree, subject, other, permitted):
        anchors, carried, leaf = self.under(x509.NameConstraints(None, [tree]), subject, other)
        if permitted:
            assert refused(leaf, anchors=anchors, carried=carried) == "name-constraints"
        else:
            assert check(leaf, anchors=anchors, carried=carried)

    def test_names_of_other_kinds_are_free(self):
        anchors, carried, leaf = self.under(x509.NameConstraints([x509.DNSName("example.ee")], None), {"C": "LV", "CN": "x"}, None)
        assert check(leaf, anchors=anchors, carried=carried)

    def test_a_constraint_of_an_anchor_counts_and_binds_intermediates(self):
        constrained = (x509.NameConstraints([x509.DirectoryName(name({"C": "EE"}))], None), True)
        root = Ca.root("R", extensions=[constrained])
        inside, outside = root.ca({"C": "EE", "CN": "I"}), root.ca({"C": "LV", "CN": "I"})
        leaf = {"C": "EE", "CN": "x"}
        assert check(inside.leaf(leaf), anchors=[root.certificate], carried=[inside.certificate])
        assert refused(outside.leaf(leaf), anchors=[root.certificate], carried=[outside.certificate]) == "name-constraints"

    @staticmethod
    def under(constraints, subject, other):
        root, *_ = pki()
        issuing = root.ca("I", extensions=[(constraints, True)])
        more = [(x509.SubjectAlternativeName([other]), False)] if other is not None else []
        return [root.certificate], [issuing.certificate], issuing.leaf(subject, extensions=more)


class TestPolicies:
    ONE, TWO, ANY = "1.3.6.1.4.1.99999.1", "1.3.6.1.4.1.99999.2", "2.5.29.32.0"

    @pytest.mark.parametrize(
        ("of_ca", "of_leaf", "wanted", "right"),
        [
            ((ONE,), (ONE,), (ONE,), True),
            ((ONE, TWO), (TWO,), (ONE, TWO), True),
            ((ONE,), (TWO,), (ONE,), False),
            ((ONE,), (TWO,), (TWO,), False),
            ((ANY,), (ONE,), (ONE,), True),
            ((ANY,), (ANY,), (ONE,), True),
            ((ONE,), (), (ONE,), False),
            ((), (ONE,), (ONE,), False),
            ((ONE,), (ANY,), (ONE,), True),
            ((ONE,), (ANY,), (TWO,), False),
            ((), (), (), True),
            ((ONE,), (TWO,), (), True),
        ],
    )
    def test_through_the_path(self, of_ca, of_leaf, wanted, right):
        root, *_ = pki()
        issuing = root.ca("I", extensions=[policies(*of_ca)] if of_ca else [])
        leaf = issuing.leaf("x", extensions=[policies(*of_leaf)] if of_leaf else [])
        if right:
            assert check(leaf, carried=[issuing.certificate], policies=wanted)
        else:
            assert refused(leaf, carried=[issuing.certificate], policies=wanted) == "policy"

    def test_a_ca_may_demand_one_and_forbid_any(self):
        root, *_ = pki()
        demanding = (x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None), True)
        issuing = root.ca("I", extensions=[policies(self.ONE), demanding])
        assert refused(issuing.leaf("x"), carried=[issuing.certificate]) == "policy"
        assert check(issuing.leaf("x", extensions=[policies(self.ONE)]), carried=[issuing.certificate])
        forbidding = root.ca("I", extensions=[policies(self.ONE), (x509.InhibitAnyPolicy(0), True)])
        leaf = forbidding.leaf("x", extensions=[policies(self.ANY)])
        assert refused(leaf, carried=[forbidding.certificate], policies=[self.ONE]) == "policy"


class TestOracle:
    """The library's own verifier, where it can judge: RSA and P-256, with what the Web PKI asks of a CA."""

    @staticmethod
    def library(leaf, anchors, carried) -> bool:
        policy = verification.PolicyBuilder().store(
            verification.Store([x509.load_der_x509_certificate(der) for der in anchors])
        ).time(NOW).extension_policies(
            ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=verification.ExtensionPolicy.permit_all()
        )
        try:
            policy.build_client_verifier().verify(
                x509.load_der_x509_certificate(leaf), [x509.load_der_x509_certificate(der) for der in carried]
            )
        except verification.VerificationError:
            return False
        return True

    def ours(self, leaf, anchors, carried) -> bool:
        try:
            check_path(leaf, use="sign", now=NOW, anchors=anchors, carried=carried)
        except CertificateRefused:
            return False
        return True

    def cases(self):
        root = Ca.root("Oracle root", path_length=1)
        good = root.ca("good")
        yield good.leaf("x"), [good]
        yield good.leaf("x"), []
        yield good.leaf("x", start=-20, days=10), [good]
        yield good.leaf("x", start=5), [good]
        late = root.ca("late", start=-20, days=10)
        yield late.leaf("x"), [late]
        no_usage = root.ca("no usage", key_usage=usage("crl_sign"))
        yield no_usage.leaf("x"), [no_usage]
        no_ca = root.ca("no ca", ca=False)
        yield no_ca.leaf("x"), [no_ca]
        below = good.ca("below")
        yield below.leaf("x"), [good, below]
        deep = below.ca("deep")
        yield deep.leaf("x"), [good, below, deep]
        other = Ca.root("Other")
        yield other.leaf("x"), [other]
        forged = Ca(good.subject, key("ec", 77), good.certificate, root)
        yield forged.leaf("x"), [good]
        for permitted in ("AP", "else"):
            named = root.ca("named", extensions=[(x509.NameConstraints([x509.DNSName("example.ee")], None), True)])
            host = "ap.example.ee" if permitted == "AP" else "ap.example.lv"
            yield named.leaf("x", extensions=[(x509.SubjectAlternativeName([x509.DNSName(host)]), False)]), [named]

    def test_both_say_the_same(self):
        root = Ca.root("Oracle root", path_length=1)
        verdicts = []
        for leaf, carried in self.cases():
            chain = [ca.certificate for ca in carried]
            anchors = [carried[0].issuer.certificate] if carried and carried[0].issuer else [root.certificate]
            ours, theirs = self.ours(leaf, anchors, chain), self.library(leaf, anchors, chain)
            assert ours == theirs, (len(verdicts), ours, theirs)
            verdicts.append(ours)
        assert verdicts.count(True) >= 2 and verdicts.count(False) >= 8

    def test_what_the_library_cannot_judge(self):
        """Why the search is our own: access points have these, and no verdict of the library on them is of use."""
        for kind in ("ed25519", "brainpool"):
            root = Ca.root(f"Oracle {kind}", private=key(kind, 9))
            leaf = root.leaf("x")
            assert not self.library(leaf, [root.certificate], []) and self.ours(leaf, [root.certificate], [])
        root = Ca.root("Oracle root")
        issuing = root.ca("I", extensions=[(x509.NameConstraints([x509.DirectoryName(name({"C": "EE"}))], None), True)])
        leaf = issuing.leaf({"C": "EE", "CN": "x"})
        assert not self.library(leaf, [root.certificate], [issuing.certificate])
        assert self.ours(leaf, [root.certificate], [issuing.certificate])
        for unfit in (root.ca("sub").certificate, root.leaf("x", key_usage=usage("key_encipherment"))):
            assert self.library(unfit, [root.certificate], []) and not self.ours(unfit, [root.certificate], [])
