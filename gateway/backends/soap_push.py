"""SOAP push: the gateway calls the backend, in the interface that Domibus' WS plugin calls.

zeep reads our own WSDL of that interface, builds the calls and types them; the HTTP client
of the gateway carries them, under its egress policy, payloads streamed. A message is the
backend's when `submitMessage` was answered with 2xx; what becomes of submissions is told
by `sendSuccess`, `sendFailure` and `messageStatusChange`. Anything but 2xx is tried again by
the rule's schedule; afterwards the job is parked, and visible.
"""

import asyncio
import base64
import io
import secrets
from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Literal

import msgspec
from lxml import etree
from msgspec import Struct

from gateway.backends.domibus_ws.mtom import Related, include
from gateway.backends.domibus_ws.names import DEFAULT_MPC, STATUS
from gateway.backends.domibus_ws.writing import encoded, moment
from gateway.backends.domibus_ws.wsdl import wsdl
from gateway.backends.webhook import next_delay
from gateway.plugin import (
    Caller,
    Delivery,
    DeliveryDelayed,
    DeliveryRefused,
    Event,
    MessageView,
    Msh,
    NotFound,
    PartView,
    WebhookTarget,
)

TYPE = "application/soap+xml; charset=UTF-8"

#: What each event of ours is called there: the operation, and the status it changes to.
CALLS: dict[str, tuple[tuple[str, str], ...]] = {
    "message.accepted": (("MESSAGE_STATUS_CHANGE", "SUBMITTED"),),
    "message.acknowledged": (("SEND_SUCCESS", ""), ("MESSAGE_STATUS_CHANGE", "ACKNOWLEDGED")),
    "message.failed": (("SEND_FAILURE", ""), ("MESSAGE_STATUS_CHANGE", "FAILED")),
    "message.retrying": (("MESSAGE_STATUS_CHANGE", "WAITING_FOR_RETRY"),),
    "message.received": (("RECEIVE_SUCCESS", ""), ("MESSAGE_STATUS_CHANGE", "RECEIVED")),
    "message.delivered": (("MESSAGE_STATUS_CHANGE", "DELIVERED"),),
}
OPERATIONS = {
    "RECEIVE_SUCCESS": "receiveSuccess",
    "SEND_SUCCESS": "sendSuccess",
    "SEND_FAILURE": "sendFailure",
    "MESSAGE_STATUS_CHANGE": "messageStatusChange",
}
Kind = Literal["SUBMIT_MESSAGE", "RECEIVE_SUCCESS", "SEND_SUCCESS", "SEND_FAILURE", "MESSAGE_STATUS_CHANGE"]


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[backends.NAME]` with `kind = "soap_push"`.

    endpoint: where the backend listens.
    types: what is pushed. Without SUBMIT_MESSAGE messages wait for the SOAP door to retrieve them.
    username, password: for Basic authentication; the password is a reference such as file:PATH.
    retry: `minutes;count`, evenly spread, as in Domibus; without it the schedule of the webhooks.
    mtom: payloads stand beside the envelope.
    """

    endpoint: str
    kind: Literal["soap_push"] = "soap_push"
    types: tuple[Kind, ...] = ("SUBMIT_MESSAGE", "SEND_SUCCESS", "SEND_FAILURE", "MESSAGE_STATUS_CHANGE")
    username: str = ""
    password: str = ""
    retry: str = ""
    mtom: bool = False

    def __post_init__(self) -> None:
        if self.retry:
            self.schedule()

    def schedule(self) -> tuple[float, int] | None:
        """(seconds between two attempts, how many follow the first). Raises `ValueError`."""
        if not self.retry:
            return None
        minutes, _, count = self.retry.removesuffix(";CONSTANT").partition(";")
        if not (minutes.isdigit() and count.isdigit() and 0 < int(count) <= 10_000 and 0 < int(minutes) <= 525_600):
            raise ValueError('retry: expected "minutes;count", for example "60;12"')
        return int(minutes) * 60 / int(count), int(count)


class SoapPushBackend:
    """One backend with one endpoint."""

    def __init__(self, msh: Msh, options: dict[str, Any], *, name: str = "soap_push") -> None:
        """Raises `msgspec.ValidationError`."""
        self.name = name
        self._msh, self._options = msh, msgspec.convert(options, Options)
        self._caller = Caller(f"backend:{name}", name, name)
        self.pushes = "SUBMIT_MESSAGE" in self._options.types

    @property
    def asgi(self) -> None:
        return None

    async def run(self) -> None:
        """Ask to be told of what the types want."""
        wanted = [e for e, calls in CALLS.items() if any(kind in self._options.types for kind, _ in calls)]
        if wanted:
            await self._msh.subscribe(self._caller, tuple(wanted))

    async def deliver(self, delivery: Delivery) -> None:
        """Call `submitMessage` with the message."""
        message = delivery.message
        try:
            contents = [
                (part, (await self._msh.payload(self._caller, message.id, part.cid))[1]) for part in message.parts
            ]
        except NotFound:
            raise DeliveryRefused("the payloads have been erased") from None
        if self._options.mtom:
            related = await asyncio.to_thread(lambda: Related(contents, lambda ids: _beside(message, ids)))
            await self._call(related.blocks(), related.length, related.content_type)
            return
        pieces = await asyncio.to_thread(_inline, message)
        length = sum(map(len, pieces)) + sum((part.size + 2) // 3 * 4 for part in message.parts)
        await self._call(_filled(pieces, contents), length, TYPE)

    async def notify(self, target: WebhookTarget, event: Event) -> None:
        """Tell the backend about an event, in one call or two."""
        id = event.data.get("message_id", "")
        for kind, state in CALLS.get(event.type, ()):
            if kind in self._options.types:
                octets = await asyncio.to_thread(_told, OPERATIONS[kind], id, STATUS.get(state))
                await self._call(_once(octets), len(octets), TYPE)

    def retry_in(self, attempt: int) -> float | None:
        schedule = self._options.schedule()
        if schedule is None:
            return next_delay(attempt)
        pause, count = schedule
        return pause if attempt <= count else None

    async def _call(self, body: AsyncIterator[bytes], length: int, content_type: str) -> None:
        """Raises `DeliveryDelayed`."""
        headers = {"Content-Type": content_type}
        if self._options.username:
            secret = f"{self._options.username}:{self._options.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(secret).decode()
        status, found, octets = await self._msh.push(self._options.endpoint, body, length=length, headers=headers)
        if not 200 <= status < 300:
            asked = found.get("retry-after", "")
            raise DeliveryDelayed(
                f"the backend answered {status}{_reason(octets)}", status=status,
                retry_after=float(asked) if asked.isascii() and asked.isdigit() else None,
            )  # fmt: skip


# -- the calls ----------------------------------------------------------------------


@cache
def _client():
    """zeep on our own WSDL; imported when first used, for it takes its time."""
    from zeep import Client

    return Client(wsdl=io.BytesIO(wsdl("push").encode()))


def _told(operation: str, id: str, status: str | None) -> bytes:
    arguments = {"messageID": id} | ({"messageStatus": status} if operation == "messageStatusChange" else {})
    client = _client()
    return _octets(client.create_message(client.service, operation, **arguments))


def _submission(message: MessageView, value: str) -> bytes:
    """The `submitMessage` call; each payload holds the base64 of `value` and its number."""
    client = _client()
    payloads = [
        {"value": f"{value}{n:06}".encode(), "payloadId": f"cid:{part.cid}", "contentType": part.mime_type,
         "mimeType": part.mime_type, "payloadName": _named(part)}
        for n, part in enumerate(message.parts)
    ]  # fmt: skip
    header = {"ebMSHeaderInfo": {"UserMessage": _header(message)}}
    return _octets(client.create_message(client.service, "submitMessage", payload=payloads, _soapheaders=header))


def _inline(message: MessageView) -> list[bytes]:
    """The call, cut where the base64 of the payloads belongs."""
    value = secrets.token_hex(12)
    pieces, rest = [], _submission(message, value)
    for n in range(len(message.parts)):
        before, found, rest = rest.partition(base64.b64encode(f"{value}{n:06}".encode()))
        assert found, "zeep wrote the payloads in another order"
        pieces.append(before)
    return [*pieces, rest]


def _beside(message: MessageView, ids) -> bytes:
    """The call whose payloads stand beside it."""
    pieces = _inline(message)
    return b"".join(piece + (include(ids[n]).encode() if n < len(ids) else b"") for n, piece in enumerate(pieces))


async def _filled(pieces: list[bytes], contents: list[tuple[PartView, AsyncIterator[bytes]]]) -> AsyncIterator[bytes]:
    for piece, (_, content) in zip(pieces, contents, strict=False):
        yield piece
        async for text in encoded(content):
            yield text
    yield pieces[-1]


def _header(message: MessageView) -> dict[str, Any]:
    info = {"Timestamp": moment(message.timestamp), "MessageId": message.message_id}
    collaboration: dict[str, Any] = {
        "Service": {"_value_1": message.service, "type": message.service_type},
        "Action": message.action,
        "ConversationId": message.conversation_id,
    }
    if message.ref_to_message_id:
        info["RefToMessageId"] = message.ref_to_message_id
    if message.agreement_ref:
        collaboration["AgreementRef"] = {"_value_1": message.agreement_ref, "type": message.agreement_type}
    header: dict[str, Any] = {
        "mpc": message.mpc or DEFAULT_MPC,
        "MessageInfo": info,
        "PartyInfo": {
            side: {"PartyId": {"_value_1": party.id, "type": party.type}, "Role": party.role or ""}
            for side, party in (("From", message.from_party), ("To", message.to_party))
        },
        "CollaborationInfo": collaboration,
    }
    if message.properties:
        header["MessageProperties"] = {"Property": [_property(p) for p in message.properties]}
    if message.parts:
        header["PayloadInfo"] = {"PartInfo": [
            {"href": f"cid:{part.cid}", "PartProperties": {"Property": [
                {"_value_1": part.mime_type, "name": "MimeType"},
                *(_property(p) for p in part.properties if p.name != "MimeType"),
            ]}}
            for part in message.parts
        ]}  # fmt: skip
    return header


def _property(given) -> dict[str, Any]:
    return {"_value_1": given.value, "name": given.name, "type": given.type}


def _named(part: PartView) -> str | None:
    return next((p.value for p in part.properties if p.name in ("PayloadName", "FileName")), None)


def _octets(envelope: etree._Element) -> bytes:
    return etree.tostring(envelope, encoding="UTF-8", xml_declaration=True)


async def _once(octets: bytes) -> AsyncIterator[bytes]:
    yield octets


def _reason(octets: bytes) -> str:
    """The text of a SOAP fault, for our own log; bounded, and no markup."""
    start, end = octets.find(b":Text"), octets.find(b"</", octets.find(b":Text"))
    text = octets[start:end].partition(b">")[2].decode(errors="replace") if 0 <= start < end else ""
    return f": {' '.join(text.split())[:200]}" if text.strip() else ""
