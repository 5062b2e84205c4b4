"""What all runs of a process share: files, keys and agreements. Reading them takes most of a node's start."""

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from gateway import app
from gateway.as4.pmode import PModeSet
from gateway.as4.units import PartyId
from gateway.config import Config
from gateway.keys.keyring import Keyring
from gateway.msh import revisions
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.toml import expanded
from tests.peer import Authority, Keys
from tests.world import to_pem, write_site

FI = PartyId("AP_FI_01", "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI")
FINLAND = """
[parties.AP_FI_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"
endpoint = "http://127.0.0.1:9/fi"
certificate = "fi.pem"
"""
RETRY = 'retry = { first = "1s", factor = 1.5, max = "20s", count = 100, window = "90m" }\n'


class Ground(NamedTuple):
    config: Config
    lv: Keys
    ee: Keys
    fi: Keys
    keyring: Keyring
    bundle: Bundle


@functools.cache
def ground() -> Ground:
    folder = Path(tempfile.mkdtemp(prefix="gateway-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = Authority()
    lv, ee, fi = (Keys.make(name, "rsa", authority) for name in ("AP_LV_01", "AP_EE_01", "AP_FI_01"))
    write_site(folder, lv, ee, endpoint="http://127.0.0.1:9/ee", more=FINLAND)
    agreement = folder / "pmodes" / "agreement.toml"
    agreement.write_text(agreement.read_text().replace("allow_http = true\n", "allow_http = true\n" + RETRY, 1))
    (folder / "pmodes" / "fi.pem").write_bytes(to_pem(fi.signing))
    (folder / "kek").write_bytes(os.urandom(32))
    (folder / "kek").chmod(0o600)
    file = folder / "gateway.toml"
    file.write_text(f'[keys]\nkey_encryption_key = "file:{folder}/kek"\n' + file.read_text())
    # What was delivered is looked at again at the end. In this weather one message may be there at every death.
    environ = {"GATEWAY__RETENTION__DELIVERED_PAYLOADS": "1d", "GATEWAY__WORKERS__DEATHS": "1000"}
    config = Config.load(file, environ=environ)
    return Ground(config, lv, ee, fi, app.load_keyring(config), app.load_bundle(config))


@functools.cache
def _expanded(content: bytes, revision: int) -> PModeSet:
    return expanded(Bundle.decode(content, base=app.base_of(ground().config)), revision=revision)


@contextmanager
def standing_on(site: Ground) -> Iterator[Config]:
    """The configuration of one run: nodes find everything read, and a data folder that nobody has used."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=site.config.data.folder.parent))
    before = app.load_keyring, app.load_bundle, revisions.expanded
    app.load_keyring, app.load_bundle = (lambda _: site.keyring), (lambda _: site.bundle)
    revisions.expanded = lambda bundle, *, revision: _expanded(bundle.encode(), revision)
    try:
        yield replace(site.config, data=replace(site.config.data, folder=folder))
    finally:
        app.load_keyring, app.load_bundle, revisions.expanded = before
        shutil.rmtree(folder, ignore_errors=True)
