"""Verbs that look into the store of this node."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

T = TypeVar("T")

#: Where a configuration is found when none is named.
DEFAULT_CONFIG = Path("gateway.toml")


def config_option(command):
    """`--config FILE`."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="GATEWAY_CONFIG",
        help="gateway.toml; without it the one in this folder, if there is one. [GATEWAY_CONFIG]",
    )(command)


class Moment(click.ParamType):
    """A moment as RFC 3339; without an offset it is UTC."""

    name = "time"

    def convert(self, value, param, ctx) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-11-21T14:00:00Z", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def on_store(config: Path | None, do: Callable[..., Awaitable[T]]) -> T:
    """Run `do(store)` on the store of this node. Raises `StoreUnavailable`, `ConfigError`."""
    from gateway import app

    async def run() -> T:
        store = await app.open_store(app.load_config(config or found_config()))
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(run())


def actor(settings: Any) -> str:
    """Who acts, as it stands in the audit: the user of the system and the node."""
    import getpass
    import os

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        user = f"uid {os.getuid()}"
    return f"{user}@{settings.node.name}"


def found_config() -> Path | None:
    """The configuration of this folder, or None."""
    return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
