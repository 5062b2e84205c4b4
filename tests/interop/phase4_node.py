"""Our side: a real gateway process with its private PostgreSQL, a producer and a consumer."""

import contextlib
import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.client import GatewayProblem
from gateway.keys.development import PartyFiles
from tests.failover.pair import Node
from tests.interop.phase4_sites import Site

_CONFIG = """
[node]
name = "interop"
host = "gw.interop.example"
[egress]
allow_networks = ["127.0.0.0/8"]
# Eight connections to one partner and process: sixteen messages on the wire.
[workers]
processes = 2
claimers = 8
{stores}
[as4]
bind = "127.0.0.1:{as4}"
[plugin]
bind = "127.0.0.1:{plugin}"
[operations]
bind = "127.0.0.1:{operations}"
[log]
format = "json"
{more}
"""

_STORE = """
[[keys.store]]
path = "{path}"
party = "{party}"
"""


@dataclass
class Taken:
    """A message as the consumer got it: the view, and the digest of each payload fetched."""

    view: dict
    digests: list[str]
    redelivered: bool


class Gateway:
    """One node with an agreement for each site. Everything delivered is fetched, checked and acknowledged at once."""

    def __init__(self, folder: Path, ports: list[int], sites: dict[Site, tuple[PartyFiles, PartyFiles]],
                 agreements: dict[Site, str], *, more: str = "") -> None:
        self.node = Node(folder, "interop", ports)
        pmodes = folder / "pmodes"
        pmodes.mkdir(parents=True)
        for site, (_, theirs) in sites.items():
            (pmodes / f"{site.name}.toml").write_text(agreements[site])
            (pmodes / f"{site.name}-sign.pem").write_bytes(theirs.signing.read_bytes())
            (pmodes / f"{site.name}-encrypt.pem").write_bytes(theirs.encryption.read_bytes())
        stores = "".join(_STORE.format(path=ours.keys, party=site.us) for site, (ours, _) in sites.items())
        self.node.config.write_text(_CONFIG.format(
            stores=stores, as4=ports[0], plugin=ports[1], operations=ports[2], more=more))
        self.taken: dict[str, list[Taken]] = {}
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> "Gateway":
        self.node.start()
        self.client = self.node.client()
        self._threads = [threading.Thread(target=self._consume, daemon=True) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def _consume(self) -> None:
        while not self._stop.is_set():
            try:
                deliveries = self.client.claim(limit=10, lease=60)
            except (OSError, GatewayProblem):
                self._stop.wait(0.2)
                continue
            for delivery in deliveries:
                self._take(delivery)
            if not deliveries:
                self._stop.wait(0.1)

    def _take(self, delivery: dict) -> None:
        view = delivery["message"]
        digests = [hashlib.sha256(self.client.payload(view["id"], part["cid"])).hexdigest() for part in view.get("parts", ())]
        self.client.ack(delivery)
        with self._changed:
            self.taken.setdefault(view["message_id"], []).append(Taken(view, digests, delivery["redelivered"]))
            self._changed.notify_all()

    def wait_taken(self, message_id: str, seconds: float = 60) -> Taken:
        """The message as the consumer got it."""
        end = time.monotonic() + seconds
        with self._changed:
            while message_id not in self.taken:
                assert self._changed.wait(max(end - time.monotonic(), 0)), f"{message_id} was not delivered"
            return self.taken[message_id][0]

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        with contextlib.suppress(Exception):
            self.node.stop()
