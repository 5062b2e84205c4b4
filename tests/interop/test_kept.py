"""What is kept, held, exported, erased; and what a restore to a moment has lost. Real nodes, real databases."""

import http.client
import json
import shutil
import subprocess
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.client import Part
from tests.failover.pair import Pair

NOW = {f"GATEWAY__RETENTION__{name}": "0s" for name in ("DELIVERED_PAYLOADS", "SENT_PAYLOADS", "MESSAGES")}
CORNERS = {"originalSender": "urn:lv:1", "finalRecipient": "urn:ee:1"}


@pytest.fixture(scope="module")
def pair():
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)  # PostgreSQL may run as another user
    found = Pair(folder)
    found.ee.start(GATEWAY__RETENTION__DELIVERED_PAYLOADS="0s")  # the default, which the pair has not
    found.lv.start()
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def clients(pair):
    return pair.lv.client(), pair.ee.client()


def exchange(clients, content=b"<evidence>canary</evidence>"):
    """A message that was sent, receipted, taken and acknowledged; its MessageId."""
    lv, ee = clients
    submitted = lv.submit("AP_EE_01", "ExecuteQueryRequest", [Part(content, "application/xml")], properties=CORNERS)
    end = time.monotonic() + 20
    while True:
        for delivery in ee.claim(limit=10):
            ee.ack(delivery)
            if delivery["message"]["message_id"] == submitted["message_id"]:
                break
        else:
            assert time.monotonic() < end
            time.sleep(0.05)
            continue
        break
    while lv.message(submitted["id"])["state"] != "ACKNOWLEDGED":
        assert time.monotonic() < end
        time.sleep(0.05)
    return submitted["message_id"]


def exported(node) -> list[tuple[str, dict]]:
    """What the audit says of bundles, oldest first: the MessageId and what was said. Always with a name."""
    rows = json.loads(node.cli("audit", "list", "--kind", "messages.exported", "--json").stdout)
    assert all(row["actor"].endswith(f"@{node.name}") for row in rows)
    named = {m["id"]: m["message_id"] for m in json.loads(node.cli("messages", "list", "--json").stdout)}
    return [(named[row["subject"]], row["detail"]) for row in reversed(rows)]


def test_the_bundle_on_the_command_line(pair, clients, tmp_path):
    id = exchange(clients)
    target = tmp_path / "evidence.zip"
    assert pair.lv.cli("messages", "export", id, "--to", str(target)).stdout.strip() == str(target)
    assert target.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
        assert {"message.json", "header.json", "verification.json", "wire/request.xml", "wire/response.xml",
                "certificates/receipt-signer.pem", "manifest.json"} <= names
        verdict = json.loads(archive.read("verification.json"))
        assert verdict["security"]["valid"] and verdict["receipt"]["valid"]
        assert not any(b"canary" in archive.read(name) for name in names)
    again = pair.lv.cli("messages", "export", id, "--to", str(target), check=False)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert exported(pair.lv) == [(id, {"payloads": False})] * 2  # noted before it is written


@pytest.mark.slow
def test_payloads_leave_with_a_reason_only_and_the_audit_has_it(pair, clients, tmp_path):
    id = exchange(clients)
    refused = pair.lv.cli("messages", "export", id, "--payloads", check=False)
    assert refused.returncode == 2 and "--reason" in refused.stderr
    target = tmp_path / "with.zip"
    pair.lv.cli("messages", "export", id, "--to", str(target), "--payloads", "--reason", "case 7")
    with zipfile.ZipFile(target) as archive:
        assert archive.read("payloads/payload-0.xml") == b"<evidence>canary</evidence>"
    assert exported(pair.lv)[-1] == (id, {"payloads": True, "reason": "case 7"})


