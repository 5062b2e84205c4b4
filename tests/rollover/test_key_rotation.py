"""Signing, decryption and TLS keys of two nodes with two processes each change under traffic in both directions.

The partner is a gateway of its own that pins the next certificate before it is used. Beside the messages somebody
makes TLS handshakes all the time, at each node.
"""

import asyncio
import hashlib
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.store.embedded import PrivatePostgres
from gateway.store.postgres import PostgresStore
from tests.failover.pair import Node
from tests.peer import Authority, Keys
from tests.pki import SIGN, Ca
from tests.rollover.agreements import PROCESSES, Load, Site
from tests.world import key_pem, to_pem

pytestmark = pytest.mark.failover

#: How often every key is replaced. `make rollover` asks for more.
ROUNDS = 10 if os.environ.get("GATEWAY_ROLLOVER") == "full" else 1
CA = Ca.root("TLS of the pair")
FAILURES = ("message.failed", "message.retrying", "message.refused", "message.conflict", "incident", "keys.refused",
            "keys.trouble", "key.unavailable")  # fmt: skip


def tls_pem(number: int) -> bytes:
    """A server certificate for loopback with its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    der = CA.leaf(f"gateway {number}", private.public_key(), key_usage=SIGN, extensions=[(names, False), (purpose, False)])
    return key_pem(private) + to_pem(der)


class TlsSite(Site):
    """The pair with TLS at its AS4 listeners, from files at first."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.certificates: dict[str, str] = {}
        super().__init__(folder, dsn)
        for node in (self.ee, self.twin):
            (node.folder / "tls.pem").write_bytes(tls_pem(0))
            (node.folder / "tls.pem").chmod(0o600)
            node.config.write_text(node.config.read_text() + '\n[as4.tls]\ncertificate = "tls.pem"\n')
        (self.lv.folder / "pmodes" / "tls-ca.pem").write_bytes(to_pem(CA.certificate))

    def agreement(self, node: Node, me: str, my_country: str, partner: str, country: str, port: int, more: str = "") -> None:
        super().agreement(node, me, my_country, partner, country, port, more)
        if node is self.lv:
            file = node.folder / "pmodes" / "agreement.toml"
            text = file.read_text().replace(f'"http://127.0.0.1:{port}', f'"https://127.0.0.1:{port}')
            file.write_text(text.replace('certificate = "partner.pem"', 'tls_ca = "tls-ca.pem"\n' + self.pins()))

    def pins(self) -> str:
        return "\n".join(f'{use} = "{file}"' for use, file in (self.certificates or {"certificate": "partner.pem"}).items())

    def partner_pins(self, **certificates: str) -> None:
        """LV's agreement names these certificates of EE from now on."""
        self.certificates = certificates
        self.agreement(self.lv, "AP_LV_01", "LV", "AP_EE_01", "EE", self.balancer.port)
        done = self.lv.cli("pmodes", "apply", "--reason", "EE rotates", "--yes", "--json")
        assert json.loads(done.stdout)["state"] == "ACTIVE"

    # -- the operator of EE ---------------------------------------------------------------

    def certs(self, *arguments: str, check: bool = True, **environment: str) -> dict:
        done = self.cli("certs", *arguments, "--json", check=check, **environment)
        return json.loads(done.stdout) if done.stdout else {}

    def add(self, name: str, octets: bytes, *more: str) -> str:
        file = self.ee.folder / name
        file.write_bytes(octets)
        [row] = self.certs("import", str(file), "--yes", *more)
        file.unlink()
        return row["key"]

    def change(self, verb: str, *arguments: str) -> dict:
        # Nobody is asked beforehand: who refuses and who stays is test_rotation's matter.
        more = ("--everybody",) if verb == "promote" else ()
        done = self.certs(verb, *arguments, *more, "--reason", "rotation under traffic", "--yes")
        assert done["state"] == "ACTIVE" and done["behind"] == []
        assert sorted(word["process"] for word in done["acknowledged"]) == PROCESSES
        return done

    def rings(self) -> dict[str, int]:
        async def look() -> dict[str, int]:
            store = await PostgresStore.open(self.environment["TEST_DSN"])
            try:
                return {f"{p.node} {p.place}": p.ring for p in await store.processes() if p.alive}
            finally:
                await store.close()

        return asyncio.run(look())


