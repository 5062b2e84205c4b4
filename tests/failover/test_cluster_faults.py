"""A cluster, and one fault after another while messages go through it; limits as in docs/operators/ha.md."""

import os
import signal
import time

import pytest

from tests.failover.cluster.case import case, needed, running
from tests.failover.cluster.load import Senders
from tests.failover.cluster.site import SITES

FULL = os.environ.get("GATEWAY_FAILOVER") == "full"
pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(600), needed()]
ROLES = pytest.mark.parametrize(("roles", "limit"), [("active/active", 2.0), ("active/passive", 5.0)])


@pytest.fixture(scope="module")
def cluster():
    with running() as site:
        yield site


@pytest.fixture
def site(cluster):
    cluster.recover()
    cluster.set_roles("active/passive")
    return cluster


# -- a gateway node ---------------------------------------------------------------


@ROLES
def test_a_node_is_killed(site, roles, limit):
    site.set_roles(roles)
    with case(site, f"R02 {roles}", f"gateway node killed (kill -9), {roles}", limit=limit) as run:
        for _ in range(3 if FULL else 1):
            site.recover()
            [victim, *_] = site.active()
            run.strike()
            site.nodes[victim].die()
            run.watch(7)
        run.times = 3 if FULL else 1


@ROLES
def test_the_host_of_a_node_is_lost(site, roles, limit):
    """Nobody closes a connection: what was on its way to it is noticed by timeouts alone."""
    site.set_roles(roles)
    with case(site, f"R02 host {roles}", f"gateway host cut off, {roles}", limit=limit) as run:
        [victim, *_] = site.active()
        run.strike()
        site.network.lose(victim)
        run.watch(12)
        # Who waited for its answer is told so by the load balancer, before its own patience ends.
        waited = [line["took"] for line in run.senders.refusals(run.struck) if line["took"] > 2]
        assert all(took < 8 for took in waited), waited
        # It is not ready, either, as it sees nobody.
        assert site.nodes[victim].asked("/readyz")[0] == 503


def test_a_node_is_stopped_for_half_a_minute_and_goes_on(site):
    with case(site, "R03", "active node stopped (SIGSTOP) for 30 s", limit=8, count=120, pace=12) as run:
        [victim] = site.active()
        run.strike()
        site.nodes[victim].signal(signal.SIGSTOP)
        run.watch(30)
        assert site.active() == [site.other(victim)]
        site.nodes[victim].signal(signal.SIGCONT)
        time.sleep(4)
        assert site.active() == [site.other(victim)]  # it does not believe what it believed before


# -- lines ------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["both ways", "to the database", "from the database"])
def test_a_node_loses_the_database(site, way):
    with case(site, f"R04 {way}", f"active node and database cut, {way}", limit=6) as run:
        [victim] = site.active()
        run.strike()
        for host in site.database.servers:
            pair = (host, victim) if way == "from the database" else (victim, host)
            site.network.cut(*pair, both_ways=way == "both ways")
        began = time.monotonic()
        while site.nodes[victim].asked("/readyz")[0] == 200:
            assert time.monotonic() - began < 4
            time.sleep(0.05)
        print(f"cut off from the database, {way}: not ready after {time.monotonic() - began:.1f} s")
        run.watch(10)
        assert site.active() == [site.other(victim)]


def test_both_nodes_lose_the_database(site):
    with case(site, "R04 both", "both nodes and database cut for 10 s") as run:
        for node in site.nodes:
            for host in site.database.servers:
                site.network.cut(node, host)
        run.strike()
        time.sleep(10)
        assert site.active() == []
        # What was on its way to be stored is answered a moment later.
        assert run.senders.receipted(run.struck + 1) == 0
        site.network.heal()
        healed = time.monotonic()
        run.senders.wait(1)
        assert time.monotonic() - healed < 10
        run.watch(12)


def test_the_load_balancer_loses_a_node(site):
    site.set_roles("active/active")
    with case(site, "R05", "load balancer and one of two active nodes cut", limit=3) as run:
        run.strike()
        site.network.cut("front", "gateway-a")
        run.watch(8)
    with case(site, "R05 flap", "line of load balancer and node flaps", count=16) as run:
        run.times = 100 if FULL else 15
        run.strike()
        for _ in range(run.times):
            site.network.cut("front", "gateway-a")
            time.sleep(0.3)
            site.network.heal()
            time.sleep(0.3)
        run.watch(1)


