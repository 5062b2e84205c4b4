"""Webhooks, as backends manage them: where events go, with which secrets, and what became of them.

A secret is made here, sealed for the store, and told once. With `ed25519` there is nothing to tell: the private
key stays here, and the public keys can be read at any time. After `rotate_webhook` the old secret signs beside
the new one for a while, so that a consumer changes over without a gap.
"""

import base64
import contextlib
import hashlib
import secrets
from datetime import datetime
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import log
from gateway.errors import NotFound, NotPossible, QuotaReached, StoreUnavailable, SubmissionConflict
from gateway.msh.handling import cursor, read_cursor
from gateway.msh.rooms import Rooms
from gateway.plugin import Caller, WebhookAttempt, WebhookDelivery, WebhookPage, WebhookSignature, WebhookTarget
from gateway.store.api import Store
from gateway.store.webhooks import Notice, NoticeState, Webhook
from gateway.transport.egress import EgressPolicy

#: Each event is told to all of them, in the transaction that writes it.
MOST = 50
MAX_OVERLAP = 30 * 86_400.0
#: Whoever lost the answer of a rotation rotates again; the secret the consumer has must not go by that.
MOST_OLDER = 3
TEST = "webhook.test"
SECRET, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"


def target(rooms: Rooms, webhook: Webhook, *, now: datetime) -> WebhookTarget:
    """What a backend signs with: every secret that is valid `now`, the newest first."""
    known = _secrets(rooms, webhook, now)
    return _view(webhook, known, secret=" ".join(known))


class WebhookDesk:
    """The verbs of `plugin.Msh` for webhooks; a part of the door."""

    _rooms: Rooms
    _store: Store
    _egress: EgressPolicy

    async def add_webhook(
        self, caller: Caller, url: str, events: tuple[str, ...], *, signature: WebhookSignature = "hmac",
        idempotency_key: str | None = None,
    ) -> WebhookTarget:  # fmt: skip
        self._egress.check_url(url, "webhook")
        id = f"wh_{secrets.token_hex(6)}"
        known = await self._store.webhooks(client=caller.id)
        if idempotency_key is not None:
            # The id follows from the key: who lost the answer asks again, and is told the same secret.
            id = f"wh_{hashlib.sha256(f'{caller.id} {idempotency_key}'.encode()).hexdigest()[:12]}"
            if (before := next((w for w in known if w.id == id), None)) is not None:
                return self._again(before, url, events, signature)
        if len(known) >= MOST:
            raise QuotaReached(f"a client has {MOST} webhooks at most")
        secret = self._new_secret(signature)
        sealed = self._seal(secret, id)
        new = Webhook(id=id, backend=caller.backend, url=url, events=events, client=caller.id, sealed_secret=sealed)
        await self._store.add_webhook(new)
        return _view(new, [secret], secret=_told(secret))

    def _again(self, known: Webhook, url: str, events: tuple[str, ...], signature: str) -> WebhookTarget:
        """What was registered under this key. Raises `SubmissionConflict` when it was something else."""
        found = _secrets(self._rooms, known, self._rooms.clock.now())
        kind = "ed25519" if found[0].startswith(PRIVATE) else "hmac"
        if (known.url, known.events, kind) != (url, events, signature):
            raise SubmissionConflict("the Idempotency-Key was used for another webhook", field="idempotency_key")
        return _view(known, found, secret=_told(found[0]))

    async def webhooks(self, caller: Caller) -> list[WebhookTarget]:
        return [self._shown(w) for w in await self._store.webhooks(client=caller.id)]

    async def webhook(self, caller: Caller, id: str) -> WebhookTarget:
        return self._shown(await self._own(caller, id))

    async def change_webhook(
        self, caller: Caller, id: str, *, url: str | None = None, events: tuple[str, ...] | None = None,
        enabled: bool | None = None,
    ) -> WebhookTarget:  # fmt: skip
        if url is not None:
            self._egress.check_url(url, "webhook")
        disabled = None if enabled is None else not enabled
        return self._shown(
            _there(await self._store.change_webhook(id, caller.id, url=url, events=events, disabled=disabled))
        )

    async def rotate_webhook(self, caller: Caller, id: str, *, overlap: float = 86_400.0) -> WebhookTarget:
        known = await self._own(caller, id)
        older = _secrets(self._rooms, known, self._rooms.clock.now())[:MOST_OLDER]
        secret = self._new_secret("ed25519" if older[0].startswith(PRIVATE) else "hmac")
        changed = await self._store.rotate_webhook(
            id, caller.id, self._seal(secret, id), replacing=known.sealed_secret,
            previous=self._seal(" ".join(older), id), overlap=max(0.0, min(overlap, MAX_OVERLAP)),
        )  # fmt: skip
        if changed is None:
            raise NotPossible("somebody else has changed the secret at this moment")
        log.event("webhook.rotated", backend=caller.backend)
        return _view(changed, _secrets(self._rooms, changed, self._rooms.clock.now()), secret=_told(secret))

    async def remove_webhook(self, caller: Caller, id: str) -> None:
        if not await self._store.remove_webhook(id, caller.id):
            raise NotFound("no such webhook")

    async def test_webhook(self, caller: Caller, id: str) -> WebhookDelivery:
        data = {"type": TEST, "id": str(uuid4()), "webhook": id}
        made = await self._store.test_webhook(id, caller.id, data)
        if made is None:
            raise NotFound("no such webhook")
        return await self.webhook_delivery(caller, id, str(made))

    async def webhook_deliveries(
        self, caller: Caller, id: str, *, state: NoticeState | None = None, after: str | None = None, limit: int = 50
    ) -> WebhookPage:
        await self._own(caller, id)
        limit = max(1, min(limit, 500))
        found = await self._store.notices(id, caller.id, state=state, after=read_cursor(after), limit=limit + 1)
        more = cursor(found[limit - 1].created_at, found[limit - 1].id) if len(found) > limit else None
        return WebhookPage(deliveries=[_delivery(n) for n in found[:limit]], next=more)

    async def webhook_delivery(self, caller: Caller, id: str, delivery_id: str) -> WebhookDelivery:
        found = await self._store.notice(_uuid(delivery_id), id, caller.id)
        if found is None:
            raise NotFound("no such delivery")
        return _delivery(found)

    async def replay_webhook(self, caller: Caller, id: str, delivery_id: str) -> WebhookDelivery:
        if not await self._store.notify_again(_uuid(delivery_id), id, caller.id):
            await self.webhook_delivery(caller, id, delivery_id)
            raise NotPossible("an attempt is running at this moment", state="waiting")
        return await self.webhook_delivery(caller, id, delivery_id)

    async def subscribe(self, caller: Caller, events: tuple[str, ...]) -> None:
        id = f"own_{caller.backend}"
        if await self._store.change_webhook(id, caller.id, events=events, disabled=False) is not None:
            return
        new = Webhook(
            id=id, backend=caller.backend, url="", sealed_secret=self._seal("-", id), events=events, client=caller.id
        )
        with contextlib.suppress(StoreUnavailable):  # another process was quicker
            await self._store.add_webhook(new)

    # -- within -----------------------------------------------------------------------

    async def _own(self, caller: Caller, id: str) -> Webhook:
        return _there(next((w for w in await self._store.webhooks(client=caller.id) if w.id == id), None))

    def _shown(self, webhook: Webhook) -> WebhookTarget:
        return _view(webhook, _secrets(self._rooms, webhook, self._rooms.clock.now()))

    def _new_secret(self, signature: WebhookSignature) -> str:
        prefix = PRIVATE if signature == "ed25519" else SECRET
        return prefix + base64.b64encode(self._rooms.entropy(32)).decode()

    def _seal(self, secret: str, id: str) -> bytes:
        return self._rooms.kek.seal_secret(secret.encode(), id)


