"""Every lint rule finds its defect, and nothing is found in a sound agreement."""

import functools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import Trust
from gateway.errors import ConfigError
from gateway.keys.development import make_development
from gateway.keys.formats import truststore
from gateway.keys.trust import check_certificate
from gateway.pmodes import lint as lint_module
from gateway.pmodes.lint import RULES, Finding, Node, formats, lint
from gateway.pmodes.lint.endpoints import odd_path
from gateway.pmodes.toml import load
from tests.unit.pmodes import network as made

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
    assert [f.severity for f in findings] == [*["error"] * 4, "warning", "info"]
    assert [f.message for f in findings if "b.toml" in f.where] == ["unknown key", "is missing", "is missing"]
    assert {f.rule for f in findings} == {"P000", "P017", "P003", "P004"}
    assert all(str(tmp_path) in f.where and f.message for f in findings)


def test_nothing_there(tmp_path):
    (finding,) = lint(tmp_path / "nothing")
    assert (finding.rule, finding.severity) == ("P000", "error")


# -- everything at once, with its place ------------------------------------------------------


def findings_of(tmp_path, certs, text, **more):
    (tmp_path / "a.toml").write_text(text)
    return lint(tmp_path, certs=certs, check_certificate=check_certificate, now=NOW, **more)


def test_every_mistake_of_a_file_is_told_with_line_value_and_hint(tmp_path, certs):
    text = """\
profile = "oots/2.0"
self = "AP_LV_01"
compres = true
[parties.AP_LV_01]
typ = "x"
[parties.AP_EE_01]
type = 7
endpoint = "https://ap.example.ee /as4"
certificate = "nothing.pem"
[[exchanges]]
action = "A"
[[exchanges]]
action = "B"
service = "urn:b"
retry = { first = "soon", cuont = 1 }
[[exchanges]]
action = "C"
service = "Bare"
[overrides."AP_FI_01:C"]
compress = "yes"
"""
    found = {f.where.removeprefix(f"{tmp_path}/a.toml:"): f for f in findings_of(tmp_path, certs, text)}
    assert [(where, found[where].rule) for where in sorted(found, key=lambda w: int(w.partition(":")[0]))] == [
        ("3: compres", "P017"), ("5: parties.AP_LV_01.typ", "P017"), ("7: parties.AP_EE_01.type", "P000"),
        ("8: parties.AP_EE_01.endpoint", "P001"), ("9: parties.AP_EE_01.certificate", "P000"),
        ("10: exchanges[0].service", "P000"), ("15: exchanges[1].retry.cuont", "P017"),
        ("15: exchanges[1].retry.first", "P000"), ("16: exchanges[2].service_type", "P000"),
        ("20: overrides.\"AP_FI_01:C\".compress", "P000"),
    ]
    assert all(f.severity == "error" for f in found.values())
    assert found["3: compres"].hint == "did you mean 'compress'?"
    assert "'soon'" not in found["15: exchanges[1].retry.first"].hint and '"soon"' in found["15: exchanges[1].retry.first"].message
    assert '"https://ap.example.ee /as4"' in found["8: parties.AP_EE_01.endpoint"].message


def test_what_follows_from_a_mistake_is_not_told(tmp_path, certs):
    text = SOUND.replace("certificate =", "certificat =") + '[overrides.AP_EE_01]\ncompress = true\n'
    (finding,) = findings_of(tmp_path, certs, text)
    assert (finding.rule, finding.hint) == ("P017", "did you mean 'certificate'?")


def test_indexes_of_exchanges_stay_those_of_the_file(tmp_path, certs):
    more = "".join(f'[[exchanges]]\naction = "A{n}"\nservice = {"1" if n < 2 else f"{chr(34)}urn:s{chr(34)}"}\nclosed_properties = true\n'
                   for n in range(3))
    found = findings_of(tmp_path, certs, SOUND + more + 'properties = ["originalSender", "finalRecipient"]\n')
    assert [f.where.partition(": ")[2] for f in found if f.rule == "P000"] == ["exchanges[0].service", "exchanges[1].service"]
    assert {f.where.partition(": ")[2] for f in found if f.rule == "P012"} == {"exchanges[2]"}


def test_a_file_that_is_no_toml_has_its_line(tmp_path, certs):
    (finding,) = findings_of(tmp_path, certs, 'profile = "oots/2.0"\nself = = 1\n')
    assert finding.where == f"{tmp_path}/a.toml:2" and finding.rule == "P000"


