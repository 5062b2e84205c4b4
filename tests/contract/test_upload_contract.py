"""Uploads: the same in every store."""

from uuid import uuid4

import pytest

from gateway.errors import ClaimLost, SubmissionConflict
from gateway.store.api import Upload, UploadChunk

BOUNDS = {"lasts": 60.0, "most": 3, "most_octets": 1000}


def upload(client="c1", size=100, **more):
    return Upload(id=uuid4(), client=client, size=size, wrapped_key=b"k", **more)


async def begun(store, key=None, **more):
    return await store.add_upload(upload(**more), idempotency_key=key, **BOUNDS)


async def content(store, found):
    return [(c.position, c.content) async for c in store.upload_chunks(found.id, found.client)]


async def test_what_is_written_is_read(store, other):
    found = await begun(store, sha256=b"s" * 32)
    assert (found.received, found.size, found.sha256) == (0, 100, b"s" * 32) and found.expires_at > found.created_at
    generation = await store.begin_write(found.id, "c1", offset=0)
    for number, position in enumerate((0, 40)):
        chunk = UploadChunk(position, (generation, number), b"%d" % position)
        await store.write_upload(found.id, "c1", chunk, received=position + 40, lasts=60.0)
    assert (await other.upload(found.id, "c1")).received == 80
    assert await content(other, found) == [(0, b"0"), (40, b"40")]
    assert await store.begin_write(found.id, "c1", offset=90) is None  # there is a hole
    later = await store.begin_write(found.id, "c1", offset=40)
    assert later > generation and await content(other, found) == [(0, b"0")]
    for stale in (generation, later + 1):
        with pytest.raises(ClaimLost):
            await store.write_upload(found.id, "c1", UploadChunk(40, (stale, 0), b"x"), received=80, lasts=60.0)
        with pytest.raises(ClaimLost):
            await store.end_write(found.id, "c1", generation=stale, received=80, lasts=60.0)


async def test_a_whole_counts_when_it_is_ended(store):
    found = await begun(store)
    generation = await store.begin_write(found.id, "c1", offset=0)
    await store.write_upload(found.id, "c1", UploadChunk(0, (generation, 0), b"x"), received=None, lasts=60.0)
    assert (await store.upload(found.id, "c1")).received == 0 and await content(store, found) == []
    await store.end_write(found.id, "c1", generation=generation, received=50, lasts=60.0)
    assert (await store.upload(found.id, "c1")).received == 50 and await content(store, found) == [(0, b"x")]


async def test_an_upload_is_its_clients(store):
    found = await begun(store)
    assert await store.upload(found.id, "c2") is None and await store.upload(uuid4(), "c1") is None
    assert await store.begin_write(found.id, "c2", offset=0) is None
    generation = await store.begin_write(found.id, "c1", offset=0)
    with pytest.raises(ClaimLost):
        await store.write_upload(found.id, "c2", UploadChunk(0, (generation, 0), b"x"), received=1, lasts=60.0)
    assert await store.drop_upload(found.id, "c2") is False
    assert await store.drop_upload(found.id, "c1") is True
    assert await store.drop_upload(found.id, "c1") is False and await store.upload(found.id, "c1") is None


async def test_a_client_has_so_many(store):
    assert all([await begun(store) for _ in range(3)])
    assert await begun(store) is None
    assert await begun(store, client="c2", size=1000) and await begun(store, client="c2", size=1) is None
    assert await begun(store, client="c3", size=1001) is None


async def test_the_key_returns_the_first(store):
    first = await begun(store, key="k")
    assert (await begun(store, key="k")).id == first.id
    assert (await begun(store, key="k", client="c2")).id != first.id
    with pytest.raises(SubmissionConflict):
        await begun(store, key="k", size=99)


async def test_what_is_over_is_gone(store):
    found = await store.add_upload(upload(), idempotency_key="k", lasts=-1.0, most=1, most_octets=1000)
    assert await store.upload(found.id, "c1") is None and await store.begin_write(found.id, "c1", offset=0) is None
    assert (await begun(store, key="k")).id != found.id  # and its key is free
    over = await store.add_upload(upload(client="c9"), idempotency_key=None, lasts=-1.0, most=1, most_octets=1000)
    assert await store.erase_uploads() == 1 and await store.erase_uploads() == 0
    assert await store.drop_upload(over.id, "c9") is False
