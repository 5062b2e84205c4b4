"""The other direction: producers of a backend, the partner's access point that takes what the gateways send, and the judge.

A producer writes down what it will submit before it submits it, and says it again under the same Idempotency-Key until a
node has it. The partner writes down what came before it signs the receipt.
"""

import asyncio
import hashlib
import http.client
import itertools
import os
import ssl
import threading
import time
from pathlib import Path

from aiohttp import web

from gateway.client import GatewayClient, GatewayProblem, Part
from tests.failover.cluster.load import Log, Verdict
from tests.failover.cluster.site import Site
from tests.world import LV


class Receiver:
    """The partner's access point, at the place where the gateways send to. Its own gateway must not be there."""

    def __init__(self, site: Site, log: Path) -> None:
        self.log, self._peer, self._host = Log(log), site.peer, site.hosts["partner"]
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(site.partner.folder / "tls.pem")
        self._tls.load_verify_locations(site.partner.folder / "tls-ca.pem")
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._loop, self._up = asyncio.new_event_loop(), threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Receiver":
        self._thread.start()
        assert self._up.wait(10), "the partner does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _run(self) -> None:
        with self._host:
            self._loop.run_until_complete(self._serve())
            self._loop.close()

    async def _serve(self) -> None:
        runner = web.ServerRunner(web.Server(self._take), shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host.address, 8443, ssl_context=self._tls, reuse_address=True).start()
            self._up.set()
            await self._over.wait()
        finally:
            await runner.cleanup()

    async def _take(self, request: web.BaseRequest) -> web.Response:
        message, contents, references = self._peer.receive(request.headers["Content-Type"], await request.read())
        digest = "+".join(hashlib.sha256(content).hexdigest() for content in contents)
        self.log.note("taken", message_id=message.message_id, digest=digest)
        return web.Response(body=self._peer.receipt_for(message, references), content_type="application/soap+xml")


class Producers:
    """`count` threads that submit `pace` messages a second together, through the plugin API of whichever node lets them;
    `limit`: so many in all."""

    def __init__(self, site: Site, log: Path, doors: list[GatewayClient], *, count: int = 4, pace: float = 4,
                 limit: int | None = None) -> None:  # fmt: skip
        self.log, self.doors, self._host, self._every = Log(log), doors, site.hosts["partner"], count / pace
        self._left = itertools.count() if limit is None else iter(range(limit))
        self._stop = threading.Event()
        #: Digest of what was submitted -> id at the gateway.
        self.submitted: dict[str, str] = {}
        self.troubles: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]

    def __enter__(self) -> "Producers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, number: int) -> None:
        doors = itertools.cycle(self.doors[number % 2 :] + self.doors[: number % 2])
        with self._host:
            due = time.monotonic() + self._every * number / len(self._threads)
            while not self._stop.wait(max(0.0, due - time.monotonic())) and next(self._left, None) is not None:
                try:
                    self._submit(doors)
                except Exception as error:
                    self.troubles.append(error)
                due = max(due + self._every, time.monotonic() - 1)

    def _submit(self, doors: "itertools.cycle[GatewayClient]") -> None:
        """Until a node has it, or the producers end."""
        key, content = os.urandom(8).hex(), b"<evidence>%s</evidence>" % os.urandom(300).hex().encode()
        digest = hashlib.sha256(content).hexdigest()
        self.log.note("submit", key=key, digest=digest)
        while True:
            try:
                made = next(doors).submit(
                    LV.value, "ExecuteQueryRequest", [Part(content, "application/octet-stream")],
                    properties={"originalSender": "C1", "finalRecipient": "C4"}, idempotency_key=key,
                )  # fmt: skip
            except (OSError, http.client.HTTPException, GatewayProblem) as error:
                if isinstance(error, GatewayProblem) and error.status < 500 and error.status not in (409, 429):
                    raise
                if self._stop.wait(0.25):
                    return
                continue
            self.submitted[digest] = made["id"]
            self.log.note("submitted", key=key, digest=digest, message_id=made["message_id"])
            return

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def unfinished(self) -> dict[str, str]:
        """State of what was submitted and has no receipt yet, by digest."""
        left = {}
        with self._host:
            for digest, id in self.submitted.items():
                for door in self.doors:
                    try:
                        left[digest] = door.message(id)["state"]
                        break
                    except (OSError, http.client.HTTPException, GatewayProblem) as error:
                        left[digest] = repr(error)
        return {digest: state for digest, state in left.items() if state != "ACKNOWLEDGED"}


def judge(producers: Log, receiver: Log, before: list[Log] = ()) -> Verdict:
    """Hold what was submitted against what came: each document is one message, however often it was said or sent.
    `before`: producers whose messages may still come. The ids are digests of documents."""
    found = Verdict()
    earlier = {line["digest"] for log in before for line in log.lines()}
    ids: dict[str, str] = {}
    for line in producers.lines():
        found.sent.add(line["digest"])
        if line["what"] == "submitted":
            found.receipted.add(line["digest"])
            ids[line["digest"]] = line["message_id"]
    taken: dict[str, str] = {}
    for line in receiver.lines():
        digest, id = line["digest"], line["message_id"]
        if digest in earlier:
            continue
        if digest in taken:
            # Once more, because the receipt was lost on its way: the same message.
            found.redelivered += 1
            if taken[digest] != id:
                found.twice.append(digest)
        taken[digest] = id
        if ids.get(digest, id) != id:
            found.changed.append(digest)
    found.lost = found.receipted - taken.keys()
    found.strange = taken.keys() - found.sent
    return found


def settle(producers: Producers, receiver: Receiver, seconds: float = 60, before: list[Log] = ()) -> Verdict:
    """The verdict when everything has its receipt. Raises `AssertionError` for what has none when time is over."""
    assert not producers.troubles, producers.troubles[:3]
    end = time.monotonic() + seconds
    while left := producers.unfinished():
        assert time.monotonic() < end, f"submitted and without receipt after {seconds} s: {left}"
        time.sleep(1)
    return judge(producers.log, receiver.log, before)
