"""Many messages at once between the gateway and phase4, both ways at the same time, every payload at its place."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop.phase4_sites import EDDSA, RSA2048, Site
from tests.interop.phase4_world import Payload, World

pytestmark = pytest.mark.peer
MESSAGES = 500 if os.environ.get("GATEWAY_INTEROP") == "full" else 100
IN_FLIGHT = 16


@pytest.fixture(autouse=True)
def counted(request, site):
    for direction in ("ours to phase4", "phase4 to ours"):
        request.node.add_marker(pytest.mark.proves(site.title, direction))
    request.node.user_properties.append(("cases", MESSAGES))


@pytest.mark.parametrize("site", [RSA2048, EDDSA], ids=lambda site: site.name)
def test_many_messages_at_once_in_both_directions(world: World, site: Site):
    def payloads(way: str, n: int) -> tuple[Payload, ...]:
        return (Payload(f"<{way} n='{n}'/>".encode()), Payload(f"{way} {n} ".encode() * (n + 1), "application/pdf", compress=n % 2 == 0))

    theirs = [world.message(site, payloads("in", n)) for n in range(MESSAGES)]
    results: list[dict] = []
    receiving = threading.Thread(target=lambda: results.extend(world.peer.send(site.name, theirs, concurrency=IN_FLIGHT)))
    receiving.start()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        ours = list(pool.map(lambda n: world.submit(site, payloads("out", n)), range(MESSAGES)))
    receiving.join(300)
    assert len(results) == MESSAGES
    for n, (message, result) in enumerate(zip(theirs, results, strict=True)):
        world.check_received(site, message, payloads("in", n), result)
        assert len(world.gateway.taken[message["messageId"]]) == 1
    for n, message_id in enumerate(ours):
        world.check_sent(site, message_id, payloads("out", n))
        assert len(world.peer.of(message_id)) == 1
