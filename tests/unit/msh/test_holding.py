"""What a producer sends in another order waits sealed, comes back as it was, and leaves nothing."""

import os

import pytest

from gateway.errors import Overloaded, TooLarge
from gateway.msh.holding import CHUNK, Holding
from gateway.msh.spool import SpoolRoom


@pytest.fixture
def room(tmp_path):
    return SpoolRoom(tmp_path, total=16 << 20, per_partner=8 << 20)


async def filled(room, contents, step, **options):
    held = Holding(room, "client", **{"limit": 8 << 20, "entropy": os.urandom} | options)
    for name, content in contents.items():
        for at in range(0, len(content), step):
            await held.write(name, content[at : at + step])
    return held


async def content_of(held, name):
    return b"".join([block async for block in held.read(name)])


@pytest.mark.parametrize("step", [1, 1000, CHUNK, CHUNK + 1])
async def test_contents_come_back_in_any_order(room, step):
    sizes = (0, 1, 17, 3000) if step == 1 else (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5_000)
    contents = {f"n{n}": os.urandom(size) for n, size in enumerate(sizes)}
    async with await filled(room, contents, step) as held:
        for name in reversed(contents):
            assert await content_of(held, name) == contents[name]
            assert await content_of(held, name) == contents[name]
        assert await content_of(held, "never written") == b""


async def test_nothing_readable_reaches_the_disk(room, tmp_path, monkeypatch):
    written = bytearray()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, octets: (written.extend(octets), real(fd, octets))[1])
    secret = b"a person's evidence " * 200_000
    async with await filled(room, {"a": secret}, 100_000) as held:
        assert list(tmp_path.iterdir()) == []
        assert await content_of(held, "a") == secret
    assert len(written) > 1 << 20 and b"evidence" not in written


async def test_it_is_bounded(room):
    with pytest.raises(TooLarge):
        await filled(room, {"a": bytes(1001)}, 1000, limit=1000)
    with pytest.raises(Overloaded):
        await filled(room, {"a": bytes(9 << 20)}, 1 << 20, limit=64 << 20)


async def test_room_is_given_back(room):
    for _ in range(10):
        async with await filled(room, {"a": bytes(5 << 20)}, 1 << 20):
            pass


async def test_a_name_is_written_once(room):
    held = await filled(room, {"a": b"1", "b": b"2"}, 10)
    with pytest.raises(ValueError):
        await held.write("a", b"3")
