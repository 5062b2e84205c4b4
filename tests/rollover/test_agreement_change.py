"""Agreements change on two nodes with two processes each while messages go through them, in both directions."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.store.embedded import PrivatePostgres
from tests.failover.pair import ROOT
from tests.peer import Authority, Keys
from tests.rollover.agreements import FINLAND, PROCESSES, Load, Site, rotated
from tests.unit.pmodes.network import PASSWORD, Network, jks, truststore
from tests.world import key_pem, to_pem

pytestmark = pytest.mark.failover


@pytest.fixture
def site(folder):
    server = PrivatePostgres(folder / "pg")
    made = Site(folder, server.start())
    yield made
    made.stop()
    server.stop()


def test_a_day_of_changes_without_one_failed_message(site, folder):
    site.start()
    load = Load(site, folder / "load")
    load.wait_for(2)

    # A new partner.
    site.certificate("finland.pem", Keys.make("FI", "rsa", Authority()))
    site.write(site.lv.as4, FINLAND)
    plan = site.cli("pmodes", "plan", check=False)
    assert plan.returncode == 3 and "+ AP_FI_01" in plan.stdout
    done = site.apply("Finland joins")
    assert (done["state"], done["revision"], done["behind"]) == ("ACTIVE", 2, [])
    assert sorted(word["process"] for word in done["acknowledged"]) == PROCESSES
    assert site.serving() == dict.fromkeys(PROCESSES, 2)
    load.wait_for(2)

    # LV is reached elsewhere.
    before = site.detour.taken
    site.write(site.detour.port, FINLAND)
    assert site.apply("LV has moved")["revision"] == 3
    load.wait_for(3)
    assert site.detour.taken > before, "what is sent now goes to the new place"

    # LV changes its certificate: announced as next, then LV signs with it, then it is the one.
    new = Keys.make("LV", "rsa", Authority())
    site.certificate("partner-new.pem", new)
    site.write(site.detour.port, FINLAND, certificate='certificate = "partner.pem"\nnext = "partner-new.pem"')
    assert site.apply("LV announces a certificate")["revision"] == 4
    (site.lv.folder / "key.pem").write_bytes(rotated(site.pair.keys["LV"], new))
    site.lv.process.send_signal(signal.SIGHUP)
    load.wait_for(3)
    site.write(site.detour.port, FINLAND, certificate='certificate = "partner-new.pem"')
    plan = site.cli("pmodes", "plan", check=False).stdout
    assert "- AP_LV_01 sign" in plan and "+ AP_LV_01 encrypt" in plan
    assert site.apply("LV signs with it")["revision"] == 5
    load.wait_for(3)

    # And back, before the last step.
    back = json.loads(site.cli("pmodes", "rollback", "--reason", "too early", "--yes", "--json").stdout)
    assert (back["state"], back["revision"]) == ("ACTIVE", 6)
    load.wait_for(3)

    sweden(site, load)
    # A plan made on what was in force before is stale.
    late = site.cli("pmodes", "apply", "--reason", "late", "--yes", "--plan", done["plan"], check=False)
    assert late.returncode == 6, late.stderr

    figures = load.finish()
    print(figures)
    assert not load.problems
    for name in ("message.failed", "message.retrying", "message.refused", "message.conflict", "incident"):
        assert not site.events(name), name
    history = json.loads(site.cli("pmodes", "history", "--json").stdout)
    assert [(r["revision"], r["state"], r["restores"]) for r in history["revisions"]][:4] == [
        (8, "ACTIVE", None), (7, "REFUSED", None), (6, "SUPERSEDED", 4), (5, "SUPERSEDED", None)]  # fmt: skip
    # The files of the other node were never touched; they are those of an old revision, and a reload knows.
    site.twin.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 30
    while not site.events("agreements.drift"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert set(site.serving().values()) == {8}


def sweden(site: Site, load: Load) -> None:
    """The agreement needs an Ed25519 key. One node has it; the other says what it lacks, and nothing switches."""
    future = Keys.make("EE", "ed25519", Authority())
    key = site.ee.folder / "key.pem"
    before = key.read_bytes()
    key.write_bytes(before + b"".join(
        key_pem(private) + to_pem(certificate) for private, certificate in
        ((future.signing_private, future.signing), (future.decryption_private, future.encryption))))  # fmt: skip
    partner = Keys.make("SE", "ed25519", Authority())
    site.certificate("se-sign.pem", partner)
    (site.ee.folder / "pmodes" / "se-enc.pem").write_bytes(to_pem(partner.encryption))
    second = site.ee.folder / "pmodes" / "second.toml"
    second.write_text("""
