-- Statements about the connection itself.

-- settle
-- Give the session the settings named in $1 with the values $2; those this server does not know are left out.
SELECT set_config(wanted.name, wanted.value, false)
  FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
 WHERE current_setting(wanted.name, true) IS NOT NULL;

-- facts
-- What the server promises. `synchronous_commit` is pinned for the session, so that a changed
-- configuration file or role cannot weaken it under our feet.
SELECT current_setting('server_version') AS version,
       pg_is_in_recovery() AS in_recovery,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('server_encoding') AS encoding,
       set_config('synchronous_commit', current_setting('synchronous_commit'), false) AS synchronous_commit,
       current_setting('synchronous_standby_names') = '' AS is_alone,
       CASE WHEN NOT pg_is_in_recovery() THEN
            ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint END AS timeline;

-- look_as
-- For this transaction see only what backend $1 may see within scope $2: the wall of migration 0009. A
-- server whose administrator did not let us raise it has no such role, and the statements alone decide.
SELECT set_config('gateway.backend', $1, true), set_config('gateway.scope', $2, true),
       set_config('role', CASE WHEN wall_stands() THEN 'gateway_backend' ELSE 'none' END, true);

-- emit
-- A durable commit that changes nothing: one WAL record, replicated like any other.
SELECT pg_logical_emit_message(true, 'gateway', 'health');

-- stuck
-- How many sessions of ours have waited for a standby for more than $1 seconds.
SELECT count(*) AS sessions FROM pg_stat_activity
 WHERE usename = current_user AND datname = current_database() AND wait_event = 'SyncRep'
   AND state_change < clock_timestamp() - make_interval(secs => $1);

-- ring
-- Tell the other processes on channel $1 that there may be work; $2 says who rings. Nothing is
-- written, so nothing waits for a disk or a standby.
SELECT pg_notify($1, $2);

-- next_due
-- Seconds until the next job that waits for its time becomes due; NULL when none waits.
SELECT extract(epoch FROM min(next.due_at) - now())::float8
  FROM (VALUES ('send'), ('notify')) AS wanted (kind),
       LATERAL (SELECT due_at FROM job
                 WHERE job.kind = wanted.kind AND kind IN ('send', 'notify')
                   AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND due_at > now()
                 ORDER BY due_at
                 LIMIT 1) AS next;
