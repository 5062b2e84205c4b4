"""`gateway certs …` and `gateway store rekey` as an operator types them, on a database that nobody serves yet."""

import asyncio
import contextlib
import io
import json
import os

import asyncpg
import pytest
from cryptography import x509

from gateway.cli.main import main
from gateway.store.postgres.migrate import migrate
from tests.peer import Authority, Keys
from tests.pki import SIGN, Ca, key
from tests.unit.operate.test_key_import import pem
from tests.unit.store.servers import Servers
from tests.world import write_site

CA = Ca.root("CLI CA")


@pytest.fixture(scope="module")
def dsn():
    servers = Servers()
    yield servers.dsn("wheel")
    servers.stop()


@pytest.fixture(scope="module")
def keys():
    authority = Authority()
    return Keys.make("AP_LV_01", "rsa", authority), Keys.make("AP_EE_01", "rsa", authority)


@pytest.fixture
def certs(tmp_path, dsn, keys, monkeypatch):
    """Runs `gateway` on a site, in this process: as the entry point does, exit status and all."""
    write_site(tmp_path, *keys)
    for name in ("kek", "kek2"):
        (tmp_path / name).write_bytes(os.urandom(32))
        (tmp_path / name).chmod(0o600)
    config = tmp_path / "gateway.toml"
    text = config.read_text()

    def configure(kek="kek", more=""):
        config.write_text(f'[store]\ndsn = "env:CERTS_DSN"\n[keys]\nkey_encryption_key = "file:{kek}"\n{more}\n' + text)

    configure()
    monkeypatch.setenv("CERTS_DSN", dsn)

    async def fresh():
        connection = await asyncpg.connect(dsn)
        await connection.execute("DROP SCHEMA IF EXISTS gateway CASCADE")
        await connection.close()
        await migrate(dsn)

    asyncio.run(fresh())

    def run(*arguments, status=0, noun="certs"):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            main([noun, *arguments, "--config", str(config)])
        run.errors = err.getvalue()
        assert left.value.code == status, f"{left.value.code}\n{out.getvalue()}\n{run.errors}"
        return out.getvalue()

    run.folder, run.configure = tmp_path, configure
    return run


def said(text):
    return json.loads(text)


def test_a_rotation_from_the_request_to_the_end(certs):
    assert {row["place"] for row in said(certs("list", "--json"))["keys"]} == {"file"}
    request = said(certs("csr", "--subject", "CN=AP_LV_01,C=LV", "--yes", "--json"))
    assert request["use"] == ["decrypt", "sign"] and "waits: gateway certs import" in certs.errors
    again = certs("csr", request["key"], "--subject", "CN=AP_LV_01,C=LV")
    asked = x509.load_pem_x509_csr(again.encode())
    certs("stage", request["key"], "--reason", "x", "--yes", status=1)
    assert "waits for its certificate" in certs.errors
    issued = CA.leaf("AP_LV_01", asked.public_key())
    (certs.folder / "issued.pem").write_bytes(pem(issued, CA.certificate))
    [row] = said(certs("import", str(certs.folder / "issued.pem"), "--yes", "--json"))
    assert row["key"] == row["completes"] == request["key"]
    # Plans: shown, asked for, stale.
    shown = certs("stage", row["key"], "--reason", "new", "--dry-run")
    assert shown.startswith("plan 0-") and "PLANNED → STAGED" in shown
    certs("stage", row["key"], "--reason", "new", status=2)
    assert "--yes does it without asking" in certs.errors
    certs("stage", row["key"], "--reason", "new", "--yes", "--plan", "0-abcdefabcdef", status=6)
    done = said(certs("stage", row["key"], "--reason", "new", "--yes", "--json"))
    assert (done["state"], done["ring"], done["acknowledged"]) == ("ACTIVE", 1, [])
    assert "is in force" in certs(
        "promote", row["fingerprint"][:10], "--everybody", "--reason", "nobody else is there", "--yes")
    assert [(u["use"], u["state"]) for u in said(certs("show", row["key"], "--json"))["uses"]] == [
        ("decrypt", "ACTIVE"), ("sign", "ACTIVE")]  # fmt: skip
    exported = certs("export", row["key"])
    assert exported.encode() == pem(issued, CA.certificate) and "PRIVATE" not in exported
    assert "STAGED" in certs("rollback", row["key"], "--use", "decrypt", "--reason", "test", "--yes")
    certs("promote", row["key"], "--use", "decrypt", "--reason", "test", "--yes")
    certs("retire", row["key"], "--reason", "x", "--yes", status=1)
    assert "it is decrypt ACTIVE, sign ACTIVE, expected" in certs.errors
    # The next one takes over; the first may not go yet, unless somebody insists.
    (certs.folder / "next.pem").write_bytes(pem(CA.leaf("AP_LV_01", key("rsa", 8).public_key()), private=key("rsa", 8)))
    assert "RSA 2048" in certs("import", str(certs.folder / "next.pem"), "--dry-run")
    [second] = said(certs("import", str(certs.folder / "next.pem"), "--yes", "--json"))
    certs("stage", second["key"], "--reason", "rotation", "--yes")
    certs("promote", second["key"], "--reason", "rotation", "--yes", status=3)
    assert "0% of the partners that can be asked are green" in certs.errors and "AP_EE_01" in certs.errors
    certs("promote", second["key"], "--everybody", "--reason", "they were told by letter", "--yes")
    certs("retire", row["key"], "--reason", "too early", "--yes", status=3)
    assert "drained for 0 of 30 days" in certs.errors and "--force" in certs.errors
    certs("retire", row["key"], "--reason", "stolen", "--yes", "--force")
    gone = [r for r in said(certs("list", "--all", "--json"))["keys"] if r["key"] == row["key"]]
    assert {(r["state"], r["place"]) for r in gone} == {("RETIRED", "destroyed")}
    assert row["key"] not in certs("list")
    certs("show", "key_none", status=5)
    certs("show", "none.pem", status=2)


