-- Revisions of the agreements, the processes that serve them, and their acknowledgements.

-- watch
-- Somebody looks, and holds the lock under which revisions change. Since when was there no gap of $1 seconds?
INSERT INTO agreement_watch AS w (one) VALUES (true)
    ON CONFLICT (one) DO UPDATE
   SET watched_since = CASE WHEN w.watched_at < now() - make_interval(secs => $1) THEN now() ELSE w.watched_since END,
       watched_at = now()
RETURNING watched_since;

-- standing
-- The numbers of the active and of the proposed revision.
SELECT coalesce((SELECT number FROM agreement_revision WHERE state = 'ACTIVE'), 0) AS active,
       coalesce((SELECT number FROM agreement_revision WHERE state = 'PROPOSED'), 0) AS proposed;

-- write
-- Revision with the next number: state $1, base $2, content $3, author $4, reason $5, restores $6, to be settled
-- within $7 seconds.
INSERT INTO agreement_revision (number, state, base, content, sha256, author, reason, restores, expires_at, settled_at)
SELECT 1 + coalesce(max(number), 0), $1, $2, $3, sha256($3), $4, $5, $6, now() + make_interval(secs => $7),
       CASE $1 WHEN 'ACTIVE' THEN now() END
  FROM agreement_revision
RETURNING number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
          settled_at, refusal;

-- proposed_again
-- The proposal that stands, if it has the base $1 and the content $2.
SELECT number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, refusal
  FROM agreement_revision WHERE state = 'PROPOSED' AND base = $1 AND sha256 = sha256($2);

-- acknowledge
-- The word of process $2 ($3 $4) on revision $1: well ($5), or why not ($6).
INSERT INTO acknowledgement (revision, process, node, place, ok, why) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT DO NOTHING;

-- judge
-- What is known of revision $1: who refused, and who has not answered. Silent for $2 seconds is dead, but only
-- if somebody has watched ($3) for as long.
SELECT r.state, r.base, r.expires_at < now() AS expired, r.sha256, r.author, r.restores,
       coalesce((SELECT number FROM agreement_revision WHERE state = 'ACTIVE'), 0) AS active,
       ARRAY(SELECT node || ' ' || place || ': ' || why FROM acknowledgement
              WHERE revision = r.number AND NOT ok ORDER BY node, place) AS refusals,
       ARRAY(SELECT node || ' ' || place FROM process
              WHERE (seen_at > now() - make_interval(secs => $2)
                     OR $3::timestamptz > now() - make_interval(secs => $2))
                AND NOT EXISTS (SELECT FROM acknowledgement a
                                 WHERE a.revision = r.number AND a.process = process.id AND a.ok)
              ORDER BY node, place) AS missing
  FROM agreement_revision r WHERE number = $1;

-- supersede
-- What was active is so no more.
UPDATE agreement_revision SET state = 'SUPERSEDED' WHERE state = 'ACTIVE';

-- settle
-- Revision $1 becomes $2, refused because of $3.
UPDATE agreement_revision SET state = $2, refusal = $3, settled_at = now() WHERE number = $1 AND state = 'PROPOSED';

-- active
-- The active revision with its content.
SELECT number, state, base, content, sha256, author, reason, restores, created_at, expires_at, settled_at, refusal
  FROM agreement_revision WHERE state = 'ACTIVE';

-- one
-- Revision $1 with its content.
SELECT number, state, base, content, sha256, author, reason, restores, created_at, expires_at, settled_at, refusal
  FROM agreement_revision WHERE number = $1;

-- history
-- Up to $2 revisions before number $1, newest first.
SELECT number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, refusal
  FROM agreement_revision WHERE $1::bigint IS NULL OR number < $1 ORDER BY number DESC LIMIT $2;

-- of_content
-- The newest revision with the digest $1 that is or was active.
SELECT number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, refusal
  FROM agreement_revision WHERE sha256 = $1 AND state IN ('ACTIVE', 'SUPERSEDED') ORDER BY number DESC LIMIT 1;

-- acknowledgements
-- Who said what of revision $1.
SELECT process, node, place, why, at FROM acknowledgement WHERE revision = $1 ORDER BY node, place, at;

-- beat
-- Process $1, at place $3 of node $2, lives and serves revision $4, with the trouble $5. If this is its first
-- word ($6), whatever was at its place is gone.
WITH gone AS (
    DELETE FROM process
     WHERE id <> $1 AND (($6 AND node = $2 AND place = $3) OR seen_at < now() - interval '1 hour')
)
INSERT INTO process (id, node, place, revision, trouble) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO UPDATE SET revision = $4, trouble = $5, seen_at = now();

-- leave
-- Process $1 is gone.
DELETE FROM process WHERE id = $1;

-- processes
-- Every process; one that was silent for $1 seconds is not alive.
SELECT id, node, place, revision, trouble, started_at, seen_at,
       seen_at > now() - make_interval(secs => $1) AS alive
  FROM process ORDER BY node, place, started_at;

-- waiting
-- Outbound messages that are not settled.
SELECT m.partner, m.pmode_id, m.pmode_revision AS revision, count(*) AS count, min(m.created_at) AS oldest
  FROM job JOIN message m ON m.id = job.message
 WHERE job.kind IN ('send', 'hold') AND job.state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN', 'HELD')
 GROUP BY m.partner, m.pmode_id, m.pmode_revision
 ORDER BY m.partner, m.pmode_id, m.pmode_revision;

-- move_waiting
-- Up to $3 messages in flight on the P-Modes $2 go on under revision $1; a send that waits is due now. Nothing is
-- waited for: what is busy at this moment is left for the next look.
WITH found AS (
    SELECT job.id AS job, m.id AS message
      FROM job JOIN message m ON m.id = job.message
     WHERE job.kind IN ('send', 'hold') AND job.state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN', 'HELD')
       AND m.pmode_revision <> $1 AND m.pmode_id = ANY ($2::text[])
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), due AS (
    UPDATE job SET due_at = now() FROM found WHERE job.id = found.job AND kind = 'send' AND state = 'READY'
)
UPDATE message SET pmode_revision = $1 FROM found WHERE message.id = found.message RETURNING message.id;

-- take_active
-- Message $1 goes on under the active revision, where there is one.
UPDATE message SET pmode_revision = active.number FROM agreement_revision active
 WHERE message.id = $1 AND active.state = 'ACTIVE';
