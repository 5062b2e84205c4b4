"""A network's files as downloaded, with an overlay on top: at load, at lint, after a new generation [product 5.7]."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.as4.pmode import PropertyRule, RetryPolicy
from gateway.cli.pmodes import group
from gateway.errors import ConfigError
from gateway.keys.formats import truststore
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.toml import expanded, load

from . import network as net
from .pmodes import pmode

OWN = "AP_LV_01"
PLAIN = f'self = "{OWN}"\n[network]\npmode = "network.xml"\ntruststore = {{ path = "store.jks", password = "file:password" }}\n'
OVERLAY = PLAIN + """
[overlay]
backend = "portal"
retry = { first = "30s", factor = 2, max = "4m", count = 6, window = "15m" }
without = ["lcmProcess", "AP_UA_01"]

[overlay.properties]
ExchangeId = { required = false }
SpecificationId = {}

[overlay.parties.AP_FI_01]
endpoint = "https://mended.example.fi/as4"

[overrides."AP_EE_01:ExecuteQueryResponse"]
retry = { window = "1h" }
max_message = "5MiB"

[overrides."*:ExceptionResponse"]
backend = "errors"
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder as an operator has it: what was downloaded, and a file of his own."""
    network, store = net.planted()
    (tmp_path / "network.xml").write_text(network.xml(OWN))
    (tmp_path / "store.jks").write_bytes(net.jks(store))
    (tmp_path / "password").write_text(net.PASSWORD)
    (tmp_path / "oots.toml").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    return load(path, read_truststore=truststore)


def legs(pmodes) -> dict:
    return {leg.pmode_id: leg for leg in pmodes.legs}


def run(*args, catch=False):
    return CliRunner().invoke(group, [str(a) for a in args], catch_exceptions=catch)


class TestWithoutOverlay:
    def test_it_is_what_an_import_would_make(self, site):
        run("import-domibus", "network.xml", "--out", "imported", "--truststore", "store.jks", "--password-file", "password")
        assert legs(read(site)) == legs(load(site / "imported"))

    def test_the_p_mode_on_its_own(self, site):
        pmodes = read(site / "network.xml")
        assert len(pmodes.legs) == 434 and pmodes.selves[0].name == OWN
        assert all(not party.signing for party in pmodes.parties)

    def test_certificates_come_out_of_the_truststore(self, site):
        parties = {party.name: party for party in read(site).parties}
        assert parties["AP_EE_01"].signing == (net.certificate("AP_EE_01"),)
        assert parties["AP_EE_01"].encryption == net.certificate("AP_EE_01")
        assert parties["AP_LT_01"].signing == (net.certificate("LT sign"),)
        assert parties["AP_LT_01"].encryption == net.certificate("LT encrypt")
        assert parties["AP_EL_01"].signing == () and parties[OWN].signing == ()

    def test_the_profile_can_be_asked_for(self, site):
        (site / "oots.toml").write_text('profile = "oots/2.0"\n' + PLAIN)
        leg = read(site).legs[0]
        assert leg.profile == "oots/2.0" and "ExchangeId" in {rule.name for rule in leg.properties}
        (site / "oots.toml").write_text('profile = "edelivery-as4/2.0"\n' + PLAIN)
        with pytest.raises(ConfigError, match=r"the P-Mode is of profile oots/1\.2"):
            read(site)


class TestOverlay:
    @pytest.fixture(autouse=True)
    def overlaid(self, site):
        (site / "oots.toml").write_text(OVERLAY)
        self.legs, self.site = legs(read(site)), site

    def test_properties(self):
        for leg in self.legs.values():
            assert leg.properties == (
                PropertyRule("originalSender"), PropertyRule("finalRecipient"),
                PropertyRule("ExchangeId", False), PropertyRule("SpecificationId", False),
            ) and leg.closed_properties  # fmt: skip

    def test_timeouts_and_routing(self):
        leg = self.legs["AP_LV_01:AP_DE_01:ExecuteQueryRequest"]
        assert leg.retry == RetryPolicy(first=30, factor=2, max=240, count=6, window=900, jitter=0)
        assert leg.backend == "portal" and not self.legs["AP_LV_01:AP_DE_01:ExecuteQueryResponse"].compress
        assert self.legs["AP_DE_01:AP_LV_01:ExceptionResponse"].backend == "errors"
        special = self.legs["AP_LV_01:AP_EE_01:ExecuteQueryResponse"]
        assert (special.retry.window, special.retry.first, special.max_message) == (3600, 30, 5 << 20)

    def test_parties(self):
        leg = self.legs["AP_LV_01:AP_FI_01:ExecuteQueryRequest"]
        assert leg.to_party.endpoint == "https://mended.example.fi/as4" and leg.to_party.signing

    def test_what_is_left_out(self):
        assert {leg.service.value for leg in self.legs.values() if not leg.is_test} == {"QueryManager"}
        assert not any("AP_UA_01" in name for name in self.legs)

    def test_it_survives_a_new_generation(self):
        """The portal makes new files: nothing of the operator's own is touched, and what meets nothing is told."""
        network, store = net.planted()
        parties = tuple(p for p in network.parties if p.name != "AP_FI_01")
        new = net.Network(parties).with_party("AP_EE_01", endpoint="https://new.example.ee/as4")
        (self.site / "network.xml").write_text(new.xml(OWN))
        (self.site / "store.jks").write_bytes(net.jks({**store, "ap_ee_01": net.certificate("EE, renewed")}))
        found = legs(read(self.site))
        ee = found["AP_LV_01:AP_EE_01:ExecuteQueryRequest"].to_party
        assert (ee.endpoint, ee.signing) == ("https://new.example.ee/as4", (net.certificate("EE, renewed"),))
        assert found["AP_LV_01:AP_EE_01:ExecuteQueryResponse"].retry.window == 3600
        findings = json.loads(run("lint", ".", "--json").stdout)
        assert [f["where"] for f in findings if f["rule"] == "P022"] and "AP_FI_01" in str(
            [f for f in findings if f["rule"] == "P022"])  # fmt: skip

    @pytest.mark.parametrize("more", [
        '[overlay.parties.AP_XX_01]\nendpoint = "https://x.example/as4"\n', '[overrides."AP_EE_01:Nothing"]\nbackend = "x"\n',
        '[overrides."AP_XX_01"]\nbackend = "x"\n',
    ])  # fmt: skip
    def test_what_meets_nothing_is_a_finding_and_no_reason_to_stop(self, more):
        (self.site / "oots.toml").write_text(OVERLAY + more)
        assert legs(read(self.site)) == self.legs
        findings = json.loads(run("lint", ".", "--json").stdout)
        (finding,) = (f for f in findings if f["rule"] == "P022")
        assert "meets nothing in network.xml" in finding["message"] and finding["severity"] != "error"

    def test_a_process_that_is_gone(self):
        (self.site / "oots.toml").write_text(OVERLAY.replace("lcmProcess", "lcmProces"))
        findings = json.loads(run("lint", ".", "--json").stdout)
        assert any(f["rule"] == "P022" and "lcmProces" in f["where"] + f["message"] for f in findings)
        assert any("SubmitObjectsRequest" in name for name in legs(read(self.site)))

    def test_exchanges_can_be_left_out_too(self):
        (self.site / "oots.toml").write_text(PLAIN + '[overlay]\nwithout = ["SubmitObjectsRequest"]\n')
        names = {leg.pmode_id.split(":")[2] for leg in read(self.site).legs}
        assert "SubmitObjectsRequest" not in names and "SubmitObjectsResponse" in names

    def test_a_certificate_of_its_own(self):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        pem = x509.load_der_x509_certificate(net.certificate("own")).public_bytes(Encoding.PEM)
        (self.site / "own.pem").write_bytes(pem)
        for table, signing, encryption in (
            ('certificate = "own.pem"', "own", "own"), ('signing = "own.pem"', "own", "AP_EE_01"),
            ('encryption = "own.pem"', "AP_EE_01", "own"),
        ):  # fmt: skip
            (self.site / "oots.toml").write_text(PLAIN + f"[overlay.parties.AP_EE_01]\n{table}\n")
            party = next(p for p in read(self.site).parties if p.name == "AP_EE_01")
            assert (party.signing, party.encryption) == ((net.certificate(signing),), net.certificate(encryption))
        (self.site / "oots.toml").write_text(PLAIN + '[overlay.parties.AP_EE_01]\nnext = "own.pem"\n')
        party = next(p for p in read(self.site).parties if p.name == "AP_EE_01")
        assert party.signing == (net.certificate("AP_EE_01"), net.certificate("own"))

    def test_plain_http_must_be_allowed_for_an_endpoint_of_its_own(self):
        (self.site / "oots.toml").write_text(PLAIN + '[overlay.parties.AP_SE_01]\nendpoint = "http://x.example/as4"\n')
        with pytest.raises(ConfigError, match="plain http"):
            read(self.site)
        (self.site / "oots.toml").write_text(
            PLAIN + '[overlay.parties.AP_SE_01]\nendpoint = "http://x.example/as4"\nallow_http = true\n')
        assert read(self.site)


