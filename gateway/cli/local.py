"""Verbs that look into the store of this node."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
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


def acting(config: Path | None) -> str:
    """The same, by the configuration that a command was given. Raises `ConfigError`."""
    from gateway import app

    return actor(app.load_config(config or found_config()))


def note_files(config: Path | None, kind: str, subject: str, files: Mapping[str, bytes]) -> None:
    """Changed files of this node into its audit, by name and SHA-256; without a configuration there is no node.

    The files are written already and not in force: what keeps the note out is said, and ends nothing.
    """
    import hashlib

    from gateway.errors import ConfigError, StoreUnavailable
    from gateway.store.api import AuditEntry

    if not files or (config or found_config()) is None:
        return
    detail = {"files": {name: hashlib.sha256(octets).hexdigest() for name, octets in sorted(files.items())}}
    try:
        entry = AuditEntry(kind=kind, actor=acting(config), subject=subject, detail=detail)
        on_store(config, lambda store: store.audit(entry))
    except (StoreUnavailable, ConfigError) as error:
        click.echo(f"! this change of files is not in the audit, `pmodes apply` will be: {error}", err=True)


def found_config() -> Path | None:
    """The configuration of this folder, or None."""
    return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None


def settings_of(config: Path | None) -> Any:
    """The configuration. Raises `ConfigError`."""
    from gateway.config import Config

    return Config.load(config or found_config())


def on_database(settings: Any, do: Callable[[Any], Awaitable[T]], *, look_only: bool = False) -> T:
    """Run `do(store)`. A private PostgreSQL that does not run is started for as long as it takes; where there is
    none yet, who only looks sees an empty one."""
    from gateway import app
    from gateway.errors import ConfigError

    async def run() -> T:
        store = await app.open_store(settings)
        try:
            return await do(store)
        finally:
            await store.close()

    async def on_nothing() -> T:
        from gateway.clock import SystemClock
        from gateway.store.memory import MemoryStore

        return await do(MemoryStore(SystemClock()))

    if settings.store.dsn is not None or app.database_runs(settings):
        return asyncio.run(run())
    if not (settings.data.folder / "postgres" / "data" / "PG_VERSION").exists():
        if look_only:
            return asyncio.run(on_nothing())
        raise ConfigError(
            "there is no database yet", file=str(settings.data.folder), key="data.folder",
            hint="`gateway run` makes one and takes the files as the first revision",
        )  # fmt: skip
    from gateway.cli.run import Database

    database = Database(settings)
    database.start()
    try:
        return asyncio.run(run())
    finally:
        database.stop()


def keys_in_force(settings: Any) -> Any:
    """Our keys as the node has them: the ring over the key files; the files alone where no database answers.

    Raises `ConfigError`, `KeyUnavailable`.
    """
    from gateway import app
    from gateway.errors import StoreUnavailable

    if settings.store.dsn is None and not app.database_runs(settings):
        return app.load_keyring(settings)
    try:
        return on_database(settings, lambda store: app.own_keyring(settings, store))
    except StoreUnavailable:
        return app.load_keyring(settings)
