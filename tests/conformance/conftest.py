"""Fixtures of the conformance suite, and the marker that ties a test to its numbered assertion."""

import pytest

from tests.world import world


def pytest_configure(config):
    config.addinivalue_line("markers", "assertion(number, ...): the numbered assertions of docs/conformance.md")


@pytest.fixture
async def lv(tmp_path):
    """AP_LV_01 under OOTS 2.0 (RSA), with its peer AP_EE_01."""
    async with world(tmp_path / "lv") as found:
        yield found
