"""One worker process: `python -m gateway.cli.worker`, started by the supervisor and by nobody else.

It inherits the listening sockets, reads what it is to be from standard input, builds the
gateway, and serves. Standard input stays open: the supervisor's commands come over it, and
its end is the supervisor's end. Standard output carries the worker's reports.

    drain     be not ready, but serve                 (/readyz says 503, load balancers turn away;
                                                       the lease of a pair goes to another node)
    stop N    accept nothing, finish within N seconds, leave
    hurry     leave now
    reload    read agreements, keys and TLS certificates again

Nothing secret is in the arguments or the environment, the process leaves no core dump and
cannot be read by others of the same user [threats M03, M05].
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import inspect
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway import log, metrics
from gateway.errors import ConfigError, GatewayError

#: How often a worker shows that its loop turns.
BEAT = 1.0
#: What is left of a worker whose supervisor is gone.
ORPHAN_SECONDS = 3.0
PR_SET_DUMPABLE = 4

_LENGTH = struct.Struct("!I")


class Inherited(Struct, frozen=True, kw_only=True):
    """One listener: its role (as4, plugin, operations) and the file descriptors of its sockets."""

    role: str
    fds: tuple[int, ...]


class Orders(Struct, frozen=True, kw_only=True):
    """What a worker is to be. Sent once, pickled: it comes from our own supervisor and holds a Config."""

    slot: int
    #: `module:function`, an async function from the configuration to the gateway.
    factory: str
    config: Any
    listeners: tuple[Inherited, ...]
    run_folder: Path
    node: str = ""
    log_level: str = "info"
    log_plain: bool | None = None


def send_orders(orders: Orders) -> bytes:
    """What the supervisor writes first."""
    octets = pickle.dumps(orders)
    return _LENGTH.pack(len(octets)) + octets


def _read_orders(fd: int) -> Orders:
    (length,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size))
    return pickle.loads(_read_exactly(fd, length))  # noqa: S301 -- from our parent, over its own pipe


def _read_exactly(fd: int, size: int) -> bytes:
    octets = b""
    while len(octets) < size:
        block = os.read(fd, size - len(octets))
        if not block:
            raise SystemExit("this is for the supervisor: use `gateway run`")
        octets += block
    return octets


def harden() -> None:
    """No core dumps, nothing for other processes of the same user to read, many files."""
    os.environ.pop("SSLKEYLOGFILE", None)  # would write the keys of every TLS connection to a file
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Every connection is a file; the soft limit of 1024 is history.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Worker:
    """Builds the gateway, serves it, and ends in order."""

    def __init__(self, orders: Orders, report: Callable[..., None]) -> None:
        self._orders, self._report = orders, report
        self._draining = self._started = False
        self._stop: asyncio.Future[float] | None = None
        self._hurry = asyncio.Event()
        self._gateway: Any = None
        self._listeners: Any = None
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Until told to stop. Raises what keeps it from starting."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_unheard)
        self._stop = loop.create_future()
        for number, command in ((signal.SIGTERM, "stop 30"), (signal.SIGHUP, "reload")):
            loop.add_signal_handler(number, self.obey, command)
        threading.Thread(target=self._listen, args=(loop,), daemon=True, name="supervisor").start()
        beating = asyncio.create_task(self._beat())
        try:
            await self._serve()
        finally:
            beating.cancel()

    async def _serve(self) -> None:
        from gateway.cli.listening import Listening

        module, _, name = self._orders.factory.partition(":")
        build = getattr(importlib.import_module(module), name)
        self._gateway = gateway = await build(self._orders.config)
        sockets = {one.role: [socket.socket(fileno=fd) for fd in one.fds] for one in self._orders.listeners}
        self._listeners = Listening(
            gateway, self._orders.config, sockets,
            ready=self._ready, role=self._role, started=lambda: self._started, closing=lambda: self._draining,
        )  # fmt: skip
        try:
            await gateway.start()
            await self._listeners.start()
            _settle_memory()
            self._started = True
            self._report(up=True)
            log.event("worker.started", worker=self._orders.slot)
            patience = await self._stop
            await self._finish(patience)
        finally:
            await gateway.close()

    async def _finish(self, patience: float) -> None:
        """Nothing new comes in; what has begun may end."""
        await self._listeners.stop_accepting()
        ending = asyncio.gather(self._listeners.finish(patience), self._drain(patience))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((ending, hurried), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await self._listeners.finish(0)
            ending.cancel()
        hurried.cancel()
        await asyncio.gather(ending, hurried, return_exceptions=True)
        await self._listeners.close()

    async def _drain(self, patience: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._gateway.drain()

    async def _ready(self) -> tuple[bool, list[tuple[str, bool, str]]]:
        own = ("worker", not self._draining, "draining" if self._draining else f"worker {self._orders.slot} serves")
        found = self._gateway.ready()
        verdict, checks = await found if inspect.isawaitable(found) else found
        return verdict and own[1], [own, *checks]

    async def _role(self) -> tuple[str, tuple[bool, list[tuple[str, bool, str]]]]:
        role, (well, checks) = await self._gateway.role()
        return role, (well and not self._draining, checks)

    async def _step_down(self) -> None:
        """Another node takes over first; only then this one is no longer ready."""
        try:
            if self._started:
                await self._gateway.step_down()
        finally:
            self._draining = True

    # -- the supervisor -------------------------------------------------------------

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own, because it must notice the supervisor's end even if the loop hangs."""
        with open(0, "rb", closefd=False) as commands:
            for line in commands:
                loop.call_soon_threadsafe(self.obey, line.decode().strip())
        with contextlib.suppress(RuntimeError):  # the loop is gone already
            loop.call_soon_threadsafe(self.obey, "stop 1")
            loop.call_soon_threadsafe(self.obey, "hurry")
        threading.Event().wait(ORPHAN_SECONDS)
        os._exit(70)

    def obey(self, command: str) -> None:
        """Carry out one command."""
        verb, _, argument = command.partition(" ")
        match verb:
            case "drain":
                self._stepping = asyncio.ensure_future(self._step_down())
            case "stop":
                self._draining = True
                if not self._stop.done():
                    self._stop.set_result(float(argument or 30))
            case "hurry":
                self._hurry.set()
            case "reload":
                self._reloads = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        async with self._reloading:
            if not self._started:
                return
            try:
                contexts = self._listeners.fresh()
                await self._gateway.reload()
                self._listeners.use(contexts)
            except (GatewayError, OSError) as error:
                self._report(reload_failed=str(error))
                log.event("gateway.reload_failed", level="error", worker=self._orders.slot, reason=str(error))
            else:
                self._report(reloaded=True)

    async def _beat(self) -> None:
        while True:
            self._report(beat=True)
            await asyncio.sleep(BEAT)


