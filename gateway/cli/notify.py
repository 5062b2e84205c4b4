"""Tell systemd how things stand (sd_notify), when it asked to be told."""

import os
import socket
import time


class Notifier:
    """Sends states to NOTIFY_SOCKET; does nothing without one."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = float(os.environ.pop("WATCHDOG_USEC", 0) or 0) / 1e6
        self._last = 0.0

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
                one.connect(self._address)
                one.sendall(text.encode())
        except OSError:
            return

    def ready(self) -> None:
        self._send("READY=1\nSTATUS=serving")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=draining")

    def alive(self) -> None:
        """All workers turn. Called more often than needed; sent as often as asked for."""
        if self._watchdog and time.monotonic() - self._last > self._watchdog / 3:
            self._last = time.monotonic()
            self._send("WATCHDOG=1")
