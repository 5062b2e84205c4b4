"""`gateway pmodes`: the command line of agreements."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.pmodes import group
from gateway.errors import ConfigError
from gateway.keys.development import make_development

ROOT = Path(__file__).parents[3]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with a configuration, one agreement and its certificates."""
    make_development(tmp_path / "certs", ["AP_EE_01"], now=datetime.now(UTC), valid_for=timedelta(days=300))
    (tmp_path / "pmodes").mkdir()
    (tmp_path / "pmodes" / "oots.toml").write_text((ROOT / "pmodes/examples/oots.toml").read_text())
    (tmp_path / "gateway.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args):
    return CliRunner().invoke(group, [str(a) for a in args], catch_exceptions=False)


def test_lint_of_what_is_configured(site):
    result = run("lint")
    assert (result.exit_code, result.stdout) == (0, "") and "no findings" in result.stderr


def test_lint_exits_with_3_when_something_is_wrong(site):
    (site / "pmodes" / "oots.toml").write_text("profile = 1")
    result = run("lint", "pmodes", "--json")
    assert result.exit_code == 3
    (finding,) = json.loads(result.stdout)
    assert finding["rule"] == "P000" and finding["where"] == "pmodes/oots.toml: profile"


def test_warnings_are_no_failure(site):
    text = (site / "pmodes" / "oots.toml").read_text().replace("ap.example.ee", "192.0.2.7")
    (site / "pmodes" / "oots.toml").write_text(text)
    result = run("lint")
    assert result.exit_code == 0 and "! P003" in result.stdout


def test_the_configuration_decides_how_strictly_certificates_are_judged(site):
    text = (site / "pmodes" / "oots.toml").read_text()
    (site / "pmodes" / "oots.toml").write_text(text.replace('certificate = "ap_ee_01.pem"', 'certificate = "ca.pem"'))
    assert "P009" in run("lint").stdout
    (site / "gateway.toml").write_text("[trust]\nself_signed_ca = true\nkey_usage = false\n")
    assert "trust.self_signed_ca" not in run("lint").stdout


def test_show(site):
    result = run("show", "--json")
    shown = json.loads(result.stdout)
    assert [(p["name"], p["ours"]) for p in shown["parties"]] == [("AP_LV_01", True), ("AP_EE_01", False)]
    assert len(shown["legs"]) == 14 and shown["parties"][1]["signing"].startswith("sha256:")
    assert "AP_LV_01:AP_EE_01:ExecuteQueryRequest" in run("show").stdout


def test_show_effective(site):
    text = run("show", "--effective").stdout
    assert text.count("[AP_") == 14
    assert "number:             1\n" in text and "compress:           no\n" in text
    legs = json.loads(run("show", "--effective", "--json").stdout)["legs"]
    assert legs[0]["retry"]["first"] == 30 and legs[0]["from_party"] == "AP_LV_01"


def test_list(site):
    rows = json.loads(run("list", "--json").stdout)
    assert {(r["from"], r["to"]) for r in rows} == {("AP_LV_01", "AP_EE_01"), ("AP_EE_01", "AP_LV_01")}


def test_a_path_and_a_certs_folder_of_ones_own(site):
    assert run("lint", ROOT / "pmodes/examples/oots.toml", "--certs", site / "certs").exit_code == 0
    with pytest.raises(ConfigError):
        run("show", ROOT / "pmodes/examples/edelivery.toml")
