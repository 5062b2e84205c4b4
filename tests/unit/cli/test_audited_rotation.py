"""What is done with certificates, ours and partners', with messages that are kept, and with the pair, says who did it:
command by command, on a real database."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.cli.main import main
from gateway.store.api import AttemptResult
from gateway.store.pair import Presence
from gateway.store.partner_certificates import NewStranger
from gateway.store.postgres import PostgresStore
from tests.contract.test_store_contract import inbound, outbound
from tests.peer import Authority, Keys
from tests.unit.cli.test_audited_verbs import WALKED, rows, run, server, site  # noqa: F401 - fixtures
from tests.world import key_pem, to_pem

WHO = "anna@lv-test"
FINLAND = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "http://127.0.0.1:9/fi"
certificate = "fi.pem"
"""


def act(command, *arguments, **more):
    """Run a command, and look at what it leaves in the audit."""
    before = rows()[0]["number"]
    text = run(*command.split(), *arguments, **more)
    new = [row for row in rows() if row["number"] > before]
    assert WALKED[command] in [row["kind"] for row in new], (command, [row["kind"] for row in new])
    assert all(row["actor"] == WHO for row in new), (command, new)
    return text


def test_none_is_overlooked():
    assert [command for command in WALKED if f'act("{command}"' not in Path(__file__).read_text()] == []


@pytest.fixture
def begun(site, server):  # noqa: F811
    fresh(server)
    run("store", "migrate")
    run("pmodes", "apply", "--reason", "the beginning", "--yes")
    return site


def fresh(dsn):
    async def drop():
        import asyncpg

        connection = await asyncpg.connect(dsn)
        await connection.execute("DROP SCHEMA IF EXISTS gateway CASCADE")
        await connection.close()

    asyncio.run(drop())


def on(dsn, do):
    async def it():
        store = await PostgresStore.open(dsn)
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(it())


def test_our_keys(begun):
    act("certs csr", "--subject", "CN=AP_LV_01,C=LV", "--kind", "ec-p256", "--use", "tls-client", "--out", "own.csr", "--yes")
    new = Keys.make("AP_LV_01", "rsa", Authority())
    (begun / "new.pem").write_bytes(key_pem(new.signing_private) + to_pem(new.signing))
    (begun / "new.pem").chmod(0o600)
    act("certs import", "new.pem", "--use", "sign", "--party", "AP_LV_01", "--yes")
    key = hashlib.sha256(new.signing).hexdigest()[:16]  # as the beginning of its fingerprint
    act("certs stage", key, "--reason", "the old one ends", "--yes", "--force")
    act("certs ping", status=7)  # nobody listens
    told = json.loads(act("certs announce", "--by", "package", "--to", "package", "--contact", "AP operations", "--yes", "--json"))
    assert [one["means"] for one in told["told"]] == ["package"]
    act("certs promote", key, "--everybody", "--threshold", "0", "--reason", "nobody answers", "--yes", "--force")
    act("certs rollback", key, "--reason", "they do not take it", "--yes", "--force")
    act("certs retire", key, "--reason", "not wanted", "--yes", "--force")
    (begun / "kek2").write_bytes(os.urandom(32))
    (begun / "kek2").chmod(0o600)
    config = begun / "gateway.toml"
    config.write_text(config.read_text().replace(
        f'key_encryption_key = "file:{begun}/kek"',
        f'key_encryption_key = "file:{begun}/kek2"\nprevious_key_encryption_keys = ["file:{begun}/kek"]'))  # fmt: skip
    act("store rekey", "--yes")


def test_partners_certificates(begun, server):  # noqa: F811
    authority = Authority()
    made = [Keys.make("AP_EE_01", "rsa", authority).signing for _ in range(3)]
    (begun / "next.pem").write_bytes(to_pem(made[0]))
    act("parties stage-certificate", "AP_EE_01", "next.pem", "--reason", "they told us", "--yes", "--force")
    act("parties promote", "AP_EE_01", "--keep-encryption", "--reason", "they use it", "--yes", "--force")
    act("parties retire-certificate", "AP_EE_01", "--reason", "over", "--yes", "--force")

    async def met(store):
        now = datetime.now(UTC)
        for der in made[1:]:
            await store.quarantine(NewStranger(
                party=PARTY, sha256=hashlib.sha256(der).hexdigest(), der=der, subject="CN=AP_EE_01", issuer="CN=CA",
                valid_from=now, valid_until=now + timedelta(days=300)))  # fmt: skip

    on(server, met)
    accepted, rejected = (hashlib.sha256(der).hexdigest() for der in made[1:])
    act("parties quarantine reject", rejected, "--reason", "not theirs")
    act("parties quarantine accept", accepted, "--reason", "asked by telephone", "--yes", "--force")


