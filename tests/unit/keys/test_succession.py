"""When a certificate is plainly the renewal of another."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.keys.succession import differences
from tests import pki

SUBJECT = {"CN": "AP_EE_01", "O": "RIA", "organizationIdentifier": "NTREE-70006317", "C": "EE"}
ROOT = pki.Ca.root({"CN": "State CA", "C": "EE"})
OLD = ROOT.leaf(SUBJECT, pki.key("rsa", 1).public_key())


def test_a_renewal():
    new = ROOT.leaf(SUBJECT, pki.key("rsa", 2).public_key())
    assert differences(OLD, new, [ROOT.certificate]) == []
    [why] = differences(OLD, ROOT.leaf(SUBJECT, pki.key("rsa", 1).public_key()), [ROOT.certificate])
    assert "key is the same" in why


def test_the_ca_must_vouch_for_both():
    new = ROOT.leaf(SUBJECT, pki.key("rsa", 2).public_key())
    assert differences(OLD, new, []) != []
    # The name of a CA is anybody's: a thief makes one of the same name, and sends its certificate along.
    thief = pki.Ca.root({"CN": "State CA", "C": "EE"}, pki.key("ec", 99))
    forged = thief.leaf(SUBJECT, pki.key("rsa", 3).public_key())
    [why] = differences(OLD, forged, [thief.certificate, ROOT.certificate])
    assert "vouches for both" in why
    [why] = differences(OLD, pki.Ca.root("Evil CA").leaf(SUBJECT, pki.key("rsa", 2).public_key()), [ROOT.certificate])
    assert "CN=Evil CA" in why and "until now" in why


def test_an_access_point_is_no_ca():
    """Its key was stolen: it must not issue itself a successor."""
    end = pki.key("ec", 7)
    was = ROOT.leaf(SUBJECT, end.public_key(), key_usage=pki.SIGN)
    fake = pki.Ca(pki.name(SUBJECT), end, was, ROOT)
    chained = fake.leaf(SUBJECT, pki.key("ec", 8).public_key())
    assert differences(was, chained, [was, ROOT.certificate])


@pytest.mark.parametrize(("subject", "words"), [
    (SUBJECT | {"CN": "AP_EE_02"}, "the subject is"), (SUBJECT | {"organizationIdentifier": "NTREE-1"}, "organisation id is"),
    ({"CN": "AP_EE_01"}, "the subject is"),
])  # fmt: skip
def test_another_name(subject, words):
    assert any(words in why for why in differences(OLD, ROOT.leaf(subject), [ROOT.certificate]))


def test_what_else_is_no_renewal():
    own = pki.build(pki.name("AP_EE_01"), pki.key("ec", 1).public_key(), pki.name("AP_EE_01"), pki.key("ec", 1), ca=False)
    assert "self-signed" in differences(own, own, [])[0]
    assert "kind of key" in differences(OLD, ROOT.leaf(SUBJECT, pki.key("ec", 5).public_key()), [ROOT.certificate])[0]
    assert differences(OLD, b"\x30\x00", [ROOT.certificate]) == ["a certificate cannot be read"]


def test_a_ca_key_made_to_fit_is_left_out():
    odd = rsa.generate_private_key(public_exponent=3, key_size=2048)
    ca = pki.Ca.root("Odd CA", odd)
    was, new = ca.leaf(SUBJECT, pki.key("rsa", 1).public_key()), ca.leaf(SUBJECT, pki.key("rsa", 2).public_key())
    assert "vouches for both" in differences(was, new, [ca.certificate])[0]
