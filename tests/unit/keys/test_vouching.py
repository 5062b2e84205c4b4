"""Which certificate is whose, where nobody pinned it [as4 4.9 (c)]."""

import functools

import pytest
from cryptography import x509

from gateway.as4.pmode import PathTrust
from gateway.errors import CertificateRefused
from gateway.keys.vouching import names, party_of, vouch
from tests.pki import NOW, Ca


@functools.cache
def root() -> Ca:
    return Ca.root("Root")


def trust(**more) -> PathTrust:
    return PathTrust(anchors=(root().certificate,), **more)


def alternative(*found):
    return {"extensions": [(x509.SubjectAlternativeName(list(found)), False)]}


def refused(leaf, party_id="AP_EE_01", *, field="CN", **more) -> str | None:
    """The reason why the leaf is not that party's; None when it is."""
    try:
        vouch(leaf, (), trust(party_id=field, **more), use="sign", now=NOW, party_id=party_id)
    except CertificateRefused as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("field", "subject", "more", "reason"),
    [
        ("CN", "AP_EE_01", {}, None),
        ("CN", "ap_ee_01", {}, "party-id"),
        ("CN", "AP_EE_01 ", {}, "party-id"),
        ("CN", "AP_EE_010", {}, "party-id"),
        ("CN", "АР_EE_01", {}, "party-id"),  # Cyrillic
        ("CN", [("CN", "AP_EE_01"), ("CN", "AP_LT_01")], {}, "party-id"),
        ("CN", {"O": "AP_EE_01"}, {}, "party-id"),
        ("CN", "other", alternative(x509.DNSName("AP_EE_01")), "party-id"),
        ("organizationIdentifier", {"CN": "x", "organizationIdentifier": "AP_EE_01"}, {}, None),
        ("organizationIdentifier", {"CN": "AP_EE_01"}, {}, "party-id"),
        ("SAN-DNS", "x", alternative(x509.DNSName("other"), x509.DNSName("AP_EE_01")), None),
        ("SAN-DNS", "AP_EE_01", {}, "party-id"),
        ("SAN-URI", "x", alternative(x509.UniformResourceIdentifier("AP_EE_01")), None),
        ("SAN-URI", "x", alternative(x509.DNSName("AP_EE_01")), "party-id"),
    ],
)
def test_where_the_party_id_stands(field, subject, more, reason):
    assert refused(root().leaf(subject, **more), field=field) == reason


def test_a_serial_number_as_party_id():
    leaf = root().leaf({"CN": "x", "serialNumber": "PNOEE-38001085718"})
    assert refused(leaf, "PNOEE-38001085718", field="serialNumber") is None
    assert refused(leaf, "PNOEE-38001085719", field="serialNumber") == "party-id"


SUBJECT = {"CN": "AP_EE_01", "O": "Ministry, of Things", "C": "EE"}


@pytest.mark.parametrize(
    ("demands", "reason"),
    [
        ((("CN", "AP_EE_01"),), None),
        ((("O", "Ministry, of Things"), ("C", "EE")), None),
        ((("C", "LV"),), "subject"),
        ((("OU", "AP_EE_01"),), "subject"),
        ((("CN", "/AP_EE_[0-9]{2}/"),), None),
        ((("CN", "/AP_EE/"),), "subject"),  # the whole of it, not a part
        ((("CN", "/.*/"), ("C", "/LV|LT/")), "subject"),
        ((("CN", "//"),), "subject"),  # no expression: two slashes
    ],
)
def test_what_else_the_subject_must_be(demands, reason):
    assert refused(root().leaf(SUBJECT), subject=demands) == reason


def test_the_rule_for_the_subject_alone():
    """`none`: the certificate does not name the party; the agreement says which certificates are its own."""
    leaf = root().leaf({"CN": "ap.example.ee", "O": "Ministry"})
    assert refused(leaf, field="none", subject=(("CN", "ap.example.ee"),)) is None
    assert refused(root().leaf("ap.example.lv"), field="none", subject=(("CN", "ap.example.ee"),)) == "subject"


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_a_value_too_long_meets_no_expression():
    long = "a" * 60
    assert refused(root().leaf({"CN": long}), party_id=long, subject=(("CN", "/a+/"),)) is None
    # A subject of four kilobytes is one value for the reader, and a way to spend time for an expression.
    huge = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a" * 300, _validate=False)])
    from tests.pki import build, key

    leaf = build(huge, key("rsa", 1).public_key(), root().subject, root().key, ca=False)
    assert refused(leaf, party_id="a" * 300, subject=(("CN", "/a+/"),)) == "subject"


def test_the_path_comes_first():
    other = Ca.root("Other").leaf("AP_EE_01")
    assert refused(other) == "no-path"
    assert refused(other, subject=(("C", "LV"),)) == "no-path"


def test_the_one_party_of_a_certificate():
    assert party_of(root().leaf("AP_EE_01"), trust()) == "AP_EE_01"
    for leaf in (root().leaf({"O": "x"}), root().leaf([("CN", "a"), ("CN", "b")])):
        with pytest.raises(CertificateRefused) as error:
            party_of(leaf, trust())
        assert error.value.reason == "party-id"
    two = root().leaf("x", **alternative(x509.DNSName("a.example"), x509.DNSName("b.example")))
    with pytest.raises(CertificateRefused):
        party_of(two, trust(party_id="SAN-DNS"))


def test_nothing_is_named_by_what_cannot_be_read():
    assert names(b"\x30\x03", "CN") == ()
