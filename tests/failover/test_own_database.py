"""With a DSN the gateway uses that server: two nodes on one database, and one of them dies."""

import os
import time

import pytest

from gateway.store.embedded import PrivatePostgres
from tests.failover.pair import Checker, Node, Pair, free_ports


@pytest.fixture
def server(folder):
    postgres = PrivatePostgres(folder / "pg")
    yield postgres.start()
    postgres.stop()


def test_a_second_node_goes_on_where_the_first_died(folder, server):
    """Both nodes of a pair may claim; what one had begun, the other finishes."""
    pair = Pair(folder)
    key = folder / "kek"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    shared = f'[store]\ndsn = "env:TEST_DSN"\n[keys]\nkey_encryption_key = "file:{key}"\n'
    text = pair.ee.config.read_text()
    twin_ports = free_ports(3)
    twin = Node(folder / "ee2", "ee2", twin_ports)
    (folder / "ee2").mkdir()
    for name in ("key.pem", "pmodes"):
        (folder / "ee2" / name).symlink_to(folder / "ee" / name)
    pair.ee.config.write_text(shared + text)
    for old, new in zip((pair.ee.as4, pair.ee.plugin, pair.ee.operations), twin_ports, strict=True):
        text = text.replace(f":{old}\"", f":{new}\"")
    twin.config.write_text(shared + text)
    try:
        os.environ["TEST_DSN"] = server
        pair.ee.start()
        twin.start()
        pair.lv.start()
        checker = Checker(pair, folder / "checker.jsonl")
        for _ in range(5):
            checker.submit(b"<evidence/>")
        checker.wait_acknowledged()
        # The first node is gone with everything it had taken; its twin has the same messages.
        pair.ee.kill()
        client = twin.client()
        deliveries = client.claim(limit=50, lease=30)
        assert {d["message"]["message_id"] for d in deliveries} == set(checker.submitted)
        for delivery in deliveries:
            assert client.payload(delivery["message"]["id"], delivery["message"]["parts"][0]["cid"]) == b"<evidence/>"
            client.ack(delivery)
        time.sleep(0.1)
        assert client.claim(limit=50) == []
    finally:
        os.environ.pop("TEST_DSN", None)
        twin.stop()
        pair.stop()
