"""What stands between LV and EE and plays with the answers: they are lost, late, doubled, or another's.

It notes each request and each answer before it passes them on or keeps them.
"""

import http.client
import http.server
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable

MESSAGE_ID = re.compile(rb"<[^>]*MessageId>([^<]+)<")
DIGEST = re.compile(rb"<[^>]*DigestValue>([^<]+)<")
RECEIPT_TYPE = "application/soap+xml; charset=UTF-8"


class Proxy:
    """`rule(message_id, attempt)` says what becomes of the answer to that attempt (from 1): the answer to give, `True`
    for the one that came, `None` for none at all."""

    def __init__(self, port: int | Callable[[], int]) -> None:
        """`port` is EE's, or says for each request which node's."""
        self.refused: list[int] = []  # answers that are no 2xx; 0: none at all
        self.attempts: dict[str, list[tuple[bytes, ...]]] = defaultdict(list)  # MessageId -> digests, attempt by attempt
        self.receipts: dict[str, list[bytes]] = defaultdict(list)              # MessageId -> what EE answered
        self.rule: Callable[[str, int], bytes | bool | None] = lambda id, attempt: True
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                id = MESSAGE_ID.search(body)[1].decode()
                proxy.attempts[id].append(tuple(sorted(DIGEST.findall(body))))
                attempt = len(proxy.attempts[id])
                onward = http.client.HTTPConnection("127.0.0.1", port if isinstance(port, int) else port(), timeout=30)
                try:
                    onward.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
                    answer = onward.getresponse()
                    octets = answer.read()
                except (OSError, http.client.HTTPException):
                    proxy.refused.append(0)
                    self.close_connection = True
                    return
                finally:
                    onward.close()
                if not 200 <= answer.status < 300:
                    proxy.refused.append(answer.status)
                proxy.receipts[id].append(octets)
                told = proxy.rule(id, attempt)
                if told is None:
                    self.close_connection = True
                    return
                octets = octets if told is True else told
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def _body(self) -> bytes:
                if length := self.headers["Content-Length"]:
                    return self.rfile.read(int(length))
                blocks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    blocks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(blocks)

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_port

    def wait(self, id: str, attempts: int, seconds: float = 60) -> None:
        """Until so many attempts of a message were answered by EE."""
        end = time.monotonic() + seconds
        while len(self.receipts[id]) < attempts:
            assert time.monotonic() < end, f"{len(self.receipts[id])} attempts of {id}"
            time.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def post(port: int, octets: bytes) -> int:
    """POST a signal that comes by itself; the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/as4", octets, {"Content-Type": RECEIPT_TYPE})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
