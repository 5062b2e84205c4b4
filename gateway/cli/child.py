"""One place for a worker, and the process that fills it at the moment."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

import msgspec

from gateway import log, metrics
from gateway.cli.worker import Orders, send_orders
from gateway.errors import ConfigError, GatewayError

#: A worker that dies again and again is started ever more rarely, up to this.
LONGEST_PAUSE = 1.0
#: One that lived so long has its past forgiven.
FORGIVEN = 60.0


class Child:
    """Keeps a worker in place `slot` until `stopping` is set. `orders` says what it is to be, `hang`
    after how many seconds without a sign of life it is killed."""

    def __init__(self, slot: int, orders: Callable[[int], Orders], stopping: asyncio.Event, *, hang: float) -> None:
        self.slot, self._orders, self._stopping, self._hang = slot, orders, stopping, hang
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failures = 0
        self._heard = 0.0
        self.serves = False

    def begin(self) -> None:
        self._task = asyncio.create_task(self._live())

    async def up(self) -> None:
        """The first process of this place serves. Raises what keeps it from it."""
        await asyncio.shield(self._first)

    async def ended(self) -> None:
        """No process is here any more, and none will come."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _live(self) -> None:
        replaced = False
        while not self._stopping.is_set():
            began = time.monotonic()
            failed = await self._one(replaced)
            if self._stopping.is_set():
                break
            if not self._first.done():
                # It never served: it will not the next time either.
                self._first.set_exception(failed)
                return
            self._failures = 0 if time.monotonic() - began > FORGIVEN else self._failures + 1
            struck = "GATEWAY_CRASH_ONCE" in os.environ  # a crash test, which has the next point in mind
            pause = min(0.1 * 2 ** (self._failures - 1), LONGEST_PAUSE) if self._failures and not struck else 0.0
            log.event("worker.died", level="error", worker=self.slot, reason=str(failed), retry_in=round(pause, 1))
            metrics.worker_restarted()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            replaced = True
        if not self._first.done():
            self._first.cancel()

    async def _one(self, replaced: bool) -> GatewayError:
        """Start a process and see it to its end; why it ended."""
        orders = self._orders(self.slot)
        fds = [fd for one in orders.listeners for fd in one.fds]
        environment = dict(os.environ)
        if replaced and not environment.keys() & {"GATEWAY_CRASH_ONCE", "GATEWAY_CRASH_MESSAGE"}:
            # A crash test strikes once; whoever takes over is to recover and not to crash again.
            environment.pop("GATEWAY_CRASH", None)
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=fds,
            start_new_session=True,  # Ctrl-C is for the supervisor
            env=environment,
        )  # fmt: skip
        self._heard = time.monotonic()
        process.stdin.write(send_orders(orders))
        if self._stopping.is_set():  # between the decision and the process
            self.order("stop 1")
        failed: GatewayError | None = None
        with contextlib.suppress(ConnectionError, ValueError):
            async for line in process.stdout:
                failed = self._hear(line) or failed
        status = await process.wait()
        self.serves = False
        self._process = None
        if status == 0 and self._stopping.is_set():
            log.event("worker.stopped", worker=self.slot)
        return failed or GatewayError(f"worker {self.slot} {_ended(status)}")

    def _hear(self, line: bytes) -> GatewayError | None:
        """One report of the worker; an error if it is about to give up."""
        self._heard = time.monotonic()
        try:
            report = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return None
        if report.get("up"):
            self.serves = True
            if not self._first.done():
                self._first.set_result(None)
        if report.get("reloaded"):
            log.event("gateway.reloaded", worker=self.slot)
        if "failed" in report:
            return ConfigError(report["failed"], hint=report.get("hint", ""))
        return None

    def order(self, command: str) -> None:
        """Tell the process, if there is one."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(command.encode() + b"\n")

    def check(self) -> None:
        """Kill a process that does not show that its loop turns."""
        if self.serves and self._hang and time.monotonic() - self._heard > self._hang:
            log.event("worker.hung", level="error", worker=self.slot, seconds=round(self._hang, 1))
            self.serves = False
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
