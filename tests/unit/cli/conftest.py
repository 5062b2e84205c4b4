"""Real sockets, real TLS."""

import asyncio

import pytest

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
