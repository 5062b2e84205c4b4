"""Which PostgreSQL server runs on a cluster, as its process file and the system tell.

`postmaster.pid` alone is not believed: it outlives a server that was killed, and in
containers its process id soon belongs to a stranger. Every process of a server works in the
cluster's folder from its first moment, so that is what is asked.
"""

import os
from pathlib import Path

from msgspec import Struct


class Postmaster(Struct, frozen=True):
    """What `postmaster.pid` says of a server that is alive."""

    pid: int
    socket: str
    status: str


def postmaster(data: Path) -> Postmaster | None:
    """The server that runs on the cluster `data`, if one does; a stale file or a reused id is none."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
        os.kill(pid, 0)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, IndexError, ValueError):
        return None
    except PermissionError as error:
        if error.filename is not None:  # the file, not the process
            raise
        return None  # somebody else's process
    if not _works_in(pid, data):
        return None
    return Postmaster(pid, lines[4] if len(lines) > 4 else "", lines[7].strip() if len(lines) > 7 else "starting")


def _works_in(pid: int, data: Path) -> bool:
    """Whether the process works in the cluster: every process of a server does, from its first moment."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat_file:
            if stat_file.read().rpartition(b")")[2].split()[0] == b"Z":
                return False
        return Path(os.readlink(f"/proc/{pid}/cwd")) == data.resolve()
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists()  # no /proc here: the process id has to do
    except PermissionError:
        return False


def processes_in(data: Path) -> list[int]:
    """Processes of a server on this cluster, those without a postmaster included."""
    if not Path("/proc/self").exists():
        return []
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _works_in(int(entry), data)]
