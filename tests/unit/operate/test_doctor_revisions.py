"""What doctor says about revisions: drift between files and database, processes that do not follow."""

from uuid import uuid4

import pytest

from gateway.clock import SystemClock
from gateway.errors import ConfigError
from gateway.operate.doctor import _revisions
from gateway.pmodes.bundle import Bundle
from gateway.store.agreements import Beat, NewRevision
from gateway.store.memory import MemoryStore

ONE, TWO = (Bundle(("a.toml",), {"a.toml": text}) for text in (b"one", b"two"))


@pytest.fixture
async def store():
    made = MemoryStore(SystemClock())
    await made.begin_agreements(NewRevision(base=0, content=ONE.encode(), author="a", reason="b"))
    return made


async def said(store, load=lambda: ONE):
    return [(check.name, check.verdict, check.text) for check in await _revisions(store, load)]


async def test_none_yet():
    assert [v for _, v, _ in await said(MemoryStore(SystemClock()))] == ["ok"]


async def test_as_in_the_files(store):
    await store.beat(Beat(id=uuid4(), node="lv", place="0", revision=1))
    assert await said(store) == [("revision", "ok", "revision 1, as in the files")]


async def test_other_files(store):
    assert await said(store, lambda: TWO) == [
        ("revision", "warn", "the files are not those of revision 1, which is in force")]


async def test_files_that_cannot_be_read(store):
    def broken():
        raise ConfigError("is not TOML", file="a.toml")

    assert await said(store, broken) == [("revision", "warn", "the files cannot be read: a.toml: is not TOML")]


async def test_processes_on_other_revisions(store):
    await store.beat(Beat(id=uuid4(), node="lv", place="0", revision=1))
    await store.beat(Beat(id=uuid4(), node="lv2", place="1", revision=0, trouble="revision 1: no key"))
    assert (await said(store))[0] == ("revision lv2 1", "fail", "serves revision 0: revision 1: no key")
