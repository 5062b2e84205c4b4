"""The files that agreements are made of: on disk as a `Folder`, anywhere else as a `Bundle`.

Agreement files name further files: certificates, CAs, a truststore, a Domibus P-Mode. All of them
are read through `read`, whose name for a file is the one the agreement writes. A folder
remembers what was read; that, and nothing else, makes the bundle which a revision keeps in
the database. The names say nothing about places, so two nodes whose files lie in
different folders make the same bundle, octet for octet.

What an agreement can reach is bounded: files in its own folder (and below) or in the certs
folder, symbolic links followed first [threats M03]. Private keys are refused: a revision is
copied to every node and shown to people.
"""

import base64
import contextlib
import hashlib
import json
import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, Protocol, Self

import msgspec
from msgspec import Struct

from gateway.config import Secret
from gateway.errors import CertificateRefused, ConfigError

MAX_AGREEMENTS = 1000
#: One agreement file; as large as any configuration file may be.
MAX_AGREEMENT = 4 << 20
#: One file that an agreement names, unless the reader says less.
MAX_FILE = 4 << 20
#: Everything together: what a revision may hold.
MAX_BUNDLE = 32 << 20
MAX_FILES = 5000
MAX_NAME = 255

#: `gateway.keys.formats.truststore`, handed down: this room does not know that one.
ReadTruststore = Callable[[bytes, bytes | None], list[tuple[str, bytes]]]


class Files(Protocol):
    """Where agreements and the files they name come from."""

    #: Names of the agreement files, in order.
    agreements: tuple[str, ...]
    #: Folder that references to secrets (`file:…`) start from.
    base: Path

    def path(self, name: str) -> Path:
        """How a file is called in messages to people."""
        ...

    def read(self, name: str, *, document: str, key: str, most: int = MAX_FILE) -> bytes:
        """The octets of the file that `document` names at `key`. Raises `ConfigError` that says both."""
        ...

    def agreement(self, name: str) -> bytes:
        """The octets of one agreement file. Raises `ConfigError`."""
        ...

    def truststore(self, name: str, password: Secret | None, *, document: str, key: str) -> list[tuple[str, bytes]]:
        """The certificates of the truststore that `document` names at `key`: (alias, DER). Raises `ConfigError`."""
        ...


class Bundle(Struct, frozen=True):
    """Agreement files with every file they name, immutable. A revision is one of these.

    `base` and `label` are of the reader and no part of the identity.
    """

    agreements: tuple[str, ...]
    files: Mapping[str, bytes]
    base: Path = Path()
    label: str = ""

    @classmethod
    def collect(
        cls, path: Path | str, certs: Path | None = None, read_truststore: ReadTruststore | None = None
    ) -> Self:
        """The bundle of a folder or file on disk: everything its agreements name, and nothing else.

        Raises `ConfigError` for what stops loading: half a bundle is none.
        """
        from gateway.pmodes.toml import expanded  # it reads through this module

        folder = Folder(path, certs, read_truststore)
        expanded(folder)
        return folder.bundle()

    @classmethod
    def decode(cls, octets: bytes, *, base: Path = Path(), label: str = "") -> Self:
        """A bundle from its canonical form. Raises `ConfigError`."""
        try:
            form = msgspec.msgpack.decode(octets, type=_Canonical)
        except msgspec.DecodeError as error:
            raise ConfigError(f"is no bundle of agreements: {error}", file=label) from None
        bundle = cls(form.agreements, MappingProxyType(dict(form.files)), base, label)
        if form.version != 1 or not set(bundle.agreements) <= set(bundle.files) or bundle.encode() != octets:
            raise ConfigError("is no bundle of agreements in its one form", file=label)
        return bundle

    def encode(self) -> bytes:
        """The canonical form: equal bundles have equal octets."""
        return msgspec.msgpack.encode(_Canonical(1, self.agreements, tuple(sorted(self.files.items()))))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()

    def changed(self, files: Mapping[str, bytes]) -> "Bundle":
        """With these files new or in place of the old, and without those that nothing names any more: what a
        folder would make of them. Raises `ConfigError` when it cannot be loaded."""
        from gateway.pmodes.toml import expanded  # it reads through this module

        reading = _Reading(Bundle(self.agreements, MappingProxyType({**self.files, **files}), self.base, self.label))
        expanded(reading)
        return reading.bundle()

    def path(self, name: str) -> Path:
        return Path(self.label, name) if self.label else Path(name)

    def agreement(self, name: str) -> bytes:
        return self.files[name]

    def read(self, name: str, *, document: str, key: str, most: int = MAX_FILE) -> bytes:
        octets = self.files.get(name)
        if octets is None:
            raise ConfigError(f"there is no {name} among the files of this revision", file=document, key=key)
        if len(octets) > most:
            _too_large(name, most, document, key)
        return octets


    def truststore(self, name: str, password: Secret | None, *, document: str, key: str) -> list[tuple[str, bytes]]:
        """What the store held when it was read from disk; no password is needed any more."""
        return _stored(self.read(name, document=document, key=key))


