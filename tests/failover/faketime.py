"""Clocks that jump while a process runs: libfaketime (Debian's `faketime`), with a file that says how far.

Only the wall clock is changed. The monotonic clock is left alone, as by NTP or by an operator's `date -s`.
"""

import glob
from pathlib import Path

import pytest

HOUR = 3600
YEARS = 10 * 365 * 24 * HOUR


class Clock:
    """The clock of the processes that are started with `environment`."""

    def __init__(self, file: Path) -> None:
        found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not found:
            pytest.skip("no libfaketime: apt-get install faketime")
        self._file = file
        self.set(0)
        file.chmod(0o644)
        self.environment = {
            "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1",
        }  # fmt: skip

    def set(self, seconds: float) -> None:
        """So far from the real time from now on. Replaced, not written anew: a reader sees the one or the other."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.chmod(0o644)
        new.replace(self._file)
