"""End whatever still works in a folder of the demo, and give back what it held in memory.

For nodes that do not end in time, in the middle of making their database above all. What
is in the folder is thrown away anyhow, so nothing is asked: processes are killed, and the
shared memory that a killed PostgreSQL cannot give back is given back for it.
"""

import contextlib
import ctypes
import os
import re
import signal
import time
from pathlib import Path

_SEGMENT = re.compile(r"/dev/shm/PostgreSQL\.\d+")  # noqa: S108 - PostgreSQL's names
_IPC_RMID = 0
#: Children that are born while their parents are killed are caught in the next round.
_ROUNDS = 50


def sweep(folder: Path) -> None:
    """Kill every process whose working directory is in `folder`. Nobody but the demo's own has it there."""
    killed: set[int] = set()
    segments: set[str] = set()
    for _ in range(_ROUNDS):
        found = processes_in(folder)
        if not found:
            break
        for process in found:
            with contextlib.suppress(OSError):
                segments |= set(_SEGMENT.findall(Path(f"/proc/{process}/maps").read_text()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
                killed.add(process)
        time.sleep(0.01)
    for segment in segments:
        with contextlib.suppress(OSError):
            os.unlink(segment)
    _remove_system_v(killed)


def processes_in(folder: Path) -> list[int]:
    """Living processes that work in the folder or below."""
    place, found = folder.resolve(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(entry / "cwd")).is_relative_to(place):
                found.append(int(entry.name))
    return found


def _remove_system_v(creators: set[int]) -> None:
    """PostgreSQL's interlock: a few bytes of System V shared memory that outlive their creator."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        shmctl = ctypes.CDLL(None, use_errno=True).shmctl
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[4]) in creators and fields[6] == "0":
                shmctl(int(fields[1]), _IPC_RMID, None)
