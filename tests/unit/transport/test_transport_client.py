"""POST to a partner: real sockets, real TLS, and partners that misbehave [threats J02, J03, J06]."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import time

import pytest

from gateway import stages
from gateway.errors import DeliveryDelayed, DeliveryRefused, SendFailed, StoreUnavailable
from gateway.stages import timeline
from gateway.transport import client as transport
from gateway.transport.client import Client, Timeouts, default_context
from gateway.transport.egress import EgressPolicy

QUICK = Timeouts(connect=0.4, idle=0.4, answer=0.4)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\nContent-Length: 4\r\n\r\n<ok>"


class Partner:
    """A server that does to each connection what it is told; remembers what it got."""

    def __init__(self, behave):
        self.behave, self.requests, self.connections, self.peers = behave, [], 0, []

    async def __call__(self, reader, writer):
        self.connections += 1
        tls = writer.get_extra_info("ssl_object")
        self.peers.append(tls and tls.getpeercert(True))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.behave(self, reader, writer)
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def request(self, reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (item.partition(":") for item in rest if item)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((line, headers, body))
        return headers


def answering(octets=OK, times=1000):
    async def behave(partner, reader, writer):
        for _ in range(times):
            await partner.request(reader)
            writer.write(octets)
            await writer.drain()

    return behave


@pytest.fixture
async def partner():
    """`await partner(behave, tls)` -> (Partner, port)."""
    servers = []

    async def start(behave=None, tls=None, host="127.0.0.1"):
        made = Partner(behave or answering())
        server = await asyncio.start_server(made, host, 0, ssl=tls)
        servers.append(server)
        return made, server.sockets[0].getsockname()[1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def client():
    made = []

    def make(**options):
        made.append(Client(EgressPolicy(), **options))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def blocks(*octets):
    for block in octets:
        yield block


def post(client, endpoint, *octets, partner="AP_EE_01", ca=None, body=None, length=None):
    octets = octets or (b"abc",)
    return client.post(
        endpoint,
        content_type='multipart/related; boundary="b"',
        content_length=sum(map(len, octets)) if length is None else length,
        body=body or blocks(*octets),
        partner=partner,
        ca=ca,
    )


async def failure(client, endpoint, **options):
    with pytest.raises(SendFailed) as failed:
        await post(client, endpoint, **options)
    assert failed.value.temporary
    return failed.value


# -- one exchange ---------------------------------------------------------------


async def test_a_message_and_its_answer(client, partner, pki):
    made, port = await partner(tls=pki.server_context())
    with timeline("outbound") as steps:
        answer = await post(
            client(), f"https://localhost:{port}/services/msh?x=%2F", b"ab", b"", b"c" * 100_000, ca=pki.ca.read_bytes()
        )
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"<ok>", "application/soap+xml")
    [(line, headers, body)] = made.requests
    assert line == "POST /services/msh?x=%2F HTTP/1.1" and body == b"ab" + b"c" * 100_000
    assert headers["content-type"] == 'multipart/related; boundary="b"' and headers["content-length"] == "100002"
    assert headers["host"] == f"localhost:{port}" and headers["accept-encoding"] == "identity"
    assert "transfer-encoding" not in headers and "cookie" not in headers and headers["user-agent"].startswith("oots-as4")
    assert [step.stage for step in steps] == ["connect", "send", "receipt"] and not any(step.error for step in steps)
    assert steps[0].started <= steps[1].started <= steps[2].started <= time.time()
    assert set(answer.timings) == {"dns", "connect", "send", "wait"} and all(v >= 0 for v in answer.timings.values())


@pytest.mark.parametrize("status", [200, 202, 400, 500, 503])
async def test_answers_of_any_status_are_read(client, partner, status):
    _, port = await partner(answering(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nhi" % status))
    answer = await post(client(), f"http://127.0.0.1:{port}/")
    assert (answer.status, answer.body) == (status, b"hi")


async def test_answers_without_a_body(client, partner):
    _, port = await partner(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert (await post(client(), f"http://127.0.0.1:{port}/")).body == b""


async def test_chunked_answers(client, partner):
    _, port = await partner(answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"))
    assert (await post(client(), f"http://127.0.0.1:{port}/")).body == b"hi"


async def test_connections_are_kept_and_cookies_are_not(client, partner):
    made, port = await partner(answering(OK.replace(b"Content-Type", b"Set-Cookie: a=b\r\nContent-Type")))
    one = client()
    for _ in range(3):
        await post(one, f"http://127.0.0.1:{port}/")
    assert made.connections == 1 and len(made.requests) == 3
    assert not any("cookie" in headers for _, headers, _ in made.requests)


async def test_redirects_are_answers(client, partner):
    made, port = await partner(answering(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"))
    assert (await post(client(), f"http://127.0.0.1:{port}/")).status == 307
    assert len(made.requests) == 1


async def test_proxies_of_the_environment_are_not_used(client, partner, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    _, port = await partner()
    assert (await post(client(), f"http://127.0.0.1:{port}/")).status == 200


# -- deadlines and caps -----------------------------------------------------------


async def test_a_partner_that_never_answers(client, partner):
    async def silent(partner, reader, writer):
        await partner.request(reader)
        await asyncio.sleep(30)

    _, port = await partner(silent)
    with timeline("outbound") as steps:
        failed = await failure(client(timeouts=QUICK), f"http://127.0.0.1:{port}/")
    assert failed.stage == "receipt" and "no answer" in str(failed)
    assert [(s.stage, s.error) for s in steps] == [("connect", None), ("send", None), ("receipt", "TimeoutError")]


async def test_a_partner_that_drips_its_answer(client, partner):
    async def drip(partner, reader, writer):
        await partner.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    _, port = await partner(drip)
    began = time.monotonic()
    failed = await failure(client(timeouts=QUICK), f"http://127.0.0.1:{port}/")
    assert failed.stage == "receipt" and time.monotonic() - began < 2


async def test_a_partner_that_does_not_read(client, partner):
    async def deaf(partner, reader, writer):
        await asyncio.sleep(30)

    _, port = await partner(deaf)
    failed = await failure(client(timeouts=QUICK), f"http://127.0.0.1:{port}/", body=blocks(*[b"x" * (1 << 20)] * 64), length=64 << 20)
    assert failed.stage == "send" and "too slowly" in str(failed)


async def test_a_slow_store_does_not_cost_the_connection(client, partner):
    async def slow():
        for _ in range(4):
            await asyncio.sleep(0.25)
            yield b"x"

    _, port = await partner()
    limits = Timeouts(connect=0.4, idle=0.4, answer=0.4, rate=1)
    assert (await post(client(timeouts=limits), f"http://127.0.0.1:{port}/", body=slow(), length=4)).status == 200


async def test_a_whole_body_may_not_take_for_ever(client, partner):
    async def endless():
        while True:
            await asyncio.sleep(0.1)
            yield b"x"

    _, port = await partner()
    limits = Timeouts(connect=1, idle=0.5, answer=1, rate=1000)
    failed = await failure(client(timeouts=limits), f"http://127.0.0.1:{port}/", body=endless(), length=1000)
    assert failed.stage == "send"


async def test_nobody_there(client):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    with timeline("outbound") as steps:
        failed = await failure(client(), f"http://127.0.0.1:{port}/")
    assert failed.stage == "connect" and "nobody listens" in str(failed)
    assert [(s.stage, bool(s.error)) for s in steps] == [("connect", True)]


async def test_a_full_backlog_is_a_timeout(client):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        failed = await failure(client(timeouts=QUICK), f"http://127.0.0.1:{port}/")
        for one in waiting:
            one.close()
    assert failed.stage == "connect" and "no connection within" in str(failed)


async def test_a_name_that_does_not_exist(client):
    failed = await failure(client(), "https://no-such-host.invalid/as4")
    assert failed.stage == "connect" and "cannot be resolved" in str(failed)


@pytest.mark.parametrize("octets", [
    b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
], ids=["nothing", "half a body", "nonsense", "bad length", "200 headers", "a huge header"])  # fmt: skip
async def test_answers_that_are_none(client, partner, octets):
    async def behave(partner, reader, writer):
        await partner.request(reader)
        writer.write(octets)

    _, port = await partner(behave)
    assert (await failure(client(), f"http://127.0.0.1:{port}/")).stage == "receipt"


@pytest.mark.parametrize(("size", "fails"), [((1 << 20) - 1, False), (1 << 20, False), ((1 << 20) + 1, True), (50 << 20, True)])
async def test_answers_are_bounded(client, partner, size, fails):
    async def large(partner, reader, writer):
        await partner.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for start in range(0, size, 1 << 20):
            writer.write(b"x" * min(1 << 20, size - start))
            await writer.drain()

    _, port = await partner(large)
    if fails:
        assert "larger than 1 MiB" in str(await failure(client(), f"http://127.0.0.1:{port}/"))
    else:
        assert len((await post(client(), f"http://127.0.0.1:{port}/")).body) == size


async def test_compressed_answers_are_not_unpacked(client, partner):
    bomb = gzip.compress(b"\0" * (50 << 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    _, port = await partner(answering(head + bomb))
    assert "compressed" in str(await failure(client(), f"http://127.0.0.1:{port}/"))


async def test_an_early_answer_is_an_answer(client, partner):
    async def early(partner, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(1)

    _, port = await partner(early)
    one = client(timeouts=Timeouts(connect=2, idle=2, answer=2))
    answer = await post(one, f"http://127.0.0.1:{port}/", body=blocks(*[b"x" * (1 << 20)] * 64), length=64 << 20)
    assert (answer.status, answer.body) == (413, b"no")


# -- the body ---------------------------------------------------------------------


async def test_an_error_of_the_body_passes_through_and_breaks_the_request_off(client, partner):
    async def failing():
        yield b"abc"
        raise StoreUnavailable("gone")

    made, port = await partner()
    with pytest.raises(StoreUnavailable, match="gone"):
        await post(client(), f"http://127.0.0.1:{port}/", body=failing(), length=10)
    assert made.requests == []


@pytest.mark.parametrize("length", [2, 4])
async def test_a_body_that_is_not_as_long_as_announced_is_a_slip_of_ours(client, partner, length):
    made, port = await partner()
    with pytest.raises(ValueError, match="announced"):
        await post(client(), f"http://127.0.0.1:{port}/", body=blocks(b"a", b"bc"), length=length)
    assert made.requests == []


async def test_the_body_is_closed_whatever_happens(client):
    closed = []

    async def watched():
        try:
            yield b"abc"
        finally:
            closed.append(True)

    body = watched()
    await anext(body)
    await failure(client(), "http://127.0.0.1:1/", body=body, length=3)
    assert closed


async def test_the_body_is_not_held(client, partner):
    made = 0

    async def many():
        nonlocal made
        for _ in range(1000):
            made += 1
            yield b"x" * 65536

    async def deaf(partner, reader, writer):
        await asyncio.sleep(1)

    _, port = await partner(deaf)
    await failure(client(timeouts=QUICK), f"http://127.0.0.1:{port}/", body=many(), length=65_536_000)
    assert made < 300


async def test_cancelling_closes_the_connection(client, partner):
    gone = asyncio.Event()

    async def silent(partner, reader, writer):
        await partner.request(reader)
        await reader.read()
        gone.set()

    _, port = await partner(silent)
    sending = asyncio.create_task(post(client(), f"http://127.0.0.1:{port}/"))
    await asyncio.sleep(0.2)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.wait_for(gone.wait(), 2)


async def test_the_points_are_hit_in_their_order(client, partner, monkeypatch):
    async def thinking(partner, reader, writer):
        await partner.request(reader)
        await asyncio.sleep(0.05)
        writer.write(OK)

    hit = []
    monkeypatch.setattr("gateway.transport.exchange.point", hit.append)
    _made, port = await partner(thinking)
    await post(client(), f"http://127.0.0.1:{port}/", b"a", b"b")
    assert hit == ["OB08", "OB09", "OB10"]


@pytest.mark.parametrize("name", ["OB08", "OB09", "OB10"])
async def test_a_point_may_raise(client, partner, monkeypatch, name):
    async def thinking(partner, reader, writer):
        await partner.request(reader)
        await asyncio.sleep(0.5)

    def strike(here):
        if here == name:
            raise stages.Struck(name)

    monkeypatch.setattr("gateway.transport.exchange.point", strike)
    _, port = await partner(thinking)
    with pytest.raises(stages.Struck):
        await post(client(), f"http://127.0.0.1:{port}/", b"a", b"b")


async def test_when_the_body_is_sent_the_partner_has_it(client, partner, monkeypatch):
    """OB10 stands where a crash leaves a message with the partner and no answer here."""
    got = []

    def strike(name):
        if name == "OB10":
            time.sleep(0.3)  # the loop stands still; only the kernel moves
            got.append(bytes(received))

    received = bytearray()

    def listen(server):
        one, _ = server.accept()
        while block := one.recv(65536):
            received.extend(block)

    monkeypatch.setattr("gateway.transport.exchange.point", strike)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = asyncio.create_task(asyncio.to_thread(listen, server))
        await failure(client(timeouts=QUICK), f"http://127.0.0.1:{server.getsockname()[1]}/", body=blocks(b"x" * 20_000), length=20_000)
        await thread
    assert got[0].endswith(b"x" * 20_000)


# -- TLS --------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "said"), [
    ({"hosts": ("other.example",)}, "another"),
    ({"days": -1}, "has expired"),
    ({"usage": "client"}, "not meant for servers"),
], ids=["name", "expired", "usage"])  # fmt: skip
async def test_certificates_that_are_refused(client, partner, pki, options, said):
    made, port = await partner(tls=pki.server_context(f"bad-{said[:3]}", **options))
    failed = await failure(client(), f"https://127.0.0.1:{port}/", ca=pki.ca.read_bytes())
    assert failed.stage == "connect" and said in str(failed) and made.requests == []


async def test_a_ca_that_is_not_in_the_agreement(client, partner, pki, tmp_path):
    other = type(pki)(tmp_path)
    _, port = await partner(tls=pki.server_context())
    for ca in (None, other.ca.read_bytes()):
        failed = await failure(client(), f"https://127.0.0.1:{port}/", ca=ca, partner=str(ca))
        assert ("not trusted here" if ca is None else "not its signature") in str(failed)


async def test_a_ca_as_der(client, partner, pki):
    _, port = await partner(tls=pki.server_context())
    der = ssl.PEM_cert_to_DER_cert(pki.ca.read_text())
    assert (await post(client(), f"https://127.0.0.1:{port}/", ca=der)).status == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_no_downgrade(client, partner, pki):
    old = pki.server_context()
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    _, port = await partner(tls=old)
    assert "TLS" in str(await failure(client(), f"https://127.0.0.1:{port}/", ca=pki.ca.read_bytes()))


async def test_a_partner_that_does_not_speak_tls(client, partner):
    _, port = await partner(answering(OK))
    failed = await failure(client(timeouts=QUICK), f"https://127.0.0.1:{port}/")
    assert failed.stage == "connect"


async def test_a_partner_that_demands_a_client_certificate(client, partner, pki):
    _made, port = await partner(tls=pki.server_context(client_ca=pki.ca, required=True))
    failed = await failure(client(), f"https://127.0.0.1:{port}/", ca=pki.ca.read_bytes())
    assert "client certificate" in str(failed) or "broke the connection off" in str(failed)


async def test_partners_share_neither_connections_nor_certificates(client, partner, pki):
    made, port = await partner(tls=pki.server_context(client_ca=pki.ca))
    pairs = {name: pki.pair(name, usage="client") for name in ("for-ee", "for-fi")}
    one = client(tls=lambda partner, ca: pki.client_context(pairs[partner]))
    for name in ("for-ee", "for-fi", "for-ee"):
        await post(one, f"https://127.0.0.1:{port}/", partner=name)
    ders = [ssl.PEM_cert_to_DER_cert(p.read_text().partition("-----END PRIVATE KEY-----\n")[2]) for p in pairs.values()]
    assert made.peers == ders and made.connections == 2


async def test_after_a_refresh_new_contexts_are_asked_for(client, partner, pki):
    asked = []

    def tls(partner, ca):
        asked.append(partner)
        return pki.client_context()

    made, port = await partner(tls=pki.server_context())
    one = client(tls=tls)
    await post(one, f"https://127.0.0.1:{port}/")
    one.refresh()
    await post(one, f"https://127.0.0.1:{port}/")
    assert asked == ["AP_EE_01"] * 2 and made.connections == 2


async def test_another_ca_in_the_agreement_is_another_pool(client, partner, pki, tmp_path):
    _, port = await partner(tls=pki.server_context())
    one = client()
    assert (await post(one, f"https://127.0.0.1:{port}/", ca=pki.ca.read_bytes())).status == 200
    await failure(one, f"https://127.0.0.1:{port}/", ca=type(pki)(tmp_path).ca.read_bytes())


async def test_partners_that_come_and_go_do_not_pile_up(client, partner, monkeypatch):
    """Who is discovered is in no agreement, and nobody takes him out of one."""
    monkeypatch.setattr(transport, "MAX_POOLS", 3)
    _, port = await partner()
    one = client()
    for n in range(10):
        assert (await post(one, f"http://127.0.0.1:{port}/", partner=f"AP_{n}")).status == 200
    assert list(one._pools) == ["AP_7", "AP_8", "AP_9"]


async def test_an_endpoint_that_a_publisher_named_is_judged_as_such(client, partner):
    made, port = await partner()
    with pytest.raises(SendFailed, match="that was discovered"):
        await client().post(
            f"http://127.0.0.1:{port}/", content_type="a/b", content_length=0, body=blocks(), partner="x", purpose="discovered"
        )
    assert not made.connections


def test_session_keys_are_not_written_for_the_asking(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert default_context("x", None).keylog_filename is None


# -- bulkhead ---------------------------------------------------------------------


async def test_one_partner_takes_no_more_than_its_sockets(client, partner):
    release, busy, most = asyncio.Event(), 0, 0

    async def slow(partner, reader, writer):
        nonlocal busy, most
        while True:
            await partner.request(reader)
            busy += 1
            most = max(most, busy)
            await release.wait()
            busy -= 1
            writer.write(OK)

    _, slow_port = await partner(slow)
    _, fast_port = await partner()
    one = client(sockets=3)
    waiting = [asyncio.create_task(post(one, f"http://127.0.0.1:{slow_port}/", partner="slow")) for _ in range(10)]
    await asyncio.sleep(0.2)
    # Others are not held up.
    assert (await asyncio.wait_for(post(one, f"http://127.0.0.1:{fast_port}/", partner="fast"), 1)).status == 200
    assert most == 3
    release.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 10 and most == 3


async def test_waiting_for_a_socket_has_an_end(client, partner):
    async def silent(partner, reader, writer):
        await asyncio.sleep(30)

    _, port = await partner(silent)
    one = client(sockets=1, timeouts=Timeouts(connect=5, idle=0.3, answer=5))
    first = asyncio.create_task(post(one, f"http://127.0.0.1:{port}/"))
    await asyncio.sleep(0.1)
    assert "busy" in str(await failure(one, f"http://127.0.0.1:{port}/"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


# -- where to -----------------------------------------------------------------------


async def test_endpoints_that_may_not_be_reached(client):
    for endpoint in ("https://169.254.169.254/as4", "ftp://ap.example.ee/", "https://user@ap.example.ee/"):
        assert (await failure(client(), endpoint)).stage == "connect"


@pytest.fixture
def names(monkeypatch):
    """Names and what they resolve to, one answer after the other."""
    answers = {}
    original = transport.look_up

    async def look_up(host, port, family):
        if host not in answers:
            return await original(host, port, family)
        addresses = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(transport, "look_up", look_up)
    return answers


async def test_names_are_judged_by_where_they_lead(client, names):
    names["metadata.example"] = [["169.254.169.254"]]
    names["mixed.example"] = [["193.40.5.1", "169.254.169.254"]]
    for host in names:
        failed = await failure(client(), f"http://{host}/as4")
        assert failed.stage == "connect" and ("link-local" in str(failed) or "metadata" in str(failed))


async def test_a_name_that_changes_its_mind_is_judged_each_time(client, partner, names):
    _, port = await partner(answering(OK, times=1))
    names["rebinding.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    one = client()
    assert (await post(one, f"http://rebinding.example:{port}/")).status == 200
    await asyncio.sleep(0.1)  # the partner has closed the connection
    assert "metadata" in str(await failure(one, f"http://rebinding.example:{port}/"))


async def test_webhooks_go_where_the_policy_says(names, partner):
    made, port = await partner()
    names["hooks.example"] = [["127.0.0.1"]]
    one = Client(EgressPolicy())
    with pytest.raises(DeliveryRefused):
        await one.post_small(f"https://127.0.0.1:{port}/", b"{}", {})
    with pytest.raises(DeliveryRefused):
        await one.post_small(f"http://hooks.example:{port}/", b"{}", {})
    with pytest.raises(DeliveryDelayed, match="loopback"):
        await one.post_small(f"https://hooks.example:{port}/", b"{}", {})
    await one.close()
    assert made.connections == 0
    one = Client(EgressPolicy(["127.0.0.0/8"]))
    assert (await one.post_small(f"http://hooks.example:{port}/a?b", b"{}", {"webhook-id": "1"}))[0] == 200
    names["hooks.example"] = [["193.40.5.1"]]
    with pytest.raises(DeliveryDelayed, match="plain http"):
        await Client(EgressPolicy(["127.0.0.0/8"])).post_small(f"http://hooks.example:{port}/", b"{}", {})
    await one.close()
    assert made.requests[0][0] == "POST /a?b HTTP/1.1" and made.requests[0][1]["webhook-id"] == "1"


async def test_webhooks_over_tls(partner, pki):
    _, port = await partner(tls=pki.server_context())
    one = Client(EgressPolicy(["127.0.0.0/8"]), webhook_tls=pki.client_context())
    assert await one.post_small(f"https://127.0.0.1:{port}/", b"{}", {}) == (
        200, {"content-type": "application/soap+xml", "content-length": "4"}, b"<ok>",
    )  # fmt: skip
    await one.close()
    two = Client(EgressPolicy(["127.0.0.0/8"]))
    with pytest.raises(DeliveryDelayed, match="trusted"):
        await two.post_small(f"https://127.0.0.1:{port}/", b"{}", {})
    await two.close()


async def test_webhooks_that_misbehave(partner):
    async def endless(partner, reader, writer):
        await partner.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def silent(partner, reader, writer):
        await asyncio.sleep(30)

    one = Client(EgressPolicy(["127.0.0.0/8"]))
    _, port = await partner(endless)
    status, _, body = await one.post_small(f"http://127.0.0.1:{port}/", b"{}", {})
    assert status == 200 and len(body) == 65536
    _, port = await partner(silent)
    with pytest.raises(DeliveryDelayed, match="no answer within"):
        await one.post_small(f"http://127.0.0.1:{port}/", b"{}", {}, timeout=0.2)
    _, port = await partner(answering(b"HTTP/1.1 302 X\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"))
    assert (await one.post_small(f"http://127.0.0.1:{port}/", b"{}", {}))[0] == 302
    with pytest.raises(DeliveryDelayed, match="nobody listens"):
        await one.post_small("http://127.0.0.1:1/".replace(":1/", ":1025/"), b"{}", {})
    await one.close()


def test_stages_of_the_client_are_declared():
    assert {"connect", "send", "receipt"} <= stages.STAGES
