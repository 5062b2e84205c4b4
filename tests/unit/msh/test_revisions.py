"""Agreements change under a gateway, and messages in flight go on under theirs. The whole gateway, in one process."""

import asyncio
from uuid import UUID, uuid4

import pytest

from gateway import app
from gateway.errors import AgreementsUnavailable, ConfigError, StalePlan
from gateway.operate import agreements
from gateway.operate import plan as planning
from gateway.store.agreements import Beat, NewRevision
from tests.peer import Authority, Keys, Peer
from tests.world import CALLER, EE, LV, to_pem, world

DEAD = "http://127.0.0.1:9/as4"


class Change:
    """An operator at the files of a world."""

    def __init__(self, folder, lv) -> None:
        self.folder, self.lv = folder, lv
        self.file = folder / "pmodes" / "agreement.toml"
        self.rooms = lv.gateway._rooms
        self.revisions = self.rooms.revisions

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    async def apply(self, **more):
        base = (await self.lv.store.active_agreements()).number
        return await agreements.apply(
            self.lv.store, app.load_bundle(self.rooms.config), base=base, author="anna", reason="test",
            look=self.revisions.look, **more,
        )  # fmt: skip

    async def endpoint(self, url: str, **more):
        self.edit(self.endpoint_now(), url)
        outcome = await self.apply(**more)
        assert outcome.revision.state == "ACTIVE"
        return outcome

    def endpoint_now(self) -> str:
        return self.file.read_text().partition('endpoint = "')[2].partition('"')[0]

    def partner(self, keys: Keys, *, old: Keys | None = None) -> None:
        """The files say that EE has these certificates."""
        (self.folder / "pmodes" / "ee-sign.pem").write_bytes(to_pem(keys.signing))
        (self.folder / "pmodes" / "ee-enc.pem").write_bytes(to_pem(keys.encryption))

    async def nobody_else(self) -> None:
        """This process is taken for dead: what is proposed becomes active without it."""
        await self.lv.store.leave(self.revisions._id)


@pytest.fixture
async def changing(tmp_path):
    async with world(tmp_path) as lv:
        yield lv, Change(tmp_path, lv)


async def revision_of(lv, submitted) -> int:
    return (await lv.store.message(UUID(submitted.id))).pmode_revision


async def test_the_files_are_the_first_revision_and_a_restart_changes_nothing(changing):
    lv, change = changing
    assert change.revisions.number == 1 and (await lv.store.active_agreements()).reason == "the files at the first start"
    change.edit(lv.listener.url, DEAD)
    again = await app.build(change.rooms.config, store=lv.store)
    assert again._rooms.revisions.number == 1
    endpoints = {leg.to_party.endpoint for leg in again._rooms.agreements.value.pmodes.legs}
    assert lv.listener.url in endpoints and DEAD not in endpoints
    assert await agreements.drift(lv.store, app.load_bundle(change.rooms.config)) is not None


async def test_a_message_finishes_on_the_revision_it_began_with(changing):
    lv, change = changing
    old = await lv.submit()
    await change.endpoint(DEAD)
    new = await lv.submit()
    assert [await revision_of(lv, message) for message in (old, new)] == [1, 2]
    await lv.send_due()
    assert (await lv.view(old)).state == "ACKNOWLEDGED", "it went where it was agreed when it was submitted"
    assert (await lv.view(new)).state == "WAITING_FOR_RETRY", "this one goes to the new place, where nobody is"


async def test_also_by_a_process_that_never_served_it(changing):
    lv, change = changing
    old = await lv.submit()
    await change.endpoint(DEAD)
    other = await app.build(change.rooms.config, store=lv.store)
    assert other._rooms.revisions.number == 2
    for job in await lv.store.claim("send", worker="other", limit=5, lease=60):
        await other.sender.send(job)
    assert (await lv.view(old)).state == "ACKNOWLEDGED"


