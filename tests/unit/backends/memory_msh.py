"""An MSH in memory: the whole plugin API, small, without a store, a network or a clock of its own.

It keeps the promises of `gateway.plugin` (idempotency, scopes, leases with claim tokens)
so that a backend can be tested against behaviour. Tests move `now`, decide what `post`
answers, and may set `broken` to an exception that every verb then raises.
"""

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import msgspec

from gateway.plugin import (
    Caller,
    CheckedPart,
    ClaimLost,
    Delivery,
    DryRun,
    MessageFilter,
    MessageView,
    NotFound,
    NotPossible,
    PartSubmission,
    PartView,
    PartyRef,
    QuotaReached,
    Step,
    Submission,
    SubmissionConflict,
    SubmissionRefused,
    Submitted,
    TooLarge,
    WebhookDelivery,
    WebhookPage,
    WebhookTarget,
)  # fmt: skip

PARTNERS = ("AP_LT", "AP_EE")
BLOCK = 1000


class Lent(msgspec.Struct):
    """One inbound message waiting for a consumer."""

    delivery_id: str
    message: str
    backend: str
    claim: str = ""
    due: datetime | None = None
    attempt: int = 0
    done: bool = False


class MemoryMsh:
    def __init__(self, *, limit: int = 10_000_000) -> None:
        self.limit = limit
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.callers: dict[str, Caller] = {}
        self.certificates: dict[bytes, Caller] = {}
        self.views: dict[str, MessageView] = {}
        self.contents: dict[tuple[str, int], bytes] = {}
        self.fingerprints: dict[str, str] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.lent: list[Lent] = []
        self.targets: dict[str, WebhookTarget] = {}
        self.told: dict[str, list[WebhookDelivery]] = {}
        self.running: set[str] = set()
        self.posted: list[tuple[str, bytes, dict[str, str]]] = []
        self.post_answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
        self.broken: Exception | None = None
        self.block = BLOCK
        self.after_submit: Callable[[str], None] = lambda id: None
        self.fail_payload_at: int | None = None

    # -- what a test does -----------------------------------------------------

    def client(self, name: str, backend: str) -> str:
        """A new API client of `backend`; its token."""
        token = f"token-{name}"
        self.callers[token] = Caller(id=f"client-{name}", name=name, backend=backend)
        return token

    def settle(self, id: str, state: str = "ACKNOWLEDGED") -> None:
        self.views[id] = msgspec.structs.replace(self.views[id], state=state, receipt_at=self.now)

    def receive(self, backend: str, *contents: bytes, mime_type: str = "application/xml") -> MessageView:
        """An inbound message for `backend`, waiting in its inbox."""
        id = str(uuid.uuid4())
        parts = tuple(self._keep(id, n, PartSubmission(mime_type), c) for n, c in enumerate(contents))
        view = MessageView(
            id=id, direction="inbound", state="RECEIVED", message_id=f"{uuid.uuid4()}@partner.example",
            conversation_id=str(uuid.uuid4()), timestamp=self.now, created_at=self.now,
            from_party=PartyRef("AP_LT"), to_party=PartyRef("AP_LV"), service="urn:s", action="ExecuteQueryRequest",
            parts=parts, backend=backend,
        )  # fmt: skip
        self.views[id] = view
        self.lent.append(Lent(str(uuid.uuid4()), id, backend))
        return view

    def purge(self, id: str) -> None:
        view = self.views[id]
        parts = tuple(msgspec.structs.replace(part, available=False) for part in view.parts)
        self.views[id] = msgspec.structs.replace(view, parts=parts, state="PURGED")

    # -- what a backend sees --------------------------------------------------

    async def authenticate(self, token: str, *, certificate: bytes | None = None) -> Caller:
        self._check()
        if token not in self.callers:
            raise NotFound("token")
        return self.callers[token]

    async def authenticate_certificate(self, der: bytes) -> Caller:
        self._check()
        if der not in self.certificates:
            raise NotFound("certificate")
        return self.certificates[der]

    async def validate(self, caller, submission: Submission, content) -> DryRun:
        self._check()
        contents = await self._contents(submission, content)
        parts = tuple(
            CheckedPart(cid=part.cid or f"p{n}@gateway.example", mime_type=part.mime_type, size=len(octets),
                        sha256=hashlib.sha256(octets).hexdigest(), compressed=False, wire_size=len(octets))
            for n, (part, octets) in enumerate(zip(submission.parts, contents))
        )  # fmt: skip
        return DryRun(valid=True, pmode="m", profile="p", rules="advise", header="<eb:Messaging/>", parts=parts)

    async def submit(self, caller, submission: Submission, content, *, idempotency_key=None) -> Submitted:
        self._check()
        contents = await self._contents(submission, content)
        fingerprint = self._fingerprint(submission, contents)
        known = self.keys.get((caller.id, idempotency_key)) if idempotency_key else None
        if known and self.fingerprints[known] != fingerprint:
            raise SubmissionConflict("key used for another submission", field="idempotency_key")
        if not known and submission.message_id:
            known = next((v.id for v in self.views.values() if v.message_id == submission.message_id), None)
            if known and (self.fingerprints[known] != fingerprint or self.views[known].backend != caller.backend):
                raise SubmissionConflict("message_id is taken", field="message_id")
        if known:
            return self._submitted(self.views[known], replayed=True)
        id = str(uuid.uuid4())
        view = MessageView(
            id=id, direction="outbound", state="SUBMITTED",
            message_id=submission.message_id or f"{uuid.uuid4()}@gateway.example",
            conversation_id=submission.conversation_id or str(uuid.uuid4()),
            timestamp=self.now, created_at=self.now, from_party=submission.from_party or PartyRef("AP_LV"),
            to_party=submission.to_party, service=submission.service or "urn:s", action=submission.action,
            properties=submission.properties, backend=caller.backend,
            parts=tuple(self._keep(id, n, p, c) for n, (p, c) in enumerate(zip(submission.parts, contents))),
        )  # fmt: skip
        self.views[id], self.fingerprints[id] = view, fingerprint
        if idempotency_key:
            self.keys[caller.id, idempotency_key] = id
        self.after_submit(id)
        return self._submitted(view)

    async def _contents(self, submission: Submission, content) -> list[bytes]:
        if type(submission) is not Submission or type(submission.to_party) is not PartyRef:
            raise AssertionError("a backend hands over the plain types of gateway.plugin")
        if submission.to_party.id not in PARTNERS:
            raise SubmissionRefused("no agreement with this party", field="to_party.id", hint="One of AP_LT, AP_EE.")
        contents, total = [], 0
        for number in range(len(submission.parts)):
            octets = bytearray()
            async for block in content(number):
                octets += block
                total += len(block)
                if total > self.limit:
                    raise TooLarge(f"more than {self.limit} bytes")
            contents.append(bytes(octets))
        return contents

    async def message(self, caller, id: str) -> MessageView:
        self._check()
        return self._mine(caller, id)

    async def messages(self, caller, wanted: MessageFilter):
        self._check()
        mine = [view for view in self.views.values() if view.backend == caller.backend][::-1]
        for name in ("direction", "state", "conversation_id", "message_id", "action"):
            value = getattr(wanted, name)
            mine = [view for view in mine if value is None or getattr(view, name) == value]
        if wanted.party is not None:
            mine = [view for view in mine if wanted.party in (view.from_party.id, view.to_party.id)]
        if wanted.after is not None:
            ids = [view.id for view in mine]
            if wanted.after not in ids:
                raise SubmissionRefused("not a cursor of this list", field="after")
            mine = mine[ids.index(wanted.after) + 1 :]
        page = mine[: wanted.limit]
        return page, page[-1].id if len(mine) > len(page) else None

    async def trace(self, caller, id: str) -> list[Step]:
        self._check()
        self._mine(caller, id)
        return [Step("submit", 1_795_000_000.0, 0.001), Step("store", 1_795_000_000.1, 0.002)]

    async def payload(self, caller, id: str, cid: str, *, start: int = 0):
        self._check()
        view = self._mine(caller, id)
        part = next((part for part in view.parts if part.cid == cid), None)
        if part is None:
            raise NotFound("part")
        return part, self._blocks(self.contents[view.id, part.number], start)

    async def claim(self, caller, *, limit: int = 1, lease: float = 60.0) -> list[Delivery]:
        self._check()
        given = []
        for lent in self.lent:
            free = lent.due is None or lent.due <= self.now
            if lent.backend == caller.backend and not lent.done and free and len(given) < limit:
                lent.claim, lent.attempt = str(uuid.uuid4()), lent.attempt + 1
                lent.due = self.now + timedelta(seconds=lease)
                given.append(Delivery(
                    delivery_id=lent.delivery_id, claim=lent.claim, lease_until=lent.due,
                    redelivered=lent.attempt > 1, attempt=lent.attempt, message=self.views[lent.message],
                ))  # fmt: skip
        return given

    async def ack(self, caller, delivery_id: str, claim: str) -> None:
        lent = self._lent(caller, delivery_id, claim)
        lent.done = True
        self.views[lent.message] = msgspec.structs.replace(self.views[lent.message], state="DELIVERED")

    async def nack(self, caller, delivery_id: str, claim: str, *, retry_in: float = 0.0) -> None:
        lent = self._lent(caller, delivery_id, claim)
        lent.claim, lent.due = "", self.now + timedelta(seconds=retry_in)

    async def extend(self, caller, delivery_id: str, claim: str, *, lease: float) -> datetime:
        lent = self._lent(caller, delivery_id, claim)
        lent.due = self.now + timedelta(seconds=lease)
        return lent.due

    async def add_webhook(
        self, caller, url: str, events: tuple[str, ...], *, signature="hmac", idempotency_key=None
    ) -> WebhookTarget:
        self._check()
        self._allowed(url)
        if len([t for t in self.targets.values() if t.backend == caller.backend]) >= 50:
            raise QuotaReached("a client has 50 webhooks at most")
        keys = ("whpk_cHVibGlj",) if signature == "ed25519" else ()
        target = WebhookTarget(
            id=str(uuid.uuid4()), backend=caller.backend, url=url, secret="" if keys else "whsec_c2VjcmV0", events=events,
            signature=signature, public_keys=keys,
        )  # fmt: skip
        self.targets[target.id] = target
        return target

    @staticmethod
    def _allowed(url: str | None) -> None:
        if "169.254." in (url or ""):
            raise SubmissionRefused("the egress policy does not allow this address", field="url")

    async def webhooks(self, caller) -> list[WebhookTarget]:
        self._check()
        mine = [target for target in self.targets.values() if target.backend == caller.backend]
        return [msgspec.structs.replace(target, secret="") for target in mine]

    async def webhook(self, caller, id: str) -> WebhookTarget:
        return msgspec.structs.replace(self._target(caller, id), secret="")

    async def change_webhook(self, caller, id: str, *, url=None, events=None, enabled=None) -> WebhookTarget:
        target = self._target(caller, id)
        self._allowed(url)
        given = {"url": url, "events": events, "enabled": enabled}
        self.targets[id] = msgspec.structs.replace(target, **{k: v for k, v in given.items() if v is not None})
        return await self.webhook(caller, id)

    async def rotate_webhook(self, caller, id: str, *, overlap: float = 86_400.0) -> WebhookTarget:
        until = self.now + timedelta(seconds=overlap)
        self.targets[id] = msgspec.structs.replace(
            self._target(caller, id), secret="whsec_b3RoZXI=", previous_until=until
        )
        return self.targets[id]

    async def remove_webhook(self, caller, id: str) -> None:
        self._target(caller, id)
        del self.targets[id]

    async def test_webhook(self, caller, id: str) -> WebhookDelivery:
        self._target(caller, id)
        made = WebhookDelivery(
            id=str(uuid.uuid4()), event_id=str(uuid.uuid4()), type="webhook.test", state="waiting", created_at=self.now
        )
        self.told.setdefault(id, []).insert(0, made)
        return made

    async def webhook_deliveries(self, caller, id: str, *, state=None, after=None, limit: int = 50) -> WebhookPage:
        self._target(caller, id)
        found = [n for n in self.told.get(id, []) if state in (None, n.state)]
        ids = [n.id for n in found]
        if after is not None:
            if after not in ids:
                raise SubmissionRefused("not a cursor of this list", field="after")
            found = found[ids.index(after) + 1 :]
        return WebhookPage(deliveries=found[:limit], next=found[limit - 1].id if len(found) > limit else None)

    async def webhook_delivery(self, caller, id: str, delivery_id: str) -> WebhookDelivery:
        self._target(caller, id)
        found = next((n for n in self.told.get(id, []) if n.id == delivery_id), None)
        if found is None:
            raise NotFound("delivery")
        return found

    async def replay_webhook(self, caller, id: str, delivery_id: str) -> WebhookDelivery:
        found = await self.webhook_delivery(caller, id, delivery_id)
        if delivery_id in self.running:
            raise NotPossible("an attempt is running at this moment")
        return found

    def _target(self, caller, id: str) -> WebhookTarget:
        self._check()
        if id not in self.targets or self.targets[id].backend != caller.backend:
            raise NotFound("webhook")
        return self.targets[id]

    async def post(self, url: str, body: bytes, headers: dict[str, str], *, timeout: float = 20.0):
        self._check()
        self.posted.append((url, body, headers))
        return self.post_answer

    # -- inside ---------------------------------------------------------------

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _mine(self, caller, id: str) -> MessageView:
        for view in self.views.values():
            if id in (view.id, view.message_id) and view.backend == caller.backend:
                return view
        raise NotFound(f"message {id}")

    def _lent(self, caller, delivery_id: str, claim: str) -> Lent:
        self._check()
        lent = next((x for x in self.lent if x.delivery_id == delivery_id and x.backend == caller.backend), None)
        if lent is None:
            raise NotFound("delivery")
        if lent.claim != claim or (not lent.done and lent.due is not None and lent.due <= self.now):
            raise ClaimLost("not the current claim")
        return lent

    def _keep(self, id: str, number: int, part: PartSubmission, content: bytes) -> PartView:
        self.contents[id, number] = content
        return PartView(
            number=number, cid=part.cid or f"part-{number}@gateway.example", mime_type=part.mime_type,
            size=len(content), sha256=hashlib.sha256(content).hexdigest(), properties=part.properties,
        )  # fmt: skip

    async def _blocks(self, content: bytes, start: int) -> AsyncIterator[bytes]:
        for at in range(start, len(content), self.block):
            if self.fail_payload_at is not None and at >= self.fail_payload_at:
                raise OSError("the store broke off")
            yield content[at : at + self.block]

    @staticmethod
    def _fingerprint(submission: Submission, contents: list[bytes]) -> str:
        digest = hashlib.sha256(msgspec.json.encode(submission))
        for content in contents:
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    @staticmethod
    def _submitted(view: MessageView, *, replayed: bool = False) -> Submitted:
        return Submitted(view.id, view.message_id, view.conversation_id, view.state, replayed)
