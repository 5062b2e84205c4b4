"""`gateway parties` and `gateway pmodes why`: what they show, what they write, and how they end."""

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from gateway.cli import parties as command
from gateway.cli.pmodes import group as pmodes_group
from gateway.errors import ConfigError, NotFound, StalePlan
from gateway.keys.development import make_development
from gateway.operate import parties, partner_files
from gateway.pmodes.bundle import Folder
from gateway.pmodes.toml import load
from tests.world import EE, world

ROOT = Path(__file__).parents[3]
FI = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_development(folder, ["AP_LV_01", "AP_EE_01", "AP_FI_01"], now=datetime.now(UTC), valid_for=timedelta(days=300),
                     suites=["rsa", "eddsa"])  # fmt: skip
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch, keys):
    """A configuration with keys, one agreement with one partner."""
    for folder in ("pmodes", "certs", "keys"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pmodes/oots.toml").write_text((ROOT / "pmodes/examples/oots.toml").read_text())
    (tmp_path / "certs/ap_ee_01.pem").write_bytes((keys / "ap_ee_01.pem").read_bytes())
    (tmp_path / "keys/lv.pem").write_bytes((keys / "ap_lv_01.key.pem").read_bytes() + (keys / "ap_lv_01.pem").read_bytes())
    (tmp_path / "keys/lv.pem").chmod(0o600)
    (tmp_path / "gateway.toml").write_text('[as4]\npublic_url = "https://ap.example.lv/as4"\n[[keys.store]]\npath = "keys/lv.pem"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args, group=command.group, **more):
    return CliRunner().invoke(group, [str(a) for a in args], catch_exceptions=False, **more)


def add(*more, name="AP_FI_01", **options):
    said = {"type": FI, "endpoint": "https://ap.example.fi/services/msh"} | options
    return run("add", name, *(x for key, value in said.items() for x in (f"--{key}", value)), *more)


def sha256(pem: Path) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return x509.load_pem_x509_certificate(pem.read_bytes()).fingerprint(SHA256()).hex()


# -- looking ---------------------------------------------------------------------------


def test_list(site):
    rows = json.loads(run("list", "--offline", "--json").stdout)
    assert [(r["name"], r["ours"]) for r in rows] == [("AP_LV_01", True), ("AP_EE_01", False)]
    partner = rows[1]
    assert 298 <= partner["days_left"] <= 300 and partner["certificates"][0]["uses"] == ["sign", "encrypt"]
    assert partner["certificates"][0]["sha256"] == sha256(site / "certs/ap_ee_01.pem") and "pem" not in partner["certificates"][0]
    assert partner["endpoint"] == "https://ap.example.ee/services/msh" and partner["traffic"] is None


def test_a_store_that_is_not_there_is_no_reason_to_fail(site):
    result = run("list")
    assert result.exit_code == 0 and "AP_EE_01" in result.stdout and "nothing is known of messages" in result.stderr


def test_show(site):
    shown = json.loads(run("show", "AP_EE_01", "--offline", "--json").stdout)
    assert len(shown["legs"]) == 14 and shown["profiles"] == ["oots/2.0"]
    text = run("show", "AP_EE_01", "--offline").stdout
    fingerprint = sha256(site / "certs/ap_ee_01.pem")
    assert f"{fingerprint[:4]} {fingerprint[4:8]} " in text and "days left" in text


def test_of_a_revision_instead_of_the_files(site, tmp_path_factory, monkeypatch):
    asked, other = [], tmp_path_factory.mktemp("revision")
    (other / "a.toml").write_text((site / "pmodes/oots.toml").read_text().replace("AP_EE_01", "AP_EE_07"))
    monkeypatch.setattr("gateway.cli.pmodes_change.revision_files",
                        lambda config, number: asked.append(number) or Folder(other, site / "certs"))  # fmt: skip
    (other / "ap_ee_01.pem").write_bytes((site / "certs/ap_ee_01.pem").read_bytes())
    for number in ("active", "7"):
        rows = json.loads(run("list", "--offline", "--json", "--revision", number).stdout)
        assert [row["name"] for row in rows] == ["AP_LV_01", "AP_EE_07"]
        told = json.loads(why("--revision", number, "--to", "AP_EE_07", "--action", "ExecuteQueryRequest", "--json").stdout)
        assert told["matched"]
    assert asked == ["active", "active", 7, 7]
    for args in (("list", "--revision", "newest"), ("list", "pmodes", "--revision", "7", "--offline")):
        assert run(*args).exit_code == 2


def test_an_unknown_one_is_not_found(site):
    with pytest.raises(NotFound, match="did you mean 'AP_EE_01'"):
        run("show", "AP_EE_1", "--offline")


def test_an_unusable_certificate_is_said(site, keys):
    (site / "certs/ap_ee_01.pem").write_bytes((keys / "ca.pem").read_bytes())
    (row,) = [r for r in json.loads(run("list", "--offline", "--json").stdout) if r["name"] == "AP_EE_01"]
    assert "CA certificate" in row["certificates"][0]["refused"]


async def test_traffic_comes_from_the_store(tmp_path):
    async with world(tmp_path / "lv") as lv:
        pmodes = lv.gateway._rooms.agreements.value.pmodes
        nothing = (await parties.traffic(lv.store, pmodes, ["AP_EE_01", "AP_XX_01"]))["AP_EE_01"]
        assert nothing == parties.Traffic()
        assert (await lv.give(lv.peer.message())).code is None
        await lv.submit()
        waiting = (await parties.traffic(lv.store, pmodes, ["AP_EE_01"]))["AP_EE_01"]
        assert waiting.waiting == 1 and waiting.last_received and waiting.last_sent and not waiting.last_acknowledged
        await lv.send_due()
        done = (await parties.traffic(lv.store, pmodes, ["AP_EE_01"]))["AP_EE_01"]
        assert done.waiting == 0 and done.last_acknowledged
        other = await parties.traffic(lv.store, pmodes, ["AP_LV_01"])
        assert other["AP_LV_01"].last_received is None, "what is another party's is not counted"
        assert EE in {party.party_id for party in pmodes.parties}


# -- adding ----------------------------------------------------------------------------


def test_add_writes_agreement_and_certificate_and_says_what_next(site, keys):
    before = (site / "pmodes/oots.toml").read_text()
    result = add("--certificate", keys / "ap_fi_01.pem", "--yes")
    assert result.exit_code == 0 and "gateway pmodes apply" in result.stderr
    text = (site / "pmodes/oots.toml").read_text()
    assert text.startswith(before.rstrip()) and "exceptions are rare and visible" in text
    assert sha256(site / "certs/ap_fi_01.pem") == sha256(keys / "ap_fi_01.pem")
    assert "PRIVATE" not in (site / "certs/ap_fi_01.pem").read_text()
    partner = {p.name: p for p in load(site / "pmodes", certs=site / "certs").parties}["AP_FI_01"]
    assert partner.endpoint == "https://ap.example.fi/services/msh" and partner.signing


@pytest.mark.parametrize(("more", "status"), [(["--dry-run"], 0), ([], 1)])
def test_without_a_yes_nothing_is_written(site, keys, more, status):
    before = (site / "pmodes/oots.toml").read_text()
    result = run("add", "AP_FI_01", "--type", FI, "--certificate", keys / "ap_fi_01.pem", *more, input="n\n")
    assert result.exit_code == status and "+[parties.AP_FI_01]" in result.stdout and "new file" in result.stdout
    assert (site / "pmodes/oots.toml").read_text() == before and not (site / "certs/ap_fi_01.pem").exists()


@pytest.mark.parametrize(("options", "words"), [
    ({"endpoint": "http://ap.example.fi/as4"}, "plain http"), ({"endpoint": "https://ap.example.fi /x"}, "blank"),
    ({"type": ""}, "must be a URI"), ({"certificate": "gateway.toml"}, "neither PEM"), ({"certificate": "keys/lv.pem", "name": "AP_EE_01"}, "already"),
])
def test_what_cannot_be_an_agreement_is_refused(site, options, words):
    before = (site / "pmodes/oots.toml").read_text()
    with pytest.raises(ConfigError, match=words):
        add("--yes", **options)
    assert (site / "pmodes/oots.toml").read_text() == before


def test_lint_errors_stop_it_unless_forced(site, keys):
    result = add("--certificate", keys / "ca.pem", "--yes")
    assert result.exit_code == 3 and "P009" in result.stderr and not (site / "certs/ap_fi_01.pem").exists()
    assert add("--certificate", keys / "ca.pem", "--yes", "--force").exit_code == 0


def test_json_says_everything(site, keys):
    told = json.loads(add("--certificate", keys / "ap_fi_01.pem", "--yes", "--json", endpoint="https://192.0.2.7/as4").stdout)
    assert told["written"] and told["party"] == "AP_FI_01" and {f["rule"] for f in told["findings"]} == {"P003"}
    assert [Path(p).name for p in told["files"]] == ["oots.toml", "ap_fi_01.pem"]


def test_several_files_need_a_choice(site, keys):
    (site / "pmodes/other.toml").write_text((site / "pmodes/oots.toml").read_text().replace("AP_LV_01", "AP_LV_02"))
    with pytest.raises(ConfigError, match=r"several agreement files.*other\.toml"):
        add("--certificate", keys / "ap_fi_01.pem", "--yes")
    assert add("--certificate", keys / "ap_fi_01.pem", "--yes", "--file", "other.toml").exit_code == 0
    assert "AP_FI_01" in (site / "pmodes/other.toml").read_text() and "AP_FI_01" not in (site / "pmodes/oots.toml").read_text()


def test_a_certificate_of_another_content_is_not_overwritten(site, keys):
    (site / "certs/ap_fi_01.pem").write_bytes((keys / "ap_ee_01.pem").read_bytes())
    with pytest.raises(ConfigError, match="with another content"):
        add("--certificate", keys / "ap_fi_01.pem", "--yes")


def test_a_file_that_changed_meanwhile_is_not_overwritten(site, keys):
    from gateway.config import Config

    new = partner_files.NewParty(name="AP_FI_01", type=FI, certificate=(keys / "ap_fi_01.pem").read_bytes())
    plan = partner_files.plan_add(Config.load(site / "gateway.toml", {}), new)
    (site / "pmodes/oots.toml").write_text("# mine\n")
    with pytest.raises(StalePlan, match="changed meanwhile"):
        partner_files.carry_out(plan)
    assert (site / "pmodes/oots.toml").read_text() == "# mine\n" and not (site / "certs/ap_fi_01.pem").exists()


# -- removing --------------------------------------------------------------------------


def test_remove_undoes_add(site, keys):
    before = tomllib.loads((site / "pmodes/oots.toml").read_text())
    add("--certificate", keys / "ap_fi_01.pem", "--yes")
    assert run("remove", "AP_FI_01", "--yes", "--offline").exit_code == 0
    assert tomllib.loads((site / "pmodes/oots.toml").read_text()) == before


def test_nobody_removes_us_or_a_stranger(site):
    with pytest.raises(ConfigError, match="our own party"):
        run("remove", "AP_LV_01", "--yes", "--offline")
    with pytest.raises(NotFound):
        run("remove", "AP_FI_01", "--yes", "--offline")


@pytest.mark.parametrize(("more", "status"), [([], 6), (["--force"], 0), (["--dry-run"], 0)])
def test_messages_that_wait_are_told(site, monkeypatch, more, status):
    async def waiting(store, pmodes, names):
        return {name: parties.Traffic(waiting=2) for name in names}

    import asyncio

    monkeypatch.setattr(parties, "traffic", waiting)
    monkeypatch.setattr(command, "on_store", lambda config, do: asyncio.run(do(None)))
    before = (site / "pmodes/oots.toml").read_text()
    result = run("remove", "AP_EE_01", "--yes", *more)
    assert result.exit_code == status and "2 messages to AP_EE_01" in result.stderr
    assert ((site / "pmodes/oots.toml").read_text() != before) is (more == ["--force"])


# -- packages --------------------------------------------------------------------------


def test_our_package_is_what_a_partner_adds(site, keys, tmp_path_factory, monkeypatch):
    made = run("export", "--self", "--json").stdout
    package = json.loads(made)
    assert package["endpoint"] == "https://ap.example.lv/as4" and package["profiles"] == ["oots/2.0"]
    assert package["certificates"][0]["sha256"] == sha256(keys / "ap_lv_01.pem")
    assert {e["action"] for e in package["exchanges"]} >= {"ExecuteQueryRequest", "ExceptionResponse"}
    other = tmp_path_factory.mktemp("other")
    (other / "pmodes").mkdir()
    (other / "pmodes/a.toml").write_text(f'profile = "oots/2.0"\nself = "AP_FI_01"\n[parties.AP_FI_01]\ntype = "{FI}"\n')
    (other / "gateway.toml").write_text("")
    (other / "lv.json").write_text(made)
    monkeypatch.chdir(other)
    assert run("add", "--package", "lv.json", "--yes").exit_code == 0
    partner = {p.name: p for p in load(other / "pmodes", certs=other / "certs").parties}["AP_LV_01"]
    assert partner.endpoint == "https://ap.example.lv/as4" and partner.encryption == partner.signing[0]


def test_the_package_of_a_partner(site, keys):
    text = run("export", "AP_EE_01").stdout
    assert "https://ap.example.ee/services/msh" in text and (keys / "ap_ee_01.pem").read_text().splitlines()[1] in text
    run("export", "AP_EE_01", "--format", "toml", "--out", "out")
    table = tomllib.loads((site / "out/ap_ee_01.toml").read_text())["parties"]["AP_EE_01"]
    assert table["certificate"] == "ap_ee_01.pem" and sha256(site / "out/ap_ee_01.pem") == sha256(keys / "ap_ee_01.pem")


def test_a_package_of_two_certificates(site, keys):
    text = (site / "pmodes/oots.toml").read_text().replace('certificate = "ap_ee_01.pem"', 'signing = "s.pem"\nencryption = "e.pem"\n')
    (site / "pmodes/oots.toml").write_text(text)
    for name, file in (("s", "ap_ee_01-eddsa-sign.pem"), ("e", "ap_ee_01-eddsa-encrypt.pem")):
        (site / f"certs/{name}.pem").write_bytes((keys / file).read_bytes())
    package = json.loads(run("export", "AP_EE_01", "--json").stdout)
    assert [c["uses"] for c in package["certificates"]] == [["sign"], ["encrypt"]]
    run("export", "AP_EE_01", "--format", "toml", "--out", "out")
    table = tomllib.loads((site / "out/ap_ee_01.toml").read_text())["parties"]["AP_EE_01"]
    assert (table["signing"], table["encryption"]) == ("ap_ee_01-signing.pem", "ap_ee_01-encryption.pem")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": 7}', "\x00"])
def test_what_is_no_package_is_refused(site, text):
    Path("x.json").write_text(text)
    with pytest.raises(ConfigError, match="no package"):
        run("add", "--package", "x.json", "--yes")


# -- why -------------------------------------------------------------------------------


def why(*args, **more):
    return run("why", *args, group=pmodes_group, **more)


def test_why_matches_with_everything_in_force(site):
    result = why("--from", "AP_LV_01", "--to", "AP_EE_01", "--action", "ExecuteQueryRequest", "--json")
    told = json.loads(result.stdout)
    (match,) = told["matches"]
    assert result.exit_code == 0 and told["matched"] and match["direction"] == "outbound"
    values = {v["name"]: v for v in match["effective"]}
    assert values["retry.first"] == {"name": "retry.first", "value": 30.0, "origin": "profile oots/2.0"}
    assert values["endpoint"]["origin"].startswith("party (pmodes/oots.toml:")
    text = why("--from", "AP_LV_01", "--to", "AP_EE_01", "--action", "ExecuteQueryRequest").stdout
    assert "✔ AP_LV_01:AP_EE_01:ExecuteQueryRequest leg 1, outbound" in text and "← profile oots/2.0" in text


def test_why_not_shows_the_difference(site):
    result = why("--from", "AP_EE_01", "--to", "AP_LV_01", "--action", "executeQueryRequest", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 3 and not told["matched"] and told["refusal"].startswith("EBMS:0010")
    (difference,) = told["nearly"][0]["differs"]
    assert difference == {"parameter": "eb:Action", "message": "executeQueryRequest", "agreement": "ExecuteQueryRequest",
                          "hint": "upper and lower case differ"}  # fmt: skip
    assert "✘ nothing matches" in why("--action", "x").stdout


async def test_why_reads_a_captured_message(tmp_path, monkeypatch):
    async with world(tmp_path / "lv") as lv:
        sent = lv.peer.message()
    (tmp_path / "m.body").write_bytes(f"Content-Type: {sent.content_type}\r\n\r\n".encode() + sent.body)
    start = sent.body.index(b"<?xml") if b"<?xml" in sent.body else sent.body.index(b"<env:") if b"<env:" in sent.body else sent.body.index(b"<S")
    (tmp_path / "m.xml").write_bytes(sent.body[start : sent.body.index(b"Envelope>", start + 20) + len(b"Envelope>")])
    (tmp_path / "gateway.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    for file in ("m.body", "m.xml"):
        told = json.loads(why("lv/pmodes", "--file", file, "--json").stdout)
        assert [m["pmode_id"] for m in told["matches"]] == ["AP_EE_01:AP_LV_01:ExecuteQueryRequest"], file
        assert told["matches"][0]["refusal"] is None and told["matches"][0]["direction"] == "inbound"


@pytest.mark.parametrize("octets", [b"", b"rubbish", b"<x/>", b"Content-Type: multipart/related\r\n\r\nx", b"\0" * 100])
def test_why_of_a_file_that_is_no_message(site, octets):
    Path("m").write_bytes(octets)
    with pytest.raises(ConfigError, match="m: "):
        why("--file", "m")


def test_why_wants_one_kind_of_question(site):
    for args in ((), ("--action", "x", "--file", "gateway.toml"), ("--message", "x", "--to", "y")):
        result = CliRunner().invoke(pmodes_group, ["why", *args])
        assert result.exit_code == 2
