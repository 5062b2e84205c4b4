"""The three listeners of a worker: AS4, plugin API, operations."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from gateway import log, metrics
from gateway.cli.http import HttpServer, ServerSettings
from gateway.web.limits import Limited, RequestLimits
from gateway.web.ops import OpsApp, Verdict

#: Beyond the largest message a body may have so much before it is refused without being read:
#: within it the AS4 side answers with an ebMS error.
SLACK = 1 << 20


class Listening:
    """Serves `gateway.as4`, `gateway.plugin` and its health on the inherited sockets."""

    def __init__(
        self,
        gateway: Any,
        config: Any,
        sockets: Mapping[str, list[socket.socket]],
        *,
        ready: Callable[[], Verdict],
        role: Callable[[], Any],
        started: Callable[[], bool],
        closing: Callable[[], bool],
    ) -> None:
        limits = config.limits
        requests = RequestLimits(
            body=limits.message + SLACK, body_deadline=limits.body_deadline, rate=float(limits.body_rate)
        )
        settings = ServerSettings(header_deadline=limits.header_deadline)
        ops = OpsApp(ready=ready, role=role, started=started, metrics=metrics.exposition)
        self._contexts = {
            "as4": Context(config.as4.tls, lambda: gateway.tls_key("tls-server")),
            "plugin": Context(config.plugin.tls),
        }
        apps = {
            "as4": Limited(gateway.as4, requests, closing=closing),
            "plugin": Limited(gateway.plugin, requests, closing=closing),
            "operations": ops,
        }
        self._servers = {
            role: HttpServer(
                app, sockets[role], settings=settings,
                tls=self._contexts[role] if role in self._contexts and self._contexts[role].current else None,
            )
            for role, app in apps.items()
            if role in sockets
        }  # fmt: skip

    async def start(self) -> None:
        """Accept connections; operations first, so that a slow start can be watched."""
        for role in sorted(self._servers, reverse=True):
            await self._servers[role].start()

    async def stop_accepting(self) -> None:
        """The operations listener goes on: somebody wants to see that we are not ready."""
        for role, server in self._servers.items():
            if role != "operations":
                await server.stop_accepting()

    async def finish(self, patience: float) -> None:
        """Wait for requests under way, then cut them off."""
        await asyncio.gather(*(s.finish(patience) for role, s in self._servers.items() if role != "operations"))

    async def close(self) -> None:
        """The very end."""
        for server in self._servers.values():
            await server.stop_accepting()
        await asyncio.gather(*(server.finish(0) for server in self._servers.values()))

    def fresh(self) -> dict[str, ssl.SSLContext | None]:
        """New TLS contexts from the files as they are now. Raises `ConfigError`."""
        return {role: context.read() for role, context in self._contexts.items()}

    def use(self, fresh: Mapping[str, ssl.SSLContext | None]) -> None:
        """From the next handshake on."""
        for role, context in fresh.items():
            self._contexts[role].current = context


class Context:
    """The current TLS context of one listener; None where there is no TLS.

    `ring` gives the key of the ring of our own keys, where there is one; it goes before the configured file.
    """

    def __init__(self, tls: Any, ring: Callable[[], Any] = lambda: None) -> None:
        self._tls, self._ring = tls, ring
        self._of_ring: tuple[Any, ssl.SSLContext | None] = (None, None)
        self.current = self.read()

    def read(self) -> ssl.SSLContext | None:
        """A context from the files as they are now. Raises `ConfigError`."""
        if self._tls is None:
            return None
        from gateway.keys.tls import server_context

        if self._tls.certificate is None and self._ring() is None:
            log.event("listener.nameless", level="error")
        self._of_ring = (None, None)  # what else is in the files is read anew for it, too
        return server_context(self._tls)

    def __call__(self) -> ssl.SSLContext:
        """What the next handshake is made with."""
        key, (known, context) = self._ring(), self._of_ring
        if key is None:
            return self.current
        if key is not known:
            from gateway.keys.tls import server_context

            context = server_context(self._tls, key)
            self._of_ring = (key, context)
        return context
