"""Real TLS."""

import asyncio

import pytest
import uvloop

from tests.unit.wire import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def pytest_asyncio_loop_factories(config, item):
    """Workers run on uvloop, everything else on asyncio's own loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
