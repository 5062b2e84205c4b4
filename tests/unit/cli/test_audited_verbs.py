"""Every command that changes something leaves a row in the audit that says who, on a real database.

Whoever adds a command says here whether it only looks. A command that is in neither table fails the first test.
"""

import asyncio
import contextlib
import io
import json
import logging
import os
from pathlib import Path

import click
import pytest

from gateway.cli.main import main, root
from gateway.operate import backends
from gateway.store.api import MessageFilter
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.migrate import migrate
from tests.peer import Authority, Keys
from tests.unit.store.servers import Servers
from tests.world import to_pem, write_site

TESTS = Path(__file__).parents[2]

#: Commands that change nothing, or only files that somebody names: what comes into force is in the audit.
LOOKS = {
    "audit list", "audit verify", "backends list", "certs calendar", "certs dev", "certs export", "certs list",
    "certs needs-renewal", "certs show", "certs timeline", "certs watch", "demo", "ha status", "parties certs",
    "parties quarantine list", "parties quarantine show", "parties updates list", "parties updates show",
    "doctor", "explain", "inspect", "messages legal-holds", "messages list", "messages show", "messages trace", "openapi", "parties export",
    "parties list", "parties show", "parties test", "pmodes diff", "pmodes export", "pmodes history",
    "pmodes import-domibus", "pmodes lint", "pmodes list", "pmodes plan", "pmodes schema", "pmodes show", "pmodes why",
    "receipts verify", "run", "send", "store erased", "store receipts", "store status", "version", "wsdl",
}  # fmt: skip
#: The others, with what they write; `test_everything…` below runs them in this order.
ACTS = {
    "store migrate": "store.migrated",
    "pmodes apply": "agreements.activated",
    "pmodes rollback": "agreements.activated",
    "backends create": "client.created",
    "backends token": "credential.created",
    "backends scope": "client.scope",
    "backends revoke": "client.revoked",
    "parties add": "party.added",
    "parties remove": "party.removed",
    "pmodes import-truststore": "truststore.imported",
    "messages pull": "messages.pulled",
    "store purge": "store.purged",
    "audit export": "audit.exported",
    "audit anchor": "audit.anchored",
}
#: Those for which a site needs more than a database; `test_audited_rotation.py` walks them.
WALKED = {
    "certs csr": "key.added",
    "certs import": "key.added",
    "certs stage": "key.moved",
    "certs ping": "certificates.asked",
    "certs announce": "certificates.announced",
    "certs promote": "key.moved",
    "certs rollback": "key.moved",
    "certs retire": "key.moved",
    "store rekey": "store.rekeyed",
    "messages resend": "message.resent",
    "messages redeliver": "message.redelivered",
    "messages legal-hold": "messages.legal_hold",
    "messages legal-release": "messages.legal_release",
    "ha switchover": "pair.switchover",
    "ha drain": "pair.drained",
    "ha undrain": "pair.undrained",
    "parties stage-certificate": "agreements.activated",
    "parties promote": "agreements.activated",
    "parties retire-certificate": "agreements.activated",
    "parties quarantine accept": "certificate.accepted",
    "parties quarantine reject": "certificate.rejected",
}
#: Those that need a partner who answers: what they write, and the test that sees it written.
ELSEWHERE = {
    "messages export": ("messages.exported", "interop/test_kept.py"),
    "parties updates approve": ("update.approved", "unit/operate/updates/test_responding.py"),
    "parties updates reject": ("update.refused", "unit/operate/updates/test_responding.py"),
    "parties updates request": ("update.prepared", "unit/operate/updates/test_asking.py"),
    "parties updates terminate": ("update.prepared", "unit/operate/updates/test_asking.py"),
}


def commands(command=root, context=None, path=()):
    context = context or click.Context(command)
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        yield from commands(below, click.Context(below, parent=context, info_name=name), (*path, name))


def test_every_command_is_known_to_look_or_to_act():
    found, acting = set(commands()), {*ACTS, *WALKED, *ELSEWHERE}
    assert found - LOOKS - acting == set(), "say above whether it changes something, and what it leaves in the audit"
    assert (LOOKS | acting) - found == set() and not LOOKS & acting
    for command, (kind, test) in ELSEWHERE.items():
        assert kind in (TESTS / test).read_text(), f"{command}: {test} does not look for {kind}"


@pytest.fixture(scope="module")
def server():
    servers = Servers()
    yield servers.dsn("wheel")
    servers.stop()


