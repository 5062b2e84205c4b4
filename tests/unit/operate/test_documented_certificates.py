"""docs/operators/partner-certificates.md, command by command, on a site with a database; and what the verbs say and do."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from gateway import app
from gateway.cli.main import main
from gateway.config import Config
from gateway.store.api import AuditEntry
from gateway.store.partner_certificates import NewStranger
from gateway.store.postgres.migrate import migrate
from tests.peer import Keys
from tests.pki import NOW, Ca, key
from tests.unit.store.servers import Servers
from tests.world import EE, key_pem, to_pem, write_site

PAGE = (Path(__file__).parents[3] / "docs/operators/partner-certificates.md").read_text()
COMMANDS = re.findall(r"^    gateway (.*)$", PAGE, re.MULTILINE)
PARTY = f"{EE.type}:{EE.value}"
CA = Ca.root("Partner CA")
WHO = {"CN": "AP_EE_01", "O": "RIA", "C": "EE"}
OLD, NEW, LATER, OTHERS = (CA.leaf(WHO, key("rsa", n).public_key()) for n in (401, 402, 403, 404))
OURS = Keys(*(CA.leaf("AP_LV_01", key("rsa", 405).public_key()) if n % 2 else key("rsa", 405) for n in range(4)))
#: What a command of the page leaves with, where that is not 0.
STATUS = {"parties certs AP_EE_01": 3, "parties quarantine list": 3}


def sha256(der):
    return hashlib.sha256(der).hexdigest()


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "gateway.toml"
        self.file = folder / "pmodes/agreement.toml"
        self.error = ""

    def run(self, *arguments: str, status: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            main([*arguments, "--config", str(self.config)])
        self.error = err.getvalue()
        assert left.value.code == status, f"{left.value.code}\n{out.getvalue()}\n{self.error}"
        return out.getvalue()

    def do(self, verb):
        async def run():
            store = await app.open_store(Config.load(self.config))
            try:
                return await verb(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def used(self, der):
        self.do(lambda store: store.note_next(PARTY, sha256(der), AuditEntry(kind="k", actor="n", subject="s")))

    def seen(self, der):
        found = NewStranger(party=PARTY, sha256=sha256(der), der=der, subject="CN=AP_EE_01", issuer="CN=Partner CA",
                            valid_from=NOW, valid_until=NOW)  # fmt: skip
        self.do(lambda store: store.quarantine(found))

    def roles(self):
        return {row["sha256"]: row["roles"] for row in json.loads(self.run("parties", "certs", "--json", status=self.status()))["certificates"]}

    def status(self):
        return 3 if self.do(lambda store: store.strangers(state="WAITING")) else 0


@pytest.fixture(scope="module")
def dsn():
    servers = Servers()
    yield servers.dsn("wheel")
    servers.stop()


@pytest.fixture
def site(tmp_path, dsn, monkeypatch):
    """A node whose files are in force, with `AP_EE_01` pinned by one certificate for both."""
    write_site(tmp_path, OURS, Keys(None, OLD, None, OLD), endpoint="https://ap.example.ee/as4")
    file = tmp_path / "pmodes/agreement.toml"
    file.write_text(file.read_text().replace('signing = "ee-sign.pem"\nencryption = "ee-enc.pem"', 'certificate = "ee-sign.pem"'))
    (tmp_path / "certs").mkdir()
    (tmp_path / "kek").write_bytes(os.urandom(32))
    (tmp_path / "kek").chmod(0o600)
    (tmp_path / "lv-sign.pem").write_bytes(key_pem(key("rsa", 405)) + to_pem(OURS.signing))
    config = tmp_path / "gateway.toml"
    config.write_text(f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{tmp_path}/kek"\n' + config.read_text())
    monkeypatch.setenv("TEST_DSN", dsn)
    monkeypatch.chdir(tmp_path)

    async def fresh():
        import asyncpg

        connection = await asyncpg.connect(dsn)
        await connection.execute("DROP SCHEMA IF EXISTS gateway CASCADE")
        await connection.close()
        await migrate(dsn)

    asyncio.run(fresh())
    made = Site(tmp_path)
    made.run("pmodes", "apply", "--yes", "--reason", "first")
    return made


def test_the_page(site):
    (site.folder / "ap_ee_01-2027.pem").write_bytes(to_pem(NEW))
    assert len(COMMANDS) >= 11
    for command in COMMANDS:
        if command == "parties certs AP_EE_01":
            site.used(NEW)
        if command == "parties quarantine list":
            site.seen(LATER)
            site.seen(OTHERS)
        if "--dry-run" in command:  # what it is about: promoted too early
            site.run("parties", "stage-certificate", "AP_EE_01", _file(site, LATER), "--replace", "--reason", "r", "--yes")
            site.run("parties", "promote", "AP_EE_01", "--reason", "r", "--yes")
            assert site.roles()[sha256(LATER)] == ["active"]
        command = command.replace("9c1d5f0e", sha256(LATER)[:8]).replace("0a11ce00", sha256(OTHERS)[:8])
        if command.startswith("parties quarantine show"):
            _back_to_old(site)
        told = site.run(*shlex.split(command), status=STATUS.get(command, 0))
        if command.startswith("parties quarantine show"):
            assert "= subject" in told and "its CA is not known here" in told
        if "--drop-old" not in command and command.startswith("parties promote") and "dry" not in command:
            assert site.roles() == {sha256(NEW): ["active", "encryption"], sha256(OLD): ["previous"]}
    decided = {s.sha256: (s.state, s.reason) for s in site.do(lambda store: store.strangers())}
    assert decided[sha256(LATER)] == ("ACCEPTED", "confirmed by telephone, A. Tamm")
    assert decided[sha256(OTHERS)][0] == "REJECTED"
    assert site.roles()[sha256(LATER)] == ["next"]
    kinds = [e.kind for e in site.do(lambda store: store.audit_entries(limit=1000))]
    assert {"certificate.accepted", "certificate.rejected", "agreements.proposed"} <= set(kinds)
    assert site.do(lambda store: store.verify_audit()) is None


def _file(site, der):
    path = site.folder / f"{sha256(der)[:8]}.pem"
    path.write_bytes(to_pem(der))
    return str(path)


def _back_to_old(site):
    """As before the page's first chapter."""
    first = json.loads(site.run("pmodes", "history", "--json"))["revisions"][-1]["revision"]
    site.run("pmodes", "rollback", str(first), "--reason", "again", "--yes")


