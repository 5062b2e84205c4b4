from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.store import chain
from gateway.store.api import AuditEntry
from gateway.store.chain import BEGINNING, Link, first_misfit, hash_of

AT = datetime(2026, 11, 21, 12, 0, 0, 7, UTC)


def links(count=5):
    made, previous = [], BEGINNING
    for number in range(1, count + 1):
        row = (number, AT, "k", "a", f"s{number}", '{"n":1}')
        previous = hash_of(previous, *row)
        made.append(Link(*row, previous))
    return made


def test_a_whole_chain_fits():
    made = links()
    assert first_misfit(made) == (None, 5, made[-1].hash)
    assert first_misfit(made[3:], number=3, hash=made[2].hash)[0] is None
    assert first_misfit([]) == (None, 0, BEGINNING)


@pytest.mark.parametrize(("spoil", "where"), [
    pytest.param(lambda c: c[:2] + c[3:], 3, id="deleted"),
    pytest.param(lambda c: [c[0], c[2], c[1], *c[3:]], 2, id="reordered"),
    pytest.param(lambda c: [*c[:2], c[1], *c[2:]], 3, id="replayed"),
    pytest.param(lambda c: [c[0]._replace(subject="x"), *c[1:]], 1, id="edited"),
    pytest.param(lambda c: [c[0]._replace(subject="x", hash=hash_of(BEGINNING, 1, AT, "k", "a", "x", '{"n":1}')), *c[1:]], 2,
                 id="edited and hashed anew"),
    pytest.param(lambda c: c[1:], 1, id="the beginning cut off"),
])  # fmt: skip
def test_what_does_not_fit_is_found(spoil, where):
    assert first_misfit(spoil(links()))[0] == where


def test_texts_cannot_flow_into_one_another():
    one = hash_of(BEGINNING, 1, AT, "ab", "c", "d", "{}")
    assert one != hash_of(BEGINNING, 1, AT, "a", "bc", "d", "{}")
    assert one != hash_of(BEGINNING, 1, AT, "ab", "c,1:d", "", "{}")


def test_the_moment_is_the_same_in_every_zone():
    there = AT.astimezone(timezone(timedelta(hours=2)))
    assert hash_of(BEGINNING, 1, AT, "k", "a", "s", "{}") == hash_of(BEGINNING, 1, there, "k", "a", "s", "{}")


async def test_the_database_hashes_alike(database):
    store = await database.store()
    for number in range(3):
        await store.audit(AuditEntry(kind="kind", actor="ä\u2028", subject="ķ" * number, detail={"z": "\\\"", "a": [1, 2.5]}))
    previous = BEGINNING
    for row in await database.sql.fetch("SELECT * FROM audit ORDER BY number"):
        previous = hash_of(previous, row["number"], row["at"], row["kind"], row["actor"], row["subject"], row["detail"])
        assert row["hash"] == previous


@pytest.mark.parametrize("cut", [1, 3])
async def test_a_tail_that_is_cut_off_is_missed(newest, cut):
    store = await newest.store()
    for number in range(5):
        await store.audit(AuditEntry(kind="k", actor="a", subject=str(number)))
    await newest.sql.execute("DELETE FROM audit WHERE number > $1", 5 - cut)
    assert await store.verify_audit() == 6 - cut


async def test_a_forged_head_is_noticed(newest):
    store = await newest.store()
    for number in range(3):
        await store.audit(AuditEntry(kind="k", actor="a", subject=str(number)))
    await newest.sql.execute("UPDATE audit_head SET hash = $1", b"\0" * 32)
    assert await store.verify_audit() == 3


async def test_a_long_chain_is_read_in_pages(newest, monkeypatch):
    monkeypatch.setattr("gateway.store.postgres.audit.PAGE", 3)
    store = await newest.store()
    for number in range(10):
        await store.audit(AuditEntry(kind="k", actor="a", subject=str(number)))
    assert await store.verify_audit() is None
    await newest.sql.execute("UPDATE audit SET actor = 'x' WHERE number = 8")
    assert await store.verify_audit() == 8


def test_what_no_database_takes_is_replaced():
    kind, actor, subject, detail = chain.row_texts("k", "a\0", "\ud800", {"\ud800": ["\udfff", 1, None]})
    assert (kind, actor, subject, detail) == ("k", "a\ufffd", "?", '{"?":["?",1,null]}')
