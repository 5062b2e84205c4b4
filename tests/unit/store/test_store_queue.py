"""What a look into the queue costs does not grow with what waits there [reliability R25]."""

import sys

import pytest

from gateway.store.states import JOB, before
from tests.unit.store.servers import Database

Q = sys.modules["gateway.store.postgres.jobs"].Q
STATES = before(JOB, "claim")
WAITING = 20_000
FILL = """
INSERT INTO job (kind, queue, due_at, gives_up_at)
SELECT 'send', $1, now() - random() * interval '1 h', now() + interval '1 day' FROM generate_series(1, $2::int)
"""
READ = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relid = 'job'::regclass"
SHUT = "INSERT INTO circuit (partner, failures, shut_until) VALUES ('away', 5, now() + interval '1 h')"


@pytest.fixture
async def queue(servers):
    """`away` has nearly all that waits and is shut, `well` a few."""
    made = await Database.make(servers.dsn("wheel"), fresh=False)
    await made.sql.execute(FILL, "away", WAITING)
    await made.sql.execute(FILL, "well", 8)
    await made.sql.execute(SHUT)
    yield made.sql
    await made.drop()


async def looks(sql, query, *arguments, times=8):
    """Rows of the queue that one look read, the most of several; so many that the server has made a plan for all."""
    most, found = 0, []
    statement = await sql.prepare(query)
    for _ in range(times):
        looking = sql.transaction()
        await looking.start()
        before = await sql.fetchval(READ)
        found = await statement.fetch(*arguments)
        most = max(most, await sql.fetchval(READ) - before)
        await looking.rollback()
    return most, found


@pytest.mark.parametrize("known", [False, True], ids=["grown at once", "analysed"])
async def test_what_waits_for_a_partner_that_is_shut_is_not_read(queue, known):
    await queue.execute("VACUUM ANALYZE job" if known else "DELETE FROM pg_statistic WHERE starelid = 'job'::regclass")
    read, jobs = await looks(queue, Q["claim_send"], 4, "w", 9.0, None, STATES, 4, [], 2)
    assert {job["queue"] for job in jobs} == {"well"} and len(jobs) == 4
    assert read < 100
    read, jobs = await looks(queue, Q["claim_overdue"], 20, "w", 9.0, STATES)
    assert jobs == [] and read < 100
    await queue.execute("UPDATE job SET gives_up_at = now() WHERE id IN (SELECT id FROM job WHERE queue = 'away' LIMIT 30)")
    read, jobs = await looks(queue, Q["claim_overdue"], 20, "w", 9.0, STATES)
    assert len(jobs) == 20 and read < 100
