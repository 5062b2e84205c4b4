"""With a DSN the gateway uses that server: two nodes on one database, and one of them dies."""

import time

import pytest

from gateway.store.embedded import PrivatePostgres
from tests.failover.pair import Checker
from tests.failover.twins import Twins


@pytest.fixture
def server(folder):
    postgres = PrivatePostgres(folder / "pg")
    yield postgres.start()
    postgres.stop()


@pytest.mark.failover
@pytest.mark.slow
def test_a_second_node_goes_on_where_the_first_died(folder, server, monkeypatch):
    """Both nodes of a pair may claim; what one had begun, the other finishes."""
    monkeypatch.setenv("TEST_DSN", server)
    twins = Twins(folder, server)
    try:
        twins.start()
        twins.lv.start()
        checker = Checker(twins.pair, folder / "checker.jsonl")
        for _ in range(5):
            checker.submit(b"<evidence/>")
        checker.wait_acknowledged()
        # The first node is gone with everything it had taken; its twin has the same messages.
        twins.one.kill()
        client = twins.two.client()
        deliveries = client.claim(limit=50, lease=30)
        assert {d["message"]["message_id"] for d in deliveries} == set(checker.submitted)
        for delivery in deliveries:
            assert client.payload(delivery["message"]["id"], delivery["message"]["parts"][0]["cid"]) == b"<evidence/>"
            client.ack(delivery)
        time.sleep(0.1)
        assert client.claim(limit=50) == []
    finally:
        twins.stop()
