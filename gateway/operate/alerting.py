"""The operator's hook: alerts are told to a URL or a command, and tried again a few times.

Alerts wait in the database; whichever node has a hook takes the next one. A URL gets a CloudEvent that is signed like
every webhook of ours, under the egress policy of webhooks. A command gets the same JSON on its standard input, and
nothing of our environment: no secrets, no database.
"""

import asyncio
import contextlib
import os
import signal
from typing import Protocol

from gateway import log
from gateway.config import Config
from gateway.errors import ClaimLost, ConfigError, DeliveryDelayed, DeliveryRefused
from gateway.plugin import Event, WebhookTarget
from gateway.stages import point
from gateway.store.alerts import Alert
from gateway.store.api import Store

#: Seconds before each further attempt. Then it is given up, and the log says so: what is not told in a day is old.
RETRIES = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0)
#: What a hook may take, and how long an alert stays ours without a word.
DEADLINE, LEASE = 30.0, 45.0
#: An alert that found no hook in a week is not told any more.
NEWER = 7 * 86_400.0


class Sender(Protocol):
    """How webhooks of ours are told: `WebhookSender`."""

    def body(self, event: Event) -> bytes: ...

    async def notify(self, target: WebhookTarget, event: Event) -> int: ...


class Hook:
    """Tells one alert after the other to what `[alerts]` names."""

    def __init__(self, config: Config, store: Store, sender: Sender) -> None:
        self._config, self._store, self._sender = config, store, sender

    @property
    def is_set(self) -> bool:
        """Whether there is anybody to tell."""
        return self._config.alerts.url is not None or bool(self._config.alerts.command)

    async def run(self) -> None:
        """Tell what is due. Raises `StoreUnavailable`."""
        while self.is_set and (alert := await self._store.claim_alert(lease=LEASE, newer=NEWER)) is not None:
            with contextlib.suppress(ClaimLost):  # it took too long; another node tells it again
                await self._one(alert)

    async def _one(self, alert: Alert) -> None:
        point("AL02")
        try:
            async with asyncio.timeout(DEADLINE):
                await self._tell(alert)
        except (DeliveryDelayed, DeliveryRefused, ConfigError, OSError, TimeoutError) as error:
            why = log.printable(str(error) or f"no answer within {DEADLINE:g} s", 300)
            last = isinstance(error, DeliveryRefused) or alert.attempt > len(RETRIES)
            wait = 0.0 if last else RETRIES[alert.attempt - 1]
            await self._store.finish_alert(
                alert.id, alert.claim, state="PARKED" if last else "READY", due_in=wait, error=why
            )
            log.event("alert.parked" if last else "alert.retrying", level="error" if last else "warning",
                      alert=alert.id, type=alert.type, reason=why)  # fmt: skip
            return
        point("AL03")
        await self._store.finish_alert(alert.id, alert.claim, state="DONE")
        log.event("alert.told", alert=alert.id, type=alert.type)

    async def _tell(self, alert: Alert) -> None:
        """Raises what keeps it from being told."""
        hook = self._config.alerts
        event = Event(id=str(alert.id), type=alert.type, at=alert.at, subject="certificates", data=alert.data)
        if hook.url is not None:
            secret = hook.secret.line().decode() if hook.secret is not None else ""
            target = WebhookTarget(id="alerts", backend="operator", url=hook.url, secret=secret)
            await self._sender.notify(target, event)
        else:
            await _run(hook.command, self._sender.body(event))


async def _run(command: tuple[str, ...], body: bytes) -> None:
    """Raises `DeliveryDelayed` unless it ends with 0; it is killed, with its children, when we are cancelled."""
    # A file in memory and no pipe: nobody has to write while the other does not read, or is gone.
    with os.fdopen(os.memfd_create("alert"), "w+b", buffering=0) as given:
        given.write(body)
        given.seek(0)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=given, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}, cwd="/", start_new_session=True,
        )  # fmt: skip
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        raise DeliveryDelayed(f"the command ended with status {status}")
