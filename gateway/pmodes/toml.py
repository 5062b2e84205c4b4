"""Reading agreement files: one `*.toml`, or a folder of them.

Several files make one set: several partners' files, several parties of our own. A party
may stand in more than one file if it says the same everywhere. Files in folders below are
not read, so that examples and drafts can lie there.
"""

from pathlib import Path

from gateway.as4.pmode import PModeSet
from gateway.config.strict import build, read_toml
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document, File
from gateway.pmodes.expand import expand

MAX_FILES = 1000


def load(path: Path | str, *, certs: Path | None = None, revision: int = 0) -> PModeSet:
    """The agreements in a file or folder. `certs` is where certificate files are looked for, too.

    Certificates are read but not judged; that is for `lint` and for every message. Raises
    `ConfigError` that names file, key and what would be right.
    """
    return expand([read(file) for file in files(Path(path))], certs=certs, revision=revision)


def files(path: Path) -> list[Path]:
    """The agreement files of a folder in the order of their names, or the one file."""
    if path.is_dir():
        found = sorted(file for file in path.glob("*.toml") if file.is_file() and not file.name.startswith("."))
        if len(found) > MAX_FILES:
            raise ConfigError(f"holds more than {MAX_FILES} agreement files", file=str(path))
        return found
    if not path.exists():
        raise ConfigError(
            "there is no such file or folder", file=str(path), hint="an example stands in pmodes/examples/oots.toml"
        )
    return [path]


def read(path: Path) -> Document:
    """One agreement file. Raises `ConfigError`."""
    return Document(path, build(read_toml(path), File, file=str(path), base=path.absolute().parent))
