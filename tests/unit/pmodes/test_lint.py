"""Every lint rule finds its defect, and nothing is found in a sound agreement."""

import functools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config import Trust
from gateway.keys.development import make_development
from gateway.keys.trust import check_certificate
from gateway.pmodes import lint as module
from gateway.pmodes.lint import lint

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:"
SOUND = f"""
profile = "oots/2.0"
self = "AP_LV_01"
[parties.AP_LV_01]
type = "{UNREGISTERED}LV"
[parties.AP_EE_01]
type = "{UNREGISTERED}EE"
endpoint = "https://ap.example.ee/services/msh"
certificate = "ap_ee_01.pem"
"""


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    make_development(folder, ["AP_EE_01", "ORG_B"], now=NOW, valid_for=timedelta(days=365), suites=["rsa", "eddsa", "ecdsa"])
    return folder


@pytest.fixture
def found(tmp_path, certs):
    def lint_(*texts: str, now: datetime = NOW, check=check_certificate):
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        return [(f.rule, f.severity) for f in lint(tmp_path, certs=certs, check_certificate=check, now=now)]

    return lint_


def test_a_sound_agreement_has_no_findings(found):
    assert found(SOUND) == []


def with_endpoint(url: str, head: str = "") -> str:
    return head + SOUND.replace("https://ap.example.ee/services/msh", url)


@pytest.mark.parametrize(("text", "expected"), [
    (with_endpoint("https://ap.example.ee /as4"), [("P001", "error")]),
    (with_endpoint("https://ap.example.ee/as4 "), [("P001", "error")]),
    (with_endpoint("http://ap.example.ee/as4"), [("P002", "error")]),
    (with_endpoint("http://ap.example.ee/as4", "allow_http = true\n"), [("P002", "warning")]),
    (with_endpoint("http://127.0.0.1:8080/as4", "allow_http = true\n"), []),
    (with_endpoint("https://192.0.2.7/as4"), [("P003", "warning")]),
    (with_endpoint("https://[2001:db8::1]:8443/as4"), [("P003", "warning")]),
    (with_endpoint("https://ap.example.ee/"), [("P004", "info")]),
    (with_endpoint("https://ap.example.ee"), [("P004", "info")]),
    (with_endpoint("https://ap.example.ee/domibus/services/msh?domain=oots"), []),
    (with_endpoint("ftp://ap.example.ee/as4"), [("P000", "error")]),
    (SOUND.replace('certificate = "ap_ee_01.pem"', ""), [("P006", "error"), ("P006", "error")]),
    (SOUND.replace("certificate =", "signing ="), [("P006", "error")]),
    (SOUND.replace('endpoint = "https://ap.example.ee/services/msh"', ""), [("P011", "warning")]),
    (SOUND.replace("endpoint", "endpont"), [("P017", "error")]),
    (SOUND + '[overrides."AP_FI_01:X"]\ncompress = true\n', [("P011", "error")]),
    (SOUND.replace("ap_ee_01.pem", "nothing.pem"), [("P000", "error")]),
    (SOUND.replace("ap_ee_01.pem", "ca.pem"), [("P008", "info"), ("P009", "error"), ("P009", "error")]),
    (SOUND.replace("ap_ee_01.pem", "org_b.pem"), [("P008", "info")]),
    (SOUND.partition("[parties.AP_EE_01]")[0], [("P011", "warning")]),
    ("rubbish", [("P000", "error")]),
    (SOUND.replace('self = "AP_LV_01"', 'self = "AP_LV_1"'), [("P000", "error")]),
])
def test_rules_of_one_file(found, text, expected):
    assert sorted(set(found(text))) == sorted(set(expected))


def test_p005_duplicates(found):
    twin = f'[parties.AP_EE_02]\ntype = "{UNREGISTERED}EE"\nendpoint = "https://ap.example.ee/services/msh"\n'
    twin += 'certificate = "ap_ee_01.pem"\n'
    assert set(found(SOUND + twin)) == {("P005", "warning"), ("P008", "info")}
    same = SOUND + twin.replace("AP_EE_02]", 'AP_EE_02]\nid = "AP_EE_01"')
    assert ("P005", "error") in found(same)


def test_p007_expiry(found):
    assert found(SOUND, now=NOW + timedelta(days=200)) == []
    assert set(found(SOUND, now=NOW + timedelta(days=250))) == {("P007", "info")}
    assert set(found(SOUND, now=NOW + timedelta(days=340))) == {("P007", "warning")}
    assert set(found(SOUND, now=NOW + timedelta(days=400))) == {("P007", "error")}
    assert set(found(SOUND, now=NOW + timedelta(days=400), check=None)) == {("P007", "error")}
    assert ("P007", "error") in found(SOUND, now=NOW - timedelta(days=1))


