"""The keys of a gateway change under it: the whole gateway, in one process."""

import asyncio
import secrets
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest

from gateway import app
from gateway.as4.profiles import PROFILES
from gateway.config import Secret
from gateway.errors import NotPossible, RingUnavailable, StalePlan
from gateway.operate import certificates
from gateway.operate.key_import import Found, keep
from gateway.store.agreements import Beat, NewRevision
from gateway.store.keys import Choice, Ring
from tests.peer import Keys, check_receipt
from tests.world import EE, LV, key_pem, to_pem, world

OOTS = PROFILES["oots/2.0"]
SIGN, DECRYPT = "sign", "decrypt"


class Rotation:
    """An operator at the keys of a world."""

    def __init__(self, lv) -> None:
        self.lv, self.store, self.rooms = lv, lv.store, lv.gateway._rooms
        self.ring = self.rooms.revisions.ring

    def keys(self) -> Keys:
        return Keys.make("AP_LV_01", "rsa", self.lv.authority)

    async def imported(self, keys: Keys, uses=(DECRYPT, SIGN), kek=None, **more) -> str:
        found = Found(certificate=keys.signing, chain=(), uses=uses, algorithm="RSA 2048", party=None,
                      private_key=keys.signing_private, **more)  # fmt: skip
        return (await keep(self.store, kek or self.rooms.kek, found, author="anna")).id

    async def held(self):
        return await certificates.held(self.store)

    async def do(self, verb, *names, look=True, **more):
        have = await self.held()
        if verb != "stage":
            more["now"] = datetime.now(UTC)
        plan = getattr(certificates, f"plan_{verb}")(have, names, **more)
        return await self.apply(plan, look=look)

    async def apply(self, plan, look=True, **more):
        return await certificates.apply(
            self.store, plan, author="anna", reason="test", lead=more.pop("lead", 0.0), patience=5,
            look=self.rooms.revisions.look if look else None, **more,
        )  # fmt: skip

    def signer(self, partner=EE) -> bytes:
        return self.rooms.keyring.value.signing_key(LV, OOTS, partner=partner).certificate


@pytest.fixture
async def rotation(tmp_path):
    async with world(tmp_path) as lv:
        made = Rotation(lv)
        yield made


async def test_files_sign_until_a_key_of_the_database_is_active_and_decrypt_after_it(rotation):
    files, new = rotation.signer(), rotation.keys()
    id = await rotation.imported(new)
    assert rotation.signer() == files, "planned"
    assert (await rotation.do("stage", id)).revision.state == "ACTIVE"
    opened = rotation.rooms.keyring.value
    assert rotation.signer() == files and opened.decryption_keys(LV)[0].certificate == new.signing
    assert (await rotation.do("promote", id)).revision.number == rotation.ring.number == 2
    assert rotation.signer() == new.signing
    assert {key.certificate for key in rotation.rooms.keyring.value.decryption_keys(LV)} >= {new.signing, files}
    # And back to the files.
    await rotation.do("rollback", id)
    assert rotation.signer() == files and (await rotation.held()).key(id).states == {SIGN: "STAGED", DECRYPT: "STAGED"}


async def test_a_rotation_from_key_to_key(rotation):
    old, new = rotation.keys(), rotation.keys()
    first, second = await rotation.imported(old), await rotation.imported(new)
    await rotation.do("stage", first, second)
    await rotation.do("promote", first)
    plan = certificates.plan_promote(await rotation.held(), [second], [SIGN], now=datetime.now(UTC))
    assert [(m.key, m.use, m.before, m.after) for m in plan.moves] == sorted(
        [(first, SIGN, "ACTIVE", "DRAINING"), (second, SIGN, "STAGED", "ACTIVE")])  # fmt: skip
    outcome = await rotation.apply(plan)
    assert outcome.revision.state == "ACTIVE" and not outcome.behind and len(outcome.words) == 1
    assert rotation.signer() == new.signing
    with pytest.raises(StalePlan):
        await rotation.apply(plan)
    await rotation.do("rollback", second, uses=[SIGN])
    assert rotation.signer() == old.signing
    await rotation.do("promote", second, uses=[SIGN])
    await rotation.do("promote", second)  # the rest of it
    with pytest.raises(NotPossible, match="expected STAGED or ANNOUNCED"):
        await rotation.do("promote", second)
    plan = certificates.plan_retire(await rotation.held(), [first], now=datetime.now(UTC))
    assert len(plan.obstacles) == 1 and "drained for 0 of 30 days" in plan.obstacles[0]
    await rotation.apply(plan)
    gone = (await rotation.held()).key(first)
    assert gone.retired and gone.sealed is None and gone.certificate == old.signing
    assert old.signing not in {k.certificate for k in rotation.rooms.keyring.value.decryption_keys(LV)}