async def test_waiting_messages_go_to_the_new_place_when_that_is_said(changing):
    lv, change = changing
    right = lv.listener.url
    await change.endpoint(DEAD)  # a mistype
    waiting = await lv.submit()
    await lv.send_due()
    assert (await lv.view(waiting)).state == "WAITING_FOR_RETRY"
    change.edit(DEAD, right)
    planned = await planning.plan(lv.store, app.load_bundle(change.rooms.config))
    assert [(f.partner, f.count, f.movable, f.revisions, f.why) for f in planned.in_flight] == [
        (EE.value, 1, 1, (2,), ("endpoint",))]  # fmt: skip
    outcome = await change.apply(move=True)
    assert outcome.moved == 1 and await revision_of(lv, waiting) == 3
    noted = (await lv.store.audit_entries())[-1]
    assert (noted.kind, noted.subject, noted.detail) == ("agreements.messages_moved", "revision 3", {"messages": 1})
    await lv.send_due()  # at once, not in a minute
    assert (await lv.view(waiting)).state == "ACKNOWLEDGED"


async def test_what_means_something_else_now_is_not_moved(changing):
    lv, change = changing
    waiting = await lv.submit()
    change.edit('[parties.AP_EE_01]\ntype = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"',
                '[parties.AP_EE_01]\ntype = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:FI"')  # fmt: skip
    planned = await planning.plan(lv.store, app.load_bundle(change.rooms.config))
    assert [(f.count, f.movable) for f in planned.in_flight] == [(1, 0)]
    assert (await change.apply(move=True)).moved == 0
    await lv.send_due()
    assert (await lv.view(waiting)).state == "ACKNOWLEDGED"


async def test_sent_again_after_a_failure_it_goes_by_the_active_revision(changing):
    lv, change = changing
    url = lv.listener.url
    await change.endpoint(DEAD)
    change.edit(DEAD, url)  # mended, but not in force yet
    failed = await lv.submit(deadline=None)
    job = (await lv.store.claim("send", worker="w", limit=1, lease=60))[0]
    number = await lv.store.begin_attempt(job, node="n", references=())
    from gateway.store.api import AttemptResult

    await lv.store.finish_attempt(job, number, AttemptResult(state="FAILED", outcome="x", error_code="EBMS:0301"))
    assert (await change.apply()).revision.number == 3
    assert await lv.store.requeue(UUID(failed.id))
    await lv.send_due()
    assert (await lv.view(failed)).state == "ACKNOWLEDGED"


async def test_the_partner_may_have_changed_its_certificate_when_it_answers(changing):
    """The message was agreed with the old one; what is pinned for the same party now is good for its receipt."""
    lv, change = changing
    old = await lv.submit(payloads=(), parts=())
    keys = Keys.make("AP_EE_01", "rsa", Authority())
    change.partner(keys)
    assert (await change.apply()).revision.state == "ACTIVE"
    renewed = Peer(EE, LV, keys, (lv.keys.signing,), lv.keys.encryption, "oots/2.0")

    def answer(content_type, body):
        message, _, references = lv.peer.receive(content_type, body)
        return 200, "application/soap+xml; charset=UTF-8", renewed.receipt_for(message, references)

    lv.listener.answer = answer
    await lv.send_due()
    assert (await lv.view(old)).state == "ACKNOWLEDGED"
    # The other way round it is not: what is sent under the new agreement is not receipted with what was taken back.
    lv.listener.answer = lambda content_type, body: (
        200, "application/soap+xml; charset=UTF-8", lv.peer.receipt_for(*renewed.receive(content_type, body)[::2]))  # fmt: skip
    new = await lv.submit(payloads=(), parts=())
    await lv.send_due()
    assert (await lv.view(new)).state == "WAITING_FOR_RETRY"


