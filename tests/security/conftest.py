"""One real gateway for all attacks: what the first leaves behind, the next would show."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.security.site import Site
from tests.world import world


@pytest.fixture(scope="session")
def site():
    # Parents that everybody may pass: as root, the private PostgreSQL runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)
    found = None
    try:
        found = Site(folder)
        yield found
    finally:
        if found is not None:
            found.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def lv(tmp_path):
    """AP_LV_01 in this process, with its peer AP_EE_01."""
    async with world(tmp_path / "lv") as found:
        yield found
