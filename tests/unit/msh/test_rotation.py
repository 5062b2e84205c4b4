"""A partner refuses a certificate of ours while messages are under way: what counts, who goes back, what is sent again."""

import datetime
import functools
import hashlib

import pytest
from msgspec.structs import replace

from gateway.as4.outbound import secure_signal
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Error, SignalError
from gateway.keys.keyring import Keyring
from gateway.store.agreements import NewRevision
from gateway.store.keys import Choice, NewKey, Ring
from gateway.store.webhooks import Webhook
from tests.interop.test_ping import over_tls, pki  # noqa: F401 - a fixture
from tests.peer import Authority, Keys
from tests.world import EE, LV, world

SOAP = "application/soap+xml; charset=UTF-8"
following = functools.cache(lambda: Keys.make("AP_LV_01", "rsa", Authority()))


class Site:
    """AP_LV_01 with an old and a new key in the database, and a partner that may refuse either."""

    def __init__(self, lv) -> None:
        self.lv, self.store, self.rooms = lv, lv.store, lv.gateway._rooms
        self.keys = {"old": lv.keys, "new": following()}
        self.refuses: set[bytes] = set()
        self.signed, self.code = True, "EBMS:0101"
        lv.peer.partner_signing = tuple(k.signing for k in self.keys.values())
        lv.listener.answer = self.answer
        self.signers: list[bytes] = []

    def answer(self, content_type, body):
        opened, _ = self.lv.peer.open(content_type, body)
        self.signers.append(opened.signer)
        if opened.signer not in self.refuses:
            return self.lv.receipting(content_type, body)
        about = opened.unit.message_id
        told = SignalError(code=self.code, severity="failure", ref_to_message_in_error=about)
        unit = Error("e-1@peer.example", datetime.datetime.now(datetime.UTC), about, (told,))
        key = self.lv.peer.keys.signing_key if self.signed else None
        return 500, SOAP, secure_signal(unit, profile=PROFILES["oots/2.0"], key=key, token="bst", entropy=bytes)

    async def ring(self, *, choices=(), **states):
        """Make this the ring in force, and give the process its keys."""
        for state in ("STAGED", None):  # a key is staged before it is anything else
            active = await self.store.active_ring()
            ring = Ring.decode(active.content) if active else Ring()
            now = {key.id: key.states["sign"] for key in await self.store.own_keys()}
            wanted = {(id, "sign"): state if state and now[id] == "PLANNED" else to for id, to in states.items()
                      if not state or now[id] == "PLANNED"}  # fmt: skip
            ring = ring.with_states(wanted)
            await self.propose(ring if state else ring.with_choices(choices))
        await self.load()

    async def propose(self, ring):
        active = await self.store.active_ring()
        made = await self.store.propose_revision(NewRevision(
            topic="keys", base=active.number if active else 0, content=ring.encode(), author="anna@lv", reason="test"))
        assert (await self.store.settle_revision(made.number, topic="keys")).state == "ACTIVE"

    async def load(self):
        """What a process does with a ring that is active."""
        ring = Ring.decode((await self.store.active_ring()).content)
        signing = [self.keys[p.key].signing_key for p in ring.places if p.state == "ACTIVE"]
        chosen = {(None, c.partner): (self.keys[c.key].signing_key,) for c in ring.choices}
        decrypting = [k.decryption_key for k in self.keys.values()]
        self.rooms.keyring.value = Keyring({None: signing}, {None: decrypting}, chosen)

    async def look(self):
        """A look of the rotation; then what is proposed becomes active, as every process would have it."""
        await self.rooms.rotation.look()
        for revision in await self.store.revisions(topic="keys"):
            if revision.state == "PROPOSED":
                await self.store.settle_revision(revision.number, topic="keys")
                await self.load()
        await self.rooms.rotation.look()

    async def sent(self, count=1):
        submitted = [await self.lv.submit() for _ in range(count)]
        await self.lv.send_due()
        return submitted

    async def states(self, submitted):
        return [(await self.lv.view(one)).state for one in submitted]

    async def chosen(self):
        return {(c.partner, c.key) for c in await self.store.chosen()}

    def name(self, which):
        return hashlib.sha256(self.keys[which].signing).digest()


