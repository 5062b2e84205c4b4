"""`make bench`: the product beside the protocol floor, in one run, as ratios.

    receive   durable receive of 10 KB messages over HTTP: CPU of our worker process per message / floor
    send      submit (REST) + send + receipt checked: CPU of our worker process per message / floor
    rest      what a producer sees over REST: from the submission to its receipt (p50, p95), alone and among others;
              submissions and receipts per second
    large     a payload of 1 GiB in either direction: growth of the worker's resident memory
    advice    the rules of OOTS: CPU of judging a message, and its share of receiving it

One worker process, a private PostgreSQL, loopback. CPU of PostgreSQL and of the load generator is
not counted (they are other processes). Prints one JSON object. `--quick` for a smoke run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp

from gateway.as4.header import write_messaging
from tests.bench.advice import bench_advice
from tests.bench.floor import Floor
from tests.peer import Authority, Keys, Peer, Sent
from tests.world import EE, LV, Listener, write_site

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
EXCHANGE = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "ExecuteQueryRequest"
from_role = "http://sdg.europa.eu/edelivery/gateway"
to_role = "http://sdg.europa.eu/edelivery/gateway"
"""
PAYLOAD = b"<record>" + b"".join(
    f"<entry n='{n}'><name>Name {n * 7919 % 1000}</name><value>{n * 104729 % 99991:05d}</value></entry>".encode()
    for n in range(180)
) + b"</record>"
PAYLOAD = PAYLOAD[: 10 << 10]
#: Messages under way at once: enough that the worker never waits for one.
CONNECTIONS = 16
#: Each figure is the best of so many rounds: whatever else runs on the machine only adds.
ROUNDS = 5


@contextlib.contextmanager
def passable():
    """A temporary folder that the database's user may pass: as root, PostgreSQL runs as another."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        os.chmod(folder, 0o711)
        yield folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Site:
    """A running gateway with one worker process."""

    def __init__(self, folder: Path, keys: Keys, partner: Keys, profile: str, endpoint: str) -> None:
        self.folder = folder
        more = "" if profile.startswith("oots") else EXCHANGE
        write_site(folder, keys, partner, profile=profile, endpoint=endpoint, more=more)
        self.ports = {name: free_port() for name in ("as4", "plugin", "operations")}
        text = (folder / "gateway.toml").read_text()
        (folder / "gateway.toml").write_text(
            text.replace("claimers = 4", "claimers = 8\nprocesses = 1")
            + "".join(f'[{name}]\nbind = "127.0.0.1:{port}"\n' for name, port in self.ports.items())
            + '[limits]\npart = "2GiB"\nmessage = "2GiB"\ndecompressed = "2GiB"\n[log]\nlevel = "error"\n'
        )

    def __enter__(self) -> "Site":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "run", "--config", str(self.folder / "gateway.toml")], cwd=ROOT
        )
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports["operations"]), 1) as s:
                s.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200 " in s.recv(200):
                    return self
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the gateway did not start")
            time.sleep(0.1)

    def __exit__(self, *_) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    @property
    def worker(self) -> int:
        """The process id of the one worker: the youngest Python child of the supervisor."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        python = [int(c) for c in children if b"python" in Path(f"/proc/{c}/cmdline").read_bytes().split(b"\0")[0]]
        return python[-1]

    def cpu(self) -> float:
        """CPU seconds of the worker so far."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self) -> int:
        """Resident memory of the worker, bytes."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def token(self) -> str:
        out = subprocess.run(
            [sys.executable, "-m", "gateway", "backends", "create", "bench", "--json", "--config",
             str(self.folder / "gateway.toml")], cwd=ROOT, check=True, capture_output=True, text=True)
        return json.loads(out.stdout)["token"]


def floor_of(suite: str, keys: Keys, partner: Keys, sample: Sent, count: int) -> dict[str, float]:
    """CPU milliseconds of the bare operations on `sample`, a message from `partner` to the holder of
    `keys`; the least of five rounds, as noise only adds."""
    receiver, sender = Floor(suite, keys, partner), Floor(suite, partner, keys)
    content = write_messaging(sample.message, "m").partition(">")[2].removesuffix("</eb:Messaging>")
    cid = sample.message.parts[0].cid
    made = sender.send(content, cid, PAYLOAD)
    # It declares no namespace twice, as the product does; otherwise the two say the same.
    if not 0.9 < len(made) / len(sample.body) < 1.02:
        raise SystemExit(f"the floor's message has {len(made)} bytes, the product's {len(sample.body)}")
    receiver.receive(made)
    receipt = receiver.receive(sample.body)
    found = {}
    for name, run in (("receive", lambda: receiver.receive(sample.body)),
                      ("send", lambda: sender.send(content, cid, PAYLOAD)),
                      ("check", lambda: sender.check(receipt))):  # fmt: skip
        rounds = []
        for _ in range(5):
            begin = time.process_time()
            for _ in range(count):
                run()
            rounds.append((time.process_time() - begin) / count * 1000)
        found[name] = min(rounds)
    return found


