"""Two real gateways over TLS with client certificates, both sides' versions and suites as configured [as4 1.6]."""

import shutil
import socket
import ssl
import tempfile
from pathlib import Path

import pytest

from tests.failover.pair import Checker, Pair
from tests.interop.tls import certificate
from tests.peer import Authority
from tests.world import to_pem


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def pair(folder):
    authority = Authority("TLS CA")
    found = Pair(folder)
    for node in (found.lv, found.ee):
        (node.folder / "tls-ca.pem").write_bytes(to_pem(authority.certificate))
        (node.folder / "pmodes" / "tls-ca.pem").write_bytes(to_pem(authority.certificate))
        for name in ("server", "client"):
            certificate(node.folder, name, authority)
        node.config.write_text(node.config.read_text() + """
[as4.tls]
certificate = "server.pem"
client_ca = "tls-ca.pem"
require_client_certificate = true
[as4.client_tls]
certificate = "client.pem"
""")
        agreement = node.folder / "pmodes" / "agreement.toml"
        agreement.write_text(agreement.read_text().replace("http://127.0.0.1", "https://127.0.0.1")
                             .replace('certificate = "partner.pem"', 'certificate = "partner.pem"\ntls_ca = "tls-ca.pem"'))
    yield found
    found.stop()


def handshake(node, **settings) -> str | None:
    """The TLS version agreed with the AS4 listener, or None when it refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(node.folder / "tls-ca.pem")
    if settings.get("client"):
        context.load_cert_chain(node.folder / "client.pem")
    if "maximum" in settings:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = settings["maximum"]
    if "ciphers" in settings:
        context.set_ciphers(settings["ciphers"])
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with socket.create_connection(("127.0.0.1", node.as4), 5) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                secured.sendall(b"POST /as4 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return secured.version() if secured.recv(10) else None
    except (ssl.SSLError, OSError):
        return None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_messages_go_over_mutual_tls(pair, folder):
    pair.ee.start()
    pair.lv.start()
    checker = Checker(pair, folder / "checker.jsonl").consume()
    for _ in range(3):
        checker.submit(b"<evidence/>")
    checker.wait_acknowledged(30)
    checker.wait_delivered(30)
    checker.close()
    assert checker.judge()["delivered"] == 3
    assert handshake(pair.ee, client=True) == "TLSv1.3"
    assert handshake(pair.ee, client=True, maximum=ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(pair.ee, client=True, maximum=ssl.TLSVersion.TLSv1_1) is None
    assert handshake(pair.ee, client=False) is None  # no certificate, no answer
    assert handshake(pair.ee, client=True, ciphers="AES128-GCM-SHA256") is None  # no forward secrecy