def test_too_many_mistakes_end_somewhere(tmp_path, certs):
    text = SOUND + "".join(f"[parties.P{n}]\nunknown{n} = 1\n" for n in range(300))
    found = findings_of(tmp_path, certs, text)
    assert 100 <= len(found) <= 110


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["profile", "self", "parties", "exchanges", "overrides", "network", "x"]), st.recursive(
    st.sampled_from(["oots/2.0", "AP_LV_01", "https://a.example/as4", 1, True, "30s"]),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["AP_LV_01", "B", "type", "action", "service", "pmode"]), v, max_size=3),
    max_leaves=8)))  # fmt: skip
def test_lint_never_raises_and_never_calls_sound_what_does_not_load(tmp_path, certs, raw):
    (tmp_path / "a.toml").write_text(tomlkit.dumps(raw))
    found = lint(tmp_path, certs=certs, now=NOW)
    try:
        load(tmp_path, certs=certs)
    except ConfigError:
        assert any(f.severity == "error" for f in found)
    else:
        assert not any(f.rule in ("P000", "P017") for f in found)


# -- the rules about a whole network -------------------------------------------------------------


def party_of(name: str, **keys: str) -> str:
    facts = {"type": UNREGISTERED + name[3:5].upper(), "endpoint": f"https://ap.example.{name[3:5].lower()}/services/msh"} | keys
    return f"[parties.{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in facts.items())


