"""`gateway backends`: who may use the plugin API."""

import click

from gateway.cli.local import config_option, on_store
from gateway.cli.output import json_option, show_json, show_table


@click.group()
def group():
    """API clients of the plugin API: create, list, revoke."""


@group.command()
@click.argument("name")
@click.option("--backend", default="rest", show_default=True, help="The backend whose messages it submits and sees.")
@json_option
@config_option
def create(name, backend, as_json, config):
    """Create an API client and print its token, once."""
    from gateway.operate import backends

    client, token = on_store(config, lambda store: backends.create(store, name, backend))
    if as_json:
        show_json({"id": client.id, "name": client.name, "backend": client.backend, "token": token})
    else:
        click.echo(f"{client.id}  {name}\n{token}")
        click.echo("Keep the token: it is not stored and cannot be shown again.", err=True)


@group.command("list")
@json_option
@config_option
def list_(as_json, config):
    """All API clients."""
    found = on_store(config, lambda store: store.clients())
    rows = [
        {"id": c.id, "name": c.name, "backend": c.backend, "revoked": c.revoked,
         "created": f"{c.created_at:%Y-%m-%d}" if c.created_at else ""}
        for c in found
    ]  # fmt: skip
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["id", "name", "backend", "created", "revoked"])


@group.command()
@click.argument("client")
@config_option
def revoke(client, config):
    """Revoke a client's token; takes effect at once on every node."""
    from gateway.operate import backends

    on_store(config, lambda store: backends.revoke(store, client))
    click.echo(f"{client} revoked")