def test_an_active_node_the_load_balancer_cannot_reach_is_replaced_by_hand(site):
    """It works and keeps the lease; nobody but an operator sees that senders do not come through."""
    with case(site, "R05 hand", "load balancer and active node cut, then ha switchover") as run:
        [victim] = site.active()
        site.network.cut("front", victim)
        time.sleep(6)
        assert site.active() == [victim]
        run.strike()
        done = site.ha("switchover", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        run.watch(1)
        assert run.gap < 10


# -- the database -----------------------------------------------------------------


def test_the_host_of_the_primary_is_lost(site):
    with case(site, "R07", "host of the primary cut off", limit=35) as run:
        victim = site.database.primary
        run.strike()
        site.network.lose(victim)
        run.watch(15, patience=60)
        assert site.database.servers[victim].asked("/primary")[0] != 200, "two primaries"


def test_a_server_that_cannot_be_rewound_is_copied_anew(site):
    """Its log does not reach back to where the two parted; nobody has to come and mend it."""
    with case(site, "R07 copy", "host of the primary cut off, comes back without its log", limit=35) as run:
        victim = site.database.servers[site.database.primary]
        victim.sql("SELECT pg_switch_wal()")  # what they have in common last is in a file of its own
        run.senders.wait(20)
        run.strike()
        site.network.lose(victim.host.name)
        run.watch(15, patience=60)
        assert victim.asked("/primary")[0] != 200
        segments = sorted(path for path in (victim.data / "pg_wal").iterdir() if len(path.name) == 24)
        for path in segments[:-1]:
            path.unlink()
        before = len(victim.said(None))
    said = [line for line in victim.said(None)[before:].splitlines() if "INFO: no action" not in line]
    assert [line for line in said if "remove_data_directory_on_rewind_failure is set. removing" in line], (segments, said)


def test_a_primary_that_was_replaced_and_does_not_know_it(site):
    """Its Patroni hangs and no watchdog stops it: for a while two servers take writes, and one of them confirms none."""
    with case(site, "R10", "Patroni of the primary stopped (SIGSTOP): two primaries", limit=45) as run:
        old = site.database.primary
        server = site.database.servers[old]
        run.strike()
        server.signal(signal.SIGSTOP)
        run.watch(30, patience=60)
        assert site.database.primary != old
        server.sql("SELECT 1 / (NOT pg_is_in_recovery())::int")  # it still thinks that it is one


def test_the_synchronous_standby_is_killed_and_its_host_lost(site):
    with case(site, "R08", "synchronous standby killed (kill -9)", limit=10) as run:
        run.strike()
        site.database.servers[site.database.synchronous].strike()
        run.watch(10)
    with case(site, "R08 host", "host of the synchronous standby cut off", limit=20) as run:
        run.strike()
        site.network.lose(site.database.synchronous)
        run.watch(15)


def test_etcd(site):
    with case(site, "R11 one", "one etcd of three killed", limit=2) as run:
        run.strike()
        site.database.etcd["db-1"].kill()
        run.watch(15)
    with case(site, "R11 two", "two etcd of three killed for 40 s") as run:
        run.strike()
        for host in ("db-1", "db-2"):
            site.database.etcd[host].kill()
        time.sleep(40)
        assert site.active() == []
        assert run.senders.receipted(run.struck + 30) == 0, "the primary has not stepped down"
        site.database.revive()
        run.watch(41, patience=60)


def with_the_primary(site) -> str:
    """The data centre where the primary is; it is moved to one, if it is at the arbiter."""
    while site.database.primary == "db-3":
        site.database.switch()
        site.database.wait_well()
    return next(name for name, hosts in SITES.items() if site.database.primary in hosts)


def test_a_data_centre_is_lost(site):
    """With the active node, the primary and an etcd in it."""
    here = with_the_primary(site)
    if site.active() != [SITES[here][0]]:
        assert site.ha("switchover", SITES[here][0], "--yes").returncode == 0
        site.recover()
    with case(site, "R12", "data centre with active node and primary cut off", limit=60) as run:
        run.strike()
        site.network.lose(*SITES[here])
        run.watch(20, patience=90)


def test_the_line_between_the_data_centres_is_cut(site):
    """The arbiter sees both. A sender stands at the node that does not see the primary."""
    here = with_the_primary(site)
    site.set_roles("active/active")
    there = "dc2" if here == "dc1" else "dc1"
    minority = SITES[there][0]
    with case(site, "R13", "line between the data centres cut for 30 s", limit=15) as run:
        for one in SITES[here]:
            for other in SITES[there]:
                site.network.cut(one, other)
        run.strike()
        with Senders(site, run.folder / "senders-minority.jsonl", count=2, pace=4, host=minority, patience=5) as stray:
            time.sleep(30)
            assert stray.receipted(run.struck + 3) == 0, "a receipt on the side that does not see the primary"
            assert {line["status"] for line in stray.refusals(run.struck + 8)} == {503}
            run.watch(30)
            site.network.heal()
            stray.wait(5)
        run.others.append(stray.log)
        assert site.database.primary in SITES[here]


@pytest.mark.parametrize("seconds", [60, *([600] if FULL else [])])
@pytest.mark.timeout(1200)
def test_the_database_is_away(site, seconds):
    [active] = site.active()
    node = site.nodes[active]

    def held() -> tuple[int, int, int]:
        """Memory in MiB, file descriptors and octets of unlinked spool of its workers."""
        memory = files = spooled = 0
        for pid in node.workers():
            with open(f"/proc/{pid}/statm") as statm:
                memory += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                files += 1
                try:
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}").endswith("(deleted)"):
                        spooled += os.stat(f"/proc/{pid}/fd/{descriptor}").st_size
                except OSError:
                    continue
        return memory, files, spooled

    with case(site, f"R14 {seconds}", f"database away for {seconds} s") as run:
        before = held()
        with Senders(site, run.folder / "senders-straight.jsonl", count=8, pace=16, host=active, patience=20) as straight:
            straight.wait(10)
            run.strike()
            for server in site.database.servers.values():
                server.kill()
                server.strike(signal.SIGQUIT)
            seen = []
            while time.monotonic() < run.struck + seconds:
                time.sleep(seconds / 12)
                seen.append(held())
            # Those that were in their commit are answered after five seconds; who comes later is told at once.
            refused = straight.refusals(run.struck + 8)
            assert len(refused) > seconds and {line["status"] for line in refused} == {503}
            assert {line["again"] for line in refused} == {"5"}
            slowest = sorted(line["took"] for line in refused)
            assert slowest[-1] < 1, slowest[-5:]
            print(f"database away {seconds} s: refused within {slowest[-1]:.2f} s; MiB, files, spool before {before}, then {seen}")
            # A process that has been idle grows when it gets busy, and then less and less; what piles up grows evenly.
            half, late = seen[len(seen) // 2 - 1], seen[-1]
            assert late[0] - half[0] < (half[0] - before[0]) / 2 + 8 and late[0] < before[0] + 128, "memory"
            assert late[1] < before[1] + 60 and late[2] < 1 << 20, "sockets or spool"
            site.database.revive()
            site.database.wait_well()
            back = time.monotonic()
            straight.wait(1)
            run.senders.wait(1)
            assert time.monotonic() - back < 10
            run.watch(seconds)
            straight.wait(20)
        run.others.append(straight.log)


# -- what is planned --------------------------------------------------------------


def test_switchover_of_the_gateways_is_not_noticed(site):
    with case(site, "ha switchover", "gateway ha switchover", limit=2) as run:
        run.times = 10 if FULL else 2
        for _ in range(run.times):
            run.strike()
            done = site.ha("switchover", "--yes")
            assert done.returncode == 0, done.stdout + done.stderr
            run.watch(3)
            assert run.senders.refusals(run.struck) == []


@ROLES
def test_a_rolling_restart_is_not_noticed(site, roles, limit):
    site.set_roles(roles)
    with case(site, f"R27 {roles}", f"rolling restart with drain, {roles}", limit=2) as run:
        run.times = 6 if FULL else 2
        for number in range(run.times):
            node = site.nodes[("gateway-a", "gateway-b")[number % 2]]
            run.strike()
            assert node.stop() == 0
            node.start()
            while not site.is_well():
                time.sleep(0.1)
            run.watch(1)
            assert run.senders.refusals(run.struck) == []


def test_switchover_of_the_database(site):
    with case(site, "patronictl", "patronictl switchover", limit=8) as run:
        run.times = 5 if FULL else 1
        for _ in range(run.times):
            run.strike()
            site.database.switch()
            run.watch(5)
            site.recover()