class _Reading:
    """A bundle that remembers which of its files were asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._read: dict[str, bytes] = {}
        self.agreements, self.base, self.path = bundle.agreements, bundle.base, bundle.path

    def agreement(self, name: str) -> bytes:
        self._read[name] = self._bundle.agreement(name)
        return self._read[name]

    def read(self, name: str, *, document: str, key: str, most: int = MAX_FILE) -> bytes:
        self._read[name] = self._bundle.read(name, document=document, key=key, most=most)
        return self._read[name]

    def truststore(self, name: str, password: Secret | None, *, document: str, key: str) -> list[tuple[str, bytes]]:
        return _stored(self.read(name, document=document, key=key))

    def bundle(self) -> Bundle:
        return Bundle(self.agreements, MappingProxyType(self._read), self._bundle.base, self._bundle.label)


class _Canonical(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    agreements: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]


class Folder:
    """Agreement files on disk: a folder of `*.toml`, or one file. Reads late and remembers what it read.

    Files in folders below are no agreements, so that examples and drafts can lie there.
    Raises `ConfigError`.
    """

    def __init__(
        self, path: Path | str, certs: Path | None = None, read_truststore: ReadTruststore | None = None
    ) -> None:
        """`certs`: where files are looked for, too. `read_truststore`: `keys.formats.truststore`, handed down."""
        path = Path(path)
        if path.is_dir():
            found = sorted(file for file in path.glob("*.toml") if file.is_file() and not file.name.startswith("."))
            if len(found) > MAX_AGREEMENTS:
                raise ConfigError(f"holds more than {MAX_AGREEMENTS} agreement files", file=str(path))
            found = _without_bases(found)
            self._folder = path
        elif path.exists():
            found, self._folder = [path], path.parent
        else:
            raise ConfigError(
                "there is no such file or folder", file=str(path), hint="an example stands in pmodes/examples/oots.toml"
            )
        self._certs, self._read_truststore = certs, read_truststore
        self._read: dict[str, bytes] = {}
        self._size = 0
        self.base = self._folder.absolute()
        self.agreements = tuple(file.name for file in found)

    def path(self, name: str) -> Path:
        return self._folder / name

    def agreement(self, name: str) -> bytes:
        path = self._folder / name
        try:
            return self._keep(name, _octets(path, MAX_AGREEMENT), str(path), "")
        except FileNotFoundError:
            raise ConfigError("there is no such file", file=str(path)) from None
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
        except ValueError:
            raise ConfigError(f"is larger than {MAX_AGREEMENT >> 20} MiB", file=str(path)) from None

    def read(self, name: str, *, document: str, key: str, most: int = MAX_FILE) -> bytes:
        """The file of that name beside the agreements, else in the certs folder."""
        octets = self._octets_of(name, document, key, most)
        if b"PRIVATE KEY-----" in octets:
            raise ConfigError(
                f"{name} holds a private key", file=document, key=key,
                hint="agreements are copied to every node and shown; give a file with the certificate alone",
            )  # fmt: skip
        return self._keep(name, octets, document, key)

    def _octets_of(self, name: str, document: str, key: str, most: int) -> bytes:
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise ConfigError("is not the name of a file", file=document, key=key)
        places = [self._folder / name, *([self._certs / name] if self._certs else [])]
        for place in places:
            try:
                self._refuse_escape(place, document, key)
                octets = _octets(place, most)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ConfigError(f"{place} cannot be read: {error.strerror}", file=document, key=key) from None
            except ValueError:
                _too_large(str(place), most, document, key)
            return octets
        looked = " and no ".join(str(place) for place in places)
        raise ConfigError(f"there is no {looked}", file=document, key=key)

    def truststore(self, name: str, password: Secret | None, *, document: str, key: str) -> list[tuple[str, bytes]]:
        """The certificates of a JKS, PKCS#12 or PEM file. These are remembered, never the store with its keys."""
        if self._read_truststore is None:
            raise ConfigError("a truststore cannot be read here", file=document, key=key)
        octets = self._octets_of(name, document, key, MAX_FILE)
        try:
            entries = self._read_truststore(octets, password.line() if password else None)
        except CertificateRefused as refused:
            raise ConfigError(f"{name} cannot be read: {refused}", file=document, key=key) from None
        return _stored(self._keep(name, _storable(entries), document, key))

    def bundle(self) -> Bundle:
        """What was read so far."""
        return Bundle(self.agreements, MappingProxyType(dict(self._read)), self.base)

    def _keep(self, name: str, octets: bytes, document: str, key: str) -> bytes:
        """Remember the first reading: a file that changes while it is read twice counts once."""
        if name not in self._read:
            self._size += len(octets)
            if self._size > MAX_BUNDLE or len(self._read) >= MAX_FILES:
                raise ConfigError(
                    f"the agreements and what they name are more than {MAX_FILES} files or {MAX_BUNDLE >> 20} MiB",
                    file=document, key=key,
                )  # fmt: skip
            self._read[name] = octets
        return self._read[name]

    def _refuse_escape(self, place: Path, document: str, key: str) -> None:
        """Raises `ConfigError` for a place outside, `FileNotFoundError` for one that is not there."""
        real = place.resolve(strict=True)
        homes = [self._folder.resolve(), *([self._certs.resolve()] if self._certs else [])]
        if not any(real.is_relative_to(home) for home in homes):
            raise ConfigError(
                f"{place} leads out of {' and '.join(map(str, homes))}", file=document, key=key,
                hint="agreements name files in these folders only; put a copy there",
            )  # fmt: skip