class TestOverAnImport:
    """The same overlay over the file that `import-domibus` wrote, in the same folder or in one below."""

    @pytest.mark.parametrize("folder", ["", "imported/"])
    def test_it_is_the_same(self, site, folder):
        (site / "oots.toml").write_text(OVERLAY)
        expected = legs(read(site))
        run("import-domibus", "network.xml", "--out", folder or ".", "--truststore", "store.jks", "--password-file", "password")
        text = OVERLAY.replace("network.xml", f"{folder}AP_LV_01.toml").replace('"lcmProcess"', '"SubmitObjectsRequest", '
                               '"SubmitObjectsResponse", "LifecycleExceptionResponse"')  # fmt: skip
        (site / "oots.toml").write_text("".join(line for line in text.splitlines(True) if not line.startswith("truststore")))
        found = legs(read(site))
        assert found == expected
        # Importing again leaves the overlay alone.
        before = (site / "oots.toml").read_bytes()
        run("import-domibus", "network.xml", "--out", folder or ".", "--truststore", "store.jks", "--password-file", "password")
        assert (site / "oots.toml").read_bytes() == before and legs(read(site)) == expected

    def test_made_for_somebody_else(self, site):
        run("import-domibus", "network.xml", "--self", "AP_EE_01", "--out", "imported")
        (site / "oots.toml").write_text(PLAIN.replace("network.xml", "imported/AP_EE_01.toml"))
        with pytest.raises(ConfigError, match="was made for 'AP_EE_01', not for 'AP_LV_01'"):
            read(site)


