"""R27: a pair goes from the release before to this one and back, node by node, while messages come and go.

The release before is the last one in the history of this checkout whose database is older. The new node migrates while
the old one works; both live together on the new schema; then the other one follows. Who sends notices nothing.
"""

import asyncio
import io
import subprocess
import tarfile
import threading
import time
from types import SimpleNamespace

import asyncpg
import pytest

from gateway.store.embedded import PrivatePostgres
from tests.failover.pair import ROOT, Checker
from tests.failover.proxy import Proxy
from tests.failover.table import record
from tests.failover.twins import Twins

MIGRATIONS = "gateway/store/postgres/migrations"
#: How long both releases live together.
TOGETHER = 10.0
#: A statement waits for a lock of the migration no longer than this [reliability R27], seconds.
LOCKED = 1.0

pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(900)]


def git(*arguments: str, text: bool = True):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=text)
    if done.returncode != 0:
        pytest.skip("no history to take the release before from (no git, no checkout, or a shallow one)")
    return done.stdout


@pytest.fixture
def before(folder):
    """The release before, unpacked."""
    changed = git("log", "-1", "--first-parent", "--format=%H", "--", MIGRATIONS).strip()
    older = git("rev-parse", f"{changed}^1").strip()
    files = {line.rsplit("/", 1)[-1] for line in git("ls-tree", "--name-only", older, f"{MIGRATIONS}/").splitlines()}
    assert files < {path.name for path in (ROOT / MIGRATIONS).glob("*.sql")}, "a migration was taken away or renamed"
    place = folder / "before"
    with tarfile.open(fileobj=io.BytesIO(git("archive", older, "gateway", text=False))) as archive:
        archive.extractall(place, filter="data")
    return place


class Locks:
    """The longest time for which a statement waited for a lock, looked at every 20 ms."""

    def __init__(self, dsn: str) -> None:
        self.longest, self._dsn, self._stop = 0.0, dsn, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._look()), daemon=True)
        self._thread.start()

    async def _look(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        while not self._stop.is_set():
            waited = await connection.fetchval(
                "SELECT max(extract(epoch FROM clock_timestamp() - waitstart)) FROM pg_locks "
                "WHERE NOT granted AND locktype IN ('relation', 'object')")  # fmt: skip
            self.longest = max(self.longest, float(waited or 0))
            await asyncio.sleep(0.02)
        await connection.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)


class Load:
    """Submissions one after the other, from a thread, until closed."""

    def __init__(self, checker: Checker) -> None:
        self.checker, self._stop, self.longest = checker, threading.Event(), 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self.checker.submit(b"<evidence/>" * 50)
                self.longest = max(self.longest, time.monotonic() - began)
                time.sleep(0.2)
        except BaseException as failure:
            self.failure = failure

    def close(self) -> None:
        self._stop.set()
        self._thread.join(70)
        assert self.failure is None, self.failure


def test_a_pair_is_upgraded_and_taken_back_node_by_node_under_load(folder, before, monkeypatch):
    postgres = PrivatePostgres(folder / "pg")
    dsn = postgres.start()
    monkeypatch.setenv("TEST_DSN", dsn)
    twins = proxy = locks = None
    try:
        twins = Twins(folder, dsn, more='[pair]\nroles = "active/active"\n')
        one, two = twins.nodes.values()

        def ready() -> int:
            """What a load balancer does: the first node that says that it is ready."""
            for _ in range(50):
                for node in (one, two):
                    if node.asked("/readyz", patience=0.5)[0] == 200:
                        return node.as4
                time.sleep(0.02)
            raise OSError("nobody is ready")

        proxy = Proxy(ready)
        agreement = twins.lv.folder / "pmodes" / "agreement.toml"
        agreement.write_text(agreement.read_text().replace(f":{one.as4}/as4", f":{proxy.port}/as4"))
        for node in (one, two):
            node.root = before
            node.start(**twins.environment)
        twins.lv.start()
        one.cli("backends", "list", "--json")
        into = Checker(twins.pair, folder / "into.jsonl").consume()
        out = Checker(SimpleNamespace(lv=one, ee=twins.lv), folder / "out.jsonl")
        out.receiver = "AP_LV_01"
        producers = {node: out.producer if node is one else node.client() for node in (one, two)}
        out.consume()
        loads = [Load(into), Load(out)]
        locks = Locks(dsn)
        applied = asyncio.run(_applied(dsn))
        for release in (ROOT, before):
            for node, other in ((two, one), (one, two)):
                out.producer = producers[other]
                time.sleep(1)
                assert node.stop() == 0
                node.root = release
                node.start(**twins.environment)
                until_ready(node)
                time.sleep(TOGETHER)
            if release is ROOT:
                assert asyncio.run(_applied(dsn)) > applied, "nothing was migrated"
        for load in loads:
            load.close()
        for checker in (into, out):
            checker.wait_acknowledged()
            checker.wait_delivered()
        time.sleep(4)
        for checker in (into, out):
            checker.close()
        attempts = {id: into.producer.message(id)["attempts"] for id in into.submitted}
        counts = [into.judge(), out.judge()]
        total = sum(one["submitted"] for one in counts)
        longest = max(load.longest for load in loads)
        record("R27", "rolling upgrade of a pair, and back", times=4, messages=total,
               lost=total - sum(one["delivered"] for one in counts), gap=longest)  # fmt: skip
        print(counts, f"longest submission {longest:.1f} s, longest wait for a lock {locks.longest:.2f} s")
        assert counts[0]["submitted"] > 50 and counts[1]["submitted"] > 50
        # Nobody was refused, and no message had to be sent twice.
        assert proxy.refused == [] and set(attempts.values()) == {1}
        assert locks.longest < LOCKED
    finally:
        if locks is not None:
            locks.close()
        if twins is not None:
            twins.stop()
        if proxy is not None:
            proxy.close()
        postgres.stop()


def until_ready(node) -> None:
    end = time.monotonic() + 30
    while node.asked("/readyz")[0] != 200:
        assert time.monotonic() < end, node.asked("/readyz?verbose")
        time.sleep(0.1)


async def _applied(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("SELECT count(*) FROM gateway.migration")
    finally:
        await connection.close()
