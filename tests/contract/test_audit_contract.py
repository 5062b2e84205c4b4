"""The audit beside the other verbs: who wrote what in which commit, searching, anchoring, writers killed in the middle."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import StoreUnavailable
from gateway.scope import Scope
from gateway.store.api import AuditEntry, AuditFilter, Client, Credential
from gateway.store.chain import BEGINNING, first_misfit


def entry(kind="k", actor="a", subject="s", **detail):
    return AuditEntry(kind=kind, actor=actor, subject=subject, detail=detail)


async def kinds(store):
    return [e.kind for e in await store.audit_entries()]


async def test_a_change_and_its_note_are_one_commit(store):
    client, credential = Client(id="c1", name="N", backend="rest"), Credential(id="k1", client="c1", kind="token", key="h")
    await store.add_client(client, credential, note=entry("client.created"))
    with pytest.raises(StoreUnavailable):
        await store.add_client(client, note=entry("client.created"))
    await store.add_client(Client(id="c2", name="M", backend="rest"), note=entry("client.created"))
    assert await store.set_scope("c1", Scope(actions=("A",)), note=entry("client.scope"))
    assert not await store.set_scope("c9", Scope(), note=entry("client.scope"))
    await store.add_credential(Credential(id="k2", client="c1", kind="token", key="h2"), note=entry("credential.created"))
    with pytest.raises(StoreUnavailable):
        await store.add_credential(Credential(id="k3", client="c1", kind="token", key="h2"), note=entry("credential.created"))
    assert await store.revoke_credential("k2", note=entry("credential.revoked"))
    assert not await store.revoke_credential("k2", note=entry("credential.revoked"))
    assert await store.revoke_client("c1", note=entry("client.revoked"))
    assert not await store.revoke_client("c1", note=entry("client.revoked"))
    assert await kinds(store) == [
        "client.created", "client.created", "client.scope", "credential.created", "credential.revoked", "client.revoked",
    ]  # fmt: skip
    assert await store.verify_audit() is None


async def test_searching(store):
    for number, (kind, actor) in enumerate([("certs.staged", "a"), ("certs", "b"), ("certsx", "a"), ("other", "a"), ("certs.x.y", "b")]):
        await store.audit(entry(kind, actor, f"s{number}"))

    async def found(**wanted):
        return [e.subject for e in await store.audit_search(AuditFilter(**wanted))]

    assert await found() == ["s4", "s3", "s2", "s1", "s0"]
    assert await found(kind="certs") == ["s4", "s1", "s0"] and await found(kind="certs.staged") == ["s0"]
    assert await found(actor="a") == ["s3", "s2", "s0"] and await found(subject="s3") == ["s3"]
    assert await found(limit=2) == ["s4", "s3"] and await found(before=3) == ["s1", "s0"]
    now = datetime.now(UTC)
    assert len(await found(since=now - timedelta(hours=1))) == 5 and await found(until=now - timedelta(hours=1)) == []
    assert await found(kind="a\0b") == [] and await found(actor="\ud800") == [] and await found(kind="%") == []


async def test_links_and_head_are_the_chain(store):
    assert await store.audit_head() == (0, BEGINNING) and await store.audit_links() == []
    for number in range(5):
        await store.audit(entry(n=number))
    links = await store.audit_links()
    assert first_misfit(links) == (None, *await store.audit_head()) and len(links) == 5
    assert [link.number for link in await store.audit_links(after=2, limit=2)] == [3, 4]


async def test_an_entry_that_must_be_next_is_next_or_is_not(store, other):
    await store.audit(entry())
    head = dict(zip(("number", "hash"), await store.audit_head(), strict=True))
    assert await other.audit_next(entry("next"), **head)
    assert not await store.audit_next(entry("late"), **head)
    assert not await store.audit_next(entry("wrong"), number=2, hash=BEGINNING)
    head = dict(zip(("number", "hash"), await store.audit_head(), strict=True))
    results = await asyncio.gather(*(s.audit_next(entry("race"), **head) for s in (store, other) for _ in range(5)))
    assert results.count(True) == 1 and await kinds(store) == ["k", "next", "race"]
    assert await store.verify_audit() is None


async def test_writers_that_are_torn_away_leave_neither_gap_nor_fork(nodes):
    """Connections of several processes are cut in the middle of whatever they do, again and again."""
    if not hasattr(nodes, "sql"):
        pytest.skip("memory has no connections")
    stores = [await nodes.store() for _ in range(4)]
    done = torn = 0

    async def write(store, who):
        nonlocal done, torn
        for number in range(40):
            try:
                if number % 3:
                    await store.audit(entry(subject=f"{who} {number}"))
                else:
                    await store.add_client(
                        Client(id=f"c{who}-{number}", name="N", backend="rest"), note=entry("client.created", subject=f"c{who}-{number}")
                    )
            except StoreUnavailable:
                torn += 1
                await asyncio.sleep(0.02)
            else:
                done += 1

    async def cut():
        while True:
            await nodes.sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway' AND random() < 0.5"
            )
            await asyncio.sleep(0.03)

    cutting = asyncio.create_task(cut())
    await asyncio.gather(*(write(store, who) for who, store in enumerate(stores)))
    cutting.cancel()
    await asyncio.sleep(0.4)  # until the last of them may connect again
    rows = await nodes.sql.fetch("SELECT number, kind, subject FROM audit ORDER BY number")
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= done > 0 and torn
    clients = {row["id"] for row in await nodes.sql.fetch("SELECT id FROM client")}
    assert clients == {row["subject"] for row in rows if row["kind"] == "client.created"}
    assert await (await nodes.store()).verify_audit() is None
