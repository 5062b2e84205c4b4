"""The parent of the workers: opens the sockets, starts the database, starts workers, replaces
those that die, and brings everything to an orderly end.

    SIGTERM, SIGINT   drain: not ready, wait for load balancers to notice, stop accepting, let
                      uploads finish, end the workers, then the database; a second one is in
                      a hurry, a third kills
    SIGHUP            every worker reads agreements, keys and TLS certificates again

It holds no messages and speaks to no peer, so that nothing a peer sends can bring it down.
It never answers for a worker either: a worker whose loop stands still is killed and replaced.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from gateway import log, metrics
from gateway.cli.child import Child
from gateway.cli.listeners import open_listener, shown
from gateway.cli.notify import Notifier
from gateway.cli.worker import Inherited, Orders, harden
from gateway.errors import ConfigError, StoreUnavailable


class Database(Protocol):
    """What has to run before the workers. The calls may block; they are made in one thread."""

    def start(self) -> None: ...

    def healthy(self) -> bool:
        """False: `start` is called again."""
        ...

    def stop(self) -> None: ...


class Listener(Struct, frozen=True):
    """A role, where it listens, and the setting that says so."""

    role: str
    bind: str
    key: str


class Plan(Struct, frozen=True, kw_only=True):
    """What to run. Times in seconds."""

    listeners: tuple[Listener, ...]
    run_folder: Path
    config: Any = None
    factory: str = "gateway.app:build"
    workers: int = 1
    node: str = ""
    log_level: str = "info"
    log_plain: bool | None = None
    #: From the order to stop to "not ready", at most: another node of the pair takes over meanwhile.
    hand_over: float = 0.0
    #: From "not ready" to "not listening": what load balancers need to notice.
    drain_delay: float = 0.0
    #: For uploads that have begun.
    grace: float = 60.0
    #: A worker that shows no sign of life for so long is killed.
    hang: float = 30.0


class Supervisor:
    """Runs a plan until told to stop. `on_started` is told the addresses by role."""

    def __init__(
        self,
        plan: Plan,
        database: Database | None = None,
        *,
        on_started: Callable[[dict[str, list[str]]], None] | None = None,
    ) -> None:
        self.plan, self._database, self._on_started = plan, database, on_started
        self._sockets: dict[str, list[socket.socket]] = {}
        self._children: list[Child] = []
        self._stopping, self._hurried = asyncio.Event(), asyncio.Event()
        self._signals = 0
        self._notify = Notifier()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._lock: int | None = None

    async def run(self) -> None:
        """Everything, from the sockets to the end. Raises what keeps it from starting, `ConfigError` mostly."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        try:
            self._take_folder()
            self._listen()
            await self._start_database()
            if self._stopping.is_set():
                return
            await self._start_workers()
            watching = asyncio.create_task(self._watch())
            await self._stopping.wait()
            watching.cancel()
            await self._drain()
        finally:
            await self._end()

    def stop(self) -> None:
        """A signal: the first drains, the second hurries, the third kills."""
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            self._hurried.set()
        for child in self._children:
            if self._signals == 2:
                child.order("hurry")
            elif self._signals > 2:
                child.kill()

    def reload(self) -> None:
        """Have every worker read its files again. What cannot be used stays as it was, worker by worker."""
        self._notify.reloading()
        for child in self._children:
            child.order("reload")
        self._notify.ready()

    # -- starting -------------------------------------------------------------------

    def _take_folder(self) -> None:
        """The run folder, empty, for this supervisor alone."""
        folder = self.plan.run_folder
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(
            folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigError(
                f"another gateway runs with {folder.parent}", key="data.folder",
                hint="stop it, or give this one a folder of its own",
            ) from None  # fmt: skip
        self._lock = lock
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        metrics.configure(folder, "supervisor")

    def _listen(self) -> None:
        for one in self.plan.listeners:
            self._sockets[one.role] = open_listener(one.bind, one.key)

    async def _start_database(self) -> None:
        if self._database is not None:
            await self._in_thread(self._database.start)

    async def _start_workers(self) -> None:
        self._children = [
            Child(slot, self._orders, self._stopping, hang=self.plan.hang) for slot in range(self.plan.workers)
        ]
        for child in self._children:
            child.begin()
        up = [asyncio.create_task(child.up()) for child in self._children]
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while waiting := [task for task in up if not task.done()]:
                done, _ = await asyncio.wait([*waiting, stopped], return_when=asyncio.FIRST_COMPLETED)
                if stopped in done:
                    return
                for task in done:
                    await task  # raises why a worker cannot start: one that cannot speaks for all
        finally:
            for task in (*up, stopped):
                task.cancel()
            await asyncio.gather(*up, stopped, return_exceptions=True)
        addresses = {role: [shown(one) for one in sockets] for role, sockets in self._sockets.items()}
        log.event("gateway.started", workers=self.plan.workers, **{r: " ".join(a) for r, a in addresses.items()})
        self._notify.ready()
        if self._on_started is not None:
            self._on_started(addresses)

    # -- running --------------------------------------------------------------------

    async def _watch(self) -> None:
        """Once a second: does the database run, do the loops turn, does the service manager want a sign?"""
        while True:
            await asyncio.sleep(1.0)
            for child in self._children:
                child.check()
            if all(child.serves for child in self._children):
                self._notify.alive()
            try:
                if self._database is not None and not await self._in_thread(self._database.healthy):
                    log.event(
                        "store.unavailable", level="error", reason="the private PostgreSQL ended; starting it again"
                    )
                    await self._start_database()
            except StoreUnavailable as error:
                log.event("store.unavailable", level="error", reason=str(error))
            except Exception as error:  # whatever it is, watching goes on
                log.event("incident", level="error", exc_info=error)

    # -- ending ---------------------------------------------------------------------

    async def _drain(self) -> None:
        """Handed over → not ready → delay → not listening → uploads finish. Signals shorten it."""
        plan = self.plan
        log.event("gateway.stopping", delay=plan.drain_delay, grace=plan.grace)
        self._notify.stopping()
        for child in self._children:
            child.order("drain")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.hand_over + plan.drain_delay):
                await self._hurried.wait()
        for child in self._children:
            child.order(f"stop {plan.grace:g}")
        # Ours too: while one descriptor is open the kernel takes connections that nobody accepts.
        self._close(keep="operations")
        await self._gone(plan.grace + 10.0)

    async def _gone(self, patience: float) -> None:
        """Wait for the workers; kill those that stay."""
        ends = [asyncio.create_task(child.ended()) for child in self._children]
        if ends:
            until = time.monotonic() + patience
            while (pending := [task for task in ends if not task.done()]) and time.monotonic() < until:
                if self._hurried.is_set():
                    until = min(until, time.monotonic() + 3.0)
                await asyncio.wait(pending, timeout=0.2)
            for child in self._children:
                child.kill()
            await asyncio.gather(*ends)

    async def _end(self) -> None:
        self._stopping.set()
        for child in self._children:
            child.order("stop 1")
            child.order("hurry")
        await self._gone(5.0)
        self._close()
        if self._database is not None:
            await self._in_thread(self._database.stop)
        self._thread.shutdown(wait=False)
        log.event("gateway.stopped")
        if self._lock is not None:
            shutil.rmtree(self.plan.run_folder, ignore_errors=True)
            os.close(self._lock)

    def _close(self, keep: str = "") -> None:
        for role, sockets in self._sockets.items():
            if role != keep:
                for one in sockets:
                    one.close()

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _orders(self, slot: int) -> Orders:
        """What the worker in place `slot` is to be."""
        plan = self.plan
        return Orders(
            slot=slot,
            factory=plan.factory,
            config=plan.config,
            listeners=tuple(
                Inherited(role=role, fds=tuple(one.fileno() for one in sockets))
                for role, sockets in self._sockets.items()
            ),
            run_folder=plan.run_folder,
            node=plan.node,
            log_level=plan.log_level,
            log_plain=plan.log_plain,
        )


def supervise(supervisor: Supervisor) -> None:
    """Run it in this process."""
    # No umask here: the private PostgreSQL reads files of ours as another user. What the supervisor
    # itself writes has its mode given.
    harden()
    asyncio.run(supervisor.run())
