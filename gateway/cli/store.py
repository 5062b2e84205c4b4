"""`gateway store`: the message store of this node."""

import asyncio
from pathlib import Path

import click

from gateway.cli.local import Moment, config_option, found_config, on_store
from gateway.cli.output import json_option, show_json, show_table


@click.group()
def group():
    """The message store: status, migrate, purge, erased, receipts."""


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
    click.echo("\n".join(done) if done else "the schema is up to date")


@group.command()
@click.option("--yes", is_flag=True, help="Do it without asking.")
@config_option
def purge(yes, config):
    """Erase what is past its retention, payloads and whole messages, now instead of in the next half minute.

    What is held legally stays. The audit gets what proves that the rest was erased.
    """
    from gateway import app
    from gateway.msh.retention import erase

    retention = app.load_config(config or found_config()).retention
    click.echo(
        f"Payloads of messages delivered more than {retention.delivered_payloads:g} s ago, and of sent ones settled "
        f"more than {retention.sent_payloads:g} s ago, will be erased; messages and receipts after "
        f"{retention.messages / 86400:g} days.",
        err=True,
    )
    if not yes:
        click.confirm("Erase them?", abort=True, err=True)
    payloads, messages = on_store(config, lambda store: erase(store, retention, rounds=None))
    click.echo(f"payloads of {payloads} messages erased, {messages} messages erased")


@group.command()
@click.argument("message_id")
@json_option
@config_option
def erased(message_id, as_json, config):
    """Was the message with this MessageId erased for good, and when? Exit status 5: the audit does not say so."""
    from gateway.operate.retention import when_erased

    entry = on_store(config, lambda store: when_erased(store, message_id))
    facts = {"erased": entry.at, "audit_row": entry.number, "proof": entry.subject}
    if as_json:
        show_json(facts)
    else:
        show_table([facts], ["erased", "audit_row", "proof"])


@group.command()
@click.option("--since", required=True, type=Moment(), help="RFC 3339, for example 2026-11-21T14:00:00Z.")
@click.option("--log", "logs", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A log of this gateway (JSON lines, .gz too). Repeat for several files and nodes.")
@json_option
@config_option
def receipts(since, logs, as_json, config):
    """Which receipts were issued since a moment?

    Without --log as this store has it. With --log what this store does not know of, receipts issued and submissions
    accepted: after a restore, that is what partners and backends believe to be safe and must be asked for again.
    Exit status 3: there is something, or the logs have gaps.
    """
    from gateway.operate import restored

    if not logs:
        rows = [_issued(r) for r in on_store(config, lambda store: restored.issued(store, since))]
        show_json(rows) if as_json else show_table(rows, ["at", "party", "action", "message_id", "state"])
        return
    told = restored.told(logs, since)
    lost = on_store(config, lambda store: restored.lost(store, told))
    rows = [{"at": e.at, "what": e.what, "party": e.party, "action": e.action, "message_id": e.message_id}
            for e in lost]  # fmt: skip
    if as_json:
        show_json({"since": since, "read": told.lines, "unreadable": told.unreadable, "dropped": told.dropped,
                   "lost": rows})  # fmt: skip
    else:
        show_table(rows, ["at", "what", "party", "action", "message_id"])
        click.echo(f"{len(told.entries)} of {told.lines} lines tell of messages since then; {len(rows)} are not in "
                   "this store", err=True)  # fmt: skip
        if told.dropped or told.unreadable:
            click.echo(f"the logs are not whole: {told.dropped} lines were dropped when they were written, "
                       f"{told.unreadable} cannot be read", err=True)  # fmt: skip
    if rows or told.dropped or told.unreadable:
        raise SystemExit(3)


def _issued(receipt) -> dict:
    return {"at": receipt.at, "party": receipt.party, "action": receipt.action, "message_id": receipt.message_id,
            "conversation_id": receipt.conversation_id, "state": receipt.state}  # fmt: skip
