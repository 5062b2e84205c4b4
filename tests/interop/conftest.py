"""The table of `make interop`, and what the phase4 tests share: one peer, one gateway, keys of this run."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.failover.pair import free_ports
from tests.interop import phase4_peer
from tests.interop.phase4_node import Gateway
from tests.interop.phase4_proxy import Wire
from tests.interop.phase4_sites import FAULTS, SUITES, TLS, TLS20, agreement, make_keys, peer_configuration
from tests.interop.phase4_table import Tally
from tests.interop.phase4_world import World
from tests.interop.tls import certificate
from tests.peer import Authority
from tests.world import to_pem


@pytest.fixture(scope="session")
def peer_folder():
    """A folder whose parents everybody may pass: as root, the private PostgreSQL runs as another user."""
    path = Path(tempfile.mkdtemp(prefix="gateway-interop-"))
    path.chmod(0o711)
    yield path
    if os.environ.get("GATEWAY_INTEROP_KEEP"):
        print(f"\nkept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def world(peer_folder):
    """Keys, the peer with all sites, and a gateway with the sites that talk plain HTTP."""
    keys = {site: make_keys(site, peer_folder / "keys") for site in (*SUITES, FAULTS, TLS, TLS20)}
    authority = Authority("TLS CA")
    tls = peer_folder / "tls"
    tls.mkdir()
    (tls / "ca.pem").write_bytes(to_pem(authority.certificate))
    certificate(tls, "phase4", authority)
    (peer_folder / "peer").mkdir()
    peer = phase4_peer.Phase4(peer_folder / "peer", peer_configuration(keys, tls=(tls / "phase4.pem", tls / "ca.pem")))
    ports = free_ports(3)
    out, back = Wire(("127.0.0.1", peer.facts["port"])), Wire(("127.0.0.1", ports[0]))
    sites = {site: keys[site] for site in (*SUITES, FAULTS)}
    endpoints = {site: peer.url(site.name) for site in SUITES}
    endpoints[FAULTS] = f"http://127.0.0.1:{out.port}/as4/{FAULTS.name}"
    gateway = Gateway(peer_folder / "gateway", ports, sites, {site: agreement(site, endpoints[site]) for site in sites})
    found = World(peer_folder, peer, gateway, f"http://127.0.0.1:{ports[0]}/as4", keys, out, back, authority)
    try:
        gateway.start()
        yield found
    finally:
        gateway.stop()
        peer.stop()
        out.close()
        back.close()


# -- the table ----------------------------------------------------------------------------

_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config):
    config.stash[_TALLY] = Tally()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Count what tests marked `proves(suite, direction)` prove; `record_property("cases", n)` for more than one."""
    report = (yield).get_result()
    if report.when == "call" or not report.passed:
        for mark in item.iter_markers("proves"):
            item.config.stash[_TALLY].count(*mark.args, report.outcome, dict(item.user_properties).get("cases", 1))


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_TALLY].rows():
        terminalreporter.section("interoperability")
        terminalreporter.write_line(config.stash[_TALLY].write())