COUNTRIES = ["EE", "FI", "SE", "DK", "DE", "NL", "BE", "FR"]


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """Certificates of eight partners: `even` spread over the years, `storm` most of them within weeks."""
    folder = tmp_path_factory.mktemp("pems")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    for kind, days in (("even", 260), ("storm", 8), ("year", 40)):
        for number, country in enumerate(COUNTRIES):
            name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"AP_{country}_01")])
            end = NOW + timedelta(days=(500 if kind != "year" else 100) + number * days)
            made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                    .serial_number(number + 1).not_valid_before(NOW - timedelta(days=1)).not_valid_after(end)
                    .sign(key, hashes.SHA256()))  # fmt: skip
            (folder / f"{kind}-{country}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return folder


def network(kind: str, countries=COUNTRIES) -> str:
    own = SOUND.partition("[parties.AP_EE_01]")[0]
    return own + "".join(party_of(f"AP_{cc}_01", certificate=f"{kind}-{cc}.pem") for cc in countries)


def rules_of(tmp_path, certs, text, **more):
    return {(f.rule, f.severity) for f in findings_of(tmp_path, certs, text, **more)}


def test_p016_a_storm_of_expiries(tmp_path, pems):
    assert rules_of(tmp_path, pems, network("even")) == set()
    assert rules_of(tmp_path, pems, network("storm")) == {("P016", "warning")}
    # 18 of 32 in one half-year were seen: no month is conspicuous, the half-year is.
    assert rules_of(tmp_path, pems, network("year")) == {("P016", "info")}
    assert rules_of(tmp_path, pems, network("storm", COUNTRIES[:3])) == set(), "three are no storm"


def test_p020_a_name_unlike_its_peers(tmp_path, pems):
    odd = party_of("ap_mt_prod", certificate="even-FR.pem")
    assert ("P020", "info") in rules_of(tmp_path, pems, network("even", COUNTRIES[:5]) + odd)
    assert ("P020", "info") not in rules_of(tmp_path, pems, network("even", COUNTRIES[:2]) + odd), "two are no convention"


@pytest.mark.parametrize(("keys", "found"), [
    ({}, False), ({"id": "cz_test_ap"}, True), ({"type": UNREGISTERED + "oots-simulator"}, True),
    ({"endpoint": "https://ap-acc.example.ee/as4"}, True), ({"endpoint": "https://contest.example.ee/as4"}, False),
    ({"id": "AP_ACCESS_01"}, False),
])
def test_p018_test_parties(tmp_path, pems, keys, found):
    text = network("even", COUNTRIES[1:2]) + party_of("AP_EE_01", certificate="even-EE.pem", **keys)
    assert (("P018", "warning") in rules_of(tmp_path, pems, text)) is found
    tested = text.replace("AP_LV_01", "AP_LV_TEST")
    assert ("P018", "warning") not in rules_of(tmp_path, pems, tested), "we are a test party ourselves"
    assert ("P018", "warning") not in rules_of(tmp_path, pems, "allow_http = true\n" + text), "a test on one machine"


@pytest.mark.parametrize(("path", "meant"), [
    ("/services/msh", None), ("/domibus/services/msh", None), ("/as4", None), ("/msh", None), ("/holodeckb2b/as4", None),
    ("/service/msh", "/services/msh"), ("/harmony/servises/msh", "/harmony/services/msh"), ("/Services/msh", "/services/msh"),
    ("/services/mhs", "/services/msh"), ("/as4/inbox", ""), ("/", ""), ("", ""), ("/service/endpoint", ""),
])
def test_p004_paths(path, meant):
    assert odd_path(path) == meant


@pytest.mark.parametrize(("window", "count", "found"), [("15m", 6, True), ("5h", 5, True), ("6h", 40, False)])
def test_p015_maintenance(tmp_path, certs, window, count, found):
    text = f'retry = {{ first = "10m", max = "10m", factor = 1, count = {count}, window = "{window}" }}\n' + SOUND
    assert ("P015", "warning") not in rules_of(tmp_path, certs, text)
    assert (("P015", "warning") in rules_of(tmp_path, certs, text + 'maintenance = "4h"\n')) is found


def test_p012_a_property_of_the_profile_is_left_out(tmp_path, certs):
    declared = 'properties = ["originalSender", "finalRecipient"]\n'
    assert rules_of(tmp_path, certs, declared + SOUND) == {("P012", "info")}
    assert rules_of(tmp_path, certs, declared + "closed_properties = true\n" + SOUND) == {("P012", "warning")}
    assert rules_of(tmp_path, certs, "closed_properties = true\n" + SOUND) == set()


def test_p013_metadata_is_kept_for_a_year(tmp_path, certs):
    assert rules_of(tmp_path, certs, SOUND, node=Node(metadata=200 * 86_400)) == {("P013", "error")}
    for enough in (None, 366 * 86_400):
        assert rules_of(tmp_path, certs, SOUND, node=Node(metadata=enough)) == set()


def test_p014_read_once_and_erased(tmp_path, certs):
    once = frozenset({"rest"})
    assert rules_of(tmp_path, certs, SOUND, node=Node(read_once=once, delivered_payloads=0)) == {("P014", "warning")}
    assert rules_of(tmp_path, certs, SOUND, node=Node(read_once=once, delivered_payloads=3600)) == set()
    assert rules_of(tmp_path, certs, SOUND, node=Node(delivered_payloads=0)) == set(), "claim and acknowledge loses nothing"


def test_p019_one_id_for_two_legs(tmp_path, certs):
    other = SOUND.replace('profile = "oots/2.0"', 'profile = "edelivery-as4/1.15-two-corner"') + """
[[exchanges]]
id = "ExecuteQueryRequest"
service = "urn:other"
action = "Other"
from_role = "a"
to_role = "b"
"""
    (tmp_path / "b.toml").write_text(other)
    assert ("P019", "warning") in rules_of(tmp_path, certs, SOUND)


def test_p021_backends(tmp_path, certs):
    known = Node(backends=frozenset({"rest", "archive"}))
    assert rules_of(tmp_path, certs, SOUND, node=known) == set()
    assert rules_of(tmp_path, certs, 'backend = "archve"\n' + SOUND, node=known) == {("P021", "error")}
    (finding, *_) = findings_of(tmp_path, certs, 'backend = "archve"\n' + SOUND, node=known)
    assert finding.hint == "did you mean 'archive'?"
    two = SOUND + party_of("AP_FI_01", certificate="org_b.pem", id="ORG_B") + '[overrides.AP_EE_01]\nbackend = "archive"\n'
    assert ("P021", "warning") in rules_of(tmp_path, certs, two, node=known)
    assert ("P021", "warning") not in rules_of(tmp_path, certs, two.partition("[overrides")[0], node=known)


# -- for other tools -----------------------------------------------------------------------------


def test_sarif_names_rule_file_and_line(tmp_path, certs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a b").mkdir()
    Path("a b/x.toml").write_text(with_endpoint("https://192.0.2.7/as4"))
    found = lint(Path("a b"), certs=certs, now=NOW)
    (run,) = formats.sarif(found)["runs"]
    (result,) = run["results"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == list(RULES) and rules[result["ruleIndex"]] == result["ruleId"] == "P003"
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "a%20b/x.toml"}, "region": {"startLine": 8}} and result["level"] == "warning"


def test_github_annotations_are_one_line_each():
    found = [Finding("P000", "error", "a,b.toml:7: x", "50%\nof it"), Finding("P008", "info", "c.toml", "odd")]
    assert formats.github(found) == [
        "::error file=a%2Cb.toml,line=7,title=P000::x: 50%25%0Aof it", "::notice file=c.toml,title=P008::: odd",
    ]


# -- the network's files --------------------------------------------------------------------------


def test_a_network_with_planted_defects(tmp_path):
    """What was found in the P-Modes and the truststore of a real event [product findings 2 and 3]."""
    net, store = made.planted()
    (tmp_path / "network.xml").write_text(net.xml("AP_LV_01"))
    (tmp_path / "trust.jks").write_bytes(made.jks(store))
    (tmp_path / "password").write_text(made.PASSWORD)
    pmodes = tmp_path / "pmodes"
    pmodes.mkdir()
    for name in ("network.xml", "trust.jks"):
        (tmp_path / name).rename(pmodes / name)
    (pmodes / "oots.toml").write_text("""\
profile = "oots/2.0"
self = "AP_LV_01"
[network]
pmode = "network.xml"
truststore = { path = "trust.jks", password = "file:../password" }
[overlay.parties.AP_SE_01]
endpoint = "https://ap.example.se/service/msh"
[overlay.parties.AP_GONE_01]
endpoint = "https://gone.example/as4"
""")
    found = lint(pmodes, check_certificate=check_certificate, read_truststore=truststore)
    about = {(f.rule, match[0]) for f in found if (match := re.search(r"AP_[A-Z]+_\d+|oots_test_platform", f.where + f.message))}
    assert {(rule, name) for rule, name in about if rule == "P002"} == {("P002", n) for n in made.PLAIN_HTTP if n != "AP_SE_01"}
    assert about >= {
        ("P001", "AP_FI_01"), ("P003", "AP_ES_01"), ("P004", "AP_EE_01"), ("P004", "AP_SE_01"), ("P005", "AP_LI_01"),
        ("P006", "AP_EL_01"), ("P007", "AP_RO_01"), ("P008", "AP_CZ_01"), ("P018", "AP_SK_01"), ("P020", "AP_SK_01"),
        ("P022", "AP_GONE_01"), ("P018", "oots_test_platform"), ("P023", "AP_SK_01"),
    }  # fmt: skip
    places = {(f.rule, f.where.partition(": ")[0].removeprefix(f"{pmodes}/").partition(":")[0]) for f in found}
    assert ("P003", "network.xml") in places and ("P022", "oots.toml") in places
    where = next(f.where for f in found if f.rule == "P003")
    line = int(where.removeprefix(f"{pmodes}/network.xml:").partition(":")[0])
    assert 'name="AP_ES_01"' in (pmodes / "network.xml").read_text().splitlines()[line - 1]
    (own,) = (f.where for f in found if f.rule == "P004" and "AP_SE_01" in f.where)
    assert own == f"{pmodes}/oots.toml:7: overlay.parties.AP_SE_01.endpoint"


def test_a_network_file_that_cannot_be_read_is_one_finding_for_each_error(tmp_path):
    xml = made.Network().xml("AP_LV_01").replace('mep name="oneway"', 'mep name="onewy"', 1)
    (tmp_path / "network.xml").write_text(xml)
    (tmp_path / "oots.toml").write_text('self = "AP_LV_01"\n[network]\npmode = "network.xml"\n')
    found = lint(tmp_path)
    assert found and all(f.severity == "error" and f.where.startswith(f"{tmp_path}/network.xml") for f in found)


# -- the catalogue ----------------------------------------------------------------------------------


def test_every_rule_is_documented_implemented_and_tested():
    page = (Path(__file__).parents[3] / "pmodes/README.md").read_text()
    documented = dict(re.findall(r"^\| `(P\d{3})` \| ([^|]+) \|", page, re.MULTILINE))
    assert documented == {id: rule.finds for id, rule in RULES.items()}
    root = Path(lint_module.__file__).parents[2]
    source = "".join(path.read_text() for path in (root / "pmodes").rglob("*.py") if path.name != "catalogue.py")
    assert set(RULES) == set(re.findall(r'"(P\d{3})"', source)) == set(re.findall(r'"(P\d{3})"', Path(__file__).read_text()))