def _there(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise NotFound("no such webhook")
    return webhook


def _secrets(rooms: Rooms, webhook: Webhook, now: datetime) -> list[str]:
    sealed = [webhook.sealed_secret]
    if webhook.sealed_previous is not None and webhook.previous_until is not None and webhook.previous_until > now:
        sealed.append(webhook.sealed_previous)
    return [secret for one in sealed for secret in rooms.kek.open_secret(one, webhook.id).decode().split()]


def _told(secret: str) -> str:
    """What its owner hears of a new secret: a private key stays here."""
    return "" if secret.startswith(PRIVATE) else secret


def _view(webhook: Webhook, known: list[str], *, secret: str = "") -> WebhookTarget:
    keys = tuple(_public(one) for one in known if one.startswith(PRIVATE))
    return WebhookTarget(
        id=webhook.id, backend=webhook.backend, url=webhook.url, events=webhook.events, secret=secret,
        signature="ed25519" if keys else "hmac", public_keys=keys, enabled=not webhook.disabled,
        previous_until=webhook.previous_until if len(known) > 1 else None,
    )  # fmt: skip


def _public(private: str) -> str:
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private.removeprefix(PRIVATE)))
    return PUBLIC + base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _delivery(notice: Notice) -> WebhookDelivery:
    return WebhookDelivery(
        id=str(notice.id), event_id=str(notice.data.get("id", notice.id)), type=str(notice.data.get("type", "")),
        state=notice.state, created_at=notice.created_at, next_attempt_at=notice.due_at,
        message=None if notice.message is None else str(notice.message),
        attempts=tuple(
            WebhookAttempt(at=a.at, outcome=a.outcome, status=a.status, seconds=a.seconds, detail=a.detail)
            for a in notice.attempts if a.at is not None
        ),
    )  # fmt: skip


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("no such delivery") from None

