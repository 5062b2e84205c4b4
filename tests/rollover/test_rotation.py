"""A gateway changes its certificates again and again under load, while its processes die and partners have their tempers.

Nothing is lost, nothing is doubled, and nothing is refused but by partners who refuse, and their traffic stays on the
certificate they know. GATEWAY_ROLLOVER=full: more partners, more rounds, every crash point.
"""

import collections
import hashlib
import json
import os
import time

import pytest

from gateway.stages import POINTS
from tests.rollover.rotation import Site, Traffic

pytestmark = pytest.mark.failover
FULL = os.environ.get("GATEWAY_ROLLOVER") == "full"
TEMPERS = ["quick", "slow", "refusing", "wavering", "turncoat"] if not FULL else [
    *["quick"] * 7, *["slow"] * 3, *["refusing"] * 3, *["wavering"] * 2, *["turncoat"] * 2]  # fmt: skip
ROUNDS = int(os.environ.get("GATEWAY_ROUNDS", "12" if FULL else "1"))
INTERVAL = 0.05 if FULL else 0.5
#: In the short form those that are of the rotation; in the long one all that the load meets.
STRIKES = ("RT01", "RT02", "RT03", "RT04")
EVERYWHERE = ("AG02", "AG03", "AG04", "AG05", "AG06", "OB04", "OB10", "OB12", "OB13", "OB14", "OB15",
              "IB10", "IB14", "IB21", "IB23", "IB24")  # fmt: skip


@pytest.fixture
def site(folder):
    seed = int(os.environ.get("GATEWAY_SEED", "0")) or int.from_bytes(os.urandom(4))
    print(f"GATEWAY_SEED={seed}")
    made = Site(folder / "site", TEMPERS, seed)
    yield made
    made.stop()


def test_rotated_under_load(site, folder):
    points = STRIKES + (EVERYWHERE if FULL else ())
    assert set(points) <= set(POINTS)
    site.start(",".join(points))
    traffic = Traffic(site, folder / "log", INTERVAL)
    traffic.wait_for(5)
    site.arm()
    for number in range(1, ROUNDS + 1):
        rotate(site, traffic, number)
    figures = traffic.finish()
    print(json.dumps({**figures, "kills": site.kills, "struck": sorted(site.struck()), "rounds": ROUNDS,
                      "partners": dict(collections.Counter(TEMPERS))}))  # fmt: skip
    assert not traffic.problems, traffic.problems[:5]
    judge(site)
    # In one round a refused message may be sent by its own retry before anybody comes to queue it.
    met = set(STRIKES if ROUNDS > 1 else STRIKES[:2])
    assert met <= site.struck(), f"not met: {met - site.struck()}"


def rotate(site: Site, traffic: Traffic, number: int) -> None:
    """One change of the keys that sign, decrypt, and are for TLS; a process dies at every step."""
    keys, file = site.following()
    tls = site.tls(number)
    site.certs("import", str(file), "--yes")
    site.certs("import", str(tls), "--use", "tls-server", "--use", "tls-client", "--yes")
    planned = {k["key"] for k in site.list() if k["state"] == "PLANNED"}
    new = site.key(keys.signing)["key"]
    assert len(planned) == 2 and new in planned
    step(site, "stage", *planned, "--reason", "next", "--yes")
    step(site, "announce", "--key", new, "--to", str(site.folder / f"package-{number}"), "--contact", "lv@example", "--yes")
    site.announce_to_all(keys)
    site.keys.append(keys)

    for partner in site.partners:
        partner.against = False
    asked = step(site, "ping", "--key", new, "--timeout", "10", "--json", ok=(0, 3, 7))
    verdicts = {row["party"]: row["verdict"] for row in json.loads(asked.stdout)["partners"]}
    for partner in site.partners:
        if partner.temper in ("quick", "slow", "turncoat"):
            assert verdicts[partner.name] == "green", (partner.name, asked.stdout)
        if partner.temper == "refusing":
            assert verdicts[partner.name] == "amber", asked.stdout
    short = site.certs("promote", *planned, "--yes", check=False)
    assert short.returncode == 3 and "green" in short.stderr, short.stdout + short.stderr

    for partner in site.partners:
        partner.against = partner.temper == "turncoat"
    why = ("--reason", "the others have agreed on it", "--yes")
    if number == 1:  # whoever proposes may die right after: the processes carry it out
        died = site.certs("promote", *planned, *why, check=False, GATEWAY_CRASH="AG01")
        assert died.returncode == -9
        wait(lambda: site.key(keys.signing)["state"] == "ACTIVE")
    else:
        step(site, "promote", *planned, *why)
    traffic.wait_for(2 * len(site.partners))
    turned = {p.name for p in site.partners if p.temper == "turncoat"}
    wait(lambda: turned <= chosen(site))
    if number > 1:  # what was drained longest goes; nobody needs it but those who refuse everything newer
        traffic.wait_for(len(site.partners))


def step(site: Site, *arguments: str, ok=(0,)):
    """One verb, while a process dies: in the short form one, because everybody waits until it is known to be dead.
    What is refused because something else was changing is said again."""
    if FULL or arguments[0] == "announce":
        site.kill_one()
    began = time.monotonic()
    end = began + 60
    while True:
        done = site.certs(*arguments, check=False)
        if done.returncode in ok:
            print(f"{arguments[0]:<9} {time.monotonic() - began:5.1f} s")
            return done
        busy = done.returncode in (6, 8) or "being applied" in done.stderr or "cannot" in done.stderr or done.returncode == 1
        assert busy and time.monotonic() < end, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        time.sleep(1)


def chosen(site: Site) -> set[str]:
    """Partners that are signed for with another certificate than the rest."""
    return {partner for key in site.list() for partner in key["chosen"]}


def wait(true, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.5)


def judge(site: Site) -> None:
    """Whose traffic was signed with what, and who refused."""
    newest, first = site.keys[-1].signing, site.keys[0].signing
    for partner in site.partners:
        used = {hashlib.sha256(c).hexdigest()[:8]: n for c, n in partner.signers.items()}
        print(f"{partner.name} {partner.temper:<9} taken {sum(partner.signers.values())} under {used}, "
              f"refused {len(partner.refused)}, asked {dict(partner.asked)}, receipts {len(partner.receipted)}")
        assert not partner.troubles, f"{partner.name} {partner.temper}: {partner.troubles[:3]}"
        if partner.temper in ("quick", "slow"):
            assert partner.refused == [] and partner.signers[newest], partner.name
        if partner.temper == "refusing":
            # It was asked and said no; not one message went to it under anything but the certificate it knows.
            assert partner.asked["refused"] >= ROUNDS and partner.refused == [] and set(partner.signers) == {first}
        if partner.temper == "turncoat":
            assert partner.refused and partner.signers[first]
    log = [json.loads(line) for line in site.lv.log.read_text().splitlines() if line.startswith("{")]
    events = collections.Counter(line["event"] for line in log)
    print(dict(events))
    for name in ("message.failed", "message.conflict", "message.refused", "incident", "keys.trouble"):
        assert not events[name], [line for line in log if line["event"] == name][:2]
    audit = [line for line in log if line["event"] == "certificate.went_back"]
    told = collections.Counter((line["party"], line["refused"]) for line in audit)
    assert told and max(told.values()) == 1, "each return is told once"
