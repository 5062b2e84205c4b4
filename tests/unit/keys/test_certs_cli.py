"""`gateway certs`: the command line of keys."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.certs import group
from gateway.errors import CertificateRefused

WIRE = Path(__file__).parents[2] / "vectors/phase4-4.5.4-wire"


def run(*args, fails: bool = False):
    result = CliRunner().invoke(group, [str(a) for a in args], catch_exceptions=fails)
    return result


def test_dev_and_show(tmp_path):
    made = run("dev", "--party", "AP_LV_01", "--party", "AP_EE_01", "--out", tmp_path, "--suite", "rsa", "--suite", "eddsa")
    assert made.exit_code == 0 and "AP_EE_01 (eddsa)" in made.stdout
    shown = run("show", tmp_path / "ap_lv_01-eddsa.key.pem", "--json")
    assert shown.exit_code == 0
    rows = json.loads(shown.stdout)
    assert [(r["alias"], r["kind"], r["key"], r["usable_for"]) for r in rows] == [
        ("AP_LV_01", "private key", "Ed25519", ["sign"]), ("AP_LV_01", "private key", "X25519", ["encrypt"])]  # fmt: skip
    assert all(len(r["sha256"]) == 64 and r["valid_until"].endswith("Z") for r in rows)
    assert "PRIVATE" not in shown.stdout


def test_dev_as_json(tmp_path):
    made = json.loads(run("dev", "--party", "A", "--out", tmp_path, "--json").stdout)
    assert made["ca"] == str(tmp_path / "ca.pem") and made["parties"][0]["keys"] == str(tmp_path / "a.key.pem")


def test_show_with_a_password(tmp_path):
    (tmp_path / "pw").write_text("test1234\n")
    store = WIRE / "edelivery2-ecdsa/keys/a.p12"
    shown = run("show", store, "--password-file", tmp_path / "pw")
    assert shown.exit_code == 0 and "EC secp256r1" in shown.stdout and shown.stdout.count("private key") == 2
    with pytest.raises(CertificateRefused) as refused:
        run("show", store)
    assert refused.value.reason == "password-needed"


def test_show_says_what_is_wrong_and_exits_with_3(tmp_path):
    from datetime import UTC, datetime, timedelta

    from gateway.keys.development import make_development

    past = datetime.now(UTC) - timedelta(days=90)
    made = make_development(tmp_path, ["A"], now=past, valid_for=timedelta(days=1))
    shown = run("show", made.parties[0].keys)
    assert shown.exit_code == 3 and "expired at" in shown.stdout
    fresh = make_development(tmp_path / "new", ["A"], now=datetime.now(UTC))
    shown = run("show", fresh.ca)  # a CA in its place is nothing wrong
    assert shown.exit_code == 0 and "CA certificate" in shown.stdout