def test_p008_country(found, tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "BE"),
                      x509.NameAttribute(x509.NameOID.COMMON_NAME, "OOTS_AP_EE_01")])  # fmt: skip
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
            .not_valid_before(NOW).not_valid_after(NOW + timedelta(days=365))
            .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256()))  # fmt: skip
    (tmp_path / "ap_ee_01.pem").write_bytes(made.public_bytes(Encoding.PEM))
    assert set(found(SOUND)) == {("P008", "info"), ("P009", "error")}
    # Self-signed and calling itself a CA, as OpenSSL makes them: allowed where the operator says so.
    assert set(found(SOUND, check=functools.partial(check_certificate, allow=Trust(self_signed_ca=True)))) == {("P008", "info")}


EDELIVERY = """
profile = "edelivery-as4/{profile}"
self = "urn:a"
[parties."urn:a"]
[parties."urn:b"]
id = "urn:org_b"
endpoint = "https://b.example/as4"
{certificates}
[[exchanges]]
service = "urn:s"
action = "Order"
from_role = "buyer"
to_role = "seller"
{more}
"""
CORNERS = 'properties = ["originalSender", "finalRecipient"]'


@pytest.mark.parametrize(("profile", "files", "expected"), [
    ("2.0", ("org_b-eddsa-sign.pem", "org_b-eddsa-encrypt.pem"), set()),
    ("2.0-ecdsa", ("org_b-ecdsa-sign.pem", "org_b-ecdsa-encrypt.pem"), set()),
    ("1.15", ("org_b.pem", "org_b.pem"), set()),
    ("2.0", ("org_b.pem", "org_b.pem"), {("P009", "error"), ("P010", "error")}),
    ("1.15", ("org_b-eddsa-sign.pem", "org_b-eddsa-encrypt.pem"), {("P009", "error")}),
    ("2.0-ecdsa", ("org_b-ecdsa-sign.pem", "org_b-ecdsa-sign.pem"), {("P009", "error"), ("P010", "error")}),
    ("2.0", ("org_b-eddsa-encrypt.pem", "org_b-eddsa-sign.pem"), {("P009", "error")}),
])
def test_certificates_must_fit_the_profile(found, profile, files, expected):
    certificates = f'signing = "{files[0]}"\nencryption = "{files[1]}"'
    assert set(found(EDELIVERY.format(profile=profile, certificates=certificates, more=CORNERS))) == expected


def test_p010_one_key_for_messages_and_tls(found):
    assert set(found(SOUND + 'tls_ca = "ap_ee_01.pem"\n')) == {("P010", "warning")}
    assert found(SOUND + 'tls_ca = "ca.pem"\n') == []


def test_p012_four_corners_need_their_properties(found):
    certificates = 'certificate = "org_b.pem"'
    plain = EDELIVERY.format(profile="1.15", certificates=certificates, more="")
    assert set(found(plain)) == {("P012", "error")}
    two = EDELIVERY.format(profile="1.15-two-corner", certificates=certificates, more="")
    assert found(two) == []
    optional = 'properties = ["originalSender", { name = "finalRecipient", required = false }]'
    assert set(found(EDELIVERY.format(profile="1.15", certificates=certificates, more=optional))) == {("P012", "error")}


def test_p019_ambiguous(found):
    assert set(found(SOUND, SOUND)) == {("P019", "error")}


def test_p020_names_that_differ_in_case(found):
    twin = SOUND[SOUND.index("[parties.AP_EE_01]") :].replace("AP_EE_01", "ap_ee_01").replace("services/msh", "x/as4")
    assert ("P020", "warning") in found(SOUND + twin)


def test_all_mistakes_are_told_at_once_worst_first(tmp_path, certs):
    (tmp_path / "a.toml").write_text(with_endpoint("https://192.0.2.7/x").replace("ap_ee_01.pem", "nothing.pem"))
    (tmp_path / "b.toml").write_text("profil = 1")
    findings = lint(tmp_path, certs=certs, now=NOW)
    assert [f.severity for f in findings] == ["error", "error", "warning", "info"]
    assert {f.rule for f in findings} == {"P000", "P017", "P003", "P004"}
    assert all(str(tmp_path) in f.where and f.message for f in findings)


def test_nothing_there(tmp_path):
    (finding,) = lint(tmp_path / "nothing")
    assert (finding.rule, finding.severity) == ("P000", "error")


def test_every_rule_that_is_documented_is_tested_and_no_other():
    documented = set(re.findall(r"P\d{3}", module.__doc__))
    source, here = Path(module.__file__).read_text(), Path(__file__).read_text()
    assert documented == set(re.findall(r'"(P\d{3})"', source)) == set(re.findall(r'"(P\d{3})"', here))