@pytest.fixture
async def site(tmp_path):
    async with world(tmp_path / "lv") as lv:
        await lv.gateway._rooms.revisions.leave()  # the test speaks for the process
        made = Site(lv)
        for id, keys in made.keys.items():
            await made.store.add_key(NewKey(
                id=id, uses=("sign",), algorithm="RSA 2048", public=id.encode(), sealed=b"x", certificate=keys.signing,
            ), author="anna@lv")  # fmt: skip
        await made.ring(old="ACTIVE", new="STAGED")
        yield made


async def cutover(site):
    await site.ring(new="ACTIVE", old="DRAINING")


async def test_three_signed_refusals_and_the_partner_alone_is_back_on_the_old_key(site):
    await cutover(site)
    site.refuses = {site.keys["new"].signing}
    messages = await site.sent(2)
    await site.look()
    assert await site.chosen() == set(), "two are not enough"
    messages += await site.sent(1)
    assert await site.states(messages) == ["WAITING_FOR_RETRY"] * 3, "given up is nothing that can be signed otherwise"
    await site.look()
    assert await site.chosen() == {(EE.value, "old")}
    assert site.rooms.keyring.value.signing_key(LV, PROFILES["oots/2.0"]).certificate == site.keys["new"].signing
    await site.lv.send_due()
    assert await site.states(messages) == ["ACKNOWLEDGED"] * 3
    assert site.signers[-3:] == [site.keys["old"].signing] * 3
    arrived = [site.lv.peer.open(*r)[0].unit.message_id for r in site.lv.listener.received]
    assert sorted(arrived[:3]) == sorted(arrived[3:]) == sorted(m.message_id for m in messages), "the same MessageIds"
    assert await site.store.unsettled() == []


async def test_it_is_told_once_in_audit_ledger_and_webhooks(site):
    await site.store.add_webhook(Webhook(id="wh_1", backend="rest", url="http://x", sealed_secret=b"s", events=("certificate.returned",)))
    await cutover(site)
    site.refuses = {site.keys["new"].signing}
    await site.sent(3)
    await site.look()
    await site.look()
    entries = [e for e in await site.store.audit_entries() if e.actor == "automatic"]
    assert [e.kind for e in entries] == ["keys.proposed", "key.chosen", "keys.activated", "certificates.returned"]
    assert entries[0].detail["refused"] == site.name("new").hex() and entries[0].detail["refusals"] == "3"
    assert entries[1].subject == entries[3].detail["fingerprint"] == site.name("old").hex()
    [row] = await site.store.ledger(site.name("new"))
    assert row.returned_at is not None and row.used_at is None
    notices = await site.store.claim("notify", worker="w", limit=10, lease=30)
    assert [(job.data["type"], job.data["party"]) for job in notices] == [("certificate.returned", EE.value)]
    assert await site.store.verify_audit() is None


async def test_a_receipt_in_between_begins_the_count_anew(site):
    await cutover(site)
    for _ in range(2):
        site.refuses = {site.keys["new"].signing}
        messages = await site.sent(2)
        site.refuses = set()
        await site.sent(1)
    await site.look()
    assert await site.chosen() == set()
    assert await site.states(messages) == ["WAITING_FOR_RETRY"] * 2
    [row] = await site.store.ledger(site.name("new"))
    assert row.used_at is not None, "the first receipt is noted"


async def test_unsigned_refusals_over_plain_http_move_nobody(site):
    """J04: whoever can write into the connection could otherwise keep us on an old certificate."""
    await cutover(site)
    site.refuses, site.signed = {site.keys["new"].signing}, False
    messages = await site.sent(5)
    await site.look()
    assert await site.chosen() == set()
    assert await site.states(messages) == ["WAITING_FOR_RETRY"] * 5
    assert {r.proof for r in await site.store.refusals(within=60)} == {"none"}, "but they are shown"


