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
    findings = json.loads(result.stdout)
    assert [(f["rule"], f["where"]) for f in findings] == [
        ("P000", "pmodes/oots.toml:1: profile"), ("P000", "pmodes/oots.toml: self"), ("P000", "pmodes/oots.toml: parties"),
    ]
    assert all(set(f) <= {"rule", "severity", "where", "message", "hint"} for f in findings)


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


def test_lint_for_other_tools(site):
    text = (site / "pmodes" / "oots.toml").read_text().replace("ap.example.ee", "192.0.2.7")
    (site / "pmodes" / "oots.toml").write_text(text)
    sarif = json.loads(run("lint", "--format", "sarif").stdout)
    assert sarif["version"] == "2.1.0" and sarif["runs"][0]["results"][0]["ruleId"] == "P003"
    line = next(n for n, line in enumerate(text.splitlines(), 1) if "192.0.2.7" in line)
    assert f"::warning file=pmodes/oots.toml,line={line},title=P003::" in run("lint", "--format", "github").stdout
    (site / "pmodes" / "oots.toml").write_text("\0")
    assert json.loads(run("lint", "--json").stdout)[0]["rule"] == "P000"


def test_lint_without_findings_prints_an_empty_array(site):
    assert json.loads(run("lint", "--json").stdout) == [] and run("lint", "--format", "github").stdout == ""


def test_show_origin(site):
    text = run("show", "--effective", "--origin").stdout
    assert "endpoint:           https://ap.example.ee/services/msh   ← party (pmodes/oots.toml:" in text
    legs = json.loads(run("show", "--effective", "--origin", "--json").stdout)["legs"]
    values = {value["name"]: value for value in legs[0]["values"]}
    assert values["retry.first"]["origin"] == {"layer": "profile oots/2.0", "file": "profile oots/2.0", "line": 0, "key": "retry.first"}
    assert values["endpoint"]["origin"]["file"] == "pmodes/oots.toml" and values["endpoint"]["origin"]["line"] > 0


def test_schema(site):
    assert json.loads(run("schema").stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_mistake_is_told_with_file_line_and_value(site):
    path = site / "pmodes" / "oots.toml"
    path.write_text(path.read_text().replace("https://", "http://"))
    with pytest.raises(ConfigError, match=r'^pmodes/oots\.toml:\d+: parties\.AP_EE_01\.endpoint = "http://.*: is plain http'):
        run("show")
