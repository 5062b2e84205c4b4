"""The HAProxy and nginx configurations of deploy/, run, in front of two real nodes on one database."""

import csv
import http.client
import io
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.deploy import fronts
from tests.deploy.tools import ROOT, found, needs

LARGE = os.urandom(24 << 20)
pytestmark = pytest.mark.skipif(not (found("haproxy") or found("nginx")), reason="neither haproxy nor nginx is installed")


@pytest.fixture(scope="module")
def nodes():
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)  # PostgreSQL may run as another user
    made = fronts.Nodes(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def front(nodes, request):
    kind, name = request.param
    if name == "as4-stream.conf" and fronts.stream_module() is None:
        pytest.skip("nginx has no stream module here (Debian package libnginx-mod-stream)")
    made = getattr(fronts, kind)(nodes, name)
    yield made
    made.stop()


PASS = [pytest.param(("haproxy", "haproxy.cfg"), marks=needs("haproxy"), id="haproxy"),
        pytest.param(("nginx", "as4-stream.conf"), marks=needs("nginx"), id="nginx-stream")]  # fmt: skip
END = [pytest.param(("haproxy", "haproxy-terminate.cfg"), marks=needs("haproxy"), id="haproxy-terminate"),
       pytest.param(("nginx", "as4-http.conf"), marks=needs("nginx"), id="nginx-http")]  # fmt: skip


@pytest.mark.parametrize("front", PASS + END, indirect=True)
def test_messages_small_and_large_are_receipted(nodes, front):
    assert nodes.post(front.port)
    assert nodes.post(front.port, LARGE)
    # Nothing of it was written down by the proxy.
    assert sum(p.stat().st_size for p in nodes.folder.glob("nginx/**/*") if p.is_file()) < 1 << 20


@pytest.mark.parametrize("front", PASS + END, indirect=True)
def test_who_shows_no_certificate_is_not_let_in(nodes, front):
    connection = http.client.HTTPSConnection("127.0.0.1", front.port, timeout=10, context=nodes.context(client=False))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        connection.request("POST", "/as4", b"x", {"Content-Type": "text/xml"})
        status = connection.getresponse().status  # nginx says so in words
        assert status == 400
        raise http.client.HTTPException(status)


@pytest.mark.parametrize("front", END, indirect=True)
def test_what_only_a_proxy_that_reads_can_refuse(nodes, front):
    connection = http.client.HTTPSConnection("127.0.0.1", front.port, timeout=10, context=nodes.context())
    connection.request("GET", "/as4")
    assert connection.getresponse().status in (403, 405)


@pytest.mark.slow
@pytest.mark.parametrize("front", PASS + END, indirect=True)
def test_a_node_that_drains_and_one_that_is_killed(nodes, front, record_property):
    with fronts.Stream(nodes, front.port) as stream:
        time.sleep(0.5)
        nodes.b.stop()  # in order, as for an upgrade
        drained = list(stream.bad)
        nodes.b.start(**nodes.environment)
        time.sleep(2.5)  # rise, and what nginx remembers of it
        killed = time.monotonic()
        nodes.a.kill()
        time.sleep(6)
        gap = stream.gap(killed)
    nodes.a.start(**nodes.environment)
    record_property("gap", gap)
    assert drained == [], "a planned restart is not to be noticed"
    assert len(stream.good) > 20
    assert gap < 5, (gap, stream.bad)


@pytest.mark.slow
@needs("haproxy")
def test_haproxy_goes_by_readyz_not_by_the_port(nodes):
    """A node that drains says 503 while it still listens."""
    front = fronts.haproxy(nodes, "haproxy.cfg")
    try:
        assert states(front) == {"a": "UP", "b": "UP"}
        nodes.b.process.terminate()
        end = time.monotonic() + 1.9
        while states(front)["b"] == "UP":
            assert time.monotonic() < end
            time.sleep(0.05)
        socket.create_connection(("127.0.0.1", nodes.b.as4), 1).close()
        assert nodes.post(front.port)
    finally:
        nodes.b.process.wait(60)
        nodes.b.start(**nodes.environment)
        front.stop()


def states(front) -> dict[str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", front.stats, timeout=5)
    connection.request("GET", "/;csv")
    rows = csv.DictReader(io.StringIO(connection.getresponse().read().decode().removeprefix("# ")))
    return {r["svname"]: r["status"].split()[0] for r in rows if r["pxname"] == "gateways" and r["svname"] != "BACKEND"}


@needs("haproxy")
@pytest.mark.parametrize("name", ["haproxy.cfg", "haproxy-terminate.cfg"])
def test_the_defaults_are_valid(nodes, name):
    environment = {**os.environ, "CERTIFICATES": str(fronts.material(nodes, nodes.folder / "crt"))}
    done = subprocess.run(["haproxy", "-c", "-f", name], cwd=ROOT / "deploy/haproxy", env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr
