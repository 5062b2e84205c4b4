"""Small disks, to be filled up: a tmpfs for each, for whoever may mount one."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest


class Disk:
    """A file system of `size` bytes and `inodes` files at `folder`."""

    def __init__(self, folder: Path, size: int, inodes: int = 100_000) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=0711", "gateway-test",
                               folder], capture_output=True, text=True)  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"a file system of its own needs root and CAP_SYS_ADMIN: {done.stderr.strip()}")

    @property
    def free(self) -> int:
        """Bytes."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Until nothing more can be written, also by who frees a little."""
        with (self.folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def fill_inodes(self) -> None:
        place = self.folder / "fillers"
        place.mkdir()
        with contextlib.suppress(OSError):
            for number in range(1_000_000):
                (place / str(number)).touch()

    def make_room(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "fillers", ignore_errors=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)


@contextlib.contextmanager
def disk(folder: Path, size: int, inodes: int = 100_000):
    """A `Disk`, gone at the end."""
    made = Disk(folder, size, inodes)
    try:
        yield made
    finally:
        made.close()