@pytest.fixture
def site(tmp_path, server, monkeypatch):
    """A site whose database has no schema yet."""
    monkeypatch.setenv("TEST_DSN", server)
    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    monkeypatch.delenv("SUDO_USER", raising=False)
    authority = Authority()
    write_site(tmp_path, Keys.make("AP_LV_01", "rsa", authority), Keys.make("AP_EE_01", "rsa", authority))
    (tmp_path / "kek").write_bytes(os.urandom(32))
    (tmp_path / "kek").chmod(0o600)
    (tmp_path / "fi.pem").write_bytes(to_pem(Keys.make("AP_FI_01", "rsa", authority).signing))
    (tmp_path / "trust.pem").write_bytes(to_pem(Keys.make("AP_EE_01", "rsa", authority).signing))
    config = tmp_path / "gateway.toml"
    config.write_text(f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{tmp_path}/kek"\n' + config.read_text())
    monkeypatch.chdir(tmp_path)
    quiet = logging.getLogger("gateway")  # commands that show what happens do not log it
    level = quiet.level
    yield tmp_path
    quiet.setLevel(level)


def run(*arguments, status=0):
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    out.flush()
    text = out.buffer.getvalue().decode()
    assert left.value.code == status, f"{arguments}: {left.value.code}\n{text}\n{err.getvalue()}"
    return text


def rows(**wanted):
    options = [part for name, value in wanted.items() for part in (f"--{name}", value)]
    return json.loads(run("audit", "list", "--json", "--limit", "1000", *options))


def test_everything_that_changes_something_says_who_did_it(site):
    seen = {}

    def act(command, *arguments, **more):
        before = rows()[0]["number"] if seen else 0
        text = run(*command.split(), *arguments, **more)
        new = [row for row in rows() if row["number"] > before]
        assert ACTS[command] in [row["kind"] for row in new], (command, new)
        assert all(row["actor"] == "anna@lv-test" for row in new), new
        seen[command] = new
        return text

    act("store migrate")
    agreement = site / "pmodes" / "agreement.toml"
    act("pmodes apply", "--reason", "the beginning", "--yes")
    agreement.write_text(agreement.read_text().replace("127.0.0.1:9/", "127.0.0.1:10/"))
    run("pmodes", "apply", "--reason", "moved", "--yes")
    act("pmodes rollback", "--reason", "not moved", "--yes")
    client = json.loads(act("backends create", "portal", "--json"))
    act("backends token", client["id"], "--days", "30")
    act("backends scope", client["id"], "--action", "ExecuteQueryRequest")
    act("backends revoke", client["id"])
    act("parties add", "AP_FI_01", "--type", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI", "--endpoint",
        "https://ap.example.fi/as4", "--certificate", "fi.pem", "--yes", "--force")  # fmt: skip
    act("parties remove", "AP_FI_01", "--yes", "--offline")
    act("pmodes import-truststore", "trust.pem", "pmodes")
    act("messages pull")
    act("store purge", "--yes")
    exported = act("audit export")
    act("audit anchor")
    assert set(seen) == set(ACTS)

    # Fingerprints of what was changed are there, secrets are not.
    added = next(row for row in seen["parties add"] if row["kind"] == "party.added")
    assert added["subject"] == "AP_FI_01" and all(len(sha) == 64 for sha in added["detail"]["files"].values())
    assert client["token"] not in json.dumps(rows()) and client["token"] not in exported

    (site / "export.jsonl").write_text(exported)
    assert "intact" in run("audit", "verify", "export.jsonl", "--certificate", "lv-sign.pem")
    assert "intact" in run("audit", "verify")


def test_what_a_dry_run_or_a_refusal_shows_is_not_there(site):
    run("store", "migrate")
    before = len(rows())
    run("parties", "remove", "AP_EE_01", "--dry-run", "--offline")
    run("pmodes", "apply", "--reason", "x", "--dry-run")
    run("backends", "revoke", "cl_nobody", status=5)
    run("pmodes", "import-truststore", "trust.pem", "pmodes", "--dry-run")
    assert len(rows()) == before


def test_a_change_of_files_without_a_database_is_made_and_said_not_to_be_noted(site, monkeypatch):
    monkeypatch.setenv("TEST_DSN", "postgresql://nobody@127.0.0.1:1/x")
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main(["parties", "remove", "AP_EE_01", "--yes", "--offline"])
    assert left.value.code == 0 and "not in the audit" in err.getvalue()
    assert "AP_EE_01" not in (site / "pmodes" / "agreement.toml").read_text()


# -- gateway audit -------------------------------------------------------------------------


@pytest.fixture
def filled(site, server):
    asyncio.run(migrate(server))

    async def fill():
        store = await PostgresStore.open(server)
        for number in range(5):
            await backends.create(store, f"portal {number}", "rest", by="anna@lv-test")
        assert not await store.messages(MessageFilter())
        await store.close()

    asyncio.run(fill())
    return site


async def _sql(server, statement):
    import asyncpg

    connection = await asyncpg.connect(server, server_settings={"search_path": "gateway"})
    await connection.execute(statement)
    await connection.close()


def test_broken_in_the_database(filled, server):
    assert "intact" in run("audit", "verify")
    number = rows()[2]["number"]
    asyncio.run(_sql(server, f"UPDATE audit SET actor = 'nobody' WHERE number = {number}"))
    assert f"BROKEN at row {number}" in run("audit", "verify", status=3)
    found = json.loads(run("audit", "verify", "--json", status=3))
    assert found["wrong"] == number and not found["intact"]
    asyncio.run(_sql(server, f"UPDATE audit SET actor = 'anna@lv-test' WHERE number = {number}"))
    assert "intact" in run("audit", "verify")


def test_a_tail_and_its_head_cut_off_are_found_with_an_anchor(filled, server):
    kept = run("audit", "anchor")
    (filled / "anchors.jsonl").write_text(kept)
    last = json.loads(kept)["number"]
    run("audit", "verify", "--anchors", "anchors.jsonl")
    asyncio.run(_sql(server, "CREATE TABLE kept AS SELECT * FROM audit"))
    asyncio.run(_sql(server, f"DELETE FROM audit WHERE number > {last - 1}"))
    assert f"BROKEN at row {last}" in run("audit", "verify", status=3)
    asyncio.run(_sql(server, f"UPDATE audit_head SET number = {last - 1}, hash = (SELECT hash FROM audit WHERE number = {last - 1})"))
    assert "intact" in run("audit", "verify"), "the chain alone cannot tell"
    assert f"BROKEN at row {last}" in run("audit", "verify", "--anchors", "anchors.jsonl", status=3)
    asyncio.run(_sql(server, "INSERT INTO audit SELECT * FROM kept WHERE number >= (SELECT max(number) + 1 FROM audit)"))
    asyncio.run(_sql(server, "UPDATE audit_head SET (number, hash) = (SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1)"))
    asyncio.run(_sql(server, "DROP TABLE kept"))
    assert "intact" in run("audit", "verify", "--anchors", "anchors.jsonl")


def test_an_export_is_a_file_of_its_owner(filled):
    run("audit", "export", "--out", "audit.jsonl")
    assert (filled / "audit.jsonl").stat().st_mode & 0o077 == 0
    assert [path.name for path in filled.iterdir() if path.name.startswith(".audit")] == []
    number = rows()[0]["number"]
    run("audit", "export", "--out", "later.jsonl", "--after", number)
    found = json.loads(run("audit", "verify", "later.jsonl", "--json"))
    assert found["after"] == found["number"] == number and found["intact"], "nothing since"
    run("audit", "export", "--after", number + 100, status=5)
    octets = (filled / "audit.jsonl").read_bytes().replace(b"portal", b"poRtal").replace(b"client.created", b"client.creates", 1)
    (filled / "audit.jsonl").write_bytes(octets)
    assert "BROKEN" in run("audit", "verify", "audit.jsonl", "--certificate", "lv-sign.pem", status=3)
    run("audit", "verify", "missing.jsonl", status=2)
    (filled / "empty.jsonl").write_bytes(b"")
    assert "BROKEN at the head" in run("audit", "verify", "empty.jsonl", status=3)
    run("audit", "verify", "empty.jsonl", "--certificate", "kek", status=1)


def test_nobody_vouches_for_an_unsigned_export(filled):
    run("audit", "export", "--out", "audit.jsonl", "--unsigned")
    assert "intact" in run("audit", "verify", "audit.jsonl")
    run("audit", "verify", "audit.jsonl", "--certificate", "lv-sign.pem", status=3)


# -- gateway certs watch | calendar -----------------------------------------------------------


def test_what_ends_is_shown_by_what_is_in_force(filled):
    text = run("certs", "watch", "--within", "3650", status=3)
    assert "AP_LV_01" in text and "AP_EE_01" in text
    run("certs", "watch", "--within", "0")
    found = json.loads(run("certs", "watch", "--all", "--json", "--within", "0"))
    assert {tuple(row["use"].split(", ")) for row in found} == {("decrypt", "sign"), ("encrypt", "sign")}
    assert all(len(row["sha256"]) == 64 and row["successor"] is False for row in found)


def test_the_calendar_is_a_file(filled):
    import icalendar

    run("certs", "calendar", "--out", "ends.ics", "--lang", "lv")
    found = icalendar.Calendar.from_ical((filled / "ends.ics").read_bytes())
    assert sorted(str(e["SUMMARY"]).split(" (")[0] for e in found.walk("VEVENT")) == [
        "Beidzas sertifikāts: AP_EE_01", "Beidzas sertifikāts: AP_LV_01"]  # fmt: skip
    assert run("certs", "calendar").startswith("BEGIN:VCALENDAR")
