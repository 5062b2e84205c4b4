"""`gateway pmodes plan | apply | rollback | history | diff`, with nobody serving: on a database, and on a private one."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import asyncpg
import pytest

from gateway.cli.main import main
from gateway.store.embedded import PrivatePostgres
from gateway.store.postgres.migrate import migrate
from tests.peer import Authority, Keys
from tests.unit.store.servers import Servers
from tests.world import to_pem, write_site


class Operator:
    """Runs `gateway pmodes` on a site, in this process: as the entry point does, exit status and all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.errors = folder, ""
        self.file = folder / "pmodes" / "agreement.toml"

    def __call__(self, *arguments: str, status: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            main(["pmodes", *arguments, "--config", str(self.folder / "gateway.toml")])
        self.errors = err.getvalue()
        assert left.value.code == status, f"{left.value.code}\n{out.getvalue()}\n{self.errors}"
        return out.getvalue()

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def keys():
    authority = Authority()
    return Keys.make("AP_LV_01", "rsa", authority), Keys.make("AP_EE_01", "rsa", authority)


@pytest.fixture(scope="module")
def dsn():
    """A database where the schema is up to date and no process runs."""
    servers = Servers()
    yield servers.dsn("wheel")
    servers.stop()


def sql(dsn, verb, statement):
    async def run():
        connection = await asyncpg.connect(dsn)
        try:
            return await getattr(connection, verb)(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.fixture
def operator(tmp_path, keys, dsn, monkeypatch):
    monkeypatch.setenv("TEST_DSN", dsn)
    asyncio.run(migrate(dsn))
    write_site(tmp_path, *keys, endpoint="http://127.0.0.1:9/as4")
    (tmp_path / "kek").write_bytes(os.urandom(32))
    (tmp_path / "kek").chmod(0o600)
    config = tmp_path / "gateway.toml"
    # [keys] comes before [[keys.store]].
    config.write_text(f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{tmp_path}/kek"\n' + config.read_text())
    return Operator(tmp_path)


def test_a_life_of_agreements(operator, dsn):
    """One after another, as an operator would: plan, apply, change, plan, apply, roll back, look."""
    assert "on nothing yet" in operator("plan", status=3)
    first = json.loads(operator("apply", "--reason", "the beginning", "--yes", "--json"))
    assert (first["revision"], first["state"], first["acknowledged"]) == (1, "ACTIVE", [])
    assert "the files are those in force" in operator("plan")
    assert "nothing to change: revision 1 is in force" in operator("apply", "--reason", "again", "--yes")

    # Only a comment: no agreement changes, the files do.
    operator.file.write_text(operator.file.read_text() + "# looked at\n")
    assert "only the files differ" in operator("plan")

    operator.edit("http://127.0.0.1:9/as4", "http://127.0.0.1:10/as4")
    plan = json.loads(operator("plan", "--json", status=3))
    assert plan["changes"]["parties"][0]["fields"] == [
        {"field": "endpoint", "before": "http://127.0.0.1:9/as4", "after": "http://127.0.0.1:10/as4"}]  # fmt: skip
    text = operator("plan", status=3)
    assert f"plan {plan['id']}, on revision 1" in text
    assert "~ AP_EE_01" in text and "endpoint: http://127.0.0.1:9/as4 → http://127.0.0.1:10/as4" in text

    operator("apply", "--reason", "nobody to ask", status=2)
    assert "--yes applies without asking" in operator.errors
    operator("apply", "--reason", "other plan", "--yes", "--plan", "1-abcdef", status=6)
    assert "dry" not in operator("apply", "--reason", "dry", "--dry-run")
    assert [r["revision"] for r in json.loads(operator("history", "--json"))["revisions"]] == [1], "a dry run writes nothing"
    assert "revision 2 is in force; acknowledged by: no process runs" in operator(
        "apply", "--reason", "EE has moved", "--yes", "--plan", plan["id"])

    assert "~ AP_EE_01" in operator("diff", "1", status=3)
    assert operator("diff", "2", "2") == ""
    operator("diff", "7", status=5)
    shown = json.loads(operator("show", "--revision", "1", "--json"))
    assert {p["endpoint"] for p in shown["parties"]} == {None, "http://127.0.0.1:9/as4"}

    assert "revision 3 is in force" in operator("rollback", "--reason", "EE has not moved", "--yes")
    history = json.loads(operator("history", "--json"))["revisions"]
    assert [(r["revision"], r["state"], r["reason"], r["restores"]) for r in history] == [
        (3, "ACTIVE", "EE has not moved", 1), (2, "SUPERSEDED", "EE has moved", None), (1, "SUPERSEDED", "the beginning", None)]
    assert history[0]["author"].endswith("@lv-test") and history[0]["sha256"] == history[2]["sha256"]
    assert "EE has moved" in operator("history")
    operator("rollback", "99", "--reason", "no such", "--yes", status=5)

    # The files are still the newer ones. Those in force can be had.
    operator("plan", status=3)
    operator("show", "--revision", "3", "--to", str(operator.folder / "out"))
    assert sorted(p.name for p in (operator.folder / "out").iterdir()) == ["agreement.toml", "ee-enc.pem", "ee-sign.pem"]
    assert "the files are those in force" in operator("plan", str(operator.folder / "out"))
    operator("show", "--revision", "3", "--to", str(operator.folder / "out"), status=1)
    assert "is not empty" in operator.errors

    # What lint calls an error is refused, unless it is forced; what cannot be loaded, always.
    stranger = Keys.make("AP_EE_01", "p256", Authority())
    (operator.folder / "pmodes" / "ee-sign.pem").write_bytes(to_pem(stranger.signing))
    refused = operator("apply", "--reason", "wrong kind of key", "--yes", status=3)
    assert "✘ P009" in refused and "lint errors" in operator.errors
    forced = json.loads(operator("apply", "--reason", "on purpose", "--yes", "--force", "--json"))
    assert forced["revision"] == 4
    operator.edit('signing = "ee-sign.pem"', 'signing = "missing.pem"')
    operator("apply", "--reason", "broken", "--yes", "--force", status=1)
    assert "there is no" in operator.errors and "missing.pem" in operator.errors

    # With nobody to test it, this command does.
    operator.edit('signing = "missing.pem"', 'signing = "ee-sign.pem"')
    operator.edit("allow_http = true", 'allow_http = true\nbackend = "nowhere"')
    operator("apply", "--reason", "no backend", "--yes", "--force", status=1)
    assert "there is no backend 'nowhere'" in operator.errors
    kinds = [row["kind"] for row in sql(dsn, "fetch", "SELECT kind FROM gateway.audit ORDER BY number")]
    forced = sql(dsn, "fetchval", "SELECT detail::jsonb->>'forced' FROM gateway.audit WHERE subject = 'revision 4' LIMIT 1")
    assert kinds == ["agreements.proposed", "agreements.activated"] * 4 and "P009" in forced


def test_without_a_database_a_plan_shows_everything_and_nothing_is_applied(tmp_path, keys):
    write_site(tmp_path, *keys, endpoint="http://127.0.0.1:9/as4")
    operator = Operator(tmp_path)
    assert "+ AP_EE_01" in operator("plan", status=3)
    operator("apply", "--reason", "too early", "--yes", status=1)
    assert "there is no database yet" in operator.errors and "gateway run" in operator.errors
    assert not (tmp_path / "data").exists(), "who looks makes nothing"


def test_the_private_database_of_a_node_that_does_not_run(keys):
    """It is started for as long as it takes."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)
    try:
        write_site(folder, *keys, endpoint="http://127.0.0.1:9/as4")
        operator = Operator(folder)
        server = PrivatePostgres(folder / "data" / "postgres")
        server.start()
        server.stop()
        assert json.loads(operator("apply", "--reason", "offline", "--yes", "--json"))["state"] == "ACTIVE"
        assert json.loads(operator("history", "--json"))["revisions"][0]["reason"] == "offline"
        assert not (folder / "data" / "postgres" / "data" / "postmaster.pid").exists(), "and it stopped again"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
