-- What waits, what is kept, what is forgotten.

-- queues
-- Open jobs by kind and state, and how many of them wait for a time that has not come; seconds since the oldest
-- was made, and since the first of those that nobody has taken became due.
SELECT kind, state, count(*) AS jobs, count(*) FILTER (WHERE state = 'READY' AND due_at > now()) AS later,
       extract(epoch FROM now() - min(created_at))::float8 AS oldest,
       greatest(extract(epoch FROM now() - min(due_at) FILTER (WHERE state = 'READY')), 0)::float8 AS overdue
  FROM job
 WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN', 'PARKED', 'HELD')
 GROUP BY kind, state;

-- inboxes
-- Deliveries that nobody has taken, by backend, with the seconds since the oldest came.
SELECT queue AS backend, count(*) AS waiting,
       greatest(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest
  FROM job
 WHERE kind = 'deliver' AND state = 'READY'
 GROUP BY queue;

-- moment
-- The time of the database, and whether it is a standby.
SELECT clock_timestamp() AS now, pg_is_in_recovery() AS standby;

-- hold
-- The message $1 is kept until it is let go, because of $2, says $3. No row: it was held before.
INSERT INTO legal_hold (message, reason, actor) VALUES ($1, $2, $3) ON CONFLICT (message) DO NOTHING RETURNING message;

-- let_go
-- The message $1 is kept no longer than others. No row: it was not held.
DELETE FROM legal_hold WHERE message = $1 RETURNING message;

-- held
-- Which of the messages $1 are held. Asked again once they are locked: who begins to hold one that is locked waits, and
-- what was committed between the look for them and the lock is seen only by a new statement.
SELECT message FROM legal_hold WHERE message = ANY ($1::uuid[]);

-- holds
-- What is held, oldest first.
SELECT legal_hold.message AS id, message_id, conversation_id, reason, actor, at
  FROM legal_hold JOIN message ON message.id = legal_hold.message
 ORDER BY at, legal_hold.message;

-- forgettable
-- Lock up to $2 messages whose time is over: begun and settled more than $1 seconds ago, their payloads
-- erased, and not held. Those another process is at are skipped.
SELECT id, message_id, created_at FROM message AS m
 WHERE created_at < now() - make_interval(secs => $1)
   AND coalesce(receipt_at, changed_at) < now() - make_interval(secs => $1)
   AND wrapped_key IS NULL AND (state <> 'RECEIVED' OR backend IS NULL)
   AND state NOT IN ('SUBMITTED', 'WAITING_FOR_RETRY', 'READY_TO_PULL', 'WAITING_FOR_RECEIPT')
   AND NOT EXISTS (SELECT FROM legal_hold WHERE legal_hold.message = m.id)
 ORDER BY created_at, id
 LIMIT $2
   FOR UPDATE SKIP LOCKED;

-- forget_events
-- Of the messages $1.
DELETE FROM event WHERE message = ANY ($1::uuid[]);

-- forget_attempts
-- Of the messages $1.
DELETE FROM attempt WHERE message = ANY ($1::uuid[]);

-- forget_jobs
-- Of the messages $1: done, given up, or notices that nobody took in all that time.
DELETE FROM job WHERE message = ANY ($1::uuid[]);

-- forget_parts
-- Of the messages $1.
DELETE FROM part WHERE message = ANY ($1::uuid[]);

-- forget_messages
-- The messages $1 themselves.
DELETE FROM message WHERE id = ANY ($1::uuid[]);

-- receipts
-- What we answered with a receipt since $1, after ($2, $3) if that is not NULL; oldest first, at most $4. A
-- message and its receipt are of one commit, so `created_at`, which has an index, is the time of both.
SELECT id, message_id, conversation_id, header, receipt_at, state FROM message
 WHERE direction = 'inbound' AND created_at >= $1
   AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::uuid))
 ORDER BY created_at, id
 LIMIT $4;