class TestBundles:
    def test_a_revision_needs_neither_the_files_nor_the_password(self, site):
        (site / "oots.toml").write_text(OVERLAY)
        before = read(site)
        bundle = Bundle.collect(site, read_truststore=truststore)
        octets = bundle.encode()
        shutil.rmtree(site)
        after = expanded(Bundle.decode(octets))
        assert legs(after) == legs(before)

    def test_no_private_key_gets_into_a_revision(self, site):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

        own = x509.load_der_x509_certificate(net.certificate("AP_EE_01"))
        store = pkcs12.serialize_key_and_certificates(b"ap_ee_01", net._key(), own, None, BestAvailableEncryption(b"pw"))
        (site / "store.jks").write_bytes(store)
        (site / "password").write_text("pw")
        bundle = Bundle.collect(site, read_truststore=truststore)
        stored = bundle.files["store.jks"]
        assert stored.startswith(b'# "ap_ee_01"\n-----BEGIN CERTIFICATE-----') and store not in bundle.encode()

    def test_a_truststore_cannot_be_read_everywhere(self, site):
        with pytest.raises(ConfigError, match="a truststore cannot be read here"):
            load(site)

    @pytest.mark.parametrize(("password", "match"), [("wrong", "wrong-password|wrong password"), (None, "cannot be read")])
    def test_a_password_that_does_not_fit(self, site, password, match):
        if password is None:
            (site / "oots.toml").write_text(PLAIN.replace(', password = "file:password"', ""))
        else:
            (site / "password").write_text(password)
        with pytest.raises(ConfigError, match=match) as error:
            read(site)
        assert error.value.key == "network.truststore" and "oots.toml" in error.value.file

    def test_the_password_itself_may_not_stand_there(self, site):
        (site / "oots.toml").write_text(PLAIN.replace("file:password", "test123"))
        with pytest.raises(ConfigError, match="the secret itself may not stand here"):
            read(site)

    @pytest.mark.parametrize(("name", "match"), [
        ("../outside.xml", "leads out of|there is no"), ("/etc/passwd", "leads out of|there is no"), ("nothing.xml", "there is no"),
    ])  # fmt: skip
    def test_the_p_mode_lies_in_the_folder(self, site, name, match):
        (site.parent / "outside.xml").write_text(pmode())
        (site / "oots.toml").write_text(PLAIN.replace("network.xml", name))
        with pytest.raises(ConfigError, match=match):
            read(site)


