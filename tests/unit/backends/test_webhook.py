"""Signed events: the signature by the published vector and by hand, the CloudEvent, the answers."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest

from gateway.backends.webhook import RETRY_SCHEDULE, WebhookSender, next_delay, sign
from gateway.client import WebhookRefused, verify_webhook
from gateway.plugin import DeliveryDelayed, DeliveryRefused, Event, WebhookTarget
from tests.unit.backends.memory_msh import MemoryMsh

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of 32 octets long").decode()
NOW = 1_795_262_400.0
EVENT = Event(
    id="evt_1", type="message.received", at=datetime(2026, 11, 21, 12, tzinfo=UTC), subject="0192-id",
    data={"message_id": "1@c1", "href": "/v1/messages/0192-id"},
)  # fmt: skip


def target(secret=SECRET):
    return WebhookTarget(id="wh", backend="evidence", url="https://b.example/events", secret=secret)


@pytest.fixture
def msh():
    return MemoryMsh()


@pytest.fixture
def sender(msh):
    return WebhookSender(msh, "urn:gateway:AP_LV", now=lambda: NOW)


def test_the_published_vector():
    """From the Standard Webhooks reference libraries."""
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_by_hand():
    key = base64.b64decode(SECRET[6:])
    expected = base64.b64encode(hmac.new(key, b"id.5.\xff\x00", hashlib.sha256).digest()).decode()
    assert sign(SECRET, "id", 5, b"\xff\x00") == "v1," + expected


def test_the_reference_library_agrees():
    reference = pytest.importorskip("standardwebhooks.webhooks").Webhook(SECRET)
    assert reference.sign("evt_1", datetime.fromtimestamp(NOW, UTC), '{"a": "ž"}') == sign(
        SECRET, "evt_1", int(NOW), '{"a": "ž"}'.encode()
    )


async def test_what_is_sent(sender, msh):
    await sender.notify(target(), EVENT)
    ((url, body, headers),) = msh.posted
    assert url == "https://b.example/events"
    assert json.loads(body) == {
        "specversion": "1.0", "id": "evt_1", "type": "gateway.message.received", "source": "urn:gateway:AP_LV",
        "subject": "0192-id", "time": "2026-11-21T12:00:00Z", "datacontenttype": "application/json",
        "data": {"message_id": "1@c1", "href": "/v1/messages/0192-id"},
    }  # fmt: skip
    assert headers["content-type"] == "application/cloudevents+json"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("evt_1", str(int(NOW)))
    assert verify_webhook(headers, body, SECRET, now=NOW)["id"] == "evt_1"


async def test_two_secrets_sign_twice(sender, msh):
    """[threats L05]: the consumer may have either while a secret is changed."""
    await sender.notify(target(f"{SECRET} {OTHER}"), EVENT)
    ((_, body, headers),) = msh.posted
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, OTHER, f"{OTHER} {SECRET}"):
        assert verify_webhook(headers, body, secret, now=NOW)


@pytest.mark.parametrize("secret", ["", " ", "whsec_", "whsec_***", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", f"{SECRET} x"])
async def test_secrets_that_are_none(sender, msh, secret):
    with pytest.raises(DeliveryRefused) as refused:
        await sender.notify(target(secret), EVENT)
    assert not msh.posted
    assert len(secret) < 8 or secret not in str(refused.value)


async def test_an_event_stays_thin(sender, msh):
    fat = Event(id="e", type="message.failed", at=EVENT.at, subject="s", data={"text": "x" * 30_000})
    await sender.notify(target(), fat)
    body = msh.posted[0][1]
    assert len(body) < 20_000 and json.loads(body)["data"] == {"truncated": True}


@pytest.mark.parametrize(("value", "seconds"), [
    ("0", 0), ("120", 120), ("99999999999999999999", 86_400), ("Sat, 21 Nov 2026 12:01:00 GMT", 60),
    ("Sat, 21 Nov 2026 11:00:00 GMT", 0), ("Sat, 21 Nov 2099 11:00:00 GMT", 86_400), ("soon", None), ("-5", None),
    ("", None), ("1.5", None), ("٣", None), ("x" * 10_000, None), ("Sat, 99 Nov 2026 12:01:00 GMT", None),
])
async def test_retry_after(sender, msh, value, seconds):
    assert datetime.fromtimestamp(NOW, UTC) == datetime(2026, 11, 21, 12, tzinfo=UTC)
    msh.post_answer = (503, {"retry-after": value}, b"")
    with pytest.raises(DeliveryDelayed) as delayed:
        await sender.notify(target(), EVENT)
    assert delayed.value.retry_after == seconds


async def test_retry_after_counts_only_where_it_is_meant(sender, msh):
    msh.post_answer = (500, {"retry-after": "60"}, b"")
    with pytest.raises(DeliveryDelayed) as delayed:
        await sender.notify(target(), EVENT)
    assert delayed.value.retry_after is None


def test_the_schedule():
    waits = [next_delay(attempt) for attempt in range(1, 12)]
    assert waits[9:] == [None, None] and next_delay(-1) is None
    for wait, planned in zip(waits, RETRY_SCHEDULE[1:]):
        assert planned <= wait <= planned * 1.1
    assert next_delay(0) == 0
    assert len({next_delay(3) for _ in range(20)}) > 1


class TestVerify:
    BODY = b'{"id": "evt_1"}'

    def headers(self, **other):
        signature = sign(SECRET, "evt_1", int(NOW), self.BODY)
        return {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(int(NOW)), "Webhook-Signature": signature} | other

    def test_good(self):
        assert verify_webhook(self.headers(), self.BODY, SECRET, now=NOW + 299) == {"id": "evt_1"}

    def test_one_good_signature_among_others(self):
        mixed = "v1a,AAAA v1,AAAA garbage " + self.headers()["Webhook-Signature"]
        assert verify_webhook(self.headers(**{"Webhook-Signature": mixed}), self.BODY, SECRET, now=NOW)

    @pytest.mark.parametrize("change", [
        {"Webhook-Id": "evt_2"}, {"Webhook-Timestamp": str(int(NOW) + 1)}, {"Webhook-Timestamp": "x"},
        {"Webhook-Timestamp": ""}, {"Webhook-Timestamp": "9" * 5000}, {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,"}, {"Webhook-Signature": "v1,ž"},
        {"Webhook-Signature": "v2," + sign(SECRET, "evt_1", int(NOW), b'{"id": "evt_1"}')[3:]},
        {"Webhook-Signature": sign(OTHER, "evt_1", int(NOW), b'{"id": "evt_1"}')},
    ])
    def test_bad(self, change):
        with pytest.raises(WebhookRefused):
            verify_webhook(self.headers(**change), self.BODY, SECRET, now=NOW)

    @pytest.mark.parametrize("now", [NOW - 301, NOW + 301])
    def test_old_or_early(self, now):
        with pytest.raises(WebhookRefused, match="old"):
            verify_webhook(self.headers(), self.BODY, SECRET, now=now)

    @pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
    def test_missing(self, name):
        headers = self.headers()
        del headers[name]
        with pytest.raises(WebhookRefused, match=name.lower()):
            verify_webhook(headers, self.BODY, SECRET, now=NOW)

    def test_changed_body(self):
        with pytest.raises(WebhookRefused):
            verify_webhook(self.headers(), self.BODY + b" ", SECRET, now=NOW)

    @pytest.mark.parametrize("secret", ["", "whsec_"])
    def test_no_secret_verifies_nothing(self, secret):
        with pytest.raises(WebhookRefused):
            verify_webhook(self.headers(), self.BODY, secret, now=NOW)
