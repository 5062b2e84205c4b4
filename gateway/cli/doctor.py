"""`gateway doctor`: is this node fit to run?"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click

from gateway.cli.local import config_option, found_config, keys_in_force
from gateway.cli.output import json_option, show_json

MARKS = {"ok": "✔", "warn": "!", "fail": "✘"}


@click.command()
@click.option("--offline", is_flag=True, help="Do not try to reach partners.")
@json_option
@config_option
def doctor(offline, as_json, config):
    """Check configuration, keys, agreements, database, ports and partners; worst first.

    Exit status 0: fit to run, 3: something must be mended.
    """
    import msgspec

    from gateway import app
    from gateway.operate.doctor import examine

    settings = app.load_config(config or found_config())
    keyring = _kept(lambda: keys_in_force(settings))
    checks = asyncio.run(
        examine(
            settings,
            load_pmodes=lambda: app.load_pmodes(settings),
            load_keyring=keyring,
            open_store=lambda: app.open_store(settings),
            lint=lambda: app.lint_pmodes(settings),
            load_bundle=lambda: app.load_bundle(settings),
            offline=offline,
        )
    )
    failed = any(check.verdict == "fail" for check in checks)
    if as_json:
        show_json({"ok": not failed, "checks": msgspec.to_builtins(checks)})
    else:
        for check in checks:
            click.echo(f"{MARKS[check.verdict]} {check.name:<28} {check.text}")
            if check.fix:
                click.echo(f"  {'':<28} → {check.fix}")
    sys.exit(3 if failed else 0)


def _kept(make: Callable[[], Any]) -> Callable[[], Any]:
    """What `make` gives or raises, once for all: it runs an event loop of its own."""
    from gateway.errors import GatewayError

    try:
        value, wrong = make(), None
    except GatewayError as error:
        value, wrong = None, error

    def give() -> Any:
        if wrong is not None:
            raise wrong
        return value

    return give
