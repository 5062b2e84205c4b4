"""Real sockets, real TLS."""

import asyncio

import pytest
import uvloop

from tests.unit.wire import Pki, Raw


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def connect():
    """`await connect(port, tls)` -> Raw; closed at the end."""
    made = []

    async def open_(port, tls=None, **options):
        raw = Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, **options))
        made.append(raw)
        return raw

    yield open_
    for raw in made:
        raw.writer.close()


def pytest_asyncio_loop_factories(config, item):
    """Workers run on uvloop, everything else on asyncio's own loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