async def test_a_late_receipt_of_a_partner_that_is_gone(changing):
    lv, change = changing
    kept = {}

    def lost(content_type, body):
        message, _, references = lv.peer.receive(content_type, body)
        kept["receipt"] = lv.peer.receipt_for(message, references)
        return 503, None, b""

    lv.listener.answer = lost
    sent = await lv.submit()
    await lv.send_due()
    # A second partner, so that something is left when the first one goes.
    text = change.file.read_text().replace("AP_EE_01", "AP_FI_01").replace(":EE", ":FI")
    change.file.write_text(text)
    planned = await planning.plan(lv.store, app.load_bundle(change.rooms.config))
    assert [(f.partner, f.count, f.why[0]) for f in planned.in_flight] == [("AP_EE_01", 1, "party removed")]
    assert (await change.apply()).revision.state == "ACTIVE"
    answer = await lv.post("application/soap+xml; charset=UTF-8", kept["receipt"])
    assert answer.status == 204
    assert (await lv.view(sent)).state == "ACKNOWLEDGED"
    # What it sends is not taken any more.
    assert (await lv.give(lv.peer.message([("application/xml", b"<a/>")]))).code == "EBMS:0010"


async def test_a_duplicate_is_one_over_revisions(changing):
    lv, change = changing
    sent = lv.peer.message([("application/xml", b"<evidence/>")])
    first = await lv.give(sent)
    await change.endpoint(DEAD)
    again = await lv.give(sent)
    assert again.envelope == first.envelope and first.code is None
    assert len(await lv.inbox()) == 1


async def test_a_refusal_changes_nothing_and_says_why(changing):
    lv, change = changing
    change.edit("[parties.AP_EE_01]", 'backend = "nowhere"\n[parties.AP_EE_01]')
    change.file.write_text(change.file.read_text().replace('backend = "nowhere"\n', "")
                           .replace("allow_http = true", 'allow_http = true\nbackend = "nowhere"'))
    outcome = await change.apply()
    assert outcome.revision.state == "REFUSED" and "there is no backend 'nowhere'" in outcome.revision.refusal
    assert change.revisions.number == 1 and change.revisions.trouble is None
    assert (await lv.gateway.ready())[0]
    assert [w.why is None for w in outcome.words] == [False]


async def test_a_process_that_cannot_serve_the_active_revision_is_not_ready(changing):
    """Active before it could say no. It keeps what it has, takes nothing under the new one, and follows when it can."""
    lv, change = changing
    store = lv.store
    await change.nobody_else()
    await store.propose_revision(NewRevision(base=1, content=b"junk", author="x", reason="y"))
    assert (await store.settle_revision(2)).state == "ACTIVE"
    await change.revisions.look()
    assert change.revisions.number == 1 and "revision 2" in change.revisions.trouble
    ready, checks = await lv.gateway.ready()
    assert not ready and ("agreements", False, change.revisions.trouble) in checks
    assert (await store.processes())[0].trouble == change.revisions.trouble
    with pytest.raises(AgreementsUnavailable):
        await change.revisions.of(2)
    # Somebody mends it; this process tests it like any other, and is well again.
    outcome = await change.apply()
    assert (outcome.revision.number, outcome.revision.state) == (3, "ACTIVE")
    assert change.revisions.number == 3 and change.revisions.trouble is None
    lv.gateway.health.forget()
    assert (await lv.gateway.ready())[0]


async def test_a_start_with_a_revision_that_cannot_be_served_says_why(changing):
    lv, change = changing
    await change.nobody_else()
    await lv.store.propose_revision(NewRevision(base=1, content=b"junk", author="x", reason="y"))
    await lv.store.settle_revision(2)
    with pytest.raises(ConfigError, match="revision 2: is no bundle"):
        await app.build(change.rooms.config, store=lv.store)
    assert await lv.store.processes() == [], "who never served is asked nothing"


async def test_a_revision_that_was_tampered_with_is_not_served(changing):
    lv, change = changing
    import msgspec

    bundle = app.load_bundle(change.rooms.config)
    await change.nobody_else()
    await lv.store.propose_revision(NewRevision(base=1, content=bundle.encode(), author="x", reason="y"))
    await lv.store.settle_revision(2)
    lv.store._revisions["agreements", 2] = msgspec.structs.replace(lv.store._revisions["agreements", 2], content=bundle.encode() + b" ")
    await change.revisions.look()
    assert change.revisions.number == 1 and "is not what was written" in change.revisions.trouble


