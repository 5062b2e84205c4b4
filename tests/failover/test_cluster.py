"""A whole cluster, and its primary killed under load: what `make test` can bear. The rest is in test_cluster_*."""

import pytest

from tests.failover.cluster.case import case, needed, running

pytestmark = [pytest.mark.failover, pytest.mark.timeout(240), needed()]


def test_the_primary_is_killed_and_senders_wait_for_seconds():
    with running() as site, case(site, "R06", "primary killed (kill -9)", limit=10) as run:
        old = site.database.primary
        run.strike()
        site.database.servers[old].strike()
        run.watch(5)
        assert site.database.primary != old
