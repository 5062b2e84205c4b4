"""A wire between two parties that can be cut: it loses answers, as networks do."""

import contextlib
import socket
import threading


class Wire:
    """Forwards TCP to `target`. While `lose` is above 0, one answer after another is lost.

    A lost answer: the request goes through whole; when the receiver begins to answer, both
    connections end.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._lose = 0
        self.lost = 0
        #: Requests that came through, lost answers included.
        self.carried = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, count: int) -> None:
        """Lose the next `count` answers."""
        with self._lock:
            self._lose = count

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, sender: socket.socket) -> None:
        asked = threading.Event()  # a request has been going out since the last answer began
        with contextlib.suppress(OSError), contextlib.closing(sender):
            with socket.create_connection(self._target, 10) as receiver:
                threading.Thread(target=self._forward, args=(sender, receiver, asked), daemon=True).start()
                while block := receiver.recv(65536):
                    if asked.is_set():
                        asked.clear()
                        if self._is_lost():
                            break
                    sender.sendall(block)
                # closing alone would wait for the other thread, which reads from it
                for side in (sender, receiver):
                    side.shutdown(socket.SHUT_RDWR)

    def _is_lost(self) -> bool:
        with self._lock:
            self.carried += 1
            if self._lose <= 0:
                return False
            self._lose -= 1
            self.lost += 1
            return True

    @staticmethod
    def _forward(sender: socket.socket, receiver: socket.socket, asked: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while block := sender.recv(65536):
                asked.set()
                receiver.sendall(block)
            receiver.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()
