"""`gateway run`: the server. What it does is in `supervisor.py`; here is what it is told."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.local import config_option, found_config

#: Two checks of a load balancer every half second, and half a second more [reliability 5.8].
DRAIN_DELAY = 1.5


@click.command()
@config_option
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes; overrides [workers] processes.")
@click.option(
    "--drain-delay",
    type=click.FloatRange(0, 600),
    envvar="GATEWAY_DRAIN_DELAY",
    help='Seconds between "not ready" and "not listening" when stopping: what the load balancer needs to notice. '
    f"Without it {DRAIN_DELAY:g} where nodes share a database, else 0. [GATEWAY_DRAIN_DELAY]",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=60.0,
    show_default=True,
    envvar="GATEWAY_GRACE",
    help="Seconds for uploads that have begun when stopping. [GATEWAY_GRACE]",
)
@click.option("--hang-timeout", type=click.FloatRange(0, 3600), default=30.0, show_default=True,
              envvar="GATEWAY_HANG_TIMEOUT", help="Replace a worker whose loop stands still for so many seconds; "
              "0 never. [GATEWAY_HANG_TIMEOUT]")  # fmt: skip
def run(
    config: Path | None, workers: int | None, drain_delay: float | None, grace: float, hang_timeout: float
) -> None:  # fmt: skip
    """Run the gateway: AS4, plugin API and operations listeners, one worker process a core.

    \b
    SIGTERM, Ctrl-C   drain and stop; a second one hurries
    SIGHUP            read agreements, keys and TLS certificates again
    """
    from gateway import log
    from gateway.cli.supervisor import Listener, Plan, Supervisor, supervise
    from gateway.config import Config
    from gateway.msh.duty import LINGER

    settings = Config.load(config or found_config())
    plain = {"json": False, "pretty": True}.get(settings.log.format)
    log.configure(level=settings.log.level, node=settings.node.name, stream=sys.stderr, plain=plain)
    plan = Plan(
        listeners=(
            Listener("operations", settings.operations.bind, "operations.bind"),
            Listener("as4", settings.as4.bind, "as4.bind"),
            Listener("plugin", settings.plugin.bind, "plugin.bind"),
        ),
        run_folder=settings.data.folder / "run",
        config=settings,
        workers=workers or settings.workers.processes or len(os.sched_getaffinity(0)),
        node=settings.node.name,
        log_level=settings.log.level,
        log_plain=plain,
        hand_over=LINGER if settings.store.dsn and settings.pair.roles == "active/passive" else 0.0,
        drain_delay=(DRAIN_DELAY if settings.store.dsn else 0.0) if drain_delay is None else drain_delay,
        grace=grace,
        hang=hang_timeout,
    )
    try:
        supervise(Supervisor(plan, Database(settings)))
    finally:
        log.flush()


class Database:
    """The database of this node: its private PostgreSQL where no DSN is set, and the schema either way."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._private: Any = None

    def start(self) -> None:
        """Running and migrated. Raises `StoreUnavailable`."""
        from gateway import log

        # Not through gateway.app: the supervisor has no use for the rooms it would import.
        from gateway.store.postgres.migrate import migrate

        if self._config.store.dsn is not None:
            asyncio.run(migrate(self._config.store.dsn.read()))
        else:
            from gateway.store.embedded import PrivatePostgres

            private = self._private or PrivatePostgres(
                self._config.data.folder / "postgres", report=lambda text: log.event("database.starting", text=text)
            )
            dsn = private.start()
            self._private = private  # ours to stop only now: until here it may be another gateway's
            asyncio.run(migrate(dsn))
        log.event("database.started", private=self._private is not None)

    def healthy(self) -> bool:
        """Whether the private server runs; one that is not ours is judged by /readyz."""
        return self._private is None or self._private.running

    def stop(self) -> None:
        """End the private server."""
        from gateway import log

        if self._private is not None:
            self._private.stop()
            log.event("database.stopped")