def _unheard(loop: asyncio.AbstractEventLoop, context: dict) -> None:
    """An exception nobody waited for. Failed handshakes are daily business and no exception of ours."""
    error = context.get("exception")
    if not isinstance(error, OSError):  # ssl.SSLError is one
        log.event("incident", level="error", reason=context.get("message"), exc_info=error)


def _settle_memory() -> None:
    """Leave modules and agreements out of garbage collection; what a message makes hardly has cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _reporter() -> Callable[..., None]:
    """A function that writes one report; what else is printed goes to standard error."""
    channel = os.dup(1)
    os.dup2(2, 1)
    os.set_blocking(channel, False)

    def report(**facts: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more, or is far behind
            os.write(channel, json.dumps(facts).encode() + b"\n")

    return report


def main() -> None:
    """The process. Its exit status is 0 only after an orderly end."""
    orders = _read_orders(0)
    harden()
    os.umask(0o077)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = _reporter()
    log.configure(level=orders.log_level, node=orders.node, stream=sys.stderr, plain=orders.log_plain)
    metrics.configure(orders.run_folder, str(orders.slot))
    try:
        run(Worker(orders, report).run())
    except GatewayError as error:
        hint = error.hint if isinstance(error, ConfigError) else ""
        report(failed=str(error).removesuffix(f" ({hint})") if hint else str(error), hint=hint)
        sys.exit(1)
    except Exception as error:
        log.event("incident", level="error", exc_info=error)
        report(failed=f"{type(error).__name__}: {error}", hint="")
        sys.exit(1)
    finally:
        log.flush()


def run(main: Awaitable[None]) -> None:
    """Run `main` on uvloop, which takes a third less CPU for the same requests [stack 4.1]."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


if __name__ == "__main__":
    main()
