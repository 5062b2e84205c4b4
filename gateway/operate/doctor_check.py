"""What doctor finds, one thing at a time."""

from typing import Literal

from msgspec import Struct

Verdict = Literal["ok", "warn", "fail"]


class Check(Struct, frozen=True):
    """One finding. `fix` says what to do where the verdict is not ok."""

    name: str
    verdict: Verdict
    text: str
    fix: str = ""
