"""`gateway backends`: who may use the plugin API."""

import sys
from pathlib import Path

import click

from gateway.cli.local import acting, config_option, on_store
from gateway.cli.output import json_option, show_json, show_table

KEEP = "Keep it: it is not stored and cannot be shown again."


def scope_options(command):
    """The bounds of a scope, each repeatable."""
    for name, help_ in (
        ("partner", "Only messages with this party (`type:value` or the id)."),
        ("service", "Only this eb:Service."),
        ("action", "Only this eb:Action."),
        ("original-sender", "Only what it sends in this name (`type:value` or the value)."),
        ("final-recipient", "Only what it receives in this name."),
    ):
        command = click.option(f"--{name}", f"{name.replace('-', '_')}s", multiple=True, help=help_)(command)
    return click.option(
        "--original-user", "original_users", multiple=True,
        help="Both of the last: the original user of a Domibus plugin user.",
    )(command)  # fmt: skip


def _scope(original_users, **bounds):
    from gateway.scope import Scope

    for name in ("original_senders", "final_recipients"):
        bounds[name] = (*bounds[name], *original_users)
    return Scope(**bounds)


@click.group()
def group():
    """API clients of the plugin API: create, list, token, revoke, scope."""


@group.command()
@click.argument("name")
@click.option("--backend", default="rest", show_default=True, help="The backend whose messages it submits and sees.")
@click.option("--login", help="A login name instead of a token, for the SOAP door; prints a password.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="With --login: the password, instead of one that is made.")  # fmt: skip
@scope_options
@json_option
@config_option
def create(name, backend, login, password_file, as_json, config, **bounds):
    """Create an API client and print its token, once."""
    from gateway.operate import backends

    if password_file and not login:
        raise click.UsageError("--password-file belongs to --login")
    scope = _scope(**bounds)

    by, password = acting(config), _secret(password_file)
    client, secret = on_store(
        config, lambda store: backends.create(store, name, backend, scope, login=login, password=password, by=by)
    )
    if as_json:
        shown = {"login": login, "password": secret} if login else {"token": secret}
        show_json({"id": client.id, "name": client.name, "backend": client.backend, **shown})
    else:
        click.echo(f"{client.id}  {name}\n{secret}")
        click.echo(KEEP, err=True)


def _secret(path: Path | None) -> str | None:
    return None if path is None else path.read_text().rstrip("\r\n")


@group.command("list")
@json_option
@config_option
def list_(as_json, config):
    """All API clients, their scopes and credentials."""
    import msgspec

    async def find(store):
        return await store.clients(), await store.credentials()

    clients, credentials = on_store(config, find)
    rows = [
        {"id": c.id, "name": c.name, "backend": c.backend, "revoked": c.revoked,
         "created": f"{c.created_at:%Y-%m-%d}" if c.created_at else "",
         "scope": msgspec.to_builtins(c.scope),
         "credentials": [
             {"id": k.id, "kind": k.kind, "revoked": k.revoked,
              "expires": f"{k.expires_at:%Y-%m-%d}" if k.expires_at else None,
              **({} if k.kind == "token" else {"key": k.key})}
             for k in credentials if k.client == c.id]}
        for c in clients
    ]  # fmt: skip
    if as_json:
        show_json(rows)
        return
    for row in rows:
        bounds = "; ".join(f"{name}: {', '.join(values)}" for name, values in row["scope"].items())
        used = [f"{k['id']} {k['kind']}" + (f" until {k['expires']}" if k["expires"] else "")
                for k in row["credentials"] if not k["revoked"]]  # fmt: skip
        row |= {"scope": bounds or "everything of its backend", "credentials": ", ".join(used) or "none"}
    show_table(rows, ["id", "name", "backend", "created", "revoked", "scope", "credentials"])


@group.command()
@click.argument("client")
@click.option("--days", type=click.IntRange(1, 3650), help="How long the token is valid; without it until revoked.")
@click.option("--login", help="A login name and password instead of a token.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="With --login: the password, instead of one that is made.")  # fmt: skip
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A TLS client certificate (PEM or DER) instead of a token.")  # fmt: skip
@click.option("--subject", nargs=2, metavar="ISSUER SUBJECT", help="Who it is in the tokens of an OAuth2 issuer.")
@json_option
@config_option
def token(client, days, login, password_file, certificate, subject, as_json, config):
    """Give a client a further credential. To rotate: make one, change over, revoke the old one."""
    from datetime import timedelta

    from gateway.operate import backends

    if sum(map(bool, (login, certificate, subject))) > 1 or (days and (login or certificate or subject)):
        raise click.UsageError("choose one of a token (with --days), --login, --certificate and --subject")

    by = acting(config)

    async def make(store):
        if certificate:
            return await backends.add_certificate(store, client, certificate.read_bytes(), by=by), None
        if subject:
            return await backends.add_subject(store, client, *subject, by=by), None
        if login:
            return await backends.add_password(store, client, login, _secret(password_file), by=by)
        return await backends.add_token(store, client, timedelta(days=days) if days else None, by=by)

    credential, secret = on_store(config, make)
    if as_json:
        shown = {} if secret is None else {"password" if login else "token": secret}
        show_json({"id": credential.id, "client": client, "kind": credential.kind, **shown})
        return
    click.echo(f"{credential.id}  {credential.kind}" + (f"\n{secret}" if secret else ""))
    if secret:
        click.echo(KEEP, err=True)


@group.command()
@click.argument("id")
@config_option
def revoke(id, config):
    """Revoke a client (cl_…) or one credential (cr_…); takes effect at once on every node."""
    from gateway.operate import backends

    on_store(config, lambda store: backends.revoke(store, id, by=acting(config)))
    click.echo(f"{id} revoked")


@group.command()
@click.argument("client")
@scope_options
@click.option("--everything", is_flag=True, help="Take all bounds away.")
@config_option
def scope(client, everything, config, **bounds):
    """Bound what a client may see and send; replaces the bounds it had."""
    from gateway.operate import backends

    wanted = _scope(**bounds)
    if wanted.unbounded != everything:
        click.echo("give at least one bound, or --everything", err=True)
        sys.exit(2)
    on_store(config, lambda store: backends.set_scope(store, client, wanted, by=acting(config)))
    click.echo(f"{client} is bounded anew" if not everything else f"{client} sees everything of its backend")
