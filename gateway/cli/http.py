"""Hypercorn as we use it: one HTTP/1.1 server for one listener of one worker.

Hypercorn turns bytes into ASGI; sockets, TLS and the end of a server are ours, because its
own runner knows neither inherited sockets of several listeners nor a drain that lets uploads
finish. What it is too lenient about [stack 4.2] is made strict here:

- nothing but HTTP/1.x: no HTTP/2 by ALPN, by upgrade, or by prior knowledge [threats H03];
- a head with bare LF, folded lines, blanks before a colon, a doubled or listed
  Content-Length or Host is refused before anybody reads it [threats H02];
- a head has a deadline, also on a connection that was idle; a reader of our answers, too.

The client's certificate is in `scope["state"]["tls"]`, and every handshake asks for the
current TLS context, so that a new certificate needs no restart. `verify_mode` does not
follow: asking for client certificates where there was no need before takes a restart.

None of this is public API of hypercorn: the version is pinned and tests hold it.
"""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Callable

import h11
import hypercorn.protocol
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from msgspec import Struct

#: A head larger than what `web/limits.py` bears is not even collected: header block and request line.
HEAD_BYTES = 40 << 10

#: When a server ends, a connection that was just made has this long to say what it wants.
LAST_CALL = 1.0

#: Below its low-water mark (asyncio's and uvloop's is 16 KiB) a transport never asks for a pause.
SMALL_ANSWER = 16 << 10

_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")
_ONCE = frozenset((b"content-length", b"host", b"content-type", b"transfer-encoding"))


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Seconds and counts of one listener in one worker."""

    header_deadline: float = 10.0
    #: Partners keep connections for reuse; a minute and more saves them the handshake.
    keep_alive: float = 75.0
    handshake: float = 10.0
    #: A peer that takes nothing of our answer for so long is cut off.
    write_deadline: float = 60.0
    #: Connections at once; one more is closed at once.
    connections: int = 2000


def check_head(octets: bytes) -> None:
    """Judge the head at the beginning of `octets`, if it is complete. Raises `h11.RemoteProtocolError`."""
    # Empty lines before a request are to be ignored [rfc9112 2.2].
    start = 2 if octets.startswith(b"\r\n") else 0
    end = octets.find(b"\r\n\r\n", start)
    head = octets[start : end if end >= 0 else len(octets)]
    if len(head) > HEAD_BYTES:
        raise h11.RemoteProtocolError("head too large", error_status_hint=431)
    if b"\n" in head.replace(b"\r\n", b""):
        raise h11.RemoteProtocolError("bare LF in the head")
    if end < 0:
        return
    seen = set()
    for line in head.split(b"\r\n")[1:]:
        if not _HEADER_LINE.fullmatch(line):
            raise h11.RemoteProtocolError("header line that is none, or folded")
        name, _, value = line.partition(b":")
        name = name.lower()
        if (name in _ONCE and name in seen) or (name == b"content-length" and not value.strip(b" \t").isdigit()):
            raise h11.RemoteProtocolError("header field that says two things")
        seen.add(name)
    if b"content-length" in seen and b"transfer-encoding" in seen:
        raise h11.RemoteProtocolError("two lengths of one body")


class StrictConnection(h11.Connection):
    """h11 that looks at the raw head first."""

    def next_event(self):
        if self.their_state is h11.IDLE:
            check_head(self.trailing_data[0])
        return super().next_event()


class StrictProtocol(H11Protocol):
    """HTTP/1.x and nothing else."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.connection = StrictConnection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        self._held = b""

    async def _check_protocol(self, event: h11.Request) -> None:
        """No upgrade to HTTP/2: the application refuses such a request."""

    async def _send_h11_event(self, event: h11.Event) -> None:
        """As hypercorn does it, but the head of an answer goes out with its body, in one write."""
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response) and (b"content-length", b"0") not in event.headers:
            self._held = data
            return
        data, self._held = self._held + data, b""
        if data:
            await self.send(RawData(data=data))


