"""A client of the gateway's plugin API in one file: the standard library and nothing else.

Copy it into your system, or import it. It submits, follows, claims and acknowledges
messages, and checks signed webhooks:

    gateway = GatewayClient("https://gateway.example:8444", token="…")
    sent = gateway.submit(to_party="AP_LT", action="ExecuteQueryRequest", parts=[Path("request.xml")])
    print(gateway.wait(sent["id"])["state"])            # ACKNOWLEDGED

    for delivery in gateway.claim(limit=10):
        part = delivery["message"]["parts"][0]
        keep(gateway.payload(delivery["message"]["id"], part["cid"]))
        gateway.ack(delivery)

Submitting is safe to repeat: every submission carries an Idempotency-Key, and a request
that was lost or met a busy gateway is sent again with the same key. Payloads are
streamed in both directions, and what was downloaded is checked against its SHA-256.

An object of this class holds no connection and may be used by several threads.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import io
import json
import ssl
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

__all__ = ["GatewayClient", "GatewayProblem", "Part", "WebhookRefused", "verify_webhook"]

BLOCK = 256 << 10
#: How long one request asks the gateway to wait for a final state; it allows 60 at most.
LONG_POLL = 30.0
FINAL = frozenset({"ACKNOWLEDGED", "FAILED", "CANCELLED", "PURGED"})
#: More signatures than a webhook ever has, while its secret is changed.
SIGNATURES = 20
#: Answers that a repeated request can mend.
REPEATABLE = frozenset({408, 429, 503})
MEDIA_TYPES = {
    ".xml": "application/xml", ".json": "application/json", ".pdf": "application/pdf", ".txt": "text/plain",
    ".png": "image/png", ".jpg": "image/jpeg", ".zip": "application/zip",
}  # fmt: skip


class GatewayProblem(Exception):
    """The gateway refused. `problem` is its whole answer (RFC 9457); the rest is taken from it."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.status, self.problem, self.retry_after = status, problem, retry_after
        self.code: str = problem.get("code", "")
        self.hint: str = problem.get("hint", "")
        said = [problem.get("title", f"HTTP {status}"), problem.get("detail", ""), self.hint]
        super().__init__(" - ".join([*filter(None, [self.code]), ". ".join(text.rstrip(".") for text in said if text)]))


class WebhookRefused(ValueError):
    """A webhook that did not come from the gateway, was changed on the way, or is too old."""


class Part:
    """One payload: `content` is bytes, or the path of a file; or it is the `upload` with that id. A `cid` is made by
    the gateway if left out."""

    def __init__(
        self,
        content: bytes | Path = b"",
        mime_type: str | None = None,
        *,
        cid: str | None = None,
        properties: Mapping[str, str] | Sequence[Mapping[str, str]] = (),
        compress: bool | None = None,
        upload: str | None = None,
    ) -> None:
        if mime_type is None:
            suffix = content.suffix.lower() if isinstance(content, Path) else ""
            mime_type = MEDIA_TYPES.get(suffix, "application/octet-stream")
        self.content, self.mime_type, self.cid, self.compress = content, mime_type, cid, compress
        self.upload = upload
        self.properties = _properties(properties)

    def described(self) -> dict[str, Any]:
        """The entry of `parts` in the description of the submission."""
        entry: dict[str, Any] = {"mime_type": self.mime_type}
        if self.cid is not None:
            entry["cid"] = self.cid
        if self.properties:
            entry["properties"] = self.properties
        if self.compress is not None:
            entry["compress"] = self.compress
        if self.upload is not None:
            entry["upload"] = self.upload
        return entry

    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def blocks(self) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            while block := file.read(BLOCK):
                yield block


