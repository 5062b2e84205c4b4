import asyncpg
import pytest

from gateway.store import states
from gateway.store.states import INBOUND, JOB, KEY, OUTBOUND, UPDATE_INBOUND, UPDATE_OUTBOUND

UPDATES = {"inbound": UPDATE_INBOUND, "outbound": UPDATE_OUTBOUND}
TABLES = {"inbound": INBOUND, "outbound": OUTBOUND, "job": JOB, "key": KEY} | {
    f"update {k}": t for k, t in UPDATES.items()
}


def all_states(table):
    return sorted({s for change in table for s in (change.before, change.after) if s})


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_one_outcome_for_a_state_and_an_event(table):
    assert len({(c.before, c.event) for c in table}) == len(table)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_state_can_be_reached(table):
    reached, growing = {c.after for c in table if c.before is None}, True
    while growing:
        more = {c.after for c in table if c.before in reached} - reached
        reached, growing = reached | more, bool(more)
    assert reached == set(all_states(table))


def test_questions():
    assert set(states.before(OUTBOUND, "acknowledge", "acknowledge_late")) == {
        "SUBMITTED", "WAITING_FOR_RETRY", "READY_TO_PULL", "WAITING_FOR_RECEIPT", "FAILED"}  # fmt: skip
    assert states.after(OUTBOUND, "FAILED", "acknowledge_late") == "ACKNOWLEDGED"
    assert states.after(OUTBOUND, "FAILED", "acknowledge") is None
    assert {states.after(JOB, "ATTEMPT_OPEN", job) for _, job in states.RESULTS.values()} == {"DONE", "READY"}
    assert {states.after(JOB, "CLAIMED", job) for _, job in states.LAPSES.values()} == {"DONE", "READY"}


async def put_message(sql, direction, state, backend="rest"):
    """A row in a state that it could not be born with, or go to."""
    await sql.execute("SET session_replication_role = replica")  # no triggers
    row = await sql.fetchval(
        """INSERT INTO message (id, direction, state, tenant, partner, message_id, conversation_id, service, action,
                                pmode_id, pmode_revision, header, fingerprint, references_digest, envelope, signer, receipt,
                                backend, error_code)
           VALUES (gen_random_uuid(), $1, $2, 't', 'p', gen_random_uuid()::text, 'c', 's', 'a', 'm', 1, '{}', '', '', '',
                   '', '', $3, 'EBMS:0004') RETURNING id""",
        direction, state, backend,
    )  # fmt: skip
    await sql.execute("SET session_replication_role = origin")
    return row


async def put_job(sql, state):
    await sql.execute("SET session_replication_role = replica")
    row = await sql.fetchval(
        "INSERT INTO job (kind, queue, state, claim) VALUES ('notify', 'q', $1, gen_random_uuid()) RETURNING id", state
    )
    await sql.execute("SET session_replication_role = origin")
    return row


async def allowed(statement) -> bool:
    try:
        await statement
    except asyncpg.CheckViolationError:
        return False
    return True


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_the_database_allows_these_changes_of_a_message_and_no_other(database, direction):
    sql, table = database.sql, TABLES[direction]
    every = sorted({*all_states(INBOUND), *all_states(OUTBOUND), "NONSENSE"})
    found = set()
    for before in every:
        for after in every:
            id = await put_message(sql, direction, before)
            if await allowed(sql.execute("UPDATE message SET state = $2 WHERE id = $1", id, after)):
                found.add((before, after))
    expected = {(c.before, c.after) for c in table if c.before and c.event != "erase_test"}
    assert found == expected | {(state, state) for state in every}


async def test_only_test_messages_are_erased_undelivered(newest):
    sql = newest.sql
    for backend, expected in (("rest", False), (None, True)):
        id = await put_message(sql, "inbound", "RECEIVED", backend)
        assert await allowed(sql.execute("UPDATE message SET state = 'PURGED' WHERE id = $1", id)) is expected


async def test_the_database_allows_these_changes_of_a_job_and_no_other(database):
    sql = database.sql
    every = [*all_states(JOB), "NONSENSE"]
    found = set()
    for before in every:
        for after in every:
            id = await put_job(sql, before)
            if await allowed(sql.execute("UPDATE job SET state = $2 WHERE id = $1", id, after)):
                found.add((before, after))
    assert found == {(c.before, c.after) for c in JOB if c.before} | {(state, state) for state in every}


async def test_the_database_allows_these_changes_of_a_key_and_no_other(database):
    sql = database.sql
    await sql.execute("INSERT INTO own_key (id, algorithm, public, author) VALUES ('k', 'RSA', 'p', 'a')")
    every, found = [*all_states(KEY), "NONSENSE"], set()
    for before in every:
        for after in every:
            await sql.execute("SET session_replication_role = replica")
            await sql.execute("DELETE FROM key_use")
            await sql.execute("INSERT INTO key_use (key, use, state) VALUES ('k', 'sign', $1)", before)
            await sql.execute("SET session_replication_role = origin")
            if await allowed(sql.execute("UPDATE key_use SET state = $1", after)):
                found.add((before, after))
    assert found == {(c.before, c.after) for c in KEY if c.before} | {(state, state) for state in every}


@pytest.mark.parametrize("direction", UPDATES)
async def test_the_database_allows_these_changes_of_an_update_and_no_other(database, direction):
    sql, found = database.sql, set()
    every = sorted({*all_states(UPDATE_INBOUND), *all_states(UPDATE_OUTBOUND), "NONSENSE"})
    for before in every:
        for after in every:
            await sql.execute("SET session_replication_role = replica")
            id = await sql.fetchval(
                """INSERT INTO agreement_update (id, direction, kind, state, partner, party, ours, reference, document,
                                                 message_id, conversation_id, current, certificates)
                   VALUES (gen_random_uuid(), $1, 'update', $2, 'p', 'P', 'O', gen_random_uuid()::text, '', 'm', 'c', 'a', '{}')
                   RETURNING id""", direction, before)  # fmt: skip
            await sql.execute("SET session_replication_role = origin")
            if await allowed(sql.execute("UPDATE agreement_update SET state = $2 WHERE id = $1", id, after)):
                found.add((before, after))
    assert found == {(c.before, c.after) for c in UPDATES[direction] if c.before} | {(state, state) for state in every}


async def test_rows_are_born_in_one_state(newest):
    sql = newest.sql
    birth = "INSERT INTO job (kind, queue, state, claim) VALUES ('send', 'q', $1, gen_random_uuid())"
    assert await allowed(sql.execute(birth, "READY"))
    assert not await allowed(sql.execute(birth, "DONE"))
    copy = """INSERT INTO message (id, direction, state, tenant, partner, message_id, conversation_id, service, action,
                                   pmode_id, pmode_revision, header, fingerprint)
              VALUES (gen_random_uuid(), 'outbound', $1, 't', 'p', 'm', 'c', 's', 'a', 'm', 1, '{}', '')"""
    for state in {*all_states(OUTBOUND), *all_states(INBOUND)}:
        if state not in ("SUBMITTED", "READY_TO_PULL"):
            assert not await allowed(sql.execute(copy, state))
    assert await allowed(sql.execute(copy, "SUBMITTED"))


async def test_no_index_names_the_state_of_a_message(newest):
    """A change of state that no index knows of stays on its page and writes no index."""
    rows = await newest.sql.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename = 'message'", newest.schema)
    assert rows and not [r["indexdef"] for r in rows if "state" in r["indexdef"]]
