"""`gateway messages resend | redeliver`: what is to be tried once more because an operator says so."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from gateway.cli.local import acting, config_option, on_store

INTO_AUDIT = "What was done stands in the audit with your name. Exit status 3: it was not possible for some."


def verb(name: str, help: str) -> Callable:
    """A command on one or more messages, ids, MessageIds or prefixes of either."""

    def make(function: Callable) -> click.Command:
        function.__doc__ = f"{help}\n\nMESSAGE is an id, a MessageId or a prefix of either. {INTO_AUDIT}"
        return click.command(name)(click.argument("messages", nargs=-1, required=True)(config_option(function)))

    return make


@verb("resend", "Send messages again now that are FAILED or wait, with the same MessageIds.")
def resend(messages, config):
    act(messages, config, "message.resent", "outbound", lambda store: store.requeue,
        "only what is FAILED or waits to be sent can be sent again, with its payloads still there")  # fmt: skip


@verb("redeliver", "Deliver messages once more whose delivery was given up, or which are DELIVERED and not erased.")
def redeliver(messages, config):
    act(messages, config, "message.redelivered", "inbound", lambda store: store.redeliver,
        "only what was received and given up, or delivered and not erased, can be delivered once more")  # fmt: skip


def act(
    wanted: tuple[str, ...], config: Path | None, event: str, direction: str,
    does: Callable[[Any], Callable[..., Awaitable[bool]]], unless: str,
) -> None:  # fmt: skip
    """Do it with each; what is not possible is said, and the others are done all the same."""
    from gateway.operate import messages
    from gateway.store.api import NewEvent

    said = (NewEvent(event, {"by": acting(config)}),)

    async def do(store):
        # A word that fits none is found before anything is done.
        found = [await messages.one(store, one) for one in wanted]
        return [(m, m.direction == direction and await does(store)(m.id, said)) for m in found]

    done = on_store(config, do)
    for message, possible in done:
        id = message.user_message.message_id
        click.echo(f"{id}: done" if possible else f"{id}: {message.state}: {unless}", err=not possible)
    if not all(possible for _, possible in done):
        raise SystemExit(3)
