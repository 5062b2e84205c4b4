"""`gateway certs watch | calendar`: what comes to its end, ours and the partners', and when."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.explain import language_option
from gateway.cli.local import config_option, found_config, keys_in_force, on_database
from gateway.cli.output import json_option, show_json, show_table


@click.command()
@click.option("--within", type=click.IntRange(0, 3650), default=30, show_default=True, metavar="DAYS",
              help="What ends within so many days is a finding.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Also what ends later.")
@json_option
@config_option
def watch(within, everything, as_json, config):
    """Certificates that come to their end, the first one first: ours, the partners', and CAs.

    \b
    Exit status 0: nothing ends within --within days, 3: something does, or has ended
    """
    from gateway.operate import expiry

    now = datetime.now(UTC)
    rows = [
        {"days": expiry.days_left(g.first.not_after, now), "until": g.first.not_after,
         "owner": ", ".join(g.owners), "use": ", ".join(sorted({w.use for w in g.uses})), "ours": g.first.ours,
         "successor": not expiry.lacks_successor(g, found), "subject": g.first.subject, "sha256": g.first.id}
        for found in [_found(config)] for g in expiry.grouped(found)
    ]  # fmt: skip
    soon = [row for row in rows if row["days"] < within]
    shown = rows if everything else soon
    if as_json:
        show_json(shown)
    elif shown:
        show_table(shown, ["days", "until", "owner", "use", "successor", "subject", "sha256"])
    else:
        click.echo(f"of {len(rows)} certificates none ends within {within} days")
    sys.exit(3 if soon else 0)


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else standard output.")
@language_option
@config_option
def calendar(out, language, config):
    """The ends of all certificates as an iCalendar file, with alarms 90, 60, 30, 14, 7, 3 and 1 days before.

    The same certificate always is the same event: import the file again, or serve it where calendars fetch it.
    """
    from gateway.operate import calendar as calendars

    octets = calendars.calendar(_found(config), now=datetime.now(UTC), language=language)
    if out is None:
        click.echo(octets, nl=False)
    else:
        out.write_bytes(octets)
        click.echo(f"wrote {out}", err=True)


def _found(config: Path | None) -> list[Any]:
    """Everything that has an end on this node, by the agreements in force; by the files where no database answers."""
    from gateway import app
    from gateway.cli.pmodes_change import revision_files
    from gateway.errors import NotFound, StoreUnavailable
    from gateway.operate.watched import everything, ring
    from gateway.pmodes.toml import expanded

    settings = app.load_config(config or found_config())
    try:
        pmodes = expanded(revision_files(config, "active"))
    except (StoreUnavailable, NotFound) as error:
        click.echo(f"! by the files, not by what is in force: {error}", err=True)
        pmodes = app.load_pmodes(settings)
    try:
        keys = on_database(settings, lambda store: store.own_keys(), look_only=True)
    except StoreUnavailable:
        keys = []
    return list(dict.fromkeys([*everything(settings, keys_in_force(settings), pmodes), *ring(keys, pmodes)]))
