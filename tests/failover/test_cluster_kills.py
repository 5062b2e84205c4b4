"""A cluster under load while something of it is struck again and again, by chance: nothing is lost, nothing comes twice.

`GATEWAY_SEED` repeats the choices of a run; what they meet is never quite the same again.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.failover.cluster import outbound
from tests.failover.cluster.case import judged, needed, running, tell
from tests.failover.cluster.load import Consumer, Senders, settle
from tests.failover.cluster.site import Site

FULL = os.environ.get("GATEWAY_FAILOVER") == "full"
pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(3000), needed()]


class Chance:
    """Strikes something every 2 to 20 seconds, and mends what does not mend itself."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site, self.random, self.struck = site, random.Random(seed), Counter()
        self._mending: list[tuple[float, Callable[[], object]]] = []

    def run(self, goes_on: Callable[[], bool]) -> None:
        due = time.monotonic() + 2
        while goes_on():
            now = time.monotonic()
            for entry in [one for one in self._mending if one[0] <= now]:
                self._mending.remove(entry)
                entry[1]()
            if now >= due:
                self.strike()
                due = time.monotonic() + self.random.uniform(2, 20)
            time.sleep(0.1)

    def strike(self) -> None:
        kind = self.random.choice(("worker", "node", "primary", "standby", "link", "pause"))
        node = self.site.nodes[self.random.choice(("gateway-a", "gateway-b"))]
        seconds = self.random.uniform(1, 10)
        if kind in ("primary", "standby"):
            # Two of three at once is another matter: then it waits (R11, R14).
            if not self.site.database.is_well():
                return
            host = self.site.database.primary if kind == "primary" else self.site.database.synchronous
            self.site.database.servers[host].strike()
        elif not node.runs() or (kind == "worker" and not node.workers()):
            return
        elif kind == "worker":
            os.kill(self.random.choice(node.workers()), signal.SIGKILL)
        elif kind == "node":
            node.die()
            self._mend(seconds, node.launch)
        elif kind == "link":
            self.site.network.cut("front", node.name)
            self._mend(seconds, lambda: self.site.network.mend("front", node.name))
        else:
            node.signal(signal.SIGSTOP)
            self._mend(seconds, lambda: node.signal(signal.SIGCONT))
        self.struck[kind] += 1

    def _mend(self, seconds: float, act: Callable[[], object]) -> None:
        self._mending.append((time.monotonic() + seconds, act))


@pytest.mark.parametrize(("roles", "many", "pace"), [("active/active", 7_500, 30), ("active/passive", 3_000, 20)])
def test_random_kills_under_load(roles, many, pace):
    seed = int(os.environ.get("GATEWAY_SEED") or random.randrange(1 << 32))
    many, pace = (many, pace) if FULL else (500, 10)
    # Whatever is struck may be at the same message three times: it is no poison.
    with running(roles=roles, GATEWAY__WORKERS__DEATHS="1000") as site:
        chance = Chance(site, seed)
        print(f"GATEWAY_SEED={seed}")
        with (
            Consumer(site, site.folder / "consumer.jsonl", threads=12) as consumer,
            outbound.Receiver(site, site.folder / "receiver.jsonl") as receiver,
            outbound.Producers(site, site.folder / "producers.jsonl", consumer.doors, pace=pace / 6) as producers,
        ):
            with Senders(site, site.folder / "senders.jsonl", count=60, pace=pace, limit=many, patience=15) as senders:
                began = time.monotonic()
                chance.run(lambda: senders.receipted() < many and time.monotonic() - began < 2400)
                took = time.monotonic() - began
                site.recover()
                senders.finish(60)
                producers.close()
                verdict = settle([senders.log], consumer, 600)
            sent = outbound.settle(producers, receiver, 600)
        tell(f"L3 {roles}", f"random kills, {roles}", verdict, times=chance.struck.total(), gap=senders.gap(began, began + took), seed=seed)
        tell(f"L3 {roles}, sent", f"the same, messages to be sent, {roles}", sent, times=chance.struck.total())
        print(f"{dict(chance.struck)} in {took:.0f} s; {len(senders.refusals())} attempts failed")
        judged(verdict)
        judged(sent)
        assert len(verdict.receipted) == many and chance.struck.total() >= took / 40