class Handshakes:
    """Somebody connects to each node over and over and judges the certificate."""

    def __init__(self, *ports: int) -> None:
        self.failed: list[str] = []
        self.count = 0
        self.seen: dict[int, list[str]] = {port: [] for port in ports}
        self._context = ssl.create_default_context(cadata=CA.certificate)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for port in ports]
        for thread in self._threads:
            thread.start()

    def _run(self, port: int) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as plain, self._context.wrap_socket(
                    plain, server_hostname="127.0.0.1"
                ) as tls:
                    fingerprint = hashlib.sha256(tls.getpeercert(True)).hexdigest()
                    if self.seen[port][-1:] != [fingerprint]:
                        self.seen[port].append(fingerprint)
                    self.count += 1
            except OSError as error:
                self.failed.append(f"{port}: {error}")
            self._stop.wait(0.02)

    def wait_for(self, fingerprint: str, seconds: float = 10) -> None:
        """Both nodes show it."""
        end = time.monotonic() + seconds
        while any(seen[-1:] != [fingerprint] for seen in self.seen.values()):
            assert time.monotonic() < end, self.seen
            time.sleep(0.02)

    def finish(self) -> int:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        return self.count


@pytest.fixture
def site(folder):
    server = PrivatePostgres(folder / "pg")
    made = TlsSite(folder, server.start())
    yield made
    made.stop()
    server.stop()


@pytest.mark.slow
def test_every_key_is_replaced_once_under_traffic(site, folder):
    site.start()
    load, shakes = Load(site, folder / "load"), Handshakes(site.ee.as4, site.twin.as4)
    load.wait_for(1)
    new = Keys.make("EE", "rsa", Authority())
    (site.lv.folder / "pmodes" / "ee-new.pem").write_bytes(to_pem(new.signing))
    site.partner_pins(certificate="partner.pem", next="ee-new.pem")
    key = site.add("new.pem", key_pem(new.signing_private) + to_pem(new.signing))
    tls = site.add("tls.pem.in", tls_pem(1), "--use", "tls-server")
    site.change("stage", key, tls)
    done = site.change("promote", key, tls)
    assert {(move["use"], move["after"]) for move in done["moves"]} == {
        (use, "ACTIVE") for use in ("sign", "decrypt", "tls-server")}  # fmt: skip
    shakes.wait_for(site.certs("show", tls)["fingerprint"])
    load.wait_for(2)
    figures = load.finish() | {"handshakes": shakes.finish()}
    print(figures)
    judge(site, load, shakes)
    assert {len(seen) for seen in shakes.seen.values()} == {2}, "each node changed its certificate once"


def judge(site: TlsSite, load: Load, shakes: Handshakes) -> None:
    """Nothing was refused, nothing failed, and everybody has the same keys."""
    assert not load.problems and not shakes.failed, (load.problems[:3], shakes.failed[:3])
    for name in FAILURES:
        assert not site.events(name), (name, site.events(name)[:2])
    assert len(set(site.rings().values())) == 1


