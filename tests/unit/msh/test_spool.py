"""The spool keeps ciphertext exactly, within its bounds, and leaves nothing behind."""

import errno
import os

import pytest

from gateway.errors import Overloaded
from gateway.msh.spool import IN_MEMORY, Spool, SpoolRoom


@pytest.fixture
def room(tmp_path):
    return SpoolRoom(tmp_path, total=8 << 20, per_partner=4 << 20)


@pytest.mark.parametrize("sizes", [[0], [10], [IN_MEMORY], [IN_MEMORY + 1], [3, 0, 2_000_000, 5], [1_000_000, 1_500_000]])
@pytest.mark.parametrize("step", [7_001, 1 << 20])
def test_parts_come_back_as_they_were(room, sizes, step):
    parts = {f"p{n}@x": os.urandom(size) for n, size in enumerate(sizes)}
    with Spool(room, "AP") as spool:
        for cid, octets in parts.items():
            spool.begin(cid)
            for at in range(0, len(octets), step):
                if spool.write(octets[at : at + step]):
                    spool.flush()
        spool.seal()
        assert spool.size == sum(sizes)
        for cid, octets in parts.items():
            assert b"".join(spool.read(cid)) == octets
            assert b"".join(spool.read(cid)) == octets  # and a second time


def test_nothing_is_visible_in_the_folder(room, tmp_path):
    with Spool(room, "AP") as spool:
        spool.begin("p@x")
        assert spool.write(os.urandom(3 << 20))
        spool.flush()
        assert spool.on_disk
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT])
def test_what_is_used_up_now_is_asked_for_again_later(room, monkeypatch, number):
    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    with Spool(room, "AP") as spool:
        spool.begin("p@x")
        spool.write(bytes(IN_MEMORY + 1))
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(Overloaded):
            spool.flush()


def test_a_file_system_without_unnamed_files_serves_as_well(room, tmp_path, monkeypatch):
    real = os.open

    def without(path, flags, *args, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", without)
    with Spool(room, "AP") as spool:
        spool.begin("p@x")
        spool.write(bytes(IN_MEMORY + 1))
        spool.flush()
        spool.seal()
        assert b"".join(spool.read("p@x")) == bytes(IN_MEMORY + 1)
        assert list(tmp_path.iterdir()) == []


def test_small_messages_never_touch_the_disk(room):
    with Spool(room, "AP") as spool:
        spool.begin("p@x")
        assert not spool.write(bytes(IN_MEMORY))
        assert not spool.on_disk


def test_one_partner_cannot_take_all_room(room):
    with Spool(room, "A") as a, Spool(room, "B") as b:
        a.begin("p@x")
        a.write(bytes(4 << 20))
        with pytest.raises(Overloaded):
            a.write(b"x")
        b.begin("p@x")
        b.write(bytes(4 << 20))  # the other partner still has its share
    with Spool(room, "A") as again:  # and room is given back
        again.begin("p@x")
        again.write(bytes(4 << 20))


def test_the_total_is_bounded(tmp_path):
    room = SpoolRoom(tmp_path, total=100, per_partner=100)
    with Spool(room, "A") as a, Spool(room, "B") as b:
        a.begin("p@x")
        a.write(bytes(60))
        b.begin("p@x")
        with pytest.raises(Overloaded):
            b.write(bytes(41))
        b.write(bytes(40))
