"""Reading agreement files: one `*.toml`, or a folder of them, or a bundle that was a folder once.

Several files make one set: several partners' files, several parties of our own. A party
may stand in more than one file if it says the same everywhere.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.as4.pmode import PModeSet
from gateway.config.places import Places
from gateway.config.strict import build, parse_toml
from gateway.errors import ConfigError
from gateway.pmodes import network
from gateway.pmodes.agreements import Document, File
from gateway.pmodes.bundle import Files, Folder, ReadTruststore
from gateway.pmodes.expand import expand


def load(
    path: Path | str, *, certs: Path | None = None, read_truststore: ReadTruststore | None = None, revision: int = 0
) -> PModeSet:
    """The agreements in a file or folder. `certs` is where certificate files are looked for, too.

    Certificates are read but not judged; that is for `lint` and for every message. Raises
    `ConfigError` that names file, key and what would be right.
    """
    return expanded(Folder(path, certs, read_truststore), revision=revision)


def expanded(files: Files, *, revision: int = 0) -> PModeSet:
    """The agreements of a folder or bundle. Raises `ConfigError`."""
    try:
        return expand([read(files, name) for name in files.agreements], revision=revision)
    except ConfigError as error:
        raise locate(error, files) from None


def read(files: Files, name: str) -> Document:
    """One agreement file. Raises `ConfigError`."""
    path = files.path(name)
    if name.lower().endswith(".xml"):
        return network.single(files.agreement(name), path, files)
    return document(parse_toml(files.agreement(name), str(path)), path, files)


def document(raw: Mapping[str, Any], path: Path, files: Files) -> Document:
    """The tables of an agreement file as a document; a network's with what it lies over. Raises `ConfigError`."""
    if network.is_network(raw):
        return network.resolve(raw, path, files)
    return Document(path, build(raw, File, file=str(path), base=files.base), files)


def locate(error: ConfigError, files: Files) -> ConfigError:
    """The same error with the line and value of its key, where it is about an agreement file that can be read."""
    for name in files.agreements:
        if error.file == str(files.path(name)) and not error.line:
            with contextlib.suppress(ConfigError):
                Places(files.agreement(name).decode(errors="replace")).locate(error)
    return error