@pytest.mark.slow
def test_held_and_let_go_and_erased_with_proof(pair, clients):
    kept, other = exchange(clients), exchange(clients)
    assert "1 messages held" in pair.ee.cli("messages", "legal-hold", kept, "--reason", "case 8").stdout
    [hold] = json.loads(pair.ee.cli("messages", "legal-holds", "--json").stdout)
    assert (hold["message_id"], hold["reason"]) == (kept, "case 8")
    pair.ee.cli("store", "purge", "--yes", **NOW)
    pair.ee.cli("store", "purge", "--yes", **NOW)  # a payload that went just now is not yet past its time
    assert pair.ee.cli("messages", "show", kept).returncode == 0
    assert pair.ee.cli("messages", "show", other, check=False).returncode == 5
    assert pair.ee.cli("store", "erased", other, "--json").returncode == 0
    assert pair.ee.cli("store", "erased", kept, check=False).returncode == 5
    conversation = json.loads(pair.ee.cli("messages", "show", kept, "--json").stdout)["conversation_id"]
    assert "1 messages released" in pair.ee.cli(
        "messages", "legal-release", "--conversation", conversation, "--reason", "closed").stdout
    pair.ee.cli("store", "purge", "--yes", **NOW)
    pair.ee.cli("store", "purge", "--yes", **NOW)
    assert json.loads(pair.ee.cli("store", "erased", kept, "--json").stdout)["audit_row"] > 0


@pytest.mark.slow
def test_payloads_go_by_themselves_once_they_are_taken(pair, clients):
    """The default: nothing of a person stays after the backend has the evidence."""
    id = exchange(clients)
    end = time.monotonic() + 50
    while json.loads(pair.ee.cli("messages", "show", id, "--json").stdout)["state"] != "PURGED":
        assert time.monotonic() < end
        time.sleep(2)
    assert clients[1].message(id)["parts"][0]["available"] is False


def test_what_the_node_shows_to_prometheus(pair, clients):
    exchange(clients)
    connection = http.client.HTTPConnection("127.0.0.1", pair.lv.operations, timeout=10)
    connection.request("GET", "/metrics")
    families = {f.name: f for f in text_string_to_metric_families(connection.getresponse().read().decode())}
    [up] = [s for s in families["gateway_party_up"].samples if s.labels == {"party": "AP_EE_01"}]
    assert up.value == 1
    end = time.monotonic() + 40
    while not {"gateway_db_up", "gateway_audit_broken", "gateway_disk_free_ratio",
               "gateway_retention_last_success_timestamp_seconds"} <= families.keys():
        assert time.monotonic() < end, sorted(families)
        time.sleep(1)
        connection.request("GET", "/metrics")
        families = {f.name: f for f in text_string_to_metric_families(connection.getresponse().read().decode())}
    assert families["gateway_db_up"].samples[0].value == 1 and families["gateway_audit_broken"].samples[0].value == 0


def test_what_a_restore_has_lost(pair, clients, tmp_path):
    """R29: EE is put back to a moment; LV has receipts from after it."""
    before = exchange(clients)
    pair.ee.stop()
    backup = tmp_path / "data"
    data = pair.ee.folder / "data"
    assert not list(data.rglob("postmaster.pid")), "the database still runs"
    subprocess.run(["cp", "-a", data, backup], check=True)
    moment = datetime.now(UTC)
    pair.ee.start()
    lost = [exchange(clients) for _ in range(2)]
    ee_own = clients[1].submit("AP_LV_01", "ExecuteQueryRequest", [Part(b"<a/>", "application/xml")], properties=CORNERS)
    known = json.loads(pair.ee.cli("store", "receipts", "--since", moment.isoformat(), "--json").stdout)
    assert [r["message_id"] for r in known] == lost  # as long as the database is whole
    pair.ee.stop()
    shutil.rmtree(data)
    subprocess.run(["cp", "-a", backup, data], check=True)
    pair.ee.start()
    report = pair.ee.cli("store", "receipts", "--since", moment.isoformat(), "--log", str(pair.ee.log), "--json", check=False)
    assert report.returncode == 3, report.stderr
    found = json.loads(report.stdout)
    assert [(e["what"], e["message_id"]) for e in found["lost"]] == [
        *(("receipt issued", id) for id in lost), ("submission accepted", ee_own["message_id"])]
    assert found["lost"][0]["party"] == "AP_LV_01" and found["dropped"] == 0
    assert before not in report.stdout
    assert "CANCELLED" not in report.stdout
    # Nothing since now: nothing is lost.
    now = datetime.now(UTC).isoformat()
    assert pair.ee.cli("store", "receipts", "--since", now, "--log", str(pair.ee.log)).returncode == 0
