"""One fault under load: what senders saw of it goes into the table, and then it is judged."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failover import table
from tests.failover.cluster import network, outbound, servers
from tests.failover.cluster.load import Consumer, Log, Senders, Verdict, settle
from tests.failover.cluster.site import Site


def needed() -> pytest.MarkDecorator:
    """Skips where there can be no cluster, and says why."""
    why = network.missing() or servers.missing()
    return pytest.mark.skipif(why is not None, reason=f"no cluster: {why}")


@contextlib.contextmanager
def running(roles: str = "active/passive", **environment: str) -> Iterator[Site]:
    """A site that is up, its nodes with that environment; what its programs said is told when the tests with it fail to bring it up."""
    with network.scratch() as folder:
        site = Site(folder, roles=roles, environment=environment)
        try:
            yield site.start()
        finally:
            site.close()


@dataclasses.dataclass
class Case:
    """`struck` is when the fault came; `gap` what senders saw of it, in seconds."""

    site: Site
    senders: Senders
    consumer: Consumer
    folder: Path
    struck: float = 0.0
    gap: float | None = None
    times: int = 1
    others: list[Log] = dataclasses.field(default_factory=list)

    def strike(self) -> float:
        """The fault comes now."""
        self.struck = time.monotonic()
        return self.struck

    def watch(self, seconds: float, messages: int = 20, patience: float = 60) -> float:
        """The gap, seen for so long at least, and until messages go through again."""
        time.sleep(max(0.0, self.struck + seconds - time.monotonic()))
        self.senders.wait(messages, patience)
        self.gap = max(self.gap or 0.0, self.senders.gap(self.struck))
        return self.gap


@contextlib.contextmanager
def case(site: Site, id: str, fault: str, *, limit: float | None = None, count: int = 60, pace: float = 20) -> Iterator[Case]:
    """Messages go through the load balancer, and others are submitted and sent, while the block does its harm. Afterwards all is mended, and the logs are
    held against each other: into the table first, and then nothing lost, doubled, changed or strange, and the gap at
    most `limit` seconds. So many senders that some are left while others wait for a node that does not answer."""
    folder = Path(tempfile.mkdtemp(dir=site.folder))
    earlier = {kind: [Log(path) for path in sorted(site.folder.glob(f"*/{kind}*.jsonl"))] for kind in ("senders", "producers")}
    with (
        Consumer(site, folder / "consumer.jsonl") as consumer,
        outbound.Receiver(site, folder / "receiver.jsonl") as receiver,
        outbound.Producers(site, folder / "producers.jsonl", consumer.doors) as producers,
        Senders(site, folder / "senders.jsonl", count=count, pace=pace) as senders,
    ):
        found = Case(site, senders, consumer, folder)
        senders.wait(40)
        try:
            yield found
        finally:
            site.recover()
        senders.wait(20)
        senders.close()
        producers.close()
        verdict = settle([senders.log, *found.others], consumer, before=earlier["senders"])
        sent = outbound.settle(producers, receiver, before=earlier["producers"])
        print(f"{len(sent.receipted)} of the messages were submitted and sent, {sent.redelivered} of them more than once")
        verdict += sent
    tell(id, fault, verdict, times=found.times, gap=found.gap, limit=limit)
    judged(verdict)
    assert limit is None or found.gap <= limit, f"{found.gap:.1f} s without a receipt: {senders.refusals(found.struck)[:20]}"


def tell(id: str, fault: str, verdict: Verdict, **facts) -> None:
    """A line of the table, also printed now."""
    table.record(id, fault, messages=len(verdict.receipted), lost=len(verdict.lost), twice=len(verdict.twice), **facts)
    print(f"{id} {fault}: {facts}, {len(verdict.receipted)} receipts, {len(verdict.lost)} lost, {len(verdict.twice)} twice, "
          f"{verdict.redelivered} redelivered and marked")  # fmt: skip


def judged(verdict: Verdict) -> None:
    assert verdict.receipted, "no message got through"
    assert not verdict.lost, f"receipted and never delivered: {verdict.lost}"
    assert not verdict.twice, f"delivered twice and not marked, or after it was acknowledged: {verdict.twice}"
    assert not verdict.changed, f"not what was sent: {verdict.changed}"
    assert not verdict.strange, f"never sent: {verdict.strange}"