profile = "edelivery-as4/2.0"
self = "AP_EE_01"
allow_http = true
[parties.AP_EE_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"
[parties.AP_SE_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:SE"
endpoint = "http://127.0.0.1:9/as4"
signing = "se-sign.pem"
encryption = "se-enc.pem"
[[exchanges]]
service = "urn:x:service"
action = "Do"
from_role = "urn:x:role:a"
to_role = "urn:x:role:b"
properties = ["originalSender", "finalRecipient"]
""")
    refused = site.cli("pmodes", "apply", "--reason", "Sweden", "--yes", "--json", "--timeout", "30", check=False)
    assert refused.stdout, refused.stderr
    told = json.loads(refused.stdout)
    assert refused.returncode == 1 and told["state"] == "REFUSED" and told["revision"] == 7
    assert "ee2 " in told["refusal"] and "no key for profile edelivery-as4/2.0" in told["refusal"]
    assert "ee 0" not in told["refusal"], "this node has the key and read it when it was needed"
    assert site.serving() == dict.fromkeys(PROCESSES, 6)
    load.wait_for(2)
    # The other node gets the key, and the same files are applied.
    (site.twin.folder / "key.pem").write_bytes(key.read_bytes())
    assert site.apply("Sweden, again")["revision"] == 8
    assert site.serving() == dict.fromkeys(PROCESSES, 8)


@pytest.mark.slow
def test_a_network_of_32_joins_as_it_was_published_and_is_taken_back(site, folder):
    """The P-Mode and the truststore of a network, imported and applied while messages go, then rolled back."""
    site.start()
    load = Load(site, folder / "load")
    load.wait_for(2)
    network = Network().with_party("AP_LV_01", endpoint=f"http://127.0.0.1:{site.detour.port}/as4")
    keys = site.pair.keys
    store = truststore(network, ap_lv_01=keys["LV"].signing, ap_ee_01=keys["EE"].signing)
    for name, octets in (("pmode.xml", network.xml("AP_EE_01").encode()), ("trust.jks", jks(store)), ("pw", PASSWORD.encode())):
        (folder / name).write_bytes(octets)
    pmodes = site.ee.folder / "pmodes"
    (pmodes / "agreement.toml").unlink()
    subprocess.run(
        [sys.executable, "-m", "gateway", "pmodes", "import-domibus", folder / "pmode.xml", "--self", "AP_EE_01",
         "--out", pmodes, "--truststore", folder / "trust.jks", "--password-file", folder / "pw"],
        cwd=ROOT, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    planned = json.loads(site.cli("pmodes", "plan", "--json", check=False).stdout)
    assert len([c for c in planned["changes"]["parties"] if c["change"] == "added"]) == 30, planned["changes"]["parties"]
    before = site.detour.taken
    done = site.apply("the network as published")
    assert (done["state"], done["revision"], done["behind"]) == ("ACTIVE", 2, [])
    assert site.serving() == dict.fromkeys(PROCESSES, 2)
    load.wait_for(4)
    assert site.detour.taken > before
    taken_back = json.loads(site.cli("pmodes", "rollback", "--reason", "not yet", "--yes", "--json").stdout)
    assert (taken_back["state"], taken_back["revision"]) == ("ACTIVE", 3)
    load.wait_for(3)
    figures = load.finish()
    print(figures)
    assert not load.problems
    for name in ("message.failed", "message.retrying", "message.refused", "message.conflict", "incident"):
        assert not site.events(name), name


@pytest.mark.slow
def test_processes_that_die_at_every_step(site, folder):
    """Killed after loading, after acknowledging, before activating, before and after switching; and who proposed, too."""
    struck = folder / "struck"
    site.start(GATEWAY_CRASH="AG02,AG03,AG04,AG05,AG06", GATEWAY_CRASH_ONCE=str(struck))
    load = Load(site, folder / "load")
    load.wait_for(1)
    expected = 1
    for round_ in range(12):
        site.write(site.lv.as4, f"# {round_}\n")
        killed = site.cli("pmodes", "apply", "--reason", "round", "--yes", check=False, GATEWAY_CRASH="AG01")
        assert killed.returncode == -9, "who proposed is gone"
        expected += 1
        site.wait_serving(expected)  # without its author
        if set(struck.read_text().split()) >= {"AG02", "AG03", "AG04", "AG05", "AG06"}:
            break
    else:
        raise AssertionError(f"never struck: {struck.read_text().split()}")
    figures = load.finish()
    print(figures, expected)
    assert not load.problems or all("Connection" in text or "Remote" in text for text in load.problems), load.problems
    assert not site.events("message.failed")
    history = json.loads(site.cli("pmodes", "history", "--json").stdout)["revisions"]
    assert [r["revision"] for r in history if r["state"] == "ACTIVE"] == [expected]
    assert all(r["state"] in ("ACTIVE", "SUPERSEDED") for r in history), "nothing was refused because of a death"


@pytest.mark.slow
def test_a_node_that_is_gone_is_waited_for_a_little_and_follows_when_it_comes_back(site, folder):
    site.start()
    site.twin.kill()
    site.write(site.detour.port)
    done = site.apply("without the other node")
    assert done["state"] == "ACTIVE" and all(w["process"].startswith("ee ") for w in done["acknowledged"])
    site.twin.start(**site.environment)
    site.wait_serving(2)
    # A worker that stands still is dead to the others, and follows as soon as it turns again.
    [still] = [pid for pid in children(site.twin.process.pid) if worker(pid)][:1]
    os.kill(still, signal.SIGSTOP)
    site.write(site.lv.as4)
    done = site.apply("while one stands still")
    assert done["state"] == "ACTIVE" and len(done["acknowledged"]) == 3
    os.kill(still, signal.SIGCONT)
    site.wait_serving(3)
    # Who edits files and starts again is told that this changed nothing.
    site.twin.stop()
    site.write(site.detour.port, FINLAND.replace("finland.pem", "partner.pem"), node=site.twin)
    site.twin.start(**site.environment)
    site.wait_serving(3)
    assert [event for event in site.events("agreements.drift") if event["node"] == "ee2"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def worker(pid: int) -> bool:
    return b"gateway.cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