async def test_an_unknown_or_lost_revision_of_a_message(changing):
    lv, change = changing
    await change.endpoint(DEAD)
    current = change.rooms.agreements.value
    assert await change.revisions.of(0) is current, "from before there were revisions"
    del lv.store._revisions["agreements", 1]
    change.revisions._older.clear()
    assert await change.revisions.of(1) is current, "better sent under today's agreements than never"
    with pytest.raises(AgreementsUnavailable):
        await change.revisions.of(7)


async def test_earlier_revisions_at_hand_are_bounded(changing):
    _, change = changing
    for number in range(12):
        await change.endpoint(f"http://127.0.0.1:9/{number}/as4")
    assert len(change.revisions._older) == 8 and len(change.revisions.recent()) == 9
    found = await asyncio.gather(*(change.revisions.of(2) for _ in range(5)))
    assert all(one is found[0] for one in found) and found[0].pmodes.revision == 2


async def test_a_new_process_has_the_last_ones_at_hand(changing):
    lv, change = changing
    for number in range(3):
        await change.endpoint(f"http://127.0.0.1:9/{number}/as4")
    other = await app.build(change.rooms.config, store=lv.store)
    await other._rooms.revisions._warm()
    assert sorted(a.pmodes.revision for a in other._rooms.revisions.recent()) == [1, 2, 3, 4]


async def test_keys_that_were_dropped_are_read_when_an_agreement_needs_them(changing):
    """Nobody has to tell the processes to read keys before the agreement that needs them."""
    _, change = changing
    from tests.world import key_pem

    keys = Keys.make("AP_LV_01", "ed25519", Authority())
    partner = Keys.make("AP_SE_01", "ed25519", Authority())
    (change.folder / "pmodes" / "se-sign.pem").write_bytes(to_pem(partner.signing))
    (change.folder / "pmodes" / "se-enc.pem").write_bytes(to_pem(partner.encryption))
    (change.folder / "pmodes" / "second.toml").write_text("""
profile = "edelivery-as4/2.0"
self = "AP_LV_01"
allow_http = true
[parties.AP_LV_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"
[parties.AP_SE_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:SE"
signing = "se-sign.pem"
encryption = "se-enc.pem"
[[exchanges]]
service = "urn:x:service"
action = "Do"
from_role = "urn:x:a"
to_role = "urn:x:b"
properties = ["originalSender", "finalRecipient"]
""")
    refused = await change.apply()
    assert refused.revision.state == "REFUSED" and "no key for profile edelivery-as4/2.0" in refused.revision.refusal
    store = change.folder / "lv-sign.pem"
    store.write_bytes(store.read_bytes() + key_pem(keys.signing_private) + to_pem(keys.signing)
                      + key_pem(keys.decryption_private) + to_pem(keys.encryption))
    assert (await change.apply()).revision.state == "ACTIVE"
    # The keyring that was tested is the one in use.
    from gateway.as4.profiles import PROFILES

    assert change.rooms.keyring.value.signing_key(LV, PROFILES["edelivery-as4/2.0"]).certificate == keys.signing


async def test_keys_that_were_read_between_the_test_and_the_switch_stay(changing):
    lv, change = changing
    from gateway.app import load_keyring

    change.edit(lv.listener.url, DEAD)
    bundle = app.load_bundle(change.rooms.config)
    await lv.store.beat(Beat(id=uuid4(), node="other", place="0", revision=1))  # keeps it from becoming active
    await lv.store.propose_revision(NewRevision(base=1, content=bundle.encode(), author="x", reason="y"))
    await change.revisions.look()
    change.rooms.keyring.value = renewed = load_keyring(change.rooms.config)
    for process in await lv.store.processes():
        if process.node == "other":
            await lv.store.leave(process.id)
    await change.revisions.look()
    assert change.revisions.number == 2 and change.rooms.keyring.value is renewed