class GatewayClient:
    """One gateway, seen with one access token."""

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        ca: str | Path | None = None,
        timeout: float = 90.0,
        attempts: int = 4,
        language: str = "en",
    ) -> None:
        """`ca`: a PEM file with the certificate authority of the gateway; without it the system's
        are used. `attempts`: how often a request that can be repeated is tried in all.
        """
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("base_url must be http://… or https://…")
        self._host, self._port, self._prefix = url.hostname, url.port, url.path.rstrip("/")
        self._tls = ssl.create_default_context(cafile=str(ca) if ca else None) if url.scheme == "https" else None
        self._timeout, self._attempts = timeout, attempts
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Language": language}

    # -- producing ------------------------------------------------------------

    def submit(
        self,
        to_party: str | Mapping[str, str] | None,
        action: str,
        parts: Iterable[Part | bytes | Path] = (),
        *,
        properties: Mapping[str, str] | Sequence[Mapping[str, str]] = (),
        idempotency_key: str | None = None,
        wait: float = 0.0,
        **more: Any,
    ) -> dict[str, Any]:
        """Submit a message. Returns the submission (id, message_id, state, …), or, when `wait`
        seconds were enough, the message in its final state.

        Without a `to_party` the gateway looks the receiver up, where an agreement says how.

        `more`: service, service_type, from_party, agreement_ref, agreement_type, conversation_id,
        message_id, ref_to_message_id, deadline. Give an `idempotency_key` of your own when a
        restart of your program must not send twice. Raises `GatewayProblem`, `OSError`.
        """
        form = _submission(to_party, action, parts, properties, more)
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4()), "Content-Type": form.content_type}
        query = f"?wait={min(wait, 60.0):g}" if wait else ""
        return self._json("POST", "/v1/messages" + query, form, headers)

    def validate(
        self,
        to_party: str | Mapping[str, str] | None,
        action: str,
        parts: Iterable[Part | bytes | Path] = (),
        *,
        properties: Mapping[str, str] | Sequence[Mapping[str, str]] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """What `submit` with the same arguments would send: agreement, header, sizes and findings. Nothing is
        stored. Raises what `submit` would raise about the submission."""
        form = _submission(to_party, action, parts, properties, more)
        return self._json("POST", "/v1/messages:validate", form, {"Content-Type": form.content_type})

    def message(self, id: str, *, wait: float = 0.0) -> dict[str, Any]:
        """One message, by its id or its MessageId; `wait` seconds (60 at most) for a final state."""
        return self._json("GET", f"/v1/messages/{_segment(id)}" + (f"?wait={wait:g}" if wait else ""))

    def wait(self, id: str, timeout: float = 60.0) -> dict[str, Any]:
        """The message in its final state. Raises `TimeoutError` when that takes longer."""
        end = time.monotonic() + timeout
        while True:
            left = max(end - time.monotonic(), 0.0)
            view = self.message(id, wait=min(left, LONG_POLL))
            if view["state"] in FINAL:
                return view
            if time.monotonic() >= end:
                raise TimeoutError(f"message {id} is {view['state']} after {timeout:g} s")

    def messages(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Messages, newest first, page by page: direction, state, conversation_id, message_id,
        service, action, party, original_sender, final_recipient, since, until."""
        query = {name: value for name, value in filters.items() if value is not None}
        while True:
            page = self._json("GET", "/v1/messages?" + urlencode(query))
            yield from page["messages"]
            if "next" not in page:
                return
            query["after"] = page["next"]

    def events(self, id: str) -> list[dict[str, Any]]:
        """The timeline of a message."""
        return self._json("GET", f"/v1/messages/{_segment(id)}/events")["events"]

    # -- what was sent and received -------------------------------------------

    def header(self, id: str) -> dict[str, Any]:
        """The ebMS header of a message, as it is on the wire."""
        return self._json("GET", f"/v1/messages/{_segment(id)}/header")

    def security(self, id: str) -> dict[str, Any]:
        """What the signature of a message covers, who made it, and whether it holds."""
        return self._json("GET", f"/v1/messages/{_segment(id)}/security")

    def receipt(self, id: str) -> dict[str, Any]:
        """What the receipt says, and whether it holds."""
        return self._json("GET", f"/v1/messages/{_segment(id)}/receipt", headers={"Accept": "application/json"})

    def wire(self, id: str, which: str = "request") -> bytes:
        """The signed envelope (`request`) or the receipt (`response`), octet for octet."""
        with self._answer("GET", f"/v1/messages/{_segment(id)}/wire/{_segment(which)}") as answer:
            return answer.read()

    def save_bundle(self, id: str, path: Path, *, payloads: bool = False) -> None:
        """Write all evidence of a message into the zip file `path`. Raises `ConnectionError` when it breaks off;
        no file is left then."""
        query = "?payloads=true" if payloads else ""
        try:
            with path.open("wb") as file, self._answer("GET", f"/v1/messages/{_segment(id)}/bundle{query}") as answer:
                while block := answer.read(BLOCK):
                    file.write(block)
        except http.client.HTTPException as error:
            path.unlink()
            raise ConnectionError(f"the download broke off: {error!r}") from error

    def resend(self, id: str) -> dict[str, Any]:
        """Send a FAILED or waiting message at once, with the same MessageId; the message as it is then."""
        return self._act(id, "resend")

    def cancel(self, id: str) -> dict[str, Any]:
        """Stop trying to send a message."""
        return self._act(id, "cancel")

    def hold(self, id: str) -> dict[str, Any]:
        """Keep a waiting message from being sent or delivered, until `release`."""
        return self._act(id, "hold")

    def release(self, id: str) -> dict[str, Any]:
        """Let a held message go."""
        return self._act(id, "release")

    def redeliver(self, id: str) -> dict[str, Any]:
        """Have an inbound message delivered once more."""
        return self._act(id, "redeliver")

    def _act(self, id: str, verb: str) -> dict[str, Any]:
        return self._json("POST", f"/v1/messages/{_segment(id)}/{verb}")

    def conversations(self) -> Iterator[dict[str, Any]]:
        """Conversations, the one with the newest message first, page by page."""
        return self._pages("/v1/conversations", "conversations")

    def conversation(self, id: str) -> Iterator[dict[str, Any]]:
        """The messages of a conversation, oldest first."""
        return self._pages(f"/v1/conversations/{_segment(id)}", "messages")

    def _pages(self, path: str, name: str) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {}
        while True:
            page = self._json("GET", path + ("?" + urlencode(query) if query else ""))
            yield from page[name]
            if "next" not in page:
                return
            query["after"] = page["next"]

    def parties(self) -> list[dict[str, Any]]:
        """The partners, and what may be sent to them."""
        return self._json("GET", "/v1/parties")["parties"]

    def event_log(self, after: str | None = None, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Events from the beginning or after a cursor, to the present. Each has its `cursor`: that of its page."""
        query = {"types": ",".join(types)} if types else {}
        while True:
            page = self._json("GET", "/v1/event-log?" + urlencode(query | ({"after": after} if after else {})))
            after = page["after"]
            yield from ({**event, "cursor": after} for event in page["events"])
            if not page["more"]:
                return

    def follow(self, after: str | None = None, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Events as they happen, for ever; after an interruption it goes on where it was. Each has its `cursor`,
        to go on from another time. One may come twice, with the same `id`. Raises `GatewayProblem`."""
        path = "/v1/events" + ("?" + urlencode({"types": ",".join(types)}) if types else "")
        failures = 0
        while True:
            try:
                with self._answer("GET", path, headers={"Last-Event-ID": after} if after else {}) as answer:
                    failures = 0
                    for cursor, data in _events(answer):
                        after = cursor or after
                        if data:
                            yield {**json.loads(data), "cursor": after}
            except (OSError, http.client.HTTPException):
                failures += 1
                if failures == self._attempts:
                    raise
            time.sleep(_pause(failures, None))

    # -- large content ----------------------------------------------------------

    def upload(self, content: bytes | Path, *, piece: int = 8 << 20) -> str:
        """Bring large content ahead, in pieces that are tried again; the id for `Part(upload=…)`. Every piece
        bears its digest, and the gateway checks the whole before it sends it."""
        part = Part(content)
        digest = hashlib.sha256()
        for block in part.blocks():
            digest.update(block)
        body = {"size": part.size(), "sha256": digest.hexdigest()}
        id = self._json("POST", "/v1/uploads", body, {"Idempotency-Key": str(uuid.uuid4())})["id"]
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            offset = 0
            while octets := file.read(piece):
                offset = self._piece(id, offset, octets)
                file.seek(offset)
        return id

    def _piece(self, id: str, offset: int, octets: bytes) -> int:
        """Send one piece; where to go on. That is elsewhere when an answer was lost and the piece is there."""
        headers = {
            "Upload-Offset": str(offset), "Content-Type": "application/octet-stream",
            "Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(octets).digest()).decode()}:",
        }  # fmt: skip
        try:
            return self._json("PATCH", f"/v1/uploads/{_segment(id)}", octets, headers)["received"]
        except GatewayProblem as problem:
            if problem.status != 409:
                raise
            received = self._json("GET", f"/v1/uploads/{_segment(id)}")["received"]
            if received == offset:
                raise
            return received

    def drop_upload(self, id: str) -> None:
        """Drop an upload before its time is over."""
        self._json("DELETE", f"/v1/uploads/{_segment(id)}")

    # -- consuming ------------------------------------------------------------

    def peek(self, **filters: Any) -> list[dict[str, Any]]:
        """What waits, oldest first, without claiming it: message_id, conversation_id, from_party, original_sender,
        final_recipient, received_from, received_to, parked, limit."""
        query = {name: value for name, value in filters.items() if value is not None}
        return self._json("GET", "/v1/inbox/peek?" + urlencode(query))["messages"]

    def claim(self, limit: int = 1, lease: float = 60.0) -> list[dict[str, Any]]:
        """Borrow up to `limit` waiting messages for `lease` seconds."""
        return self._json("POST", "/v1/inbox/claim", {"limit": limit, "lease": lease})["deliveries"]

    def ack(self, delivery: Mapping[str, Any]) -> None:
        """Say that a claimed message is safely yours. Can be repeated."""
        self._json("POST", _inbox(delivery, "ack"), {"claim": delivery["claim"]})

    def nack(self, delivery: Mapping[str, Any], retry_in: float = 0.0) -> None:
        """Give a claimed message back, to be lent again after `retry_in` seconds."""
        self._json("POST", _inbox(delivery, "nack"), {"claim": delivery["claim"], "retry_in": retry_in})

    def extend(self, delivery: Mapping[str, Any], lease: float = 60.0) -> str:
        """Keep a claimed message for `lease` seconds from now; the new end."""
        body = {"claim": delivery["claim"], "lease": lease}
        return self._json("POST", _inbox(delivery, "extend"), body)["lease_until"]

    def payload(self, id: str, cid: str) -> bytes:
        """The content of one payload, in memory; `save_payload` is for large ones."""
        content = io.BytesIO()
        self._download(id, cid, content)
        return content.getvalue()

    def save_payload(self, id: str, cid: str, path: Path) -> int:
        """Write one payload into the file `path`; its size. What is there is overwritten.

        Raises `ValueError` when the content does not meet its digest; no file is left then.
        """
        try:
            with path.open("wb") as file:
                return self._download(id, cid, file)
        except ValueError:
            path.unlink()
            raise

    def _download(self, id: str, cid: str, file: BinaryIO) -> int:
        """Fill `file`, going on where a broken download stopped. Raises `ValueError` for a wrong digest."""
        address = f"/v1/messages/{_segment(id)}/payloads/{_segment(cid)}"
        digest, tag = hashlib.sha256(), ""
        for _ in range(self._attempts):
            headers = {"Range": f"bytes={file.tell()}-", "If-Range": tag} if file.tell() else {}
            with self._answer("GET", address, headers=headers) as answer:
                if answer.status != 206:
                    file.seek(0)
                    file.truncate()
                    digest = hashlib.sha256()
                tag, promised = answer.getheader("ETag", ""), answer.getheader("Repr-Digest", "")
                if self._copy(answer, file, digest):
                    break
        else:
            raise ConnectionError("the download broke off too often")
        expected = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
        if promised and promised != expected:  # RFC 9530
            raise ValueError("the payload does not meet its digest")
        return file.tell()

    @staticmethod
    def _copy(answer: http.client.HTTPResponse, file: BinaryIO, digest: "hashlib._Hash") -> bool:
        """Copy what comes; whether it was all."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while block := answer.read(BLOCK):
                file.write(block)
                digest.update(block)
            return not answer.length
        return False

    # -- webhooks -------------------------------------------------------------

    def add_webhook(self, url: str, events: Sequence[str] = (), *, signature: str = "hmac") -> dict[str, Any]:
        """Have events sent to `url`. The answer holds what `verify_webhook` needs: with hmac the `secret`,
        told once, with ed25519 the `public_keys`."""
        more = {"signature": signature} if signature != "hmac" else {}
        return self._json("POST", "/v1/webhooks", {"url": url, "events": list(events), **more})

    def webhook(self, id: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/webhooks/{_segment(id)}")

    def change_webhook(self, id: str, **changes: Any) -> dict[str, Any]:
        """Change `url`, `events`, `enabled`."""
        return self._json("PATCH", f"/v1/webhooks/{_segment(id)}", changes)

    def rotate_webhook(self, id: str, overlap: float = 86_400.0) -> dict[str, Any]:
        """A new secret or key, in the answer; the old one signs as well for `overlap` seconds."""
        return self._json("POST", f"/v1/webhooks/{_segment(id)}/rotate", {"overlap": overlap})

    def test_webhook(self, id: str, *, wait: float = 10.0) -> dict[str, Any]:
        """Have a test event sent: the delivery, after `wait` seconds at most."""
        return self._json("POST", f"/v1/webhooks/{_segment(id)}/test?wait={wait:g}")

    def webhook_deliveries(self, id: str, **filters: Any) -> Iterator[dict[str, Any]]:
        """What a webhook was told, newest first, with every attempt; `state`: waiting, delivered, parked."""
        query = {name: value for name, value in filters.items() if value is not None}
        while True:
            page = self._json("GET", f"/v1/webhooks/{_segment(id)}/deliveries?" + urlencode(query))
            yield from page["deliveries"]
            if "next" not in page:
                return
            query["after"] = page["next"]

    def replay_webhook(self, id: str, delivery_id: str) -> dict[str, Any]:
        """Have an event sent once more."""
        return self._json("POST", f"/v1/webhooks/{_segment(id)}/deliveries/{_segment(delivery_id)}/replay")

    def webhooks(self) -> list[dict[str, Any]]:
        return self._json("GET", "/v1/webhooks")["webhooks"]

    def remove_webhook(self, id: str) -> None:
        self._json("DELETE", f"/v1/webhooks/{_segment(id)}")

    # -- HTTP -----------------------------------------------------------------

    def _json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        with self._answer(method, path, body, headers) as answer:
            try:
                content = answer.read()
            except http.client.HTTPException as error:
                raise ConnectionError(f"the answer broke off: {error!r}") from error
            return json.loads(content) if content else None

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, tried again while that can help. Raises `GatewayProblem`, `OSError`.

        When the connection breaks, only what may happen twice is tried again. A claim is not:
        what a lost answer lent comes back by itself when its lease ends.
        """
        harmless = (
            method != "POST" or isinstance(body, _Form) or "Idempotency-Key" in (headers or {})
            or path.endswith(("/ack", "/extend", "/hold"))
        )  # fmt: skip
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            connection = self._connect()
            try:
                try:
                    answer = self._exchange(connection, method, path, body, headers)
                except OSError as error:
                    unsent = isinstance(error, ConnectionRefusedError)
                    if last or isinstance(error, ssl.SSLCertVerificationError) or not (harmless or unsent):
                        raise
                    time.sleep(_pause(attempt, None))
                    continue
                if answer.status < 400:
                    yield answer
                    return
                problem = _problem(answer)
                if last or problem.status not in REPEATABLE:
                    raise problem
                time.sleep(_pause(attempt, problem.retry_after))
            finally:
                connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None,
    ) -> http.client.HTTPResponse:
        sent = {**self._headers, **(headers or {})}
        content: Any = None
        if isinstance(body, _Form):
            content, sent["Content-Length"] = body.blocks(), str(body.size())
        elif isinstance(body, bytes):
            content = body
        elif body is not None:
            content, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, self._prefix + path, content, sent)
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None:  # it was not even connected
                raise
            # The gateway refused before it had read everything: its answer may be there already.
            with contextlib.suppress(OSError, http.client.HTTPException):
                return connection.getresponse()
            raise
        try:
            return connection.getresponse()
        except http.client.HTTPException as error:
            raise ConnectionError(f"no usable answer: {error!r}") from error


class _Form:
    """A multipart/form-data body of known length: `meta`, then the payloads in order (RFC 7578)."""

    def __init__(self, meta: bytes, parts: Sequence[Part]) -> None:
        boundary = f"gateway-{uuid.uuid4().hex}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._parts = parts
        self._heads = [self._head(boundary, "meta", "application/json") + meta]
        self._heads += [
            b"\r\n" + self._head(boundary, f"part{number}", part.mime_type, part.cid)
            for number, part in enumerate(parts)
        ]
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    @staticmethod
    def _head(boundary: str, name: str, mime_type: str, cid: str | None = None) -> bytes:
        if any(not text.isprintable() for text in (mime_type, cid or "")):
            raise ValueError("a media type or cid has control characters")
        lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', f"Content-Type: {mime_type}"]
        lines += [f"Content-ID: <{cid}>"] if cid is not None else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def size(self) -> int:
        return sum(map(len, self._heads)) + sum(part.size() for part in self._parts) + len(self._tail)

    def blocks(self) -> Iterator[bytes]:
        yield self._heads[0]
        for head, part in zip(self._heads[1:], self._parts, strict=True):
            yield head
            yield from part.blocks()
        yield self._tail


def verify_webhook(
    headers: Mapping[str, str], body: bytes, secret: str, *, tolerance: float = 300.0, now: float | None = None
) -> dict[str, Any]:
    """The event in a webhook, once it is certain that the gateway sent it (Standard Webhooks, v1 and v1a).

    `headers` and `body` as they came in, the body unparsed; `secret` is the `whsec_…` or the public key
    `whpk_…` of the webhook, or several with blanks between. `tolerance`: seconds by which the timestamp
    may differ from ours, against replay. Raises `WebhookRefused`. Keep the event's `id` for as long as
    the tolerance: seen twice, it is the same event sent again. Public keys need the package cryptography.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise WebhookRefused(f"the header {missing} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise WebhookRefused("webhook-timestamp is not a number")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        raise WebhookRefused("the webhook is too old, or a clock is wrong")
    signed = f"{id}.{timestamp}.".encode(errors="surrogateescape") + body
    claimed = [one.partition(",")[::2] for one in signatures.split()[:SIGNATURES]]
    if not any(_fits(one, signed, claimed) for one in secret.split()):
        raise WebhookRefused("the signature is not the gateway's")
    try:
        return json.loads(body)
    except ValueError:
        raise WebhookRefused("the body is not JSON") from None


def _fits(secret: str, signed: bytes, claimed: Sequence[tuple[str, str]]) -> bool:
    """Whether one of the claimed signatures is right. The secret decides by its kind what it is compared with:
    a public key never serves as a secret."""
    prefix, _, text = secret.rpartition("_")
    key = base64.b64decode(text)
    if prefix == "whpk":
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise RuntimeError("public keys need the package cryptography; with a secret it goes without") from None
        for version, value in claimed:
            if version == "v1a":
                with contextlib.suppress(InvalidSignature, ValueError):
                    Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(value, validate=True), signed)
                    return True
        return False
    if prefix not in ("whsec", "") or not key:
        return False
    expected = base64.b64encode(hmac.digest(key, signed, "sha256"))
    given = [value.encode(errors="replace") for version, value in claimed if version == "v1"]
    return any(hmac.compare_digest(expected, value) for value in given)


def _submission(
    to_party: str | Mapping[str, str] | None,
    action: str,
    parts: Iterable[Part | bytes | Path],
    properties: Mapping[str, str] | Sequence[Mapping[str, str]],
    more: Mapping[str, Any],
) -> _Form:
    payloads = [part if isinstance(part, Part) else Part(part) for part in parts]
    meta: dict[str, Any] = {"action": action}
    if to_party is not None:
        meta["to_party"] = _party(to_party)
    meta |= {name: value for name, value in more.items() if value is not None}
    if "from_party" in meta:
        meta["from_party"] = _party(meta["from_party"])
    if properties:
        meta["properties"] = _properties(properties)
    meta["parts"] = [part.described() for part in payloads]
    return _Form(json.dumps(meta).encode(), [part for part in payloads if part.upload is None])


def _party(party: str | Mapping[str, str]) -> dict[str, str]:
    return {"id": party} if isinstance(party, str) else dict(party)


def _properties(given: Mapping[str, str] | Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    if isinstance(given, Mapping):
        return [{"name": name, "value": value} for name, value in given.items()]
    return [dict(one) for one in given]


def _segment(id: str) -> str:
    return quote(id, safe="")


def _inbox(delivery: Mapping[str, Any], verb: str) -> str:
    return f"/v1/inbox/{_segment(delivery['delivery_id'])}/{verb}"


def _problem(answer: http.client.HTTPResponse) -> GatewayProblem:
    after = answer.getheader("Retry-After", "")
    try:
        problem = json.loads(answer.read(64 << 10))
    except (ValueError, http.client.HTTPException):
        problem = None  # a proxy in between answered, not the gateway
    if not isinstance(problem, dict):
        problem = {"title": f"HTTP {answer.status} from {answer.getheader('Server', 'an unknown server')}"}
    return GatewayProblem(answer.status, problem, float(after) if after.isascii() and after.isdigit() else None)


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """(id, data) of each server-sent event; data is empty where only the place moved."""
    cursor = data = ""
    while line := answer.readline(1 << 20):
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name == "id":
            cursor = value
        elif name == "data":
            data = value
        elif not name:
            yield cursor, data
            data = ""


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: what the gateway asked for, 30 at most, else 0.5, 1, 2, …"""
    return min(asked if asked is not None else 0.25 * 2**attempt, 30.0)