class TestMistakes:
    @pytest.mark.parametrize(("text", "key"), [
        ('[network]\npmode = "network.xml"\n', "self"),
        (f'self = "{OWN}"\n[network]\n', "network.pmode"),
        (PLAIN + "[overlay]\nretries = 3\n", "overlay.retries"),
        (PLAIN + "[parties.X]\n", "parties"),
        ('self = "nobody"\n[network]\npmode = "network.xml"\n', "--self"),
        (PLAIN + "[overlay.properties]\nX = 1\n", "overlay.properties.X"),
    ])  # fmt: skip
    def test_they_name_the_key(self, site, text, key):
        (site / "oots.toml").write_text(text)
        with pytest.raises(ConfigError) as error:
            read(site)
        assert error.value.key == key

    def test_a_broken_p_mode_names_its_own_file_and_line(self, site):
        text = (site / "network.xml").read_text().replace('action="request"', 'action="rekuest"')
        (site / "network.xml").write_text(text)
        with pytest.raises(ConfigError, match=r"network\.xml, line \d+: legConfiguration 'ootsRequest' action"):
            read(site)

    def test_lint_tells_them(self, site):
        (site / "network.xml").write_text("<a/>")
        result = run("lint", ".", "--json")
        assert result.exit_code == 3 and "is no Domibus P-Mode" in result.stdout


class TestCommands:
    """Every command that reads agreements reads these."""

    @pytest.mark.parametrize("command", [
        ("show", ".", "--effective", "--json"), ("show", ".", "--effective", "--origin", "--json"), ("list", ".", "--json"),
        ("export", ".",), ("export", ".", "--format", "toml"),
        ("why", ".", "--from", OWN, "--to", "AP_EE_01", "--action", "ExecuteQueryRequest", "--json"),
    ])  # fmt: skip
    def test_they_work(self, site, command):
        (site / "oots.toml").write_text(OVERLAY)
        result = run(*command)
        assert result.exit_code == 0 and result.stdout, result.output

    def test_the_exported_toml_is_the_whole_thing(self, site):
        (site / "oots.toml").write_text(OVERLAY)
        text = run("export", ".", "--format", "toml").stdout
        (site / "flat").mkdir()
        (site / "flat/a.toml").write_text(text)
        flat, expected = legs(load(site / "flat")), legs(read(site))
        assert flat.keys() == expected.keys()
        assert {k: v.retry for k, v in flat.items()} == {k: v.retry for k, v in expected.items()}
        assert "store.jks" not in text and Path("flat/a.toml").stat().st_size < 12_000

    def test_a_real_gateway_takes_them(self, site):
        """The composition root hands the reader of truststores down."""
        from gateway import app
        from gateway.config import Config

        (site / "gateway.toml").write_text('pmodes = "oots.toml"\n')
        config = Config.load(site / "gateway.toml")
        assert len(app.load_pmodes(config).legs) == 434
        assert len(expanded(app.load_bundle(config)).legs) == 434


