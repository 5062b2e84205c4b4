"""The rehearsal for operators: a cluster on this machine, what may happen to it, and what senders see of that."""

import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.failover import table
from tests.failover.cluster import network
from tests.failover.cluster.load import Consumer, Senders, settle
from tests.failover.cluster.site import ROOT, SITES, Site

#: Most seconds without a receipt, for what is rehearsed; docs/operators/ha.md has the same.
LIMITS = {"node": 5.0, "switchover": 2.0, "restart": 2.0, "primary": 10.0, "line": 15.0}


def say(text: str = "") -> None:
    print(text, flush=True)


class Rehearsal:
    """The steps, one after the other, while a few messages a second go through the load balancer."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = Path(tempfile.mkdtemp(dir=site.folder))
        self.consumer = Consumer(site, self.folder / "consumer.jsonl")
        self.senders = Senders(site, self.folder / "senders.jsonl", count=60, pace=8)

    def __enter__(self) -> "Rehearsal":
        self.consumer.__enter__()
        self.senders.__enter__()
        self.senders.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.senders.close()
        self.consumer.close()

    def steps(self) -> Iterator[tuple[str, str, str, Callable[[], object], float]]:
        """Id, what it is, what is done and expected, the doing, and for how many seconds it is watched."""
        [active] = self.site.active()
        yield ("node", "gateway node lost",
               f"{active} is active. All its processes are killed, as when its machine loses power.\n"
               "   Its lease runs out after 3 s; the other node is active then, and the load balancer sees it.",
               self.site.nodes[active].die, 7)  # fmt: skip
        yield ("switchover", "gateway ha switchover",
               "The other node is made active by an operator: gateway ha switchover --yes\n   Nobody should notice.",
               lambda: self._ha("switchover", "--yes"), 4)  # fmt: skip
        yield ("restart", "rolling restart of both nodes",
               "Each node is stopped in order (SIGTERM), as for an upgrade, and started again.\n"
               "   It drains: it says that it is not ready, serves what comes until everybody has seen it, and ends.",
               self._restart, 2)  # fmt: skip
        primary = self.site.database.primary
        yield ("primary", "PostgreSQL primary killed",
               f"PostgreSQL on {primary} is the primary. It is killed (kill -9).\n"
               "   Patroni promotes the synchronous standby, which has every message that was acknowledged.",
               self.site.database.servers[primary].strike, 6)  # fmt: skip
        while self.site.database.primary in SITES["arbiter"]:
            say(f"   (patronictl switchover: the primary moves to {self.site.database.switch()}, in a data centre, for what follows.)")
            self.site.recover()
        yield ("line", "line between the data centres cut",
               "The line between dc1 and dc2 is cut for 20 s; both still reach the arbiter.\n"
               "   The side with the primary goes on, with the arbiter's PostgreSQL for its standby; the other one gives no receipts.",
               self._cut, 20)  # fmt: skip

    def _ha(self, *words: str) -> None:
        done = self.site.ha(*words)
        if done.returncode != 0:
            raise AssertionError(f"gateway ha {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def _restart(self) -> None:
        for node in self.site.nodes.values():
            node.stop()
            node.start()
            while not self.site.is_well():
                time.sleep(0.2)

    def _cut(self) -> None:
        for one in SITES["dc1"]:
            for other in SITES["dc2"]:
                self.site.network.cut(one, other)

    def run(self) -> None:
        for number, (id, what, told, act, seconds) in enumerate(self.steps(), 1):
            say(f"\n{number}. {what[0].upper()}{what[1:]}\n   {told}")
            began = time.monotonic()
            act()
            acted = time.monotonic()
            time.sleep(seconds)
            self.senders.wait(8, 90)
            gap, refused = self.senders.gap(began), len(self.senders.refusals(began))
            receipts = self.senders.receipted(began)
            say(f"   Senders: {receipts} receipts in {time.monotonic() - began:.0f} s; longest time without one {gap:.1f} s "
                f"(limit {LIMITS[id]:.0f} s); {refused or 'no'} attempts failed and were sent again.")  # fmt: skip
            if act == self._restart:
                say(f"   Both restarts took {acted - began:.0f} s.")
            self.site.recover()
            say(f"   All is well again: {', '.join(self.site.active())} is active, the primary is on {self.site.database.primary}.")
            table.record(f"{number}", what, gap=gap, limit=LIMITS[id])

    def verdict(self) -> bool:
        """Whether every receipt was kept, and once."""
        self.senders.close()
        found = settle([self.senders.log], self.consumer)
        say(f"\n{len(found.receipted)} messages have receipts: {len(found.lost)} lost, {len(found.twice)} delivered twice "
            f"({found.redelivered} once more because the consumer's word was lost, and marked so).\n")  # fmt: skip
        table.record("all", "all of it", times=5, messages=len(found.receipted), lost=len(found.lost), twice=len(found.twice))
        late = [line for line in table.lines() if line.gap is not None and line.limit is not None and line.gap > line.limit]
        say(table.markdown())
        for line in late:
            say(f"\n{line.fault}: slower than its limit; is the machine busy?")
        return found.good and not late


def tools(site: Site) -> Path:
    """Commands to play with, as files in a folder."""
    folder = site.folder / "bin"
    folder.mkdir(exist_ok=True)
    spaces = site.hosts["partner"].namespace.removesuffix("partner")
    quoted = " ".join(f"{name}='{value}'" for name, value in site.a.environment.items())
    database = " ".join(f"{k}='{v}'" for k, v in site.database.environment.items() if k.startswith("PATRONI"))
    bin = Path(sys.executable).parent
    scripts = {
        "on": f'host=$1; shift; exec ip netns exec "{spaces}$host" "$@"',
        "gateway": f"cd {ROOT}; exec ip netns exec {spaces}gateway-a env {quoted} {bin}/gateway \"$@\" --config {site.a.config}",
        "patronictl": f"exec ip netns exec {spaces}db-1 env LANG=C.UTF-8 {database} {bin}/patronictl -c {ROOT}/deploy/patroni/patroni.yml \"$@\"",
        "cut": f'for host; do ip -n {spaces}switch link set "$host" nomaster; done',
        "heal": f'for host; do ip -n {spaces}switch link set "$host" master switch; done',
        "kill": f'for host; do ip netns pids "{spaces}$host" | xargs -r kill -9; done',
    }  # fmt: skip
    for name, text in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(stat.S_IRWXU)
    return folder


KEPT = """
It stays up, with messages going through it, until Ctrl-C. In another terminal, as root:

    cd {folder}
    ./gateway ha status                     ./gateway ha switchover --yes
    ./gateway ha drain gateway-b --yes      ./gateway ha undrain gateway-b --yes
    ./patronictl list                       ./patronictl switchover --force gateway
    ./kill gateway-a                        as a machine that loses power; what was killed is started again 20 s later
    ./cut db-1                              a machine whose network is gone (./cut gateway-a db-1: a data centre)
    ./heal db-1                             its network is back
    ./on partner curl -k https://{front}/   a command on a host: {hosts}

