-- Revisions of the agreements and of the keys, the processes that serve them, and their acknowledgements.

-- watch
-- Somebody looks, and holds the lock under which revisions change. Since when was there no gap of $1 seconds?
INSERT INTO agreement_watch AS w (one) VALUES (true)
    ON CONFLICT (one) DO UPDATE
   SET watched_since = CASE WHEN w.watched_at < now() - make_interval(secs => $1) THEN now() ELSE w.watched_since END,
       watched_at = now()
RETURNING watched_since;

-- standing
-- The numbers of the active and of the proposed revision of each topic, and in how many seconds the active takes effect.
SELECT coalesce(max(number) FILTER (WHERE topic = 'agreements' AND state = 'ACTIVE'), 0) AS active,
       coalesce(max(number) FILTER (WHERE topic = 'agreements' AND state = 'PROPOSED'), 0) AS proposed,
       greatest(0, max(extract(epoch FROM effective_at - clock_timestamp()))
                   FILTER (WHERE topic = 'agreements' AND state = 'ACTIVE'))::float AS active_in,
       coalesce(max(number) FILTER (WHERE topic = 'keys' AND state = 'ACTIVE'), 0) AS ring,
       coalesce(max(number) FILTER (WHERE topic = 'keys' AND state = 'PROPOSED'), 0) AS ring_proposed,
       greatest(0, max(extract(epoch FROM effective_at - clock_timestamp()))
                   FILTER (WHERE topic = 'keys' AND state = 'ACTIVE'))::float AS ring_in
  FROM agreement_revision WHERE state IN ('ACTIVE', 'PROPOSED');

-- standing_of
-- The number of the active revision of topic $1, and what is proposed, of any topic.
SELECT coalesce((SELECT number FROM agreement_revision WHERE topic = $1 AND state = 'ACTIVE'), 0) AS active,
       (SELECT number FROM agreement_revision WHERE state = 'PROPOSED') AS proposed,
       (SELECT topic FROM agreement_revision WHERE state = 'PROPOSED') AS proposed_topic;

-- write
-- Revision of topic $8 with the next number: state $1, base $2, content $3, author $4, reason $5, restores $6, to be
-- settled within $7 seconds, with the lead $9.
INSERT INTO agreement_revision (topic, number, state, base, content, sha256, author, reason, restores, expires_at, lead,
                                settled_at, effective_at)
SELECT $8, 1 + coalesce(max(number), 0), $1, $2, $3, sha256($3), $4, $5, $6, now() + make_interval(secs => $7), $9,
       CASE $1 WHEN 'ACTIVE' THEN now() END, CASE $1 WHEN 'ACTIVE' THEN now() END
  FROM agreement_revision WHERE topic = $8
RETURNING topic, number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, effective_at, refusal;

-- proposed_again
-- The proposal of topic $3 that stands, if it has the base $1 and the content $2.
SELECT topic, number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, effective_at, refusal
  FROM agreement_revision WHERE topic = $3 AND state = 'PROPOSED' AND base = $1 AND sha256 = sha256($2);

-- acknowledge
-- The word of process $2 ($3 $4) on revision $1 of topic $7: well ($5), or why not ($6).
INSERT INTO acknowledgement (revision, process, node, place, ok, why, topic) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT DO NOTHING;

-- judge
-- What is known of revision $1 of topic $4: who refused, and who has not answered. Silent for $2 seconds is dead, but
-- only if somebody has watched ($3) for as long.
SELECT r.topic, r.number, r.state, r.base, r.expires_at < now() AS expired, r.content, r.sha256, r.author, r.reason,
       r.restores,
       coalesce((SELECT number FROM agreement_revision WHERE topic = $4 AND state = 'ACTIVE'), 0) AS active,
       ARRAY(SELECT node || ' ' || place || ': ' || why FROM acknowledgement
              WHERE topic = $4 AND revision = r.number AND NOT ok ORDER BY node, place) AS refusals,
       ARRAY(SELECT node || ' ' || place FROM process
              WHERE (seen_at > now() - make_interval(secs => $2)
                     OR $3::timestamptz > now() - make_interval(secs => $2))
                AND NOT EXISTS (SELECT FROM acknowledgement a
                                 WHERE a.topic = $4 AND a.revision = r.number AND a.process = process.id AND a.ok)
              ORDER BY node, place) AS missing
  FROM agreement_revision r WHERE topic = $4 AND number = $1;

-- supersede
-- What was active of topic $1 is so no more.
UPDATE agreement_revision SET state = 'SUPERSEDED' WHERE topic = $1 AND state = 'ACTIVE';

-- settle
-- Revision $1 of topic $4 becomes $2, refused because of $3.
UPDATE agreement_revision
   SET state = $2, refusal = $3, settled_at = now(),
       effective_at = CASE $2 WHEN 'ACTIVE' THEN clock_timestamp() + make_interval(secs => lead) END
 WHERE topic = $4 AND number = $1 AND state = 'PROPOSED';

-- active
-- The active revision of topic $1 with its content.
SELECT topic, number, state, base, content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, effective_at, refusal
  FROM agreement_revision WHERE topic = $1 AND state = 'ACTIVE';

-- one
-- Revision $1 of topic $2 with its content.
SELECT topic, number, state, base, content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, effective_at, refusal
  FROM agreement_revision WHERE topic = $2 AND number = $1;

-- history
-- Up to $2 revisions of topic $3 before number $1, newest first.
SELECT topic, number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, effective_at, refusal
  FROM agreement_revision WHERE topic = $3 AND ($1::bigint IS NULL OR number < $1) ORDER BY number DESC LIMIT $2;

-- of_content
-- The newest revision of the agreements with the digest $1 that is or was active.
SELECT topic, number, state, base, NULL::bytea AS content, sha256, author, reason, restores, created_at, expires_at,
       settled_at, effective_at, refusal
  FROM agreement_revision
 WHERE topic = 'agreements' AND sha256 = $1 AND state IN ('ACTIVE', 'SUPERSEDED') ORDER BY number DESC LIMIT 1;

-- acknowledgements
-- Who said what of revision $1 of topic $2.
SELECT process, node, place, why, at FROM acknowledgement WHERE topic = $2 AND revision = $1 ORDER BY node, place, at;

-- beat
-- Process $1, at place $3 of node $2, lives and serves revision $4, with the trouble $5; of the keys revision $7, with
-- the trouble $8, under the key-encryption key $9. If this is its first word ($6), whatever was at its place is gone.
WITH gone AS (
    DELETE FROM process
     WHERE id <> $1 AND (($6 AND node = $2 AND place = $3) OR seen_at < now() - interval '1 hour')
)
INSERT INTO process (id, node, place, revision, trouble, ring, ring_trouble, kek) VALUES ($1, $2, $3, $4, $5, $7, $8, $9)
    ON CONFLICT (id) DO UPDATE SET revision = $4, trouble = $5, ring = $7, ring_trouble = $8, kek = $9, seen_at = now();

-- leave
-- Process $1 is gone.
DELETE FROM process WHERE id = $1;

-- processes
-- Every process; one that was silent for $1 seconds is not alive.
SELECT id, node, place, revision, trouble, ring, ring_trouble, kek, started_at, seen_at,
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
 WHERE message.id = $1 AND active.topic = 'agreements' AND active.state = 'ACTIVE';
