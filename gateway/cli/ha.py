"""`gateway ha`: the nodes that share a database."""

import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.local import actor, config_option, found_config, on_store
from gateway.cli.output import json_option, show_json, show_table


def change_options(command):
    """What the changing verbs have in common."""
    for option in (
        click.option("--yes", is_flag=True, help="Do it without asking."),
        click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
        click.option("--force", is_flag=True, help="In spite of what speaks against it."),
        click.option("--timeout", type=click.FloatRange(1, 600), default=15.0, show_default=True,
                     help="Seconds to wait until it is so."),
        json_option, config_option,
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def group():
    """The pair: which node is active, and which is not to be.

    \b
    Exit status: 0 ok · 3 something is wrong, or speaks against it · 5 no such node
    6 another node is active by now · 8 nobody took over in time
    """


@group.command()
@json_option
@config_option
def status(as_json, config):
    """Who is active, who could be, and what commits wait for. Exit status 3: something is wrong."""
    import msgspec

    settings = _settings(config)
    found = on_store(config, lambda store: _status(store, settings))
    if as_json:
        facts = msgspec.to_builtins(found)
        show_json({"active": found.active, "roles": settings.pair.roles, "alone": settings.store.dsn is None, **facts})
    elif settings.store.dsn is None:
        click.echo("this node has a database of its own, and no other node")
    else:
        show_table(
            [{"node": n.name, "role": "active" if n.name == found.active else "passive", "roles": n.roles,
              "alive": n.alive, "drained": n.drained, "seen": n.seen_at, "trouble": n.trouble} for n in found.nodes],
            ["node", "role", "roles", "alive", "drained", "seen", "trouble"],
        )  # fmt: skip
        server = found.server
        click.echo(f"PostgreSQL {server.version}, timeline {server.timeline}, "
                   f"epoch {found.lease.epoch if found.lease else 0}, commits wait for "
                   f"{server.awaited or 'no standby'}", err=True)  # fmt: skip
        for standby in server.standbys:
            lag = "" if standby.lag is None else f", {standby.lag} octets behind"
            click.echo(f"standby {standby.name or '(name hidden)'} {standby.sync} {standby.state}{lag}", err=True)
        if not server.sees_standbys:
            click.echo("grant pg_monitor to the role of the gateway to see the standbys", err=True)
        for finding in found.findings:
            click.echo(f"! {finding}", err=True)
    sys.exit(3 if settings.store.dsn is not None and found.findings else 0)


@group.command()
@click.argument("node", required=False)
@change_options
def switchover(node, config, **options):
    """Make NODE active instead of the one that is; without NODE the one other that could be.

    The node that was active finishes what it has begun.
    """
    from gateway.operate import pair

    sys.exit(_change(config, lambda found, _: pair.switchover(found, node), **options))


@group.command()
@click.argument("node", required=False)
@change_options
def drain(node, config, **options):
    """Take NODE, or this one, out of work until `undrain`: for maintenance. Also over a restart.

    It finishes what it has begun, claims nothing more, and answers 503 on /readyz.
    """
    from gateway.operate import pair

    sys.exit(_change(config, lambda found, here: pair.drain(found, node or here, True), **options))


@group.command()
@click.argument("node", required=False)
@change_options
def undrain(node, config, **options):
    """Let NODE, or this one, work again. It becomes active when no other is."""
    from gateway.operate import pair

    sys.exit(_change(config, lambda found, here: pair.drain(found, node or here, False), **options))


def _settings(config: Path | None) -> Any:
    from gateway.config import Config

    return Config.load(config or found_config())


async def _status(store: Any, settings: Any) -> Any:
    from gateway.operate import pair

    return await pair.status(store, demand=settings.store.synchronous)


def _change(
    config: Path | None, make: Any, *, yes: bool, dry_run: bool, force: bool, timeout: float, as_json: bool
) -> int:  # fmt: skip
    """Plan, ask, act; the exit status."""
    from gateway.errors import ConfigError
    from gateway.operate import pair

    settings = _settings(config)
    if settings.store.dsn is None:
        raise ConfigError("there is no pair: this node has a database of its own", key="store.dsn",
                          hint="nodes that share a database are a pair")  # fmt: skip
    plan = make(on_store(config, lambda store: _status(store, settings)), settings.node.name)
    refused = bool(plan.objections) and not force
    if not as_json or dry_run or refused:
        _show(plan, as_json)
    if refused:
        return 3
    if dry_run:
        return 0
    if plan.nothing:
        if as_json:
            _show(plan, as_json)
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask; --yes does it without asking")
        click.confirm("Do this?", abort=True, err=True)
    lease = on_store(
        config, lambda store: pair.carry_out(store, plan, actor=actor(settings), patience=timeout)
    )
    active = lease.holder if lease and lease.live else None
    if as_json:
        show_json({"verb": plan.verb, "node": plan.node, "before": plan.before, "active": active,
                   "epoch": lease.epoch if lease else 0})  # fmt: skip
    else:
        click.echo(f"{active or 'no node'} is active")
    return 0


def _show(plan: Any, as_json: bool) -> None:
    import msgspec

    if as_json:
        show_json(msgspec.to_builtins(plan))
        return
    if plan.nothing:
        state = "active" if plan.verb == "switchover" else f"{plan.verb}ed"
        click.echo(f"nothing to do: {plan.node} is {state} already")
        return
    change = f"active: {plan.before or 'nobody'} → {plan.after or 'nobody'}" if plan.before != plan.after else (
        f"active: {plan.before or 'nobody'}, as before")  # fmt: skip
    click.echo(f"{plan.verb} {plan.node}\n{change}", err=True)
    for objection in plan.objections:
        click.echo(f"! {objection}", err=True)
