"""The table of `make interop`: what was proved against phase4, counted by suite and direction.

`python -m tests.interop.phase4_table` puts the table of the last run into docs/interop.md.
"""

import json
from collections import Counter
from pathlib import Path

from tests.interop import phase4_peer

DOCUMENT = Path(__file__).parents[2] / "docs" / "interop.md"
BEGIN, END = "<!-- phase4 table: written by `make interop` -->", "<!-- end of the phase4 table -->"
COLUMNS = ("peer", "version", "suite", "direction", "cases", "result")


class Tally:
    """Counts what tests prove."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Counter] = {}

    def count(self, suite: str, direction: str, outcome: str, cases: int) -> None:
        """`outcome` is passed, failed or skipped."""
        self._rows.setdefault((suite, direction), Counter())[outcome] += cases

    def rows(self) -> list[dict]:
        return [
            {"peer": "phase4", "version": phase4_peer.version(), "suite": suite, "direction": direction,
             "cases": row["passed"] + row["failed"],
             "result": "failed" if row["failed"] else "passed" if row["passed"] else "not run"}
            for (suite, direction), row in sorted(self._rows.items())
        ]  # fmt: skip

    def write(self) -> str:
        """Into `peer/target/interop.json` and `.md`; the latter's text."""
        folder = phase4_peer.JAR.parent
        folder.mkdir(exist_ok=True)
        (folder / "interop.json").write_text(json.dumps(self.rows(), indent=1) + "\n")
        table = markdown(self.rows())
        (folder / "interop.md").write_text(table + "\n")
        return table


def markdown(rows: list[dict]) -> str:
    cells = [COLUMNS, *([str(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(COLUMNS))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def main() -> None:
    """Between the two marks; nothing else of the document is touched."""
    table = (phase4_peer.JAR.parent / "interop.md").read_text()
    head, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        raise SystemExit(f"{DOCUMENT} has no place for the table")
    DOCUMENT.write_text(f"{head}{BEGIN}\n\n{table}\n{END}{tail}")


if __name__ == "__main__":
    main()
