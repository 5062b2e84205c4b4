"""The gateway and phase4 over HTTPS, each with a client certificate and each demanding one [as4 1.6, 6.5]."""

import shutil
import socket
import ssl

import pytest

from tests.failover.pair import free_ports
from tests.interop.phase4_node import Gateway
from tests.interop.phase4_sites import TLS, TLS20, Site, agreement
from tests.interop.phase4_world import Payload, World
from tests.interop.tls import certificate

pytestmark = pytest.mark.peer
SHAPES = {
    "several": (Payload(b"<one/>"), Payload(b"two", "text/plain"), Payload(bytes(100_000), "application/pdf")),
    "2MB": (Payload(bytes(range(256)) * 8192, "application/zip", compress=False),),
    "none": (),
}

_TLS = """
[as4.tls]
certificate = "server.pem"
client_ca = "ca.pem"
require_client_certificate = true
[as4.client_tls]
certificate = "client.pem"
"""


@pytest.fixture(scope="module")
def secured(world: World):
    """A second gateway, whose AS4 listener speaks TLS."""
    folder = world.folder / "gateway-tls"
    sites = {site: world.keys[site] for site in (TLS, TLS20)}
    ports = free_ports(3)
    texts = {site: agreement(site, world.peer.url(site.name, secured=True), more='tls_ca = "ca.pem"') for site in sites}
    gateway = Gateway(folder, ports, sites, texts, more=_TLS)
    for name in ("server", "client"):
        certificate(folder, name, world.authority)
    for place in (folder, folder / "pmodes"):
        shutil.copy(world.folder / "tls" / "ca.pem", place / "ca.pem")
    try:
        yield gateway.start()
    finally:
        gateway.stop()


@pytest.fixture
def counted(request, site):
    direction = "ours to phase4" if "_sends" in request.node.name else "phase4 to ours"
    request.node.add_marker(pytest.mark.proves(site.title, f"{direction}, HTTPS"))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("site", [TLS, TLS20], ids=lambda site: site.name)
def test_the_gateway_sends(world: World, secured: Gateway, site: Site, shape: str):
    payloads = SHAPES[shape]
    report = world.check_sent(site, world.submit(site, payloads, gateway=secured), payloads, gateway=secured)
    assert report["clientCertificate"] == "CN=client"


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("site", [TLS, TLS20], ids=lambda site: site.name)
def test_the_gateway_receives(world: World, secured: Gateway, site: Site, shape: str):
    payloads = SHAPES[shape]
    message = world.message(site, payloads, url=f"https://127.0.0.1:{secured.node.as4}/as4")
    (result,) = world.peer.send(site.name, [message])
    world.check_received(site, message, payloads, result, gateway=secured)


def test_nobody_gets_in_without_a_certificate(world: World, secured: Gateway):
    """Neither side takes a connection without one: the client certificates above were asked for."""
    context = ssl.create_default_context(cafile=world.folder / "tls" / "ca.pem")
    for port in (secured.node.as4, world.peer.facts["securedPort"]):
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 10) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(b"POST /as4 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                if not connection.recv(10):
                    raise ConnectionError("closed")