async def post_all(url: str, messages: list[Sent], connections: int) -> None:
    """POST every message once over kept connections; every answer must be a receipt.

    Bare sockets: what this costs is taken from the machine the worker runs on, and a worker that waits
    for its next message costs more for each, as cores that rest forget and slow down.
    """
    host, _, path = url.removeprefix("http://").partition("/")
    queue = list(reversed(messages))

    async def run() -> None:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        while queue:
            sent = queue.pop()
            writer.write(
                f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {sent.content_type}\r\n"
                f"Content-Length: {len(sent.body)}\r\n\r\n".encode() + sent.body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]))
            if not head.startswith(b"HTTP/1.1 200") or b"NonRepudiationInformation" not in body:
                raise SystemExit(f"no receipt: {head!r} {body[:300]!r}")
        writer.close()

    await asyncio.gather(*(run() for _ in range(connections)))


def bench_receive(suite: str, profile: str, count: int) -> dict:
    authority = Authority()
    keys, partner = Keys.make("LV", suite, authority), Keys.make("EE", suite, authority)
    peer = Peer(EE, LV, partner, (keys.signing,), keys.encryption, profile)
    with passable() as folder, Site(Path(folder) / "lv", keys, partner, profile, "http://127.0.0.1:9/x") as site:
        url = f"http://127.0.0.1:{site.ports['as4']}/as4"
        asyncio.run(post_all(url, [peer.message([("application/xml", PAYLOAD)]) for _ in range(count // 4)], CONNECTIONS))
        rounds = []
        floors = []
        sample = peer.message([("application/xml", PAYLOAD)])
        for _ in range(ROUNDS):
            messages = [peer.message([("application/xml", PAYLOAD)]) for _ in range(count)]
            floors.append(floor_of(suite, keys, partner, sample, max(50, count // 5)))
            begin, wall = site.cpu(), time.monotonic()
            asyncio.run(post_all(url, messages, CONNECTIONS))
            rounds.append(((site.cpu() - begin) / count * 1000, count / (time.monotonic() - wall)))
        cost, floor = min(r[0] for r in rounds), min(f["receive"] for f in floors)
        return {"suite": suite, "wire_bytes": len(sample.body), "cpu_ms": round(cost, 3), "floor_ms": round(floor, 3),
                "ratio": round(cost / floor, 2), "per_second": round(max(r[1] for r in rounds))}


def bench_send(suite: str, profile: str, count: int) -> dict:
    from gateway.client import GatewayClient, Part

    authority = Authority()
    keys, partner = Keys.make("LV", suite, authority), Keys.make("EE", suite, authority)
    peer = Peer(EE, LV, partner, (keys.signing,), keys.encryption, profile)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    listener = Listener()

    answered = []

    def answer(content_type, body):
        opened, _ = peer.open(content_type, body)
        answered.append(opened.unit.message_id)
        return 200, "application/soap+xml", peer.receipt_for(opened.unit, opened.references)

    listener.answer = answer
    context = listener.running()
    asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
    with passable() as folder, Site(Path(folder) / "lv", keys, partner, profile, listener.url) as site:
        client = GatewayClient(f"http://127.0.0.1:{site.ports['plugin']}", site.token())
        properties = {"originalSender": "C1", "finalRecipient": "C4"}

        def submit(number: int) -> list[str]:
            part = Part(PAYLOAD, "application/xml")
            with ThreadPoolExecutor(8) as producers:
                made = [producers.submit(client.submit, "AP_EE_01", "ExecuteQueryRequest", [part], properties=properties)
                        for _ in range(number)]  # fmt: skip
                return [one.result()["id"] for one in made]

        def settled(ids: list[str]) -> None:
            """Wait for the receipts here, and ask the gateway only at the end: questions cost it time, too."""
            end = time.monotonic() + 60
            while len(answered) < len(ids) and time.monotonic() < end:
                time.sleep(0.01)
            if any(client.wait(one, timeout=60)["state"] != "ACKNOWLEDGED" for one in ids[-8:]):
                raise SystemExit("a message was not acknowledged")
            answered.clear()

        settled(submit(count // 4))
        sample = peer.message([("application/xml", PAYLOAD)])
        rounds, floors = [], []
        for _ in range(ROUNDS):
            floors.append(floor_of(suite, keys, partner, sample, max(50, count // 5)))
            begin, wall = site.cpu(), time.monotonic()
            settled(submit(count))
            rounds.append(((site.cpu() - begin) / count * 1000, count / (time.monotonic() - wall)))
        cost, floor = min(r[0] for r in rounds), min(f["send"] + f["check"] for f in floors)
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
        return {"suite": suite, "cpu_ms": round(cost, 3), "floor_ms": round(floor, 3), "ratio": round(cost / floor, 2),
                "note": "submission over REST included", "per_second": round(max(r[1] for r in rounds))}


def bench_rest(count: int) -> dict:
    """Latency and throughput as a producer sees them; `ratio` is the median beside the CPU of the bare operations."""
    from gateway.client import GatewayClient, Part

    authority = Authority()
    keys, partner = Keys.make("LV", "rsa", authority), Keys.make("EE", "rsa", authority)
    peer = Peer(EE, LV, partner, (keys.signing,), keys.encryption, "oots/2.0")
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    listener = Listener()

    def answer(content_type, body):
        opened, _ = peer.open(content_type, body)
        return 200, "application/soap+xml", peer.receipt_for(opened.unit, opened.references)

    listener.answer = answer
    context = listener.running()
    asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
    with passable() as folder, Site(Path(folder) / "lv", keys, partner, "oots/2.0", listener.url) as site:
        client = GatewayClient(f"http://127.0.0.1:{site.ports['plugin']}", site.token())

        def exchanged(wait: float) -> tuple[str, float]:
            """One submission; its state, and the milliseconds until there was an answer."""
            begin = time.monotonic()
            sent = client.submit(
                "AP_EE_01", "ExecuteQueryRequest", [Part(PAYLOAD, "application/xml")], wait=wait,
                properties={"originalSender": "C1", "finalRecipient": "C4"},
            )  # fmt: skip
            return sent["state"], (time.monotonic() - begin) * 1000

        def together(hands: int, number: int, wait: float) -> tuple[list[float], float]:
            """Latencies, and exchanges per second."""
            begin = time.monotonic()
            with ThreadPoolExecutor(hands) as producers:
                made = list(producers.map(lambda _: exchanged(wait), range(number)))
            if wait and any(state != "ACKNOWLEDGED" for state, _ in made):
                raise SystemExit("a message was not acknowledged")
            return [took for _, took in made], number / (time.monotonic() - begin)

        together(4, count // 4, 60)
        sample = peer.message([("application/xml", PAYLOAD)])
        rounds = []
        for _ in range(ROUNDS):
            floor = floor_of("rsa", keys, partner, sample, max(50, count // 5))
            alone, _ = together(1, max(20, count // 4), 60)
            among, receipts = together(8, count, 60)
            _, submissions = together(8, count, 0)
            rounds.append((floor["send"] + floor["check"], alone, among, receipts, submissions))
            together(1, 1, 60)  # what was only submitted is sent first
        floor = min(r[0] for r in rounds)
        alone, among = (min(rounds, key=lambda r: percentile(r[place], 50))[place] for place in (1, 2))
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    return {
        "alone_ms": {"p50": percentile(alone, 50), "p95": percentile(alone, 95)},
        "eight_at_once_ms": {"p50": percentile(among, 50), "p95": percentile(among, 95)},
        "floor_ms": round(floor, 3), "ratio": round(percentile(alone, 50) / floor, 1),
        "submissions_per_second": round(max(r[4] for r in rounds)),
        "acknowledged_per_second": round(max(r[3] for r in rounds)),
        "note": "peer and producers share the cores",
    }  # fmt: skip


def percentile(values: list[float], share: int) -> float:
    """The value that `share` percent do not exceed."""
    return round(sorted(values)[max(0, -(-len(values) * share // 100) - 1)], 1)


class Watch:
    """The highest resident memory of the worker while the body runs, over what it was before."""

    def __init__(self, site: Site) -> None:
        self._site, self._stop = site, threading.Event()

    def __enter__(self) -> "Watch":
        self.before = self.peak = self._site.rss()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, self._site.rss())

    @property
    def growth(self) -> float:
        return round((self.peak - self.before) / (1 << 20), 1)


def bench_large(size: int) -> dict:
    import hashlib

    from msgspec.structs import replace

    from gateway.as4 import ns
    from gateway.as4.outbound import Draft, OutboundPart, secure
    from gateway.as4.profiles import PROFILES
    from gateway.as4.units import PartInfo, Property
    from gateway.client import GatewayClient, Part
    from tests.peer import split

    block = os.urandom(1 << 20)
    blocks = size >> 20
    authority = Authority()
    keys, partner = Keys.make("LV", "rsa", authority), Keys.make("EE", "rsa", authority)
    peer = Peer(EE, LV, partner, (keys.signing,), keys.encryption, "oots/2.0")
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    got = {}

    async def sink(request):
        """Read the body without keeping it; answer over the references of the envelope."""
        from aiohttp import web

        head, total = bytearray(), 0
        async for chunk in request.content.iter_chunked(1 << 20):
            total += len(chunk)
            if len(head) < 1 << 17:
                head += chunk
        got["bytes"] = total
        boundary = request.headers["Content-Type"].split('boundary="')[1].split('"')[0].encode()
        envelope, _ = split(request.headers["Content-Type"],
                            bytes(head).split(b"\r\n--" + boundary)[0] + b"\r\n--" + boundary + b"--\r\n")
        opened, _ = peer.open("application/soap+xml", envelope.octets)
        return web.Response(body=peer.receipt_for(opened.unit, opened.references), content_type="application/soap+xml")

    async def listen():
        from aiohttp import web

        runner = web.ServerRunner(web.Server(sink))
        await runner.setup()
        port = web.TCPSite(runner, "127.0.0.1", 0)
        await port.start()
        return port._server.sockets[0].getsockname()[1]

    port = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    with passable() as folder, Site(Path(folder) / "lv", keys, partner, "oots/2.0", f"http://127.0.0.1:{port}/as4") as site:
        url = f"http://127.0.0.1:{site.ports['as4']}/as4"
        asyncio.run(post_all(url, [peer.message([("application/xml", PAYLOAD)]) for _ in range(40)], 4))
        digest = hashlib.sha256()
        for _ in range(blocks):
            digest.update(block)
        info = PartInfo("cid:large@peer.example", (Property(ns.MIME_TYPE, ns.OCTET_STREAM),))
        message = replace(peer.header(), parts=(info,))
        part = OutboundPart(info, info.cid, ns.OCTET_STREAM, blocks << 20, digest.digest())
        wire = secure(Draft(message, (part,)), profile=PROFILES["oots/2.0"], key=partner.signing_key,
                      recipient=keys.encryption, signature_token="bst", encryption_token="bst", entropy=os.urandom)

        async def body():
            for piece in wire.stream(lambda _: (block for _ in range(blocks))):
                yield piece

        async def receive():
            headers = {"Content-Type": wire.content_type, "Content-Length": str(wire.content_length)}
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=900)) as session:
                async with session.post(url, data=body(), headers=headers) as answer:
                    text = await answer.read()
                    if answer.status != 200 or b"NonRepudiation" not in text:
                        raise SystemExit(f"no receipt: {answer.status} {text[:300]!r}")

        with Watch(site) as inbound:
            wall = time.monotonic()
            asyncio.run(receive())
            inbound_seconds = time.monotonic() - wall

        source = Path(folder) / "large.bin"
        with source.open("wb") as out:
            for _ in range(blocks):
                out.write(block)
        client = GatewayClient(f"http://127.0.0.1:{site.ports['plugin']}", site.token(), timeout=900)
        with Watch(site) as outbound:
            wall = time.monotonic()
            submitted = client.submit("AP_EE_01", "ExecuteQueryRequest",
                                      [Part(source, "application/octet-stream", compress=False)],
                                      properties={"originalSender": "C1", "finalRecipient": "C4"})
            state = client.wait(submitted["id"], timeout=900)["state"]
            outbound_seconds = time.monotonic() - wall
        if state != "ACKNOWLEDGED" or got["bytes"] < blocks << 20:
            raise SystemExit(f"the large message was not sent: {state}")
    return {"mib": blocks, "inbound_growth_mib": inbound.growth, "inbound_mib_per_second": round(blocks / inbound_seconds),
            "outbound_growth_mib": outbound.growth, "outbound_mib_per_second": round(blocks / outbound_seconds)}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench")
    arguments.add_argument("--quick", action="store_true", help="small counts, 64 MiB: a smoke run")
    arguments.add_argument("--only", choices=["receive", "send", "rest", "large", "advice"])
    options = arguments.parse_args()
    count = 60 if options.quick else 600
    result = {}
    if options.only in (None, "receive"):
        result["receive"] = [bench_receive("rsa", "oots/2.0", count), bench_receive("ed25519", "edelivery-as4/2.0", count)]
    if options.only in (None, "send"):
        result["send"] = [bench_send("rsa", "oots/2.0", count // 3), bench_send("ed25519", "edelivery-as4/2.0", count // 3)]
    if options.only in (None, "rest"):
        result["rest"] = bench_rest(count // 3)
    if options.only in (None, "large"):
        result["large"] = bench_large((64 << 20) if options.quick else (1 << 30))
    if options.only in (None, "advice"):
        result["advice"] = bench_advice(count // 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
