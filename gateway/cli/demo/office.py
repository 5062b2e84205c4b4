"""Business software behind one access point: it submits, is told by webhook, claims, acknowledges.

Outside software, in one process with the demo only for convenience: it knows the gateway by
its plugin API and nothing else. What both sides of the exchange share is here; what they do
with a message is in `requester` and `provider`.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gateway.cli.demo.ledger import Ledger, Sent, Taken, digest
from gateway.client import GatewayClient, GatewayProblem, Part, WebhookRefused, verify_webhook
from gateway.errors import GatewayError
from gateway.oots import codes

#: A lost webhook costs this long, no message: the office looks by itself as well.
SWEEP = 2.0
#: Webhooks are thin; anything larger is not from our gateway.
MAX_BODY = 64 << 10

Take = Callable[[Mapping[str, Any], bytes, Mapping[str, bytes]], None]


class Office:
    """One side of the exchange. `take(message, document, payloads)` is called for every message."""

    def __init__(self, direction: str, client: GatewayClient, ledger: Ledger, take: Take) -> None:
        self.direction, self.client = direction, client
        self.notified = 0
        self._ledger, self._take = ledger, take
        self._secret = self._webhook = ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True),
            threading.Thread(target=self._work, daemon=True),
        ]

    def start(self) -> None:
        """Register the webhook and begin to work."""
        url = f"http://127.0.0.1:{self._server.server_port}/hooks/gateway"
        webhook = self.client.add_webhook(url, ["message.received"])
        self._secret, self._webhook = webhook["secret"], webhook["id"]
        for thread in self._threads:
            thread.start()

    def retire(self) -> None:
        """Leave the inbox to somebody else: what comes from now on is theirs."""
        self.client.remove_webhook(self._webhook)
        self.stop()
        self._threads[1].join(10)

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._threads[0].is_alive():
            self._server.shutdown()
        self._server.server_close()

    # -- sending ----------------------------------------------------------------------

    def send(
        self,
        to_party: Mapping[str, str],
        action: str,
        parts: Sequence[Part],
        *,
        conversation_id: str,
        properties: Sequence[Mapping[str, str]],
    ) -> None:
        """Submit a message of the QueryManager and enter it in the books."""
        submitted = self.client.submit(
            {"id": to_party["id"], "type": to_party["type"]},
            action,
            parts,
            properties=properties,
            conversation_id=conversation_id,
            service=codes.QUERY_MANAGER,
            service_type=codes.SERVICE_TYPE,
        )
        self._ledger.note_sent(
            Sent(
                direction=self.direction,
                action=action,
                id=submitted["id"],
                message_id=submitted["message_id"],
                size=sum(part.size() for part in parts),
                digests={part.cid or "": digest(b"".join(part.blocks())) for part in parts},
                client=self.client,
            )
        )

    # -- being told -------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        office = self

        class Hook(BaseHTTPRequestHandler):
            """POST /hooks/gateway: a signed event."""

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if 0 < length <= MAX_BODY else b""
                self.send_response(office.told(dict(self.headers.items()), body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """The demo's output is for the exchange."""

        return Hook

    def told(self, headers: Mapping[str, str], body: bytes) -> int:
        """A webhook came; the HTTP status to answer with. Nothing is believed but that it is
        worth looking: the message itself is claimed from the gateway."""
        try:
            verify_webhook(headers, body, self._secret)
        except (WebhookRefused, json.JSONDecodeError):
            return 401
        self.notified += 1
        self._wake.set()
        return 204

    # -- taking -----------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                while deliveries := self.client.claim(limit=10):
                    for delivery in deliveries:
                        self._receive(delivery)
            except (GatewayError, GatewayProblem, OSError, ValueError) as error:
                if not self._stop.is_set():
                    self._ledger.note_trouble(f"the business software of {self.direction[:2]} had to stop: {error}")
                    self._stop.wait(SWEEP)
            self._wake.wait(SWEEP)

    def _receive(self, delivery: Mapping[str, Any]) -> None:
        """Fetch, take, acknowledge, in this order: whoever dies in between loses nothing."""
        message = delivery["message"]
        payloads = {part["cid"]: self.client.payload(message["id"], part["cid"]) for part in message.get("parts", ())}
        document = next(iter(payloads.values()), b"")
        self._take(message, document, payloads)
        self.client.ack(delivery)
        self._ledger.note_taken(
            Taken(
                message_id=message["message_id"],
                digests={cid: digest(octets) for cid, octets in payloads.items()},
                view=message,
                document=document,
            )
        )


def properties(message: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """The message properties by name."""
    return {one["name"]: one for one in message.get("properties", ())}