# -- reload -----------------------------------------------------------------------------


async def test_a_reload_applies_what_is_new_in_the_files(changing):
    lv, change = changing
    await lv.gateway.reload()
    assert change.revisions.number == 1, "nothing new"
    change.edit(lv.listener.url, DEAD)
    await lv.gateway.reload()
    active = await lv.store.active_agreements()
    assert (active.number, change.revisions.number, active.author) == (2, 2, "lv-test (reload)")


async def test_a_reload_never_goes_back(changing, caplog):
    """The other node's files are a revision behind. Its certificates are renewed, and that reloads."""
    lv, change = changing
    old = lv.listener.url
    await change.endpoint(DEAD)
    change.edit(DEAD, old)
    await lv.gateway.reload()
    assert change.revisions.number == 2 and len(await lv.store.revisions()) == 2
    assert any("agreements.drift" in record.getMessage() for record in caplog.records)


async def test_a_reload_refuses_what_lint_calls_an_error(changing):
    lv, change = changing
    change.edit(lv.listener.url, "http://127.0.0.1:9/as4 ")
    with pytest.raises(ConfigError):
        await lv.gateway.reload()
    assert len(await lv.store.revisions()) == 1 and change.revisions.number == 1


async def test_two_processes_that_reload_together_make_one_revision(changing):
    lv, change = changing
    other = await app.build(change.rooms.config, store=lv.store)
    change.edit(lv.listener.url, DEAD)
    await asyncio.gather(lv.gateway.reload(), other.reload())
    assert [r.state for r in await lv.store.revisions()] == ["ACTIVE", "SUPERSEDED"]
    assert other._rooms.revisions.number == change.revisions.number == 2


async def test_an_empty_folder_is_filled_later(tmp_path):
    async with world(tmp_path) as lv:
        config, store = lv.gateway._rooms.config, type(lv.store)(lv.gateway._rooms.clock)
    file = tmp_path / "pmodes" / "agreement.toml"
    text = file.read_text()
    file.unlink()
    empty = await app.build(config, store=store)
    assert empty._rooms.revisions.number == 0 and await store.active_agreements() is None
    file.write_text(text)
    await empty.reload()
    assert empty._rooms.revisions.number == 1
    await empty.close()


# -- the loop ---------------------------------------------------------------------------


async def test_the_loop_follows_and_leaves(changing):
    """As it runs in a worker: nobody calls `look`."""
    lv, change = changing
    keeping = asyncio.create_task(change.revisions.keep())
    change.edit(lv.listener.url, DEAD)
    outcome = await agreements.apply(
        lv.store, app.load_bundle(change.rooms.config), base=1, author="anna", reason="test", patience=30
    )
    assert outcome.revision.state == "ACTIVE" and outcome.behind == () and change.revisions.number == 2
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await lv.gateway.close()
    assert await lv.store.processes() == []


async def test_a_process_that_says_nothing_ends_a_proposal(changing):
    lv, change = changing
    silent = Beat(id=uuid4(), node="other", place="0", revision=1)
    await lv.store.beat(silent)
    change.edit(lv.listener.url, DEAD)
    told = []
    outcome = await change.apply(patience=0.5, told=told.append)
    assert outcome.revision.state == "REFUSED" and outcome.revision.refusal == "no answer in time from other 0"
    assert change.revisions.number == 1 and told[0].number == 2
    with pytest.raises(StalePlan):
        await agreements.apply(lv.store, app.load_bundle(change.rooms.config), base=0, author="a", reason="b")


async def test_a_caller_of_the_plugin_api_sees_nothing_of_it(changing):
    lv, change = changing
    submitted = await lv.submit()
    await change.endpoint(DEAD)
    assert (await lv.door.message(CALLER, submitted.id)).state == "SUBMITTED"
