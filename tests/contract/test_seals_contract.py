"""What `gateway.store.seals` promises, run against every store."""

from uuid import UUID, uuid4

from gateway.store.api import Upload
from gateway.store.seals import KINDS, Sealed
from gateway.store.webhooks import Webhook
from tests.contract.test_keys_contract import key
from tests.contract.test_store_contract import submitted

OLD, NEW = b"old-kek.", b"new-kek."


def sealed(kek: bytes, text: bytes = b"") -> bytes:
    return b"\x01" + kek + text


async def filled(store) -> dict[str, str]:
    """Something sealed of every kind; ids by kind."""
    upload = Upload(id=uuid4(), client="c1", size=9, wrapped_key=sealed(OLD, b"u"))
    await store.add_upload(upload, idempotency_key=None, lasts=60.0, most=3, most_octets=1000)
    message = await submitted(store, wrapped_key=sealed(OLD, b"m"))
    await store.add_webhook(Webhook(
        id="wh_1", backend="rest", url="https://x", sealed_secret=sealed(OLD, b"s"), sealed_previous=sealed(OLD, b"p")))
    await store.add_webhook(Webhook(id="wh_2", backend="rest", url="https://x", sealed_secret=sealed(NEW, b"t")))
    await store.add_key(key("k1", sealed=sealed(OLD, b"k")), author="anna")
    await store.add_key(key("k2", sealed=None, token="pkcs11:object=x"), author="anna")
    return {"message": str(message.id), "upload": str(upload.id), "webhook": "wh_1", "webhook-previous": "wh_1", "key": "k1"}


async def test_what_others_sealed_is_sealed_anew_once(store, other):
    ids = await filled(store)
    counts = await store.sealed_counts()
    assert counts == {
        "message": {OLD: 1}, "upload": {OLD: 1}, "webhook": {OLD: 1, NEW: 1}, "webhook-previous": {OLD: 1}, "key": {OLD: 1}}  # fmt: skip
    for kind in KINDS:
        found = await store.sealed_by_others(NEW, kind)
        assert [one.id for one in found] == [ids[kind]]
        assert await other.seal_anew(kind, found, [sealed(NEW, b"anew") for _ in found]) == len(found)
        assert await store.sealed_by_others(NEW, kind) == []
        assert await store.seal_anew(kind, found, [sealed(NEW, b"late") for _ in found]) == 0, "it is not as it was"
    assert all(set(counts) <= {NEW} for counts in (await store.sealed_counts()).values())
    assert (await store.message(UUID(ids["message"]))).wrapped_key == sealed(NEW, b"anew")
    webhooks = {w.id: w for w in await store.webhooks()}
    assert webhooks["wh_1"].sealed_secret == webhooks["wh_1"].sealed_previous == sealed(NEW, b"anew")
    assert webhooks["wh_2"].sealed_secret == sealed(NEW, b"t")
    assert {k.id: k.sealed for k in await store.own_keys()} == {"k1": sealed(NEW, b"anew"), "k2": None}


async def test_batches_go_on_after_an_id(store):
    made = sorted([str((await submitted(store, wrapped_key=sealed(OLD))).id) for _ in range(5)])
    page = await store.sealed_by_others(NEW, "message", limit=2)
    assert [one.id for one in page] == made[:2]
    assert [one.id for one in await store.sealed_by_others(NEW, "message", after=made[1], limit=9)] == made[2:]
    assert await store.seal_anew("message", [*page, Sealed("message", made[2], sealed(NEW))], [sealed(NEW)] * 3) == 2
