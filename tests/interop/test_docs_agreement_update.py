"""docs/operators/agreement-update.md, carried out: two real gateways, an operator at each.

With GATEWAY_ROLLOVER=full every process is killed once at each declared point on the way.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest

from gateway.store.embedded import running_dsn
from gateway.store.postgres import PostgresStore
from tests.failover.pair import Pair
from tests.peer import Authority, Keys
from tests.world import to_pem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operators" / "agreement-update.md").read_text()
BLOCK = re.compile(
    r"^<!-- runs at (?P<at>\w+) -->\n```sh\n(?P<text>.*?)^```\n(?P<prints>(?:<!-- prints: .*? -->\n)*)", re.M | re.S
)
[UPDATES] = re.findall(r"^<!-- loads -->\n```toml\n(.*?)^```", PAGE, re.M | re.S)
PRELUDE = 'set -e\ngateway() { "$PYTHON" -m gateway "$@"; }\n'
FULL = os.environ.get("GATEWAY_ROLLOVER") == "full"
POINTS = [f"AU0{n}" for n in range(1, 8)]

pytestmark = [pytest.mark.failover, pytest.mark.timeout(900)]


class Sites(Pair):
    """The pair of the failover tests, whose agreements have updates: LV takes renewals by itself, EE asks its operator."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for node, partner, approve in ((self.lv, "AP_EE_01", "auto"), (self.ee, "AP_LV_01", "operator")):
            table = UPDATES.replace("AP_EE_01", partner).replace('"auto"', f'"{approve}"')
            agreement = node.folder / "pmodes" / "agreement.toml"
            agreement.write_text(agreement.read_text() + table)


@pytest.fixture
def sites():
    folder = Path(mkdtemp(prefix="updates-", dir="/tmp"))
    folder.chmod(0o711)
    made = Sites(folder)
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


def shell(text: str, node, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", PRELUDE + text], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "GATEWAY_CONFIG": str(node.config), **environment},
    )  # fmt: skip


def ledger(node) -> list[dict]:
    """The node's ledger, newest first, out of its database: a command takes a second each time."""

    async def look():
        store = await PostgresStore.open(running_dsn(node.folder / "data" / "postgres"))
        try:
            return [msgspec.structs.asdict(row) for row in await store.updates()]
        finally:
            await store.close()

    return asyncio.run(look())


def until(what, seconds: float = 60.0):
    """Ask again until it is so."""
    end = time.monotonic() + (seconds * 5 if FULL else seconds)
    while not (found := what()):
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.5)
    return found


def block(number: int) -> dict:
    return list(BLOCK.finditer(PAGE))[number].groupdict()


def carried_out(number: int, sites: Sites, folder: Path, **environment: str) -> str:
    found = block(number)
    done = shell(found["text"], getattr(sites, found["at"]), folder, **environment)
    assert done.returncode == 0, f"{found['text']}\n{done.stdout}\n{done.stderr}"
    place = 0
    for wanted in re.findall(r"<!-- prints: (.*?) -->", found["prints"]):
        place = done.stdout.find(wanted, place)
        assert place >= 0, f"{wanted!r} is not printed by\n{found['text']}\nbut:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_command_of_the_page_runs_and_both_sides_agree(sites, tmp_path):
    crash = {"GATEWAY_CRASH": ",".join(POINTS)} if FULL else {}
    for node in (sites.ee, sites.lv):
        once = {"GATEWAY_CRASH_ONCE": str(tmp_path / f"struck-{node.name}")} if FULL else {}
        node.start(**crash, **once)
    new = Keys.make("AP_LV_01", "rsa", Authority("New CA"))  # from another CA: EE's operator has to look at it
    (tmp_path / "next.pem").write_bytes(to_pem(new.signing))
    # We ask: the page tells of the partner's side first.
    carried_out(2, sites, tmp_path)
    until(lambda: ledger(sites.ee) and ledger(sites.ee)[0]["state"] == "WAITING")
    fingerprint = ledger(sites.ee)[0]["certificates"][0]
    assert ledger(sites.lv)[0]["certificates"] == (fingerprint,)
    carried_out(0, sites, tmp_path, FINGERPRINT=fingerprint[:24])
    until(lambda: ledger(sites.lv)[0]["state"] == "ACCEPTED")
    until(lambda: ledger(sites.ee)[0]["answered_at"])
    printed = carried_out(1, sites, tmp_path)
    assert fingerprint in printed
    carried_out(3, sites, tmp_path)
    until(lambda: ledger(sites.lv)[0]["kind"] == "termination" and ledger(sites.lv)[0]["receipted_at"])
    until(lambda: ledger(sites.ee)[0]["kind"] == "termination" and ledger(sites.ee)[0]["state"] == "WAITING")
    # The other way round it needs nobody, for the agreement says so and it is a renewal.
    renewed = Keys.make("EE", "rsa", sites.authority)
    (tmp_path / "ee.pem").write_bytes(to_pem(renewed.signing) + to_pem(sites.authority.certificate))
    sites.ee.cli("parties", "updates", "request", "AP_LV_01", "--certificate", str(tmp_path / "ee.pem"), "--yes")
    until(lambda: next(u for u in ledger(sites.ee) if u["direction"] == "outbound")["state"] == "ACCEPTED")
    taken = next(u for u in ledger(sites.lv) if u["direction"] == "inbound")
    assert (taken["state"], taken["actor"]) == ("TAKEN", "rule")
    for node in (sites.lv, sites.ee):
        revisions = json.loads(node.cli("pmodes", "history", "--json").stdout)["revisions"]
        assert [r["state"] for r in revisions] == ["ACTIVE", "SUPERSEDED"], "staged once, whatever died"
        if FULL:
            struck = (tmp_path / f"struck-{node.name}").read_text().split()
            assert set(struck) == set(POINTS)


def test_every_mark_belongs_to_a_command():
    assert len(re.findall(r"<!-- runs at", PAGE)) == len(list(BLOCK.finditer(PAGE))) == 4