@pytest.mark.slow
def test_every_key_is_replaced_again_and_again_and_taken_back(site, folder):
    site.start()
    load, shakes = Load(site, folder / "load"), Handshakes(site.ee.as4, site.twin.as4)
    load.wait_for(2)
    # What is configured as a file comes into the database, and goes on as before.
    [taken] = site.certs("import", "--configured", "--yes")
    old, tls = taken["key"], None
    site.change("stage", old)
    site.change("promote", old)
    load.wait_for(2)
    for number in range(1, ROUNDS + 1):
        new = Keys.make(f"EE {number}", "rsa", Authority())
        pinned = f"ee-{number}.pem"
        (site.lv.folder / "pmodes" / pinned).write_bytes(to_pem(new.signing))
        before = "partner.pem" if number == 1 else f"ee-{number - 1}.pem"
        # TLS by itself.
        shown = site.add("tls.pem.in", tls_pem(number), "--use", "tls-server")
        site.change("stage", shown)
        site.change("promote", shown)
        shakes.wait_for(site.certs("show", shown)["fingerprint"])
        if tls is not None:
            site.change("retire", tls)
        tls = shown
        # Signing: announced, used, taken back, used again.
        key = site.add("new.pem", key_pem(new.signing_private) + to_pem(new.signing))
        site.change("stage", key)
        site.partner_pins(certificate=before, next=pinned)
        load.wait_for(1)
        site.change("promote", key, "--use", "sign")
        load.wait_for(2)
        site.change("rollback", key, "--use", "sign")
        load.wait_for(1)
        site.change("promote", key, "--use", "sign")
        # Decryption: the partner encrypts to the new one while the old one still opens.
        site.partner_pins(certificate=pinned, next=before)
        load.wait_for(2)
        site.change("promote", key, "--use", "decrypt")
        site.partner_pins(certificate=pinned)
        load.wait_for(1)
        time.sleep(1)  # what was encrypted to the old one has arrived
        refused = site.cli("certs", "retire", old, "--reason", "too early", "--yes", check=False)
        assert refused.returncode == 3 and "drained for 0 of 30 days" in refused.stderr
        site.change("retire", old, "--force")
        load.wait_for(2)
        old = key
    figures = load.finish() | {"handshakes": shakes.finish(), "rounds": ROUNDS, "ring": max(site.rings().values())}
    print(figures)
    judge(site, load, shakes)
    assert all(len(seen) == ROUNDS + 1 for seen in shakes.seen.values()), "each node changed its certificate once a round"
    listed = {(row["key"], row["use"]): row["state"] for row in site.certs("list", "--all")["keys"] if row["place"] != "file"}
    assert listed[old, "sign"] == listed[old, "decrypt"] == listed[tls, "tls-server"] == "ACTIVE"
    assert list(listed.values()).count("RETIRED") == 2 * ROUNDS + ROUNDS - 1
    secrets = [row["key"] for row in site.certs("list", "--all")["keys"] if row["place"] == "destroyed"]
    assert len(set(secrets)) == 2 * ROUNDS - 1


@pytest.mark.slow
def test_processes_that_die_at_every_step_of_a_rotation(site, folder):
    """Killed after opening, after acknowledging, before activating, before and after switching; and who proposed, too."""
    struck = folder / "struck"
    site.start(GATEWAY_CRASH="AG02,AG03,AG04,AG05,AG06", GATEWAY_CRASH_ONCE=str(struck))
    load = Load(site, folder / "load")
    load.wait_for(1)
    [taken] = site.certs("import", "--configured", "--yes")
    expected, states = 0, []
    steps = [("stage",), ("promote",)] + [("rollback",), ("promote",)] * 8
    for (verb,) in steps:
        killed = site.cli("certs", verb, taken["key"], "--reason", "round", "--yes", check=False, GATEWAY_CRASH="AG01")
        assert killed.returncode == -9, (killed.stderr, "who proposed is gone")
        expected += 1
        end = time.monotonic() + 60
        while site.rings() != dict.fromkeys(PROCESSES, expected):  # without its author
            assert time.monotonic() < end, (site.rings(), expected)
            time.sleep(0.2)
        states.append(verb)
        if struck.exists() and set(struck.read_text().split()) >= {"AG02", "AG03", "AG04", "AG05", "AG06"}:
            break
    else:
        raise AssertionError(f"never struck: {struck.read_text().split()}")
    print(load.finish(), states)
    assert not load.problems or all("Connection" in text or "Remote" in text for text in load.problems), load.problems
    assert not site.events("message.failed")
    row = next(row for row in site.certs("list")["keys"] if row["key"] == taken["key"] and row["use"] == "sign")
    assert row["state"] == {"stage": "STAGED", "promote": "ACTIVE", "rollback": "STAGED"}[states[-1]]
