"""The key-encryption key is replaced under a whole gateway."""

import secrets
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway import app
from gateway.config import Secret
from gateway.errors import KeyUnavailable, NotPossible
from gateway.keys.sealing import KeyEncryptionKey
from gateway.operate import rekey
from gateway.store.agreements import Beat
from gateway.store.webhooks import Webhook
from tests.unit.msh.test_ring import Rotation
from tests.world import world

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
async def site(tmp_path):
    """A gateway with messages, a webhook and a key in the database, all sealed with the old key."""
    for name, octets in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_bytes(octets)
        (tmp_path / name).chmod(0o600)

    def change(config):
        keys = msgspec.structs.replace(config.keys, key_encryption_key=Secret("file", str(tmp_path / "old")))
        return msgspec.structs.replace(config, keys=keys)

    async with world(tmp_path, change=change) as lv:
        yield lv


async def restarted(lv, tmp_path: Path):
    """The same site with the new key, which knows the old one."""
    await lv.gateway._rooms.revisions.leave()
    config = lv.gateway._rooms.config
    keys = msgspec.structs.replace(
        config.keys, key_encryption_key=Secret("file", str(tmp_path / "new")),
        previous_key_encryption_keys=(Secret("file", str(tmp_path / "old")),),
    )  # fmt: skip
    return await app.build(msgspec.structs.replace(config, keys=keys), store=lv.store)


async def test_everything_is_sealed_anew_and_the_old_key_is_needed_no_more(site, tmp_path):
    rotation = Rotation(site)
    id = await rotation.imported(rotation.keys())
    await rotation.do("stage", id)
    sent = [await site.submit() for _ in range(5)]
    await site.give(site.peer.message())
    kek = site.gateway._rooms.kek
    await site.store.add_webhook(Webhook(
        id="wh", backend="rest", url="https://x", sealed_secret=kek.seal_secret(b"s", "wh"),
        sealed_previous=kek.seal_secret(b"p", "wh")))  # fmt: skip
    new = KeyEncryptionKey(NEW, [OLD])
    with pytest.raises(NotPossible, match="seals with " + kek.id.hex()):
        await rekey.rekey(site.store, new, actor="anna")
    second = await restarted(site, tmp_path)
    before = await rekey.standing(site.store, new)
    assert before.left == {kek.id.hex(): {"message": 6, "webhook": 1, "webhook-previous": 1, "key": 1}}
    assert (before.total, before.unknown, before.others) == (9, (), ())
    assert (await rekey.standing(site.store, KeyEncryptionKey(NEW))).unknown == (kek.id.hex(),)
    told = []
    done = await rekey.rekey(site.store, new, actor="anna", batch=4, told=lambda *what: told.append(what))
    assert done.done == {"message": 6, "upload": 0, "webhook": 1, "webhook-previous": 1, "key": 1} and not done.damaged
    assert told[:2] == [("message", 4), ("message", 6)]
    after = await rekey.standing(site.store, new)
    assert after.total == 0 and after.done["message"] == 6
    assert (await rekey.rekey(site.store, new, actor="anna")).done["message"] == 0, "once more changes nothing"
    assert (await site.store.audit_entries())[-1].kind == "store.rekeyed"
    # Without the old key: every message goes out and comes in, the webhook's secret and the ring open.
    alone = KeyEncryptionKey(NEW)
    assert alone.open_secret((await site.store.webhook("wh")).sealed_previous, "wh") == b"p"
    third_config = msgspec.structs.replace(
        second._rooms.config, keys=msgspec.structs.replace(second._rooms.config.keys, previous_key_encryption_keys=()))
    third = await app.build(third_config, store=site.store)
    assert third._rooms.revisions.ring.number == 1 and (await third.ready())[0]
    for job in await site.store.claim("send", worker="third", limit=10, lease=60):
        await third.sender.send(job)
    assert {(await site.store.message(UUID(one.id))).state for one in sent} == {"ACKNOWLEDGED"}


async def test_what_cannot_be_opened_is_told_and_stays(site, tmp_path):
    stranger = KeyEncryptionKey(secrets.token_bytes(32))
    await site.store.add_webhook(Webhook(id="wh", backend="rest", url="https://x", sealed_secret=stranger.seal_secret(b"s", "wh")))
    await site.submit()
    await restarted(site, tmp_path)
    new = KeyEncryptionKey(NEW, [OLD])
    done = await rekey.rekey(site.store, new, actor="anna")
    assert done.done["message"] == 1 and len(done.damaged) == 1 and "webhook wh: sealed with another" in done.damaged[0]
    stands = await rekey.standing(site.store, new)
    assert stands.total == 1 and stands.unknown == (stranger.id.hex(),)
    with pytest.raises(KeyUnavailable):
        new.open_secret((await site.store.webhook("wh")).sealed_secret, "wh")


async def test_a_process_that_comes_back_with_the_old_key_stops_it(site, tmp_path):
    await site.submit()
    await restarted(site, tmp_path)
    await site.store.beat(Beat(id=uuid4(), node="ee2", place="0", revision=1, kek=KeyEncryptionKey(OLD).id.hex()))
    with pytest.raises(NotPossible, match="ee2 0 seals with"):
        await rekey.rekey(site.store, KeyEncryptionKey(NEW, [OLD]), actor="anna")
