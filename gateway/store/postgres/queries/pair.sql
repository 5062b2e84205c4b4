-- The nodes that share the database, and the lease of the active one. All times are the database's.

-- report
-- Node $1 of instance $2 lives: configured for $3, unfit because of $4. No row: another one that was heard within $5
-- seconds has the name.
INSERT INTO node AS n (name, instance, roles, trouble, seen_at) VALUES ($1, $2, $3, $4, clock_timestamp())
    ON CONFLICT (name) DO UPDATE
   SET instance = $2, roles = $3, trouble = $4, gone = false, seen_at = clock_timestamp()
 WHERE n.instance = $2 OR n.gone OR n.seen_at < clock_timestamp() - make_interval(secs => $5)
RETURNING drained, clock_timestamp() AS at, durability() AS durability, false AS name_taken;

-- unreported
-- What is heard by a node that may not report.
SELECT false AS drained, clock_timestamp() AS at, durability() AS durability, true AS name_taken;

-- hold
-- The lease is node $1's, of instance $2, for another $3 seconds, if it is already or nobody's. Taken anew, or on
-- another timeline, it has another epoch. No row: somebody else's; or the node is not fit ($4) and another one is.
INSERT INTO lease AS l (holder, instance, timeline, epoch, expires_at)
SELECT $1, $2, timeline(), 1, clock_timestamp() + make_interval(secs => $3)
 WHERE $4 OR NOT EXISTS (SELECT FROM node WHERE name <> $1 AND trouble IS NULL AND NOT drained AND NOT gone
                                            AND seen_at >= clock_timestamp() - make_interval(secs => $3))
    ON CONFLICT (one) DO UPDATE
   SET epoch = l.epoch + CASE WHEN l.holder = $1 AND l.instance = $2 AND l.expires_at >= clock_timestamp()
                               AND l.timeline = timeline() THEN 0 ELSE 1 END,
       holder = $1, instance = $2, timeline = timeline(), expires_at = clock_timestamp() + make_interval(secs => $3)
 WHERE (l.holder = $1 AND l.instance = $2) OR l.expires_at < clock_timestamp()
RETURNING holder, timeline, epoch, true AS live, expires_at;

-- lease
-- Who has the lease.
SELECT holder, timeline, epoch, expires_at >= clock_timestamp() AS live, expires_at FROM lease;

-- let_go
-- The lease of instance $1, if it has it, is anybody's.
UPDATE lease SET expires_at = clock_timestamp() - interval '1 ms' WHERE instance = $1 AND expires_at >= clock_timestamp();

-- gone
-- Instance $1 is gone in order: nobody waits for it.
UPDATE node SET gone = true WHERE instance = $1;

-- lock_lease
-- The lease, locked until the commit.
SELECT holder, timeline, epoch, expires_at >= clock_timestamp() AS live, expires_at FROM lease FOR UPDATE;

-- hand_over
-- The lease goes to node $1 for $2 seconds, whoever has it.
INSERT INTO lease AS l (holder, instance, timeline, epoch, expires_at)
SELECT name, instance, timeline(), 1, clock_timestamp() + make_interval(secs => $2) FROM node WHERE name = $1
    ON CONFLICT (one) DO UPDATE
   SET holder = EXCLUDED.holder, instance = EXCLUDED.instance, timeline = EXCLUDED.timeline, epoch = l.epoch + 1,
       expires_at = EXCLUDED.expires_at
RETURNING holder, timeline, epoch, true AS live, expires_at;

-- set_drained
-- Node $1 is to work ($2 false), or not to (true). No row: there is no such node, or nothing changes.
UPDATE node SET drained = $2 WHERE name = $1 AND drained <> $2 RETURNING name, instance;

-- nodes
-- The nodes that were heard of within a week, and those that are drained; alive are those that were within $1 seconds.
SELECT name, roles, trouble, drained, seen_at,
       NOT gone AND seen_at >= clock_timestamp() - make_interval(secs => $1) AS alive
  FROM node WHERE drained OR seen_at >= clock_timestamp() - interval '7 days'
 ORDER BY name;

-- forget
-- Nodes that were not heard of for a month are none any more.
DELETE FROM node WHERE seen_at < clock_timestamp() - interval '30 days' AND NOT drained;

-- server
-- The server that takes our writes, and what its commits wait for.
SELECT current_setting('server_version') AS version, timeline() AS timeline,
       current_setting('synchronous_standby_names') AS awaited, durability() AS durability,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_standbys;

-- standbys
-- Who follows the server, and how far behind in octets. Without the role pg_read_all_stats only that there is somebody.
SELECT coalesce(application_name, '') AS name, coalesce(state, '') AS state, coalesce(sync_state, '') AS sync,
       pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS lag
  FROM pg_stat_replication ORDER BY 1, 2;
