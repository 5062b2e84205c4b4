"""One real gateway for all attacks: what the first leaves behind, the next would show."""

import shutil
import tempfile
from pathlib import Path

import pytest

from gateway import app
from gateway.keys.keyring import Keyring
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


_read: list[Keyring] = []


@pytest.fixture
async def lv(tmp_path, monkeypatch):
    """AP_LV_01 in this process, with its peer AP_EE_01. Its keys are the same in every test, and read once:
    OpenSSL takes 80 ms to find out that they are keys."""
    load = app.load_keyring

    def once(config):
        if not _read:
            _read.append(load(config))
        return _read[0]

    monkeypatch.setattr(app, "load_keyring", once)
    async with world(tmp_path / "lv") as found:
        yield found