class TestVerbs:
    def test_a_plan_shows_what_matches_and_changes_nothing(self, site):
        told = site.run("parties", "stage-certificate", "AP_EE_01", _file(site, NEW), "--reason", "r", "--dry-run")
        assert "= issuer: CN=Partner CA" in told and "= subject" in told and "≠ key:" in told
        assert list(site.roles().values()) == [["active", "encryption"]]
        shown = json.loads(site.run("parties", "stage-certificate", "AP_EE_01", _file(site, NEW), "--reason", "r", "--dry-run", "--json"))
        assert shown["after"]["next"] == sha256(NEW) and shown["files_follow"] and shown["likeness"]["expected"]

    def test_the_files_follow(self, site):
        site.run("parties", "stage-certificate", "AP_EE_01", _file(site, NEW), "--reason", "r", "--yes")
        [added] = (site.folder / "certs").iterdir()
        assert added.read_bytes().strip() == to_pem(NEW).strip() and f'next = "{added.name}"' in site.file.read_text()
        site.run("pmodes", "plan")  # exit status 0: the files say what is in force

    def test_files_that_say_something_else_stay(self, site):
        site.file.write_text(site.file.read_text() + "\n# being edited\n")
        site.run("parties", "stage-certificate", "AP_EE_01", _file(site, NEW), "--reason", "r", "--yes")
        assert "being edited" in site.file.read_text() and "next" not in site.file.read_text()
        assert "gateway pmodes show --revision 2" in site.error

    def test_twice_is_once(self, site):
        for told in ("revision 2 is in force", "nothing to change"):
            assert told in site.run("parties", "stage-certificate", "AP_EE_01", _file(site, NEW), "--reason", "r", "--yes")

    def test_what_cannot_be_done(self, site):
        for arguments, words, status in (
            (("promote", "AP_EE_01"), "no next certificate", 1),
            (("promote", "AP_EE_09"), "no partner", 5),
            (("retire-certificate", "AP_EE_01"), "no previous certificate", 1),
            (("quarantine", "accept", "ffff"), "no certificate in quarantine", 5),
            (("stage-certificate", "AP_EE_01", _file(site, NEW), "--plan", "7-abc"), "look at it again", 6),
        ):
            site.run("parties", *arguments, "--reason", "r", "--yes", status=status)
            assert words in site.error

    def test_rejected_twice(self, site):
        site.seen(OTHERS)
        site.run("parties", "quarantine", "reject", sha256(OTHERS)[:12], "--reason", "r")
        site.run("parties", "quarantine", "reject", sha256(OTHERS)[:12], "--reason", "r", status=6)
        assert [row["state"] for row in json.loads(site.run("parties", "quarantine", "list", "--state", "REJECTED", "--json"))] == ["REJECTED"]

    def test_json_of_an_accepted_one(self, site):
        site.seen(LATER)
        outcome = json.loads(site.run("parties", "quarantine", "accept", sha256(LATER)[:12], "--reason", "r", "--yes", "--json"))
        assert outcome["state"] == "ACTIVE" and site.roles()[sha256(LATER)] == ["next"]
