"""Listening sockets: opened once by the supervisor, inherited by every worker.

All workers accept from the same socket, so whichever is free takes the next connection, and
a worker that dies takes no queue of waiting connections with it.
"""

import contextlib
import errno
import os
import socket
from pathlib import Path

from gateway.errors import ConfigError

#: Connections that may wait to be accepted; the kernel cuts it at net.core.somaxconn.
BACKLOG = 1024


def open_listener(bind: str, key: str) -> list[socket.socket]:
    """Sockets that listen at `bind`: `host:port`, `[v6]:port` or `:port` (every address, both families).

    A name is taken with all its addresses; with port 0 they share the port the first one got.
    `key` is the setting at fault when it fails: raises `ConfigError` that says who is there already.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    wanted = _addresses(host, int(port), bind, key)
    opened: list[socket.socket] = []
    try:
        for family, address in wanted:
            if opened and address[1] == 0:
                address = (address[0], opened[0].getsockname()[1], *address[2:])
            try:
                opened.append(_listen(family, address))
            except OSError as error:
                # Without an IPv6 stack `:port` is every IPv4 address.
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and opened and not host:
                    continue
                raise _explained(error, address, bind, key) from None
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _addresses(host: str, port: int, bind: str, key: str) -> list[tuple[int, tuple]]:
    if not host:
        return [(socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port))]  # noqa: S104 -- asked for
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"{bind!r} names no address of this machine", key=key) from None
    return list(dict.fromkeys((family, address) for family, *_, address in found))


def _listen(family: int, address: tuple) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Inherited by every accepted connection: answers are small and must not wait for company.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.bind(address)
        one.listen(BACKLOG)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


def _explained(error: OSError, address: tuple, bind: str, key: str) -> ConfigError:
    port = address[1]
    match error.errno:
        case errno.EADDRINUSE:
            who = holder_of(port)
            return ConfigError(
                f"port {port} is in use{f' by {who}' if who else ''}",
                key=key,
                hint=f"stop it, or set {key} to another port",
            )
        case errno.EACCES:
            return ConfigError(
                f"port {port} is for privileged programs", key=key,
                hint="use a port above 1023, or grant CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities)",
            )  # fmt: skip
        case errno.EADDRNOTAVAIL:
            return ConfigError(f"this machine has no address {address[0]}", key=key, hint="`ip address` lists them")
        case _:
            return ConfigError(f"cannot listen at {bind}: {error.strerror}", key=key)


def holder_of(port: int) -> str:
    """Name and process id of who listens on `port`, as far as we may see; empty otherwise."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                # local_address is hexadecimal address:port; state 0A is LISTEN.
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                if os.readlink(fd) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def shown(one: socket.socket) -> str:
    """`host:port` of a listening socket."""
    host, port = one.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
