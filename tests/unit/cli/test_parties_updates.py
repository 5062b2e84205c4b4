"""`gateway parties updates`: what the ledger shows, and what an operator can say."""

import asyncio
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from click.testing import CliRunner

from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import CertificateDigest, CertificateUpdate, UpdateRequest
from gateway.as4.updates.writing import write
from gateway.cli import parties_updates as command
from gateway.clock import SystemClock
from gateway.errors import ConfigError, NotFound, NotPossible
from gateway.operate.updates.ledger import audit_of, sha256
from gateway.store.memory import MemoryStore
from gateway.store.updates import NewUpdate, UpdateChange
from tests import pki

CA = pki.Ca.root("State CA")
OLD, NEW = CA.leaf("AP_EE_01", serial=1), CA.leaf("AP_EE_01 \x1b[31m", serial=2)


def noted(store, direction, *changes):
    request = UpdateRequest(
        id=f"r-{direction}", created_at=datetime.now(UTC), current=AgreementRef("urn:a"), updated=AgreementRef("urn:b"),
        updates=(CertificateUpdate("u", CertificateDigest.of(OLD), (NEW,)),), reason="the old one expires",
    )
    new = NewUpdate(id=uuid4(), direction=direction, kind="update", partner="t:AP_EE_01", party="AP_EE_01", ours="AP_LV_01",
                    reference=request.id, document=write(request), message_id=f"{direction}@x", conversation_id="c",
                    current="urn:a", updated="urn:b", certificates=(sha256(NEW),))

    async def go():
        row, _ = await store.add_update(new, audit_of("update.received", new, "t"))
        for change in changes:
            row = await store.change_update(row.id, change, before=(row.state,))
        return row

    return asyncio.run(go())


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A ledger with a request that waits for us, and one of ours that was rejected."""
    (tmp_path / "gateway.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    store = MemoryStore(SystemClock())
    monkeypatch.setattr(command, "on_database", lambda settings, do, look_only=False: asyncio.run(do(store)))
    store.theirs = noted(store, "inbound", UpdateChange(state="WAITING", detail="another CA"))
    store.ours = noted(store, "outbound", UpdateChange(state="SENT"), UpdateChange(
        state="REJECTED", code="AU:0006", detail="ActivateByRejected ten days", answered=True))
    return store


def run(*arguments, catch=False):
    return CliRunner().invoke(command.updates, [str(a) for a in arguments], catch_exceptions=catch)


def test_list(site):
    done = run("list")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and [line[4] for line in lines] == ["state", "REJECTED", "WAITING"]
    assert lines[1][0] == str(site.ours.id)[:8] and lines[1][9] == "AU:0006"
    waiting = run("list", "--waiting", "--json")
    assert waiting.exit_code == 3 and [row["id"] for row in json.loads(waiting.stdout)] == [str(site.theirs.id)]
    assert "document" not in waiting.stdout and run("list", "--party", "AP_FI_01", "--json").stdout == "[]\n"


def test_show(site):
    shown = run("show", str(site.theirs.id)[:8]).stdout
    assert "the old one expires" in shown and "another CA" in shown and "\x1b" not in shown
    assert sha256(NEW)[:4] + " " + sha256(NEW)[4:8] in shown
    # A refusal is explained, whoever refused.
    assert "too early for the partner" in run("show", "r-outbound").stdout
    facts = json.loads(run("show", site.theirs.id, "--json").stdout)
    assert facts["certificates"][0]["pem"].startswith("-----BEGIN CERTIFICATE-----")
    with pytest.raises(NotFound):
        run("show", "00000000")


def test_approve_and_reject(site):
    with pytest.raises(ConfigError, match="none of the new certificates"):
        run("approve", site.theirs.id, "--fingerprint", "ab" * 16, "--reason", "x")
    with pytest.raises(NotPossible):
        run("approve", site.ours.id, "--fingerprint", sha256(NEW), "--reason", "x")
    done = run("approve", site.theirs.id, "--fingerprint", sha256(NEW)[:20], "--reason", "called them", "--json")
    assert json.loads(done.stdout)["state"] == "APPROVED" and "@" in json.loads(done.stdout)["actor"]
    with pytest.raises(NotPossible, match="APPROVED"):
        run("reject", site.theirs.id, "--reason", "no")
    assert run("approve", site.theirs.id).exit_code == 2
