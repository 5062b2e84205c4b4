"""What the demo prints: lines with marks on a terminal, plain lines otherwise, or one JSON object.

`Screen` talks while the demo goes on; with JSON it keeps silent until the end.
"""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from gateway.cli.demo.scenario import Result

_GREEN, _RED, _DIM, _BOLD, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"
_ARROWS = {"LV->EE": "LV → EE", "EE->LV": "EE → LV"}


class Screen:
    """Prints to `out`. `quiet` keeps everything back but the JSON object."""

    def __init__(self, out: TextIO = sys.stdout, *, quiet: bool = False) -> None:
        self._out, self._quiet = out, quiet
        self._colour = out.isatty() and not os.environ.get("NO_COLOR")
        self._unicode = "utf" in (out.encoding or "").lower()

    def done(self, text: str, seconds: float | None = None) -> None:
        """Something is ready."""
        mark = self._painted("✔" if self._unicode else "ok", _GREEN)
        took = "" if seconds is None else self._painted(f"{seconds:6.1f} s", _DIM)
        self._line(f"  {mark} {text:<62}{took}")

    def message(self, name: str, result: Result) -> None:
        arrow = _ARROWS.get(result.direction, result.direction)
        size = f"{result.bytes / 1000:.1f} kB"
        self.done(f"{name:<18}{arrow:<10}{size:>8}{result.ms:>7} ms   receipt verified")

    def failed(self, text: str) -> None:
        """To standard error, in one sentence."""
        if not self._quiet:
            sys.stderr.write(f"  {'✘' if self._unicode else 'failed:'} {text}\n")

    def section(self, title: str, lines: Sequence[str]) -> None:
        self._line("")
        self._line(f"  {self._painted(title, _BOLD)}")
        for line in lines:
            self._line(f"    {line}" if line else "")

    def box(self, text: str) -> None:
        self._line("")
        if self._unicode:
            self._line(f"  ┌─ {text} ─┐")
        else:
            self._line(f"  [ {text} ]")

    def json(self, ok: bool, seconds: float, messages: Sequence[Result], error: str | None) -> None:
        """The one object of `--json`."""
        answer = {"ok": ok, "seconds": round(seconds, 3), "messages": msgspec.to_builtins(list(messages))}
        if error is not None:
            answer["error"] = error
        self._out.write(json.dumps(answer, ensure_ascii=False) + "\n")
        self._out.flush()

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_OFF}" if self._colour else text

    def _line(self, text: str) -> None:
        if self._quiet:
            return
        if not self._unicode:
            text = text.replace("→", "->").encode("ascii", "replace").decode()
        self._out.write(text.rstrip() + "\n")
        self._out.flush()


def command() -> str:
    """How this program is called here, so that printed commands work as typed."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m gateway"
    found = shutil.which("gateway")
    if found and Path(found).resolve() == called.resolve():
        return "gateway"
    path = os.path.relpath(called)
    return shlex.quote(path if len(path) < len(str(called)) else str(called))
