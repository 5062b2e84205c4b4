"""AP_LV_01 in this process, with its peer; its keys are read once, for OpenSSL takes its time to find out that they are keys."""

import pytest

from gateway import app
from gateway.keys.keyring import Keyring
from tests.world import world

_read: list[Keyring] = []


@pytest.fixture(name="lv")
async def inside(tmp_path, monkeypatch):
    load = app.load_keyring

    def once(config):
        if not _read:
            _read.append(load(config))
        return _read[0]

    monkeypatch.setattr(app, "load_keyring", once)
    async with world(tmp_path / "lv") as found:
        yield found
