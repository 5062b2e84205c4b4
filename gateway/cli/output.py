"""How the command line shows what it found: a table for people, tab-separated or JSON for programs.

Data goes to standard output and nothing else does. What partners wrote is made inert before
it reaches a terminal.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

#: A column is not wider than this in a table; --json has everything.
WIDEST = 80


def json_option(command):
    """`--json`, handed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def show_json(value: Any) -> None:
    """`value` as JSON; times in UTC as RFC 3339, whatever the locale."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """`rows` under the names of `columns`: aligned on a terminal, tab-separated and uncut elsewhere."""
    from gateway.log import printable

    texts = [[printable(_text(row.get(column)), 4096) for column in columns] for row in rows]
    if not is_terminal():
        for row in [list(columns), *texts]:
            click.echo("\t".join(row))
        return
    if not rows:
        click.echo("nothing found", err=True)
        return
    cut = [[text if len(text) <= WIDEST else text[: WIDEST - 1] + "…" for text in row] for row in texts]
    heads = [column.replace("_", " ").upper() for column in columns]
    widths = [max(len(row[n]) for row in [heads, *cut]) for n in range(len(columns))]
    for row in [heads, *cut]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def is_terminal() -> bool:
    """Whether a person reads along."""
    return sys.stdout.isatty()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _plain(value) if isinstance(value, datetime) else str(value)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)
