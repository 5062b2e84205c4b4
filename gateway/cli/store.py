"""`gateway store`: the message store of this node."""

import asyncio
from pathlib import Path
from typing import Any

import click

from gateway.cli.local import acting, config_option, found_config, on_store
from gateway.cli.output import json_option, show_json, show_table


@click.group()
def group():
    """The message store: status, migrate, purge."""


@group.command()
@json_option
@config_option
def status(as_json, config):
    """Server, migrations, durability, and the jobs that wait."""

    async def look(store):
        return await store.health(), await store.backlog()

    health, backlog = on_store(config, look)
    facts = {
        "server": f"PostgreSQL {health.version}",
        "writable": health.writable,
        "migrations_pending": health.migrations_pending,
        "synchronous_commit": health.synchronous_commit,
        "jobs": backlog,
    }
    if as_json:
        show_json(facts)
    else:
        show_table([{"what": name, "value": value} for name, value in facts.items() if name != "jobs"]
                   + [{"what": f"jobs {name}", "value": count} for name, count in sorted(backlog.items())],
                   ["what", "value"])  # fmt: skip


@group.command()
@config_option
def migrate(config):
    """Bring the schema up to date. `gateway run` does this by itself."""
    from gateway import app

    done = asyncio.run(app.migrate(app.load_config(config or found_config())))
    if done:
        note = _note(config, "store.migrated", migrations=done)
        on_store(config, lambda store: store.audit(note))
    click.echo("\n".join(done) if done else "the schema is up to date")


@group.command()
@click.option("--yes", is_flag=True, help="Do it without asking.")
@config_option
def purge(yes, config):
    """Erase the payloads whose retention has ended, now instead of in the next half minute."""
    from gateway import app

    settings = app.load_config(config or found_config())
    retention = settings.retention
    click.echo(
        f"Payloads of messages delivered more than {retention.delivered_payloads:g} s ago, and of sent ones settled "
        f"more than {retention.sent_payloads:g} s ago, will be erased.",
        err=True,
    )
    if not yes:
        click.confirm("Erase them?", abort=True, err=True)

    async def erase(store):
        total = 0
        try:
            while count := await store.purge(
                delivered_before=retention.delivered_payloads, settled_before=retention.sent_payloads
            ):
                total += count
        finally:  # what was erased before it broke off is erased
            bounds = {"delivered_before": float(retention.delivered_payloads),
                      "settled_before": float(retention.sent_payloads)}  # fmt: skip
            await store.audit(_note(config, "store.purged", erased=total, **bounds))
        return total

    click.echo(f"{on_store(config, erase)} erased")


def _note(config: Path | None, kind: str, **detail: object) -> Any:
    from gateway.store.api import AuditEntry

    return AuditEntry(kind=kind, actor=acting(config), subject="store", detail=detail)