class IdleTimer:
    """What closes a connection on which no request comes. Hypercorn's own is a task for every request."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None

    async def restart(self, *_: object) -> None:
        self._start()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hurry(self) -> None:
        """The server ends: what rests is closed now."""
        if self._timer is not None:
            self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._connection.patience, self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._closing = asyncio.ensure_future(self._connection._initiate_server_close())


class Connection(TCPServer):
    """One connection: the client's certificate in the state, and deadlines for head and answer."""

    def __init__(self, server: "HttpServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        seen = tls and {"peer_der": tls.getpeercert(True), "version": tls.version(), "cipher": tls.cipher()[0]}
        loop = asyncio.get_running_loop()
        super().__init__(server.app, loop, server.config, server.context, {"tls": seen}, reader, writer)
        self._settings = server.settings
        self.idle_task = IdleTimer(self)
        self._waits_for_head = True
        self._head_began = True  # a connection is opened to be used

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._waits_for_head, self._head_began = event.idle, False
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if self.writer.transport.get_write_buffer_size() + len(event.data) <= SMALL_ANSWER:
            # Never held up: the transport asks for a pause only above that.
            with contextlib.suppress(ConnectionError, RuntimeError):  # gone; whoever reads will hear of it
                self.writer.write(event.data)
            return
        try:
            async with asyncio.timeout(self._settings.write_deadline):
                await super().protocol_send(event)
        except TimeoutError:
            self.writer.transport.abort()
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(MAX_RECV)
            except OSError:  # ssl.SSLError is one
                break
            if data and self._waits_for_head and not self._head_began:
                self._head_began = True
                await self.idle_task.restart()
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())

    @property
    def patience(self) -> float:
        """How long to wait for a request; soon over when the server ends, for one may be on its way."""
        if self.context.terminated.is_set():
            return LAST_CALL if self._head_began else 0.0
        return self._settings.header_deadline if self._head_began else self._settings.keep_alive


class HttpServer:
    """`app` on one listener. `tls` gives the current context; None is plain HTTP.

    An SSLContext it returns is made ours: HTTP/1.1 only, and following later ones.
    """

    def __init__(
        self,
        app: Callable,
        sockets: list[socket.socket],
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        settings: ServerSettings | None = None,
    ) -> None:
        hypercorn.protocol.H11Protocol = StrictProtocol
        self.app, self.settings = ASGIWrapper(app), settings or ServerSettings()
        self.config, self.context = self._configured(), WorkerContext(None)
        self._sockets, self._tls = sockets, tls
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task, Connection] = {}

    def _configured(self) -> Config:
        config = Config()
        config.alpn_protocols = ["http/1.1"]
        config.keep_alive_max_requests = 1_000_000
        config.h11_max_incomplete_size = 64 << 10
        config.include_server_header = False
        config.accesslog = None
        config.errorlog = logging.getLogger("hypercorn.error")
        return config

    async def start(self) -> None:
        """Accept connections."""
        context = self._following() if self._tls else None
        for one in self._sockets:
            server = await asyncio.start_server(
                self._serve,
                sock=one,
                ssl=context,
                ssl_handshake_timeout=self.settings.handshake if context else None,
                backlog=1024,
            )
            self._servers.append(server)

    def _following(self) -> ssl.SSLContext:
        def current() -> ssl.SSLContext:
            context = self._tls()
            context.set_alpn_protocols(["http/1.1"])
            return context

        def follow(connection: ssl.SSLObject, _server_name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = current()

        first = current()
        first.sni_callback = follow  # is called for clients without SNI, too
        return first

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self.settings.connections:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        self._connections[task] = connection = Connection(self, reader, writer)
        task.add_done_callback(self._connections.pop)
        # Cut off by `finish`; nobody waits for this task, and asyncio's streams trip over a cancelled one.
        with contextlib.suppress(asyncio.CancelledError):
            await connection

    async def stop_accepting(self) -> None:
        """No new connections; those that wait for a request are closed, the others end with their answer."""
        for server in self._servers:
            server.close()
        await self.context.terminated.set()
        for connection in self._connections.values():
            connection.idle_task.hurry()

    async def finish(self, patience: float) -> int:
        """Wait for requests under way, `patience` seconds at most; then cut them off. Returns how many."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=patience)
        left = [task for task in self._connections if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)