async def test_one_partner_is_signed_for_with_another_key(rotation):
    old, new = rotation.keys(), rotation.keys()
    first, second = await rotation.imported(old), await rotation.imported(new)
    await rotation.do("stage", first, second)
    await rotation.do("promote", first)
    have = await rotation.held()
    ring = have.ring.with_choices([Choice(partner=EE.value, key=second, why="it knows the next one")])
    plan = certificates.plan_ring("choose", have, ring)
    assert plan.choices == (f"{EE.value}: signed for with {second}",) and not plan.nothing
    await rotation.apply(plan)
    assert rotation.signer() == new.signing and rotation.signer("AP_FI_01") == old.signing and rotation.signer(None) == old.signing
    shown = {c.key: c for c in certificates.own_certificates(await rotation.held()) if c.use == SIGN}
    assert shown[second].chosen == (EE.value,) and shown[first].chosen == ()
    # For all: the choice has no meaning any more.
    await rotation.do("promote", second, uses=[SIGN])
    assert (await rotation.held()).ring.choices == () and rotation.signer("AP_FI_01") == new.signing


async def test_messages_are_signed_and_opened_with_what_is_in_force(rotation):
    """The partner pins both, encrypts to the next one early and to the old one late; everything arrives, and is
    answered with the key in force."""
    lv = rotation.lv
    old, new = lv.keys, rotation.keys()
    lv.peer.partner_signing = (old.signing, new.signing)
    id = await rotation.imported(new)
    early = await lv.give(lv.peer.message(recipient=new.signing))
    assert early.code == "EBMS:0102", "planned is not open yet"
    await rotation.do("stage", id)
    for step in ("stage", "promote", "rollback", "promote"):
        if step != "stage":
            await rotation.do(step, id)
        expected = new.signing if step == "promote" else old.signing
        for recipient in (old.encryption, new.signing):
            sent = lv.peer.message(recipient=recipient)
            answer = await lv.give(sent)
            check_receipt(answer, sent)
            assert answer.signer == expected
        view = await lv.submit()
        lv.listener.received.clear()
        await lv.send_due()
        assert (await lv.view(view)).state == "ACKNOWLEDGED"
        opened, _ = lv.peer.open(*lv.listener.received[0])
        assert opened.signer == expected
    assert len(await lv.inbox()) == 8


async def test_the_moment_is_known_before_it_comes(rotation):
    new = rotation.keys()
    id = await rotation.imported(new)
    await rotation.do("stage", id)
    files = rotation.signer()
    plan = certificates.plan_promote(await rotation.held(), [id], now=datetime.now(UTC))
    applying = asyncio.create_task(rotation.apply(plan, lead=0.8))
    while (await rotation.store.active_ring()).number == 1:
        await asyncio.sleep(0.02)
    await rotation.rooms.revisions.look()
    assert rotation.ring.waits and rotation.signer() == files, "active, and not its moment yet"
    # Nothing else is answered meanwhile: it would be tested with keys that are about to go.
    have = await rotation.held()
    proposed = await rotation.store.propose_revision(NewRevision(
        topic="keys", base=2, content=have.ring.with_states({(id, DECRYPT): "DRAINING"}).encode(), author="x", reason="y"))
    await rotation.rooms.revisions.look()
    assert (await rotation.store.revision(proposed.number, topic="keys")).state == "PROPOSED"
    outcome = await applying
    assert outcome.revision.effective_at > outcome.revision.settled_at and rotation.signer() == new.signing
    await rotation.rooms.revisions.look()
    assert rotation.ring.number == 3


async def test_a_process_that_cannot_open_a_key_refuses_for_all_and_says_why(rotation):
    from gateway.keys.sealing import KeyEncryptionKey

    stranger = KeyEncryptionKey(secrets.token_bytes(32))
    id = await rotation.imported(rotation.keys(), kek=stranger)
    outcome = await rotation.do("stage", id)
    assert outcome.revision.state == "REFUSED" and "sealed with another key-encryption key" in outcome.revision.refusal
    assert outcome.revision.refusal.startswith("lv-test ") and f"key {id} (" in outcome.revision.refusal
    assert rotation.ring.number == 0 and (await rotation.lv.gateway.ready())[0]


async def test_a_key_that_is_not_its_certificates_is_found_before_it_is_used(rotation):
    a, b = rotation.keys(), rotation.keys()
    id = await rotation.imported(Keys(a.signing_private, b.signing, a.decryption_private, b.signing))
    outcome = await rotation.do("stage", id)
    assert outcome.revision.state == "REFUSED" and "does not" in outcome.revision.refusal