PARTY = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE:AP_EE_01"


def test_a_message_that_is_kept(begun, server):  # noqa: F811
    message = inbound()
    on(server, lambda store: store.receive_once(message))
    act("messages legal-hold", message.id, "--reason", "asked by the court")
    act("messages legal-release", message.id, "--reason", "it is over")


def test_messages_that_are_tried_once_more(begun, server):  # noqa: F811
    received, submitted = inbound(), outbound()

    async def given_up(store):
        await store.receive_once(received)
        await store.submit_once(submitted)
        [job] = await store.claim("send", worker="w", limit=1, lease=9)
        number = await store.begin_attempt(job, node="w", references=())
        await store.finish_attempt(job, number, AttemptResult(state="FAILED", outcome="error", error_code="EBMS:0301"))
        [job] = await store.claim("deliver", worker="w", limit=1, lease=9)
        await store.park(job.id, job.claim, error="it refuses")

    on(server, given_up)
    act("messages resend", submitted.user_message.message_id)
    act("messages redeliver", str(received.id))

    async def due(store):
        return [job.message for kind in ("send", "deliver") for job in await store.claim(kind, worker="w", limit=9, lease=9)]

    assert on(server, due) == [submitted.id, received.id]
    before = len(rows())
    # What is not possible is said for each, and changes nothing.
    run("messages", "resend", str(submitted.id), str(received.id), status=3)
    run("messages", "resend", "nobody-has-sent-this", status=5)
    assert len(rows()) == before


def test_who_cannot_be_told_keeps_everybody_from_being_told(begun, server):  # noqa: F811
    """AP_EE_01 takes agreement updates, AP_FI_01 does not."""
    agreement = begun / "pmodes" / "agreement.toml"
    agreement.write_text(agreement.read_text().replace("[parties.AP_EE_01]\n", "[parties.AP_EE_01]\nupdates = { agreement = 'lv-ee' }\n", 1) + FINLAND)
    (begun / "pmodes" / "fi.pem").write_bytes((begun / "fi.pem").read_bytes())
    run("pmodes", "apply", "--reason", "updates", "--yes", "--force")
    new = Keys.make("AP_LV_01", "rsa", Authority())
    (begun / "new.pem").write_bytes(key_pem(new.signing_private) + to_pem(new.signing))
    (begun / "new.pem").chmod(0o600)
    run("certs", "import", "new.pem", "--use", "sign", "--party", "AP_LV_01", "--yes")
    run("certs", "stage", hashlib.sha256(new.signing).hexdigest()[:16], "--reason", "x", "--yes", "--force")
    announce = ("certs", "announce", "--contact", "AP operations", "--yes", "--json")
    before = len(rows())
    run(*announce, "--by", "package", status=2)  # where to?
    run(*announce, "--by", "agreement-update", "--to", "package", status=2)
    for ways in ((), ("--by", "agreement-update")):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            main([*announce, *ways])
        assert left.value.code == 1 and "AP_FI_01 can be told by a package only" in err.getvalue()
        assert "AP_EE_01" not in err.getvalue()
    assert len(rows()) == before, "nobody was told"
    run(*announce, "--by", "agreement-update", "AP_EE_01", status=1)  # the key in use is in a file; nothing names it
    assert len(rows()) == before, "nobody was told"
    told = json.loads(run(*announce, "--by", "package", "--to", "package"))["told"]
    assert {one["partner"]: one["means"] for one in told} == {"AP_EE_01": "package", "AP_FI_01": "package"}
    assert (begun / "package").is_dir()
    assert sorted(row["subject"].rpartition(":")[2] for row in rows() if row["kind"] == "certificates.announced") == ["AP_EE_01", "AP_FI_01"]


def test_the_pair(begun, server):  # noqa: F811
    async def alive(store):
        for name in ("lv-test", "lv-other"):
            await store.report(Presence(node=name, instance=uuid4(), roles="active/passive"))

    on(server, alive)
    act("ha switchover", "lv-other", "--yes", "--force", "--timeout", "1", status=8)  # nobody is there to take over
    act("ha drain", "lv-other", "--yes", "--force", "--timeout", "1", status=8)
    act("ha undrain", "lv-other", "--yes", "--force", "--timeout", "1")
