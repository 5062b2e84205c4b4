"""What the failure suite found, a line for each kind of fault: `make failover` prints it at its end.

A test says what it saw with `record`; lines of one id are added together. The last column is the bound that a count
of nothing in n allows: with 95 % certainty fewer than 3 in n messages are lost or doubled [reliability 4.1].
"""

import dataclasses
import os
import sys

HEAD = ("", "Fault", "Times", "Messages", "Lost", "Twice", "Longest gap", "At most", "3/n")


@dataclasses.dataclass(frozen=True)
class Line:
    """`gap` and `limit` in seconds: the longest time in which no sender got a receipt."""

    id: str
    fault: str
    times: int
    messages: int = 0
    lost: int = 0
    twice: int = 0
    gap: float | None = None
    limit: float | None = None
    seeds: tuple[int, ...] = ()

    def __add__(self, other: "Line") -> "Line":
        gaps = [gap for gap in (self.gap, other.gap) if gap is not None]
        return dataclasses.replace(
            self, times=self.times + other.times, messages=self.messages + other.messages, lost=self.lost + other.lost,
            twice=self.twice + other.twice, gap=max(gaps, default=None), seeds=self.seeds + other.seeds,
        )  # fmt: skip

    def cells(self) -> tuple[str, ...]:
        def seconds(value: float | None) -> str:
            return "" if value is None else f"{value:.1f} s"

        bound = f"{3 / self.messages:.1e}" if self.messages and not self.lost and not self.twice else ""
        return (self.id, self.fault, f"{self.times:,}", f"{self.messages:,}" if self.messages else "",
                *((str(self.lost), str(self.twice)) if self.messages else ("", "")),
                seconds(self.gap), seconds(self.limit), bound)  # fmt: skip


_lines: dict[str, Line] = {}


def record(
    id: str, fault: str, *, times: int = 1, messages: int = 0, lost: int = 0, twice: int = 0,
    gap: float | None = None, limit: float | None = None, seed: int | None = None,
) -> None:  # fmt: skip
    """`times` faults of this kind (`id` as in reliability 4.2, or of the test's own) were struck while `messages` were on their way.

    To be called before what it says is asserted: the table shows failures, too."""
    line = Line(id, fault, times, messages, lost, twice, gap, limit, () if seed is None else (seed,))
    _lines[id] = _lines[id] + line if id in _lines else line


def lines() -> list[Line]:
    """In the order of their ids."""
    return [_lines[id] for id in sorted(_lines)]


def markdown() -> str:
    seeds = [f"{line.id}: {', '.join(map(str, line.seeds))}" for line in lines() if line.seeds]
    return "\n".join([_table(HEAD, [line.cells() for line in lines()]), *(["", "Seeds: " + "; ".join(seeds)] if seeds else [])])


def _table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    told = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *body)]
    told.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {row} |" for row in told)


PAGE = """# The failure suite

`make failover` wrote this page. Real gateways, databases and load balancers are stopped, cut off and filled up while messages
go through them; a checker outside writes down what it sees before it acts, and counts at the end. *Longest gap* is the
longest time in which no sender got a receipt, *at most* what is promised. *3/n*: none of n was lost or delivered twice, so with 95 %
certainty fewer than this share are. A part of the suite (`make failover ARGS=tests/failover/test_cluster_kills.py`) writes its own
lines anew. Python {python}, {cores} cores.

{table}
"""
PAGE_HEAD = (*HEAD, "Seeds", "Commit")


def page(commit: str, before: str = "") -> str:
    """The page after this run. Of the page `before` the lines stay that this run had nothing to say about."""
    rows = {row[0]: row for row in _rows(before)}
    rows |= {line.id: (*line.cells(), ", ".join(map(str, line.seeds)), commit) for line in lines()}
    return PAGE.format(python=".".join(map(str, sys.version_info[:3])), cores=os.cpu_count(),
                       table=_table(PAGE_HEAD, [rows[id] for id in sorted(rows)]))  # fmt: skip


def _rows(page: str) -> list[tuple[str, ...]]:
    """The lines of its table without head and rule."""
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows[2:] if len(row) == len(PAGE_HEAD)]