async def test_a_process_without_the_key_encryption_key_is_not_ready_and_signs_nothing(rotation, tmp_path):
    """It starts when the ring is active already: nobody could ask it."""
    lv, id = rotation.lv, await rotation.imported(rotation.keys())
    await rotation.do("stage", id)
    await rotation.do("promote", id)
    view = await lv.submit()
    (tmp_path / "other-kek").write_bytes(secrets.token_bytes(32))
    (tmp_path / "other-kek").chmod(0o600)
    config = rotation.rooms.config
    other_keys = msgspec.structs.replace(config.keys, key_encryption_key=Secret("file", str(tmp_path / "other-kek")))
    other = await app.build(msgspec.structs.replace(config, keys=other_keys), store=lv.store)
    ready, checks = await other.ready()
    told = {name: (ok, text) for name, ok, text in checks}
    assert not ready and not told["keys"][0]
    assert "ring 2: key " in told["keys"][1] and "sealed with another key-encryption key" in told["keys"][1]
    with pytest.raises(RingUnavailable):
        other._rooms.keyring.value.signing_key(LV, OOTS)
    with pytest.raises(RingUnavailable):
        other._rooms.keyring.value.decryption_keys(LV)
    process = next(p for p in await lv.store.processes() if p.ring_trouble)
    assert (process.ring, "sealed with another" in process.ring_trouble) == (0, True)
    # What it claims it gives to others, and no attempt is counted.
    [job] = await lv.store.claim("send", worker="other", limit=1, lease=60)
    with pytest.raises(RingUnavailable):
        await other.sender.send(job)
    assert await lv.store.attempts(job.message) == []
    # And it takes no messages: a load balancer, or a partner, comes again elsewhere.
    statuses = []

    async def send(event):
        statuses.append(event.get("status"))

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    await other.as4({"type": "http", "method": "POST", "path": "/as4", "headers": [], "client": ("127.0.0.1", 1)}, receive, send)
    assert statuses[0] == 503
    # Others refuse nothing because of it, but nothing new becomes active without it.
    await other.close()
    assert (await lv.view(view)).state == "SUBMITTED"


async def test_files_that_are_read_again_stay_below_the_ring(rotation, tmp_path):
    new, renewed = rotation.keys(), rotation.keys()
    id = await rotation.imported(new)
    await rotation.do("stage", id)
    await rotation.do("promote", id)
    (tmp_path / "lv-sign.pem").write_bytes(key_pem(renewed.signing_private) + to_pem(renewed.signing))
    await rotation.lv.gateway.reload()
    assert rotation.signer() == new.signing
    assert renewed.signing in {k.certificate for k in rotation.rooms.keyring.value.decryption_keys(LV)}
    await rotation.do("rollback", id)
    assert rotation.signer() == renewed.signing


async def test_a_ring_that_leaves_an_agreement_without_a_key_is_refused(tmp_path):
    """No file signs here: what the ring gives up, nobody has."""
    async with world(tmp_path) as lv:
        rotation = Rotation(lv)
        id = await rotation.imported(rotation.keys())
        await rotation.do("stage", id)
        await rotation.do("promote", id)
        empty = type(rotation.rooms.keyring.value)({}, {})
        rotation.ring.take_files(empty)
        outcome = await rotation.do("rollback", id)
        assert outcome.revision.state == "REFUSED" and "has no key for profile oots/2.0" in outcome.revision.refusal
        assert rotation.signer() == (await rotation.held()).key(id).certificate


async def test_another_process_follows_and_a_new_one_begins_with_it(rotation):
    other = await app.build(rotation.rooms.config, store=rotation.store)
    id = await rotation.imported(rotation.keys())
    applying = asyncio.create_task(rotation.do("stage", id))
    while not applying.done():
        await other._rooms.revisions.look()
        await asyncio.sleep(0.02)
    assert applying.result().revision.state == "ACTIVE" and len(applying.result().words) == 2
    assert other._rooms.revisions.ring.number == 1
    third = await app.build(rotation.rooms.config, store=rotation.store)
    assert third._rooms.revisions.ring.number == 1 and "ring 1" in {c[0]: c[2] for c in (await third.ready())[1]}["keys"]
    assert {p.kek for p in await rotation.store.processes()} == {rotation.rooms.kek.id.hex()}


async def test_a_ring_that_was_tampered_with_is_not_served(rotation):
    id = await rotation.imported(rotation.keys())
    await rotation.do("stage", id)
    forged = (await rotation.store.active_ring()).content
    await rotation.store.beat(Beat(id=uuid4(), node="other", place="0", revision=1))
    proposed = await rotation.store.propose_revision(
        NewRevision(topic="keys", base=1, content=Ring().encode(), author="x", reason="y"))
    row = rotation.store._revisions["keys", proposed.number]
    rotation.store._revisions["keys", proposed.number] = msgspec.structs.replace(row, content=forged + b" ")
    await rotation.rooms.revisions.look()
    [word] = await rotation.store.acknowledgements(proposed.number, topic="keys")
    assert "is not what was written" in word.why


async def test_the_keyring_of_the_command_line_is_that_of_the_node(rotation):
    id = await rotation.imported(rotation.keys())
    files = (await app.own_keyring(rotation.rooms.config, rotation.store)).signing_key(LV, OOTS).certificate
    await rotation.do("stage", id)
    await rotation.do("promote", id)
    # The world's key-encryption key is in its data folder.
    found = await app.own_keyring(rotation.rooms.config, rotation.store)
    assert found.signing_key(LV, OOTS).certificate == rotation.signer() != files
    await app.test_ring(rotation.rooms.config, rotation.store, (await rotation.held()).ring)