{addresses}
Senders are watched: every second and longer without a receipt is told here.
"""


def keep(rehearsal: Rehearsal) -> None:
    """Until Ctrl-C."""
    site = rehearsal.site
    addresses = "".join(f"    {host.name:<10} {host.address:<12} {told}\n" for host in site.hosts.values()
                        if (told := PLACES.get(host.name, "PostgreSQL under Patroni, etcd")))  # fmt: skip
    say(KEPT.format(folder=tools(site), front=site.hosts["front"].address, hosts=" ".join(site.hosts), addresses=addresses))
    seen, gone = time.monotonic(), {}
    while True:
        time.sleep(1)
        now = time.monotonic()
        if (gap := rehearsal.senders.gap(seen, now)) > 1:
            if rehearsal.senders.receipted(now - 1):
                say(f"{time.strftime('%H:%M:%S')}  {gap:.1f} s without a receipt")
                seen = now
        else:
            seen = now - 1
        for one in (*site.nodes.values(), *site.database.etcd.values(), *site.database.servers.values(), site.proxy):
            if one.process.poll() is None:
                gone.pop(one, None)
            elif now - gone.setdefault(one, now) > 20:
                say(f"{time.strftime('%H:%M:%S')}  started again: {getattr(one, 'name', 'HAProxy')}")
                getattr(one, "launch" if one in site.nodes.values() else "start", site.start_proxy)()
                del gone[one]


PLACES = {
    "gateway-a": "AS4 8443, plugin API 8081, operations 9090", "gateway-b": "the same", "front": "HAProxy: AS4 443, statistics 8404",
    "partner": "senders and consumer",
}  # fmt: skip


def rehearse(stay: bool) -> bool:
    """The whole of it. False: something was lost, doubled, or took longer than it may."""
    with network.scratch() as folder:
        say("A cluster of eight hosts on this machine, each in a network namespace of its own:\n"
            "   dc1: gateway-a, db-1 · dc2: gateway-b, db-2 · arbiter: db-3 · front (HAProxy) · partner (senders)\n"
            "etcd, PostgreSQL under Patroni, two gateways and HAProxy are started; this takes about half a minute …")  # fmt: skip
        site = Site(folder)
        try:
            began = time.monotonic()
            site.start()
            say(f"Up after {time.monotonic() - began:.0f} s. Some messages a second go through the load balancer from now on; whatever has no\n"
                "receipt is sent again, as any partner does. The times are those in which no sender got a receipt.")  # fmt: skip
            with Rehearsal(site) as rehearsal:
                rehearsal.run()
                if stay:
                    try:
                        keep(rehearsal)
                    except KeyboardInterrupt:
                        say("\nending …")
                good = rehearsal.verdict()
            return good
        finally:
            site.close()


__all__ = ["rehearse"]