def _octets(path: Path, most: int) -> bytes:
    """At most `most` octets of a plain file. Raises `OSError`, and `ValueError` when there are more."""
    if not path.is_file():  # a pipe or a device would block or never end
        path.stat()
        raise OSError(0, "it is not a file")
    with path.open("rb") as source:
        octets = source.read(most + 1)
    if len(octets) > most:
        raise ValueError
    return octets


def _too_large(name: str, most: int, document: str, key: str) -> NoReturn:
    size = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    raise ConfigError(f"{name} is too large: more than {size}", file=document, key=key)


def _without_bases(found: list[Path]) -> list[Path]:
    """Without the agreement files that another one of the folder lies over (`network.pmode`)."""
    bases: set[str] = set()
    for path in found:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # whoever reads the file says what is wrong
            octets = _octets(path, MAX_AGREEMENT)
            if b"network" in octets:
                pmode = tomllib.loads(octets.decode()).get("network", {}).get("pmode")
                bases |= {pmode} if isinstance(pmode, str) and pmode != path.name else set()
    return [path for path in found if path.name not in bases]


def _storable(entries: Sequence[tuple[str, bytes]]) -> bytes:
    """Certificates with their aliases as a text that can be read and compared."""
    lines = []
    for alias, der in entries:
        lines += [f"# {json.dumps(alias)}", "-----BEGIN CERTIFICATE-----"]
        lines += [*textwrap.wrap(base64.b64encode(der).decode(), 64), "-----END CERTIFICATE-----"]
    return "\n".join([*lines, ""]).encode()


def _stored(octets: bytes) -> list[tuple[str, bytes]]:
    """The way back from `_storable`."""
    found: list[tuple[str, bytes]] = []
    alias, body = "", []
    for line in octets.decode().splitlines():
        if line.startswith("# "):
            alias, body = json.loads(line[2:]), []
        elif line.startswith("-----END"):
            found.append((alias, base64.b64decode("".join(body))))
        elif not line.startswith("-----"):
            body.append(line)
    return found
