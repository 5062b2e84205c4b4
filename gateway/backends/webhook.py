"""Tell backends about events: CloudEvents 1.0 in JSON, signed as Standard Webhooks.

An event is thin: ids and links, never evidence. The id of the event is also the id of
the webhook, so a consumer that is told twice can tell. A secret signs with HMAC-SHA256
(`whsec_…`, v1), a private key with ed25519 (`whsk_…`, v1a): then the consumer holds no secret at
all, only the public key. Several of them on one target (separated by blanks) sign the same
bytes several times: that is how a secret is changed without a gap.

When to try again is decided by the workers of the MSH; `next_delay` is the schedule they
ask for. Which addresses may be reached at all is the business of `Msh.post`.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.plugin import DeliveryDelayed, DeliveryRefused, Event, Msh, WebhookTarget

#: Seconds before each attempt; the schedule that Standard Webhooks recommends, some three days
#: in all. After the last one the job is parked, which raises an alert.
RETRY_SCHEDULE = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: Share by which a delay may be longer, so that a thousand events do not come back at once.
JITTER = 0.1
#: Retry-After is obeyed up to this; a typo of theirs must not stop us for a year.
RETRY_AFTER_MOST = 86_400.0
#: Receivers cap bodies; ours are a few hundred bytes unless something is wrong.
BODY = 20_000
TYPE_PREFIX = "gateway."
SECRET_PREFIX, PRIVATE_PREFIX = "whsec_", "whsk_"


def next_delay(attempt: int) -> float | None:
    """Seconds to wait after the failed attempt number `attempt`, counted from 1; None: park it."""
    if not 0 <= attempt < len(RETRY_SCHEDULE):
        return None
    return RETRY_SCHEDULE[attempt] * (1 + secrets.SystemRandom().uniform(0, JITTER))


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature: one for each secret in `secret`, blanks between; v1 of `whsec_`, v1a of `whsk_`.

    Raises `ValueError` when there is no secret or one is not base64 after its prefix; the text
    of the error does not contain it.
    """
    signed = f"{id}.{timestamp}.".encode() + body
    if not secret.split():
        raise ValueError("the webhook has no secret")
    return " ".join(_signature(one, signed) for one in secret.split())


def _signature(secret: str, signed: bytes) -> str:
    prefix, _, text = secret.rpartition("_")
    try:
        key = base64.b64decode(text, validate=True)
        if prefix + "_" == PRIVATE_PREFIX:
            return "v1a," + base64.b64encode(Ed25519PrivateKey.from_private_bytes(key).sign(signed)).decode()
    except (binascii.Error, ValueError):
        key = b""
    if not key or prefix + "_" != SECRET_PREFIX:
        raise ValueError("a secret of the webhook is not whsec_ or whsk_ and base64")
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class WebhookSender:
    """Sends events with `Msh.post`. `source` names this access point in every event."""

    def __init__(self, msh: Msh, source: str, *, now: Callable[[], float] = time.time) -> None:
        self._msh, self._source, self._now = msh, source, now

    async def notify(self, target: WebhookTarget, event: Event) -> int:
        """POST `event` once; the status of an answer 2xx.

        Raises `DeliveryRefused` when it is of no use to try again (410 Gone, unusable
        secret), else `DeliveryDelayed`, with `retry_after` where the target named a time.
        """
        body = self.body(event)
        timestamp = int(self._now())
        try:
            signature = sign(target.secret, event.id, timestamp, body)
        except ValueError as error:
            raise DeliveryRefused(str(error)) from None
        headers = {
            "content-type": "application/cloudevents+json",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        status, answered, _ = await self._msh.post(target.url, body, headers)
        if 200 <= status < 300:
            return status
        if status == 410:
            raise DeliveryRefused("the webhook answered 410 Gone", status=status)
        # 3xx too: following would carry the event to an address nobody allowed.
        wait = self._retry_after(answered.get("retry-after", "")) if status in (429, 503) else None
        raise DeliveryDelayed(f"the webhook answered {status}", retry_after=wait, status=status)

    def body(self, event: Event) -> bytes:
        """The CloudEvent in JSON [cloudevents 1.0]. Data that is not thin is left out."""
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": event.id,
            "type": TYPE_PREFIX + event.type,
            "source": self._source,
            "subject": event.subject,
            "time": event.at,
            "datacontenttype": "application/json",
            "data": event.data,
        }
        body = msgspec.json.encode(envelope)
        if len(body) > BODY:
            body = msgspec.json.encode(envelope | {"data": {"truncated": True}})
        return body

    def _retry_after(self, value: str) -> float | None:
        """Seconds, from a number or an HTTP date [rfc9110 10.2.3]; None when it is neither."""
        value = value.strip()
        if value.isascii() and value.isdigit():
            return min(float(value[:12]), RETRY_AFTER_MOST)
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max((moment - datetime.fromtimestamp(self._now(), UTC)).total_seconds(), 0.0), RETRY_AFTER_MOST)
