"""`gateway messages export | legal-hold | legal-release | legal-holds`: evidence, and keeping it."""

import asyncio
import os
from pathlib import Path

import click

from gateway.cli.local import actor, config_option, found_config, on_store
from gateway.cli.output import json_option, show_json, show_table


def reason_option(required: bool):
    return click.option("--reason", required=required, help="Why; stands in the audit.")


def which(command):
    """MESSAGE or --conversation."""
    for option in (
        click.option("--conversation", help="All messages there are of this ConversationId."),
        click.argument("message", required=False),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("message")
@click.option("--to", "target", type=click.Path(dir_okay=False, path_type=Path), help="A new file; without it ID.zip.")
@click.option("--payloads", is_flag=True, help="With the payloads, where they are not erased; needs --reason.")
@reason_option(False)
@config_option
def export(message, target, payloads, reason, config):
    """The evidence of a message as a zip: header, receipt, signed envelopes, certificates, timeline, verdicts.

    MESSAGE is an id, a MessageId or a prefix of either. The same files as GET /v1/messages/{id}/bundle.
    """
    if payloads and not reason:
        raise click.UsageError("payloads are personal data: say --reason; it stands in the audit with your name")
    click.echo(str(asyncio.run(_export(message, target, payloads, reason, config))))


async def _export(message: str, target: Path | None, payloads: bool, reason: str | None, config: Path | None) -> Path:
    from gateway import app
    from gateway.backends.rest.bundle import bundle_of
    from gateway.errors import NotFound
    from gateway.operate import messages
    from gateway.plugin import Caller
    from gateway.store.api import AuditEntry

    settings = app.load_config(config or found_config())
    store = await app.open_store(settings)
    try:
        found = await messages.one(store, message)
        if found.backend is None:
            raise NotFound("a message of the test service is delivered to nobody and has no evidence")
        door = await app.door_aside(settings, store)
        bundle = await bundle_of(door, Caller("operator", "operator", found.backend), str(found.id), payloads=payloads)
        detail = {"payloads": payloads} | ({"reason": reason} if reason else {})
        entry = AuditEntry(kind="messages.exported", actor=actor(settings), subject=str(found.id), detail=detail)
        await store.audit(entry)  # first: nothing leaves that the audit does not know of
        path = target or Path(f"{found.id}.zip")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise click.ClickException(f"{path} is there already; name another with --to") from None
        with os.fdopen(descriptor, "wb") as file:
            async for block in bundle.blocks():
                file.write(block)
        return path
    finally:
        await store.close()


@click.command("legal-hold")
@which
@reason_option(True)
@config_option
def hold(message, conversation, reason, config):
    """Keep messages, and their payloads as far as they are there, whatever retention says."""
    from gateway import app
    from gateway.operate import retention

    _one(message, conversation)
    who = actor(app.load_config(config or found_config()))

    async def do(store):
        found = await retention.chosen(store, message, conversation)
        done = await store.hold_legally([m.id for m in found], reason=reason, actor=who)
        return done, len(found), sum(m.wrapped_key is not None for m in found)

    done, found, payloads = on_store(config, do)
    click.echo(f"{done} messages held, {found - done} were held before; of {payloads} the payloads are there")


@click.command("legal-release")
@which
@reason_option(True)
@config_option
def release(message, conversation, reason, config):
    """Let messages go that were held; what is past its retention is erased within a minute."""
    from gateway import app
    from gateway.operate import retention

    _one(message, conversation)
    who = actor(app.load_config(config or found_config()))

    async def do(store):
        found = await retention.chosen(store, message, conversation)
        return await store.release_legally([m.id for m in found], reason=reason, actor=who)

    click.echo(f"{on_store(config, do)} messages released")


@click.command("legal-holds")
@json_option
@config_option
def holds(as_json, config):
    """What is held, since when, by whom and why."""
    rows = [
        {"at": h.at, "message_id": h.message_id, "conversation_id": h.conversation_id, "by": h.actor,
         "reason": h.reason, "id": str(h.id)}
        for h in on_store(config, lambda store: store.legal_holds())
    ]  # fmt: skip
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["at", "message_id", "by", "reason"])


def _one(message: str | None, conversation: str | None) -> None:
    if (message is None) == (conversation is None):
        raise click.UsageError("name one message, or --conversation")
