"""`gateway store`: the message store of this node."""

import asyncio
from pathlib import Path
from typing import Any

import click

from gateway.cli.local import Moment, acting, actor, config_option, found_config, on_database, on_store, settings_of
from gateway.cli.output import json_option, show_json, show_table


@click.group()
def group():
    """The message store: status, migrate, purge, erased, receipts, rekey."""


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

    async def purged(store):
        facts = {
            "delivered_before": float(retention.delivered_payloads), "settled_before": float(retention.sent_payloads),
            "messages_before": float(retention.messages),
        }  # fmt: skip
        try:
            payloads, messages = await erase(store, retention, rounds=None)
            facts |= {"payloads": payloads, "messages": messages}
        finally:  # each batch has its own row: what was erased before it broke off is erased
            await store.audit(_note(config, "store.purged", **facts))
        return payloads, messages

    payloads, messages = on_store(config, purged)
    click.echo(f"payloads of {payloads} messages erased, {messages} messages erased")


@group.command()
@click.option("--batch", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Rows of one commit.")
@click.option("--dry-run", is_flag=True, help="Show what is sealed with which key, and do nothing.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@json_option
@config_option
def rekey(batch, dry_run, yes, as_json, config):
    """Seal everything anew with the key-encryption key of this node, while the gateway runs.

    Give every node the new key first: as one of keys.previous_key_encryption_keys, then as
    keys.key_encryption_key with the old one among the previous. Then run this, as often as it was interrupted.
    It says when the old key is needed no more.

    \b
    Exit status 0: nothing is sealed with another key, 3: something is (--dry-run, or it cannot be opened)
    """
    import sys

    from gateway import app
    from gateway.operate import rekey

    settings = settings_of(config)

    async def seal(store):
        kek = app.load_kek(settings)
        stands = await rekey.standing(store, kek)
        if not as_json:
            _show_standing(stands)
        if dry_run or not stands.total:
            return stands, None
        if not yes:
            click.confirm("Seal it anew?", abort=True, err=True)
        told = (lambda kind, done: click.echo(f"{kind}: {done}", err=True)) if not as_json else (lambda *_: None)
        done = await rekey.rekey(store, kek, actor=actor(settings), batch=batch, told=told)
        return await rekey.standing(store, kek), done

    stands, done = on_database(settings, seal)
    if as_json:
        show_json({
            "kek": stands.kek, "sealed": stands.done, "left": stands.left, "unknown": stands.unknown,
            "others": stands.others, "done": done.done if done else {}, "damaged": done.damaged if done else [],
        })  # fmt: skip
    else:
        for one in done.damaged if done else ():
            click.echo(f"! {one}", err=True)
        if not stands.total:
            click.echo("nothing is sealed with another key: keys.previous_key_encryption_keys may go from every node")
    sys.exit(3 if stands.total else 0)


def _show_standing(stands):
    rows = [{"key": stands.kek, "seals": "this node", **stands.done}]
    rows += [{"key": name, "seals": "unknown here" if name in stands.unknown else "previous", **counts}
             for name, counts in sorted(stands.left.items())]  # fmt: skip
    show_table(rows, ["key", "seals", *stands.done])
    for one in stands.others:
        click.echo(f"! {one}", err=True)


def _note(config: Path | None, kind: str, **detail: object) -> Any:
    from gateway.store.api import AuditEntry

    return AuditEntry(kind=kind, actor=acting(config), subject="store", detail=detail)

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