@pytest.mark.parametrize("believed", [True, False])
async def test_unsigned_refusals_over_tls_count_where_that_is_configured(site, pki, believed):  # noqa: F811
    await cutover(site)
    rotation = site.rooms.rotation
    rotation._settings = replace(rotation._settings, believe_tls=believed)
    site.refuses, site.signed = {site.keys["new"].signing}, False
    cell = site.rooms.agreements
    async with over_tls(site.lv, pki.server_context()) as url:
        legs = tuple(replace(leg, to_party=replace(leg.to_party, endpoint=url, tls_ca=pki.ca.read_bytes()))
                     if leg.to_party.endpoint else leg for leg in cell.value.pmodes.legs)
        cell.value = type(cell.value)(replace(cell.value.pmodes, legs=legs))
        messages = await site.sent(3)
        await site.look()
        assert await site.chosen() == ({(EE.value, "old")} if believed else set())
        await site.lv.send_due()
        assert await site.states(messages) == ["ACKNOWLEDGED" if believed else "WAITING_FOR_RETRY"] * 3


async def test_it_can_be_switched_off(site):
    await cutover(site)
    rotation = site.rooms.rotation
    rotation._settings = replace(rotation._settings, refusals=0)
    site.refuses = {site.keys["new"].signing}
    await site.sent(4)
    await site.look()
    assert await site.chosen() == set()


async def test_without_a_valid_way_back_an_authentic_refusal_is_final_as_ever(site):
    await cutover(site)
    await site.ring(new="ACTIVE", old="RETIRED")
    site.refuses = {site.keys["new"].signing}
    messages = await site.sent(4)
    await site.look()
    assert await site.states(messages) == ["FAILED"] * 4 and await site.chosen() == set()


async def test_a_partner_promoted_alone_goes_back_to_the_active_key(site):
    await site.ring(choices=[Choice(partner=EE.value, key="new", why="first")], old="ACTIVE")
    site.refuses = {site.keys["new"].signing}
    messages = await site.sent(3)
    await site.look()
    assert await site.chosen() == set()
    await site.lv.send_due()
    assert await site.states(messages) == ["ACKNOWLEDGED"] * 3 and site.signers[-1] == site.keys["old"].signing


async def test_errors_about_something_else_count_for_nothing(site):
    await cutover(site)
    site.refuses, site.code = {site.keys["new"].signing}, "EBMS:0010"
    messages = await site.sent(3)
    await site.look()
    assert await site.states(messages) == ["FAILED"] * 3 and await site.store.refusals(within=60) == []


async def test_a_refusal_that_comes_when_the_partner_is_back_already_is_sent_again(site):
    """Signed by a process that had not heard yet."""
    await cutover(site)
    site.refuses = {site.keys["new"].signing}
    await site.sent(3)
    await site.look()
    late = site.rooms.keyring.value
    await site.ring(choices=[Choice(partner=EE.value, key="old", why="x")], new="ACTIVE")
    site.rooms.keyring.value = Keyring({None: [site.keys["new"].signing_key]}, {})
    [message] = await site.sent(1)
    site.rooms.keyring.value = late
    assert await site.states([message]) == ["WAITING_FOR_RETRY"]
    await site.look()
    await site.lv.send_due()
    assert await site.states([message]) == ["ACKNOWLEDGED"]


async def test_what_had_failed_before_the_operator_went_back_is_sent_again(site):
    await cutover(site)
    rotation = site.rooms.rotation
    rotation._settings = replace(rotation._settings, refusals=0)
    site.refuses = {site.keys["new"].signing}
    [message] = await site.sent(1)
    [stored] = await site.store.find(message.message_id)
    assert stored.state == "WAITING_FOR_RETRY"
    assert await site.store.fail_late(stored.id, "EBMS:0301", "no receipt after 20 attempts", ())
    await site.ring(old="ACTIVE", new="STAGED")
    await site.look()
    await site.lv.send_due()
    assert await site.states([message]) == ["ACKNOWLEDGED"]


async def test_who_encrypts_to_which_certificate_is_noted_at_the_first_message(site):
    lv = site.lv
    for _ in range(2):
        await lv.give(lv.peer.message())
    await site.look()
    [row] = [r for r in await site.store.ledger() if r.encrypted_at]
    assert row.certificate == hashlib.sha256(lv.keys.encryption).digest() and row.partner.endswith(EE.value)
    lv.peer.partner_encryption = following().encryption
    await lv.give(lv.peer.message())
    await site.look()
    assert {r.certificate for r in await site.store.ledger() if r.encrypted_at} == {
        row.certificate, hashlib.sha256(following().encryption).digest()}