def test_what_was_only_planned_is_dropped(certs):
    made = said(certs("csr", "--subject", "CN=x", "--kind", "ec-p256", "--use", "tls-server", "--yes", "--json"))
    assert "is dropped" in certs("retire", made["key"], "--reason", "mistake", "--dry-run")
    assert said(certs("retire", made["key"], "--reason", "mistake", "--yes", "--json")) == {"dropped": [made["key"]]}
    assert made["key"] not in certs("list")


def test_mistakes_leave_with_their_word(certs):
    (certs.folder / "old.pem").write_bytes(pem(CA.leaf("x", start=-30, days=20), private=key("rsa", 1)))
    certs("import", str(certs.folder / "old.pem"), "--yes", status=1)
    assert certs.errors.startswith("error: expired: expired at ")
    certs("import", status=2)
    certs("csr", "--subject", "nonsense", "--yes", status=1)
    assert "CN=AP_LV_01" in certs.errors and said(certs("list", "--all", "--json"))["ring"] == 0
    assert all(row["place"] == "file" for row in said(certs("list", "--all", "--json"))["keys"]), "no key was made for it"


def test_files_are_taken_over_and_what_ends_is_told(certs):
    rows = said(certs("import", "--configured", "--yes", "--json"))
    assert len(rows) == 1 and rows[0]["use"] == "decrypt, sign"
    assert said(certs("import", "--configured", "--yes", "--json")) == []
    for verb in ("stage", "promote"):
        certs(verb, rows[0]["key"], "--reason", "taken over", "--yes")
    due = said(certs("needs-renewal", "--json", status=3))
    assert {row["use"] for row in due} == {"sign", "decrypt"} and all(0 < row["days"] <= 30 for row in due)
    certs("needs-renewal", "--days", "3")
    lines = certs("timeline").splitlines()
    assert lines[0].split("\t")[:3] == ["use", "key", "state"] and "█" in lines[1] and "·" in lines[1]


def test_a_ring_that_cannot_be_opened_here_is_refused_where_nobody_runs(certs):
    (certs.folder / "ec.pem").write_bytes(
        pem(CA.leaf("x", key("ec", 3).public_key(), key_usage=SIGN), private=key("ec", 3)))
    [row] = said(certs("import", str(certs.folder / "ec.pem"), "--yes", "--json"))
    certs.configure("kek2")
    certs("stage", row["key"], "--reason", "x", "--yes", status=1)
    assert "sealed with another key-encryption key" in certs.errors
    assert said(certs("list", "--json"))["ring"] == 0


def test_rekey(certs):
    [row] = said(certs("import", "--configured", "--yes", "--json"))
    assert "nothing is sealed with another key" in certs("rekey", noun="store")
    certs.configure("kek2", 'previous_key_encryption_keys = ["file:kek"]')
    stands = said(certs("rekey", "--dry-run", "--json", noun="store", status=3))
    assert [list(counts.items()) for counts in stands["left"].values()] == [[("key", 1)]]
    assert "may go from every node" in certs("rekey", "--yes", noun="store")
    certs.configure("kek2")
    assert "is in force" in certs("stage", row["key"], "--reason", "with the new key alone", "--yes")
