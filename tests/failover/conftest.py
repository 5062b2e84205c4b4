"""What the tests of this room share: a folder that everybody may pass (as root, the private PostgreSQL runs as another
user), the pair, the table."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.failover import table
from tests.failover.pair import Pair


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def pair(folder):
    """Two gateways, LV and EE; not started."""
    found = Pair(folder)
    yield found
    found.stop()


def pytest_terminal_summary(terminalreporter):
    """The table; and docs/failover.md, where `GATEWAY_FAILOVER_PAGE` says so."""
    if not table.lines():
        return
    terminalreporter.section("failure suite")
    terminalreporter.write_line(table.markdown())
    if path := os.environ.get("GATEWAY_FAILOVER_PAGE"):
        said = subprocess.run(["git", "describe", "--always"], capture_output=True, text=True)
        page = Path(path)
        page.write_text(table.page(said.stdout.strip() or "?", page.read_text() if page.exists() else ""))