class TestImportTruststore:
    @pytest.fixture(autouse=True)
    def imported(self, site):
        run("import-domibus", "network.xml", "--out", "pm", "--truststore", "store.jks", "--password-file", "password")
        self.folder, self.site = site / "pm", site

    def take(self, entries, *more):
        (self.site / "new.jks").write_bytes(net.jks(entries))
        result = run("import-truststore", "new.jks", "pm", "--password-file", "password", "--json", *more)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def test_the_same_store_changes_nothing(self):
        before = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        told = self.take(net.planted()[1])
        assert (told["added"], told["replaced"], told["files"]) == ([], [], []) and len(told["same"]) == 30
        assert {p.name: p.read_bytes() for p in self.folder.iterdir()} == before

    def test_added_and_replaced(self):
        store = net.planted()[1]
        told = self.take({**store, "ap_el_01": net.certificate("EL"), "ap_ee_01": net.certificate("EE, new")})
        assert [(c["party"], c["use"]) for c in told["added"]] == [("AP_EL_01", "both")]
        (change,) = told["replaced"]
        assert change["party"] == "AP_EE_01" and len(change["before"]) == 1 and change["before"][0] != change["sha256"]
        pins = {p.name: p for p in load(self.folder).parties}
        assert pins["AP_EL_01"].signing == (net.certificate("EL"),) and pins["AP_EE_01"].encryption == net.certificate("EE, new")

    def test_staged(self):
        told = self.take({"ap_ee_01": net.certificate("EE, new")}, "--stage")
        assert told["replaced"][0]["use"] == "next"
        party = next(p for p in load(self.folder).parties if p.name == "AP_EE_01")
        assert party.signing == (net.certificate("AP_EE_01"), net.certificate("EE, new"))
        assert party.encryption == net.certificate("AP_EE_01")

    def test_a_pair_instead_of_one(self):
        self.take({"ap_ee_01_rsa_sign": net.certificate("s"), "ap_ee_01_rsa_encrypt": net.certificate("e")})
        party = next(p for p in load(self.folder).parties if p.name == "AP_EE_01")
        assert (party.signing, party.encryption) == ((net.certificate("s"),), net.certificate("e"))
        self.take({"ap_ee_01": net.certificate("AP_EE_01")})
        party = next(p for p in load(self.folder).parties if p.name == "AP_EE_01")
        assert (party.signing, party.encryption) == ((net.certificate("AP_EE_01"),), net.certificate("AP_EE_01"))

    def test_comments_stay(self):
        path = self.folder / "AP_LV_01.toml"
        path.write_text("# by hand\n" + path.read_text().replace("[parties]", "[parties] # partners"))
        self.take({"ap_ee_01": net.certificate("EE, new"), "ap_el_01": net.certificate("EL")})
        text = path.read_text()
        assert text.startswith("# by hand\n") and "[parties] # partners" in text and 'certificate = "ap_el_01.pem"' in text

    def test_dry_run(self):
        before = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        assert self.take({"ap_ee_01": net.certificate("EE, new")}, "--dry-run")["replaced"]
        assert {p.name: p.read_bytes() for p in self.folder.iterdir()} == before

    def test_strangers_and_the_missing_are_told(self):
        told = self.take({"ap_ee_01": net.certificate("AP_EE_01"), "nobody": net.certificate("x")})
        text = "\n".join(f"{n['where']}: {n['message']}" for n in told["warnings"])
        assert "truststore entry 'nobody': belongs to no party here" in text
        assert "party 'AP_FI_01': no certificate to sign and encrypt in the truststore" in text

    def test_for_people(self):
        (self.site / "new.jks").write_bytes(net.jks({"ap_ee_01": net.certificate("EE, new")}))
        result = run("import-truststore", "new.jks", "pm", "--password-file", "password")
        assert "± AP_EE_01 (both): sha256:" in result.stdout and "1 replaced" in result.stderr

    def test_a_network_file_takes_its_own(self):
        (self.site / "new.jks").write_bytes(net.jks({"ap_ee_01": net.certificate("EE, new")}))
        with pytest.raises(ConfigError, match="takes its certificates from the truststore it names"):
            run("import-truststore", "new.jks", ".", "--password-file", "password")
