"""A whole network's P-Mode and truststore, with what was wrong in real ones, over the command line [product 0.2, 5.7]."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.as4.pmode import PropertyRule, RetryPolicy
from gateway.cli.pmodes import group
from gateway.errors import CertificateRefused, ConfigError
from gateway.pmodes.domibus.truststore import assign
from gateway.pmodes.toml import load

from . import network as net
from .pmodes import EB, PIECES, legs_of, pmode, short

OWN = "AP_LV_01"


def run(*args, catch=False):
    return CliRunner().invoke(group, [str(a) for a in args], catch_exceptions=catch)


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """What a portal gives: the P-Mode, the truststore; and the password."""
    folder = tmp_path_factory.mktemp("download")
    network, store = net.planted()
    (folder / "AP_LV_01.xml").write_text(network.xml(OWN))
    (folder / "gateway_truststore.jks").write_bytes(net.jks(store))
    (folder / "store.p12").write_bytes(net.p12(store))
    (folder / "password.txt").write_text(net.PASSWORD + "\n")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder: no configuration, no database."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(download, *more, out="out", store="gateway_truststore.jks"):
    result = run("import-domibus", download / "AP_LV_01.xml", "--self", OWN, "--out", out, "--truststore", download / store,
                 "--password-file", download / "password.txt", "--json", *more)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


class TestThePlantedNetwork:
    def test_what_is_said(self, here, download):
        told = imported(download)
        assert (told["self"], told["profile"], told["file"]) == (OWN, "oots/1.2", "out/AP_LV_01.toml")
        assert len(told["parties"]) == 32 and told["changes"] is None
        assert told["lines"]["total"] - told["lines"]["profile"] == 1 + 32 + 32 + 32  # root, types, parties, ids
        (repaired,) = told["repaired"]
        assert repaired["rule"] == "P001" and "AP_FI_01" in repaired["where"]
        rules = Counter(note["rule"] for note in told["warnings"])
        assert (rules["P002"], rules["P005"], rules["P006"], rules["P007"]) == (9, 1, 1, 1)
        text = "\n".join(f"{n['where']}: {n['message']}" for n in told["warnings"])
        assert "party 'AP_SK_01': its party id is 'sk_test_ap', not its name" in text
        assert "party 'AP_EL_01': no certificate to sign and encrypt" in text
        assert "truststore entry 'ap_xx_99': belongs to no party of ours" in text
        assert "party 'AP_RO_01': its certificate cannot be used to sign: expired" in text
        ignored = "\n".join(f"{n['where']}: {n['message']}" for n in told["ignored"])
        assert "security 'noSigNoEnc': no process of AP_LV_01 uses it; it does not become usable" in ignored
        assert "security 'signOnly'" in ignored and "splitting 'split' fragmentSize" in ignored
        for notes in (told["repaired"], told["ignored"], told["warnings"]):
            assert all(note["where"] and note["message"] for note in notes)

    def test_parties_with_their_certificates(self, here, download):
        parties = {party["name"]: party for party in imported(download)["parties"]}
        ee, lt = parties["AP_EE_01"], parties["AP_LT_01"]
        assert (ee["id"], ee["type"], ee["endpoint"]) == (
            "AP_EE_01", f"{net.UNREGISTERED}:EE", "https://ap.example.ee/service/endpoint",
        )  # fmt: skip
        (both,) = ee["certificates"]
        assert (both["use"], both["alias"], both["file"]) == ("both", "ap_ee_01", "ap_ee_01.pem")
        assert [(c["use"], c["alias"]) for c in lt["certificates"]] == [
            ("sign", "ap_lt_01_rsa_sign"), ("encrypt", "AP_LT_01_RSA_ENCRYPT"),
        ]  # fmt: skip
        assert parties["AP_EL_01"]["certificates"] == [] and parties["AP_SK_01"]["id"] == "sk_test_ap"
        assert parties[OWN]["self"] and (here / "out/ap_ee_01.pem").read_bytes().startswith(b"-----BEGIN CERTIFICATE")
        assert not (here / "out/ap_lv_01.pem").exists()  # our own certificate is the keyring's business

    def test_the_file_is_short_and_loads(self, here, download):
        imported(download)
        text = (here / "out/AP_LV_01.toml").read_text()
        assert len(text.splitlines()) < 50 and len(text) < 7000
        pmodes = load(here / "out")
        assert len(pmodes.legs) == 31 * (6 + 1) * 2
        leg = next(leg for leg in pmodes.legs if leg.pmode_id == "AP_LV_01:AP_HR_01:ExecuteQueryResponse")
        assert leg.to_party.endpoint == "https://ap.example.hr/services/msh?domain=oots" and not leg.compress
        assert leg.retry == RetryPolicy(first=180, factor=1, max=180, count=4, window=720, jitter=0)
        assert leg.properties == (PropertyRule("originalSender"), PropertyRule("finalRecipient")) and leg.closed_properties
        assert {leg.profile for leg in pmodes.legs} == {"oots/1.2"} and {leg.signature_token for leg in pmodes.legs} == {"bst"}

    def test_lint_finds_what_was_planted(self, here, download):
        imported(download)
        result = run("lint", "out", "--json")
        assert result.exit_code == 3
        findings = json.loads(result.stdout)
        assert all({"rule", "severity", "where", "message"} <= finding.keys() for finding in findings)
        by_rule: dict[str, list[str]] = {}
        for finding in findings:
            by_rule.setdefault(finding["rule"], []).append(finding["where"])
        assert len(by_rule["P002"]) == 9 and not {f["severity"] for f in findings if f["rule"] == "P002"} & {"error"}
        for rule, party in (("P003", "AP_ES_01"), ("P004", "AP_EE_01"), ("P005", "AP_LI_01"), ("P006", "AP_EL_01"),
                            ("P007", "AP_RO_01"), ("P008", "AP_CZ_01")):  # fmt: skip
            assert any(party in where for where in by_rule[rule]), (rule, by_rule.get(rule))

    def test_lint_of_the_p_mode_itself_finds_the_blank(self, here, download):
        findings = json.loads(run("lint", download / "AP_LV_01.xml", "--json").stdout)
        assert any(f["rule"] == "P001" and "AP_FI_01" in f["where"] for f in findings)

    def test_show(self, here, download):
        imported(download)
        shown = json.loads(run("show", "out", "--effective", "--json").stdout)
        assert len(shown["parties"]) == 32 and len(shown["legs"]) == 434

    def test_it_takes_less_than_two_seconds_with_the_start_of_the_process(self, here, download):
        command = [sys.executable, "-m", "gateway", "pmodes", "import-domibus", download / "AP_LV_01.xml", "--self", OWN,
                   "--out", "out", "--truststore", download / "gateway_truststore.jks",
                   "--password-file", download / "password.txt", "--json"]  # fmt: skip
        # The best of a few, by the processor's clock: this machine may be busy with something else.
        best = min(_cpu_seconds(command) for _ in range(3))
        assert best < 2

    def test_pkcs12_is_the_same(self, here, download):
        first = imported(download)
        second = imported(download, out="p12", store="store.p12")
        assert [{**p, "certificates": [c["sha256"] for c in p["certificates"]]} for p in first["parties"]] == [
            {**p, "certificates": [c["sha256"] for c in p["certificates"]]} for p in second["parties"]
        ]  # fmt: skip

    def test_for_people(self, here, download):
        result = run("import-domibus", download / "AP_LV_01.xml", "--out", "out")
        assert result.exit_code == 0 and "are the profile oots/1.2" in result.stdout
        assert "~ P001 AP_LV_01.xml, line" in result.stdout and "no truststore was given" in result.stdout


def _cpu_seconds(command) -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return min(used, time.monotonic() - began)


class TestAgain:
    def test_the_same_import_changes_nothing(self, here, download):
        imported(download)
        before = {path.name: path.read_bytes() for path in (here / "out").iterdir()}
        told = imported(download)
        assert told["changes"] == {"added": [], "changed": [], "removed": []}
        assert {path.name: path.read_bytes() for path in (here / "out").iterdir()} == before

    def test_a_new_generation_is_compared_with_the_old_one(self, here, download):
        imported(download)
        network, _ = net.planted()
        parties = tuple(p for p in network.parties if p.name != "AP_UA_01")
        new = net.Network(parties).with_party("AP_EE_01", endpoint="https://new.example.ee/as4")
        (here / "new.xml").write_text(new.xml(OWN))
        result = run("import-domibus", "new.xml", "--out", "out", "--truststore", download / "gateway_truststore.jks",
                     "--password-file", download / "password.txt", "--json")  # fmt: skip
        assert json.loads(result.stdout)["changes"] == {"added": [], "changed": ["AP_EE_01"], "removed": ["AP_UA_01"]}

    def test_a_file_written_by_hand_is_not_replaced(self, here, download):
        (here / "out").mkdir()
        (here / "out/AP_LV_01.toml").write_text("# mine\n")
        with pytest.raises(ConfigError, match="was not made by an import"):
            run("import-domibus", download / "AP_LV_01.xml", "--out", "out")
        assert (here / "out/AP_LV_01.toml").read_text() == "# mine\n" and len(list((here / "out").iterdir())) == 1
        assert run("import-domibus", download / "AP_LV_01.xml", "--out", "out", "--replace").exit_code == 0

    def test_a_link_is_replaced_and_not_followed(self, here, download):
        (here / "out").mkdir()
        (here / "precious").write_text("precious")
        (here / "out/ap_ee_01.pem").symlink_to(here / "precious")
        imported(download)
        assert (here / "precious").read_text() == "precious" and not (here / "out/ap_ee_01.pem").is_symlink()

    def test_dry_run_writes_nothing(self, here, download):
        imported(download, "--dry-run")
        assert list(here.iterdir()) == []


class TestProfiles:
    def test_the_network_file_of_2023_is_oots_1(self):
        file = short(net.Network().xml(OWN), OWN)
        assert (file.profile, file.exchanges, file.without, file.overrides) == ("oots/1.2", (), (), {})
        assert file.closed_properties and file.properties is None and file.compress is None

    def test_four_properties_are_oots_2(self):
        four = (("originalSender", True), ("finalRecipient", True), ("ExchangeId", False), ("SpecificationId", False))
        file = short(net.Network(properties=four).xml(OWN), OWN)
        assert file.profile == "oots/2.0" and file.properties is None

    def test_frances_file(self):
        """Profile `rsa` without a policy, the retention of 5.2, no LCM."""
        france = net.Network(
            properties=(("originalSender", True), ("finalRecipient", True), ("ExchangeId", False), ("SpecificationId", False)),
            security='profile="rsa"', lcm=False,
            mpc='retention_downloaded="0" retention_undownloaded="3600" delete_message_metadata="false" '
                'retention_metadata_offset="525600" retention_sent_success="3600" retention_sent_failure="3600"',
        )  # fmt: skip
        file = short(france.xml(OWN), OWN)
        assert (file.profile, file.exchanges, file.signature_token) == ("oots/2.0", (), None)
        assert file.without == ("SubmitObjectsRequest", "SubmitObjectsResponse", "LifecycleExceptionResponse")
        assert {leg.service.value for leg in legs_of(file).legs if not leg.is_test} == {"QueryManager"}

    def test_a_profile_can_be_asked_for(self, here, download):
        told = imported(download, "--profile", "oots/2.0")
        assert told["profile"] == "oots/2.0"
        leg = load(here / "out").legs[0]
        assert [rule.name for rule in leg.properties] == ["originalSender", "finalRecipient", "ExchangeId", "SpecificationId"]

    def test_an_unknown_profile_is_a_mistake_of_usage(self, here, download):
        result = run("import-domibus", download / "AP_LV_01.xml", "--out", "out", "--profile", "oots/3", catch=True)
        assert result.exit_code == 2

    def test_other_compression_is_an_override(self):
        text = net.Network().xml(OWN).replace('compressPayloads="false"', 'compressPayloads="true"', 1)
        file = short(text, OWN)
        assert file.profile == "oots/1.2" and list(file.overrides) == ["*:ExecuteQueryResponse"]
        assert all(leg.compress for leg in legs_of(file).legs if leg.service.value == "QueryManager")

    def test_another_way_to_name_certificates(self):
        file = short(net.Network(security='policy="eDeliveryAS4Policy.xml"').xml(OWN), OWN)
        assert (file.profile, file.signature_token) == ("oots/1.2", "ski")

    def test_another_role_is_another_community(self):
        file = short(net.Network().xml(OWN).replace(net.ROLE, "urn:other"), OWN)
        assert file.profile == "edelivery-as4/1.15" and len(file.exchanges) == 6


class TestTruststores:
    FILE = short(net.Network().xml(OWN), OWN)

    def assigned(self, entries, profile="oots/1.2"):
        from gateway.pmodes.domibus.report import Report

        report = Report("t")
        found = assign(list(entries.items()), self.FILE.parties, {n: n for n in self.FILE.parties}, OWN, profile, report)
        return found, [f"{n.where}: {n.message}" for n in report.warnings]

    @pytest.mark.parametrize("alias", ["ap_ee_01", "AP_EE_01", "Ap_Ee_01"])
    def test_letter_case_never_matters(self, alias):
        found, _ = self.assigned({alias: b"ee"})
        assert found["AP_EE_01"].signing.certificate == found["AP_EE_01"].encryption.certificate == b"ee"

    def test_both_conventions_at_once(self):
        found, told = self.assigned({"ap_ee_01": b"1", "ap_fi_01_rsa_sign": b"2", "AP_FI_01_RSA_encrypt": b"3"})
        assert found["AP_EE_01"].signing.certificate == b"1"
        assert (found["AP_FI_01"].signing.certificate, found["AP_FI_01"].encryption.certificate) == (b"2", b"3")
        assert not any("AP_FI_01" in line for line in told)

    def test_half_a_pair_is_completed_by_the_bare_entry(self):
        found, _ = self.assigned({"ap_ee_01": b"1", "ap_ee_01_rsa_sign": b"2"})
        assert (found["AP_EE_01"].signing.certificate, found["AP_EE_01"].encryption.certificate) == (b"2", b"1")
        found, told = self.assigned({"ap_ee_01_rsa_sign": b"2"})
        assert found["AP_EE_01"].encryption is None and "t: party 'AP_EE_01': no certificate to encrypt in the truststore" in told

    def test_elliptic_curves_have_their_own_names(self):
        entries = {"ap_ee_01_ecc_sign": b"1", "ap_ee_01_ecc_encrypt": b"2", "ap_ee_01_rsa_sign": b"3"}
        found, told = self.assigned(entries, "edelivery-as4/2.0")
        assert (found["AP_EE_01"].signing.certificate, found["AP_EE_01"].encryption.certificate) == (b"1", b"2")
        assert any("'ap_ee_01_rsa_sign': belongs to no party" in line for line in told)

    def test_two_certificates_under_one_alias_are_none(self):
        found, told = self.assigned({"ap_ee_01": b"1", "AP_EE_01": b"2"})
        assert found["AP_EE_01"].signing is None and any("two different certificates" in line for line in told)

    def test_the_id_serves_where_the_name_does_not(self, here, download):
        network = net.Network().with_party("AP_SK_01", id="sk_test_ap")
        (here / "n.xml").write_text(network.xml(OWN))
        (here / "s.jks").write_bytes(net.jks({"SK_TEST_AP": net.certificate("sk")}))
        result = run("import-domibus", "n.xml", "--out", "out", "--truststore", "s.jks", "--password-file",
                     download / "password.txt", "--json")  # fmt: skip
        parties = {p["name"]: p for p in json.loads(result.stdout)["parties"]}
        assert parties["AP_SK_01"]["certificates"][0]["alias"] == "SK_TEST_AP"

    @pytest.mark.parametrize(("octets", "reason"), [
        (b"", "empty"), (b"rubbish", "unknown-format"), (net.jks({})[:20], "truncated"), (b"\0" * (2 << 20), "too-large"),
    ])  # fmt: skip
    def test_what_is_no_truststore(self, here, download, octets, reason):
        (here / "s.jks").write_bytes(octets)
        with pytest.raises(CertificateRefused) as error:
            run("import-domibus", download / "AP_LV_01.xml", "--out", "out", "--truststore", "s.jks",
                "--password-file", download / "password.txt")  # fmt: skip
        assert error.value.reason == reason and not (here / "out").exists()

    def test_a_wrong_password(self, here, download):
        (here / "pw").write_text("wrong")
        with pytest.raises(CertificateRefused) as error:
            run("import-domibus", download / "AP_LV_01.xml", "--out", "out", "--truststore",
                download / "gateway_truststore.jks", "--password-file", "pw")  # fmt: skip
        assert error.value.reason == "wrong-password"
        result = run("import-domibus", download / "AP_LV_01.xml", "--out", "out", "--truststore",
                     download / "gateway_truststore.jks", "--password-file", "pw", "--json", catch=True)  # fmt: skip
        (wrong,) = json.loads(result.stdout)["errors"]
        assert "gateway_truststore.jks" in wrong["where"] and "wrong password" in wrong["message"]

    def test_pem_by_common_name(self, here, download):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        pems = [x509.load_der_x509_certificate(net.certificate(n)).public_bytes(Encoding.PEM) for n in ("AP_EE_01", "AP_FI_01")]
        (here / "store.pem").write_bytes(b"".join(pems))
        result = run("import-domibus", download / "AP_LV_01.xml", "--out", "out", "--truststore", "store.pem", "--json")
        assert [p["name"] for p in json.loads(result.stdout)["parties"] if p["certificates"]] == ["AP_EE_01", "AP_FI_01"]

    def test_what_cannot_be_used_yet_is_told(self, here):
        """Who pulls has to have a certificate; without a truststore there is none."""
        pull = {"mpcs": PIECES["mpcs"].replace(f"{EB}defaultMPC", "urn:mpc"),
                "process": PIECES["process"].replace('binding="push"', 'binding="pull"')}  # fmt: skip
        (here / "p.xml").write_text(pmode(**pull))
        told = json.loads(run("import-domibus", "p.xml", "--self", "red", "--out", "out", "--json").stdout)
        assert any("cannot be used before this is mended" in note["message"] for note in told["warnings"])
        (here / "s.jks").write_bytes(net.jks({"blue": net.certificate("blue")}))
        (here / "pw").write_text(net.PASSWORD)
        run("import-truststore", "s.jks", "out", "--password-file", "pw")
        assert any(leg.pulled for leg in load("out").legs)


class TestNamesThatAreNoFileNames:
    @pytest.mark.parametrize("name", ["../../evil", "/etc/cron.d/x", "..", ".", ".hidden", "a/b\\c", "a b", "CON", "x" * 200,
                                      "-rf", "ünïcode", "日本", "a'b\"c", "%2e%2e%2f"])  # fmt: skip
    def test_files_stay_in_the_folder(self, here, download, name):
        network = net.Network(net.Network().parties[:3]).with_party("AP_EE_01", name=name)
        (here / "n.xml").write_text(network.xml(OWN))
        (here / "s.jks").write_bytes(net.jks({name.lower(): net.certificate("x"), "ap_fi_01": net.certificate("y")}))
        result = run("import-domibus", "n.xml", "--out", "deep/out", "--truststore", "s.jks", "--password-file",
                     download / "password.txt", "--json")  # fmt: skip
        assert result.exit_code == 0, result.output
        written = sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file() and path.parent != here)
        assert {path.parent for path in written} == {Path("deep/out")}
        assert all(not path.name.startswith((".", "-")) and len(path.name) < 100 for path in written)
        (party,) = (p for p in json.loads(result.stdout)["parties"] if p["name"] == name)
        assert len(party["certificates"]) == 1
        assert {leg.from_party.name for leg in load("deep/out").legs} == {OWN, name, "AP_FI_01"}

    def test_names_that_fold_to_one_file(self, here, download):
        network = net.Network(net.Network().parties[:3]).with_party("AP_EE_01", name="a/b").with_party("AP_FI_01", name="a\\b")
        (here / "n.xml").write_text(network.xml(OWN))
        (here / "s.jks").write_bytes(net.jks({"a/b": net.certificate("x"), "a\\b": net.certificate("y")}))
        run("import-domibus", "n.xml", "--out", "out", "--truststore", "s.jks", "--password-file", download / "password.txt")
        pins = {p.name: p.signing for p in load("out").parties}
        assert pins["a/b"] == (net.certificate("x"),) and pins["a\\b"] == (net.certificate("y"),)

    def test_our_own_name_is_no_file_name_either(self, here):
        network = net.Network(net.Network().parties[:2]).with_party(OWN, name="../own")
        (here / "n.xml").write_text(network.xml("../own"))
        result = run("import-domibus", "n.xml", "--self", "../own", "--out", "out", "--json")
        assert json.loads(result.stdout)["file"] == "out/own.toml" and (here / "out/own.toml").is_file()


class TestFailures:
    def test_a_wrong_self(self, here, download):
        result = run("import-domibus", download / "AP_LV_01.xml", "--self", "AP_LW_01", "--out", "out", "--json", catch=True)
        assert isinstance(result.exception, ConfigError) and "'AP_LV_01'" in result.exception.hint
        told = json.loads(result.stdout)
        assert told["parties"] == [] and told["errors"][0]["message"] == "there is no party 'AP_LW_01'"
        assert not (here / "out").exists()

    def test_errors_of_the_file(self, here, download):
        text = (download / "AP_LV_01.xml").read_text().replace('action="request"', 'action="rekuest"')
        (here / "bad.xml").write_text(text)
        result = run("import-domibus", "bad.xml", "--out", "out", "--json", catch=True)
        (wrong,) = json.loads(result.stdout)["errors"]
        assert "there is no action 'rekuest' (did you mean 'request'?)" in wrong["message"] and "bad.xml, line" in wrong["where"]

    @pytest.mark.parametrize(("args", "status"), [
        (("nothing.xml", "--out", "out"), 2), (("bad.xml", "--out", "out"), 1), (("bad.xml",), 2), ((), 2),
    ])  # fmt: skip
    def test_exit_status(self, here, args, status):
        (here / "bad.xml").write_text("<a/>")
        done = subprocess.run([sys.executable, "-m", "gateway", "pmodes", "import-domibus", *args], capture_output=True, text=True)
        assert done.returncode == status and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
