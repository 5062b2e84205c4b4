-- The queue. `due_at` is also the end of the lease: a job whose claimer died is simply due again.
-- SKIP LOCKED: claimers never wait for one another.
-- `lost` counts the claims that were not given back since a step of the job was settled: whoever had it is gone, or was
-- cut off. With a limit of losses those beyond it are passed over; `claim_suspect` takes them.

-- No claim of what is to be sent waits for a disk or a standby: before anything leaves, its attempt is begun, and that
-- commit makes the claim durable, too. A claim that a crash of the server loses is one whose lease ended at once.

-- claim_send
-- Take up to $1 due messages for $3 seconds in the name of $2; partner by partner, whose message waits longest first, of
-- each $6 at most.
-- Only to the partners $4 unless that is NULL, and to none of $7. $5: the states a claim may start from. $8: the limit
-- of losses. From
-- a partner that is shut nothing until its time is over; then one, and whoever has it tries for all, as long as the
-- claim lasts.
WITH RECURSIVE waiting (queue, head) AS (
    -- From partner to partner along the index: its first entry is the job that is due first.
    (SELECT queue, due_at FROM job
      WHERE kind = 'send' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')
      ORDER BY queue, due_at LIMIT 1)
     UNION ALL
    SELECT next.queue, next.due_at
      FROM waiting,
           LATERAL (SELECT job.queue, job.due_at FROM job
                     WHERE kind = 'send' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND job.queue > waiting.queue
                     ORDER BY job.queue, job.due_at LIMIT 1) AS next
), trying AS (
    SELECT partner FROM circuit WHERE shut_until <= now() FOR UPDATE SKIP LOCKED
), wanted AS (
    SELECT waiting.queue, CASE WHEN circuit.shut_until IS NULL THEN least($1::bigint, $6::bigint) ELSE 1 END AS most
      FROM waiting LEFT JOIN circuit ON circuit.partner = waiting.queue
     WHERE waiting.head <= now() AND ($4::text[] IS NULL OR waiting.queue = ANY ($4))
       AND waiting.queue <> ALL ($7::text[])
       AND (circuit.shut_until IS NULL OR waiting.queue IN (SELECT partner FROM trying))
     ORDER BY waiting.head
), due AS (
    -- Not sorted again: with enough in hand the other partners' jobs are not even locked.
    SELECT next.id, next.was_due, wanted.queue, gen_random_uuid() AS claim
      FROM set_config('synchronous_commit', 'off', true),
           wanted,
           LATERAL (SELECT id, due_at AS was_due FROM job
                     WHERE kind = 'send' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')
                       AND state = ANY ($5::text[]) AND job.queue = wanted.queue AND due_at <= now()
                       AND ($8::int IS NULL OR lost + (state <> 'READY')::int < $8)
                     ORDER BY due_at
                     LIMIT wanted.most
                       FOR UPDATE SKIP LOCKED) AS next
     LIMIT $1
), probing AS (
    UPDATE circuit SET shut_until = now() + make_interval(secs => $3), probe = due.claim
      FROM due WHERE circuit.partner = due.queue AND circuit.shut_until IS NOT NULL
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $3),
       claim = due.claim, claimed_by = $2, lost = lost + (state <> 'READY')::int
  FROM due
 WHERE job.id = due.id
RETURNING job.id, kind, job.queue, message, job.claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, data, was_due;

-- claim_overdue
-- Take up to $1 messages for $3 seconds in the name of $2, from one of $4, whose partner is shut and whose patience has
-- ended: nobody else would come for them. What still has time is not even looked at, however much it is.
WITH due AS (
    SELECT next.id, next.was_due
      FROM set_config('synchronous_commit', 'off', true),
           (SELECT partner FROM circuit WHERE shut_until IS NOT NULL) AS shut,
           LATERAL (SELECT id, due_at AS was_due FROM job
                     WHERE kind = 'send' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')
                       AND state = ANY ($4::text[]) AND queue = shut.partner
                       AND gives_up_at <= now() AND due_at <= now()
                     ORDER BY gives_up_at
                     LIMIT $1
                       FOR UPDATE SKIP LOCKED) AS next
     LIMIT $1
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $3),
       claim = gen_random_uuid(), claimed_by = $2, lost = lost + (state <> 'READY')::int
  FROM due
 WHERE job.id = due.id
RETURNING job.id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, data, was_due;

-- circuits
-- Partners that failed the last time.
SELECT partner, failures, since, shut_until FROM circuit ORDER BY partner;

-- claim_pull
-- Take up to $2 due jobs of kind $1 (hold, pull, receipt) for $4 seconds, oldest first, in the name of
-- $3; only those of the queues $5 unless that is NULL. $6: the states a claim may start from. $7: the limit of losses;
-- a held message that was handed out waits with its attempt open, and nobody is lost.
WITH due AS (
    SELECT id, due_at AS was_due FROM job
     WHERE kind = $1 AND kind IN ('hold', 'pull', 'receipt') AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')
       AND state = ANY ($6::text[]) AND due_at <= now() AND ($5::text[] IS NULL OR queue = ANY ($5))
       AND ($7::int IS NULL OR lost + (state = 'CLAIMED')::int < $7)
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $4),
       claim = gen_random_uuid(), claimed_by = $3, lost = lost + (state = 'CLAIMED')::int
  FROM due
 WHERE job.id = due.id
RETURNING job.id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, with_left(data) AS data,
          was_due;

-- claim_deliver
-- The same for deliveries, queue by queue: a queue with a million waiting messages does not slow down
-- another. Queues in $4; NULL: all; none of $8. $6 is the scope of the consumer, NULL: unbounded. $7: of each queue at
-- most. $9: the limit of losses; NULL: a consumer claims for himself, and may come again as often as he likes.
WITH due AS (
    SELECT next.id, next.was_due
      FROM unnest(coalesce($4::text[], ARRAY(
               SELECT DISTINCT queue FROM job
                WHERE kind = 'deliver' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')))) AS wanted (queue),
           LATERAL (SELECT id, due_at AS was_due FROM job
                     WHERE kind = 'deliver' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')
                       AND state = ANY ($5::text[]) AND queue = wanted.queue AND due_at <= now()
                       AND wanted.queue <> ALL ($8::text[])
                       AND ($9::int IS NULL OR lost + (state <> 'READY')::int < $9)
                       AND ($6::text IS NULL OR EXISTS (
                               SELECT FROM message AS m WHERE m.id = job.message AND in_scope($6::jsonb, m)))
                     ORDER BY due_at
                     LIMIT least($1::bigint, $7::bigint)
                       FOR UPDATE SKIP LOCKED) AS next
     ORDER BY next.was_due
     LIMIT $1
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $3),
       claim = gen_random_uuid(), claimed_by = $2,
       lost = CASE WHEN $9::int IS NULL THEN lost ELSE lost + (state <> 'READY')::int END
  FROM due
 WHERE job.id = due.id
RETURNING job.id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, data, was_due;

-- claim_notify
-- The same for notifications: a webhook that does not answer does not hold up another. $8: the limit of losses.
WITH due AS (
    SELECT next.id, next.was_due
      FROM (SELECT id AS queue FROM webhook
             WHERE ($4::text[] IS NULL OR id = ANY ($4)) AND id <> ALL ($7::text[])) AS wanted,
           LATERAL (SELECT id, due_at AS was_due FROM job
                     WHERE kind = 'notify' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN')
                       AND state = ANY ($5::text[]) AND job.queue = wanted.queue AND due_at <= now()
                       AND ($8::int IS NULL OR lost + (state <> 'READY')::int < $8)
                     ORDER BY due_at
                     LIMIT least($1::bigint, $6::bigint)
                       FOR UPDATE SKIP LOCKED) AS next
     ORDER BY next.was_due
     LIMIT $1
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $3),
       claim = gen_random_uuid(), claimed_by = $2, lost = lost + (state <> 'READY')::int
  FROM due
 WHERE job.id = due.id
RETURNING job.id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, data, was_due;

-- claim_suspect
-- Take one due job that reached the limit $4 of losses, of any kind but deliveries to others than the backends $3, for $2
-- seconds in the name of $1, from one of $5. None to a partner that is shut.
WITH due AS (
    SELECT id, due_at AS was_due FROM job
     WHERE lost > 0 AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND state = ANY ($5::text[]) AND due_at <= now()
       AND lost + (state = 'CLAIMED' OR state = 'ATTEMPT_OPEN' AND kind <> 'hold')::int >= $4
       AND (kind <> 'deliver' OR queue = ANY ($3::text[]))
       AND NOT (kind = 'send' AND EXISTS (SELECT FROM circuit WHERE partner = queue AND shut_until > now()))
     ORDER BY due_at
     LIMIT 1
       FOR UPDATE SKIP LOCKED
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $2),
       claim = gen_random_uuid(), claimed_by = $1,
       lost = lost + (state = 'CLAIMED' OR state = 'ATTEMPT_OPEN' AND kind <> 'hold')::int
  FROM due
 WHERE job.id = due.id
RETURNING job.id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, with_left(data) AS data,
          was_due;

-- renew
-- Keep job $1 under the claim $2 for another $3 seconds; if it tries a partner that is shut, for as long nobody else
-- does. No row: the claim was lost.
WITH kept AS (
    UPDATE job SET due_at = now() + make_interval(secs => $3)
     WHERE id = $1 AND claim = $2 AND state IN ('CLAIMED', 'ATTEMPT_OPEN')
 RETURNING due_at
), probing AS (
    UPDATE circuit SET shut_until = kept.due_at FROM kept WHERE circuit.probe = $2
)
SELECT due_at AS lease_until FROM kept;

-- release
-- Give job $1 back under the claim $2, from one of $5, due in $3 seconds; $4 says why. No row: lost. A held message is
-- given back by who finds that its claim was lost, so that goes on counting.
UPDATE job SET state = 'READY', claim = NULL, claimed_by = NULL, due_at = now() + make_interval(secs => $3), error = $4,
       lost = CASE WHEN kind = 'hold' THEN lost ELSE 0 END
 WHERE id = $1 AND claim = $2 AND state = ANY ($5::text[])
RETURNING id;

-- park
-- Stop trying job $1 under the claim $2, from one of $4; $3 says why. No row: lost.
UPDATE job SET state = 'PARKED', claim = NULL, claimed_by = NULL, error = $3
 WHERE id = $1 AND claim = $2 AND state = ANY ($4::text[])
RETURNING id;

-- finish_delivery
-- The consumer has the message: job $1 done under the claim $2, the message from one of $4 to DELIVERED
-- with the steps $5 added, and the events $6. The claim stays, so that the same acknowledgement may
-- come again. No row: the claim was lost, or this was done before.
WITH held AS (
    UPDATE job SET state = 'DONE'
     WHERE id = $1 AND claim = $2 AND kind = 'deliver' AND state = ANY ($3::text[])
 RETURNING message
), changed AS (
    UPDATE message
       SET state = 'DELIVERED', changed_at = now(),
           steps = CASE WHEN $5::text = '[]' THEN steps ELSE (steps::jsonb || $5::jsonb)::json END
      FROM held WHERE message.id = held.message AND message.state = ANY ($4::text[])
 RETURNING message.id, message.backend
), told AS (
    INSERT INTO event (type, message, backend, data)
    SELECT e.type, changed.id, changed.backend, e.data
      FROM changed, json_to_recordset($6) AS e (type text, data json)
)
SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN true
            ELSE abandon('message and job do not go together') END AS done
  FROM held;

-- delivered_before
-- Whether job $1 was finished under the claim $2 already. A write, so that the answer is as durable as
-- the one that was given, or lost, before.
UPDATE job SET claim = claim WHERE id = $1 AND claim = $2 AND kind = 'deliver' AND state = 'DONE' RETURNING id;

-- delivery
-- The deliver job $1, if backend $2 sees its message within scope $3.
SELECT id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, data
  FROM job
 WHERE id = $1 AND kind = 'deliver' AND queue = $2
   AND EXISTS (SELECT FROM message AS m WHERE m.id = job.message AND in_scope($3::text::jsonb, m));

-- claim_delivery
-- Take the delivery of message $1 for $3 seconds in the name of $2, from one of $4, if it is due and
-- backend $5 sees the message within scope $6.
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $3),
       claim = gen_random_uuid(), claimed_by = $2
 WHERE message = $1 AND kind = 'deliver' AND state = ANY ($4::text[]) AND due_at <= now() AND queue = $5
   AND EXISTS (SELECT FROM message AS m WHERE m.id = job.message AND in_scope($6::text::jsonb, m))
RETURNING id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, data;

-- is_open
-- Whether the delivery of message $1 is still to be made, as backend $2 sees it within scope $3.
SELECT state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AS open FROM job
 WHERE message = $1 AND kind = 'deliver' AND queue = $2
   AND EXISTS (SELECT FROM message AS m WHERE m.id = job.message AND in_scope($3::text::jsonb, m));

-- undelivered
-- MessageIds of inbound messages that wait for delivery, or with $9 whose delivery is parked; oldest first,
-- at most $10. Every other filter may be NULL. For backend $11 within scope $12.
SELECT m.message_id FROM message AS m
 WHERE m.direction = 'inbound' AND m.state = 'RECEIVED' AND m.wrapped_key IS NOT NULL
   AND ($1::text IS NULL OR m.message_id = $1)
   AND ($2::text IS NULL OR m.conversation_id = $2)
   AND ($3::text IS NULL OR m.ref_to_message_id = $3)
   AND ($4::text IS NULL OR m.header->'from_party'->>'value' = $4)
   AND ($5::text IS NULL OR $5 = ANY (m.original_sender))
   AND ($6::text IS NULL OR $6 = ANY (m.final_recipient))
   AND ($7::timestamptz IS NULL OR m.created_at >= $7)
   AND ($8::timestamptz IS NULL OR m.created_at <= $8)
   AND EXISTS (SELECT FROM job WHERE job.message = m.id AND job.kind = 'deliver'
                                 AND CASE WHEN $9 THEN job.state = 'PARKED'
                                          ELSE job.state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') END)
   AND m.backend = $11 AND in_scope($12::text::jsonb, m)
 ORDER BY m.created_at, m.id
 LIMIT $10;

-- requeue_delivery
-- The parked delivery of the inbound message $1 becomes due, from one of $2.
UPDATE job SET state = 'READY', due_at = now(), error = NULL, lost = 0
 WHERE message = $1 AND kind = 'deliver' AND state = ANY ($2::text[]) AND state = 'PARKED'
RETURNING id;

-- receive_again
-- Message $1 goes from one of $2 to RECEIVED: its consumer gets it once more.
UPDATE message SET state = 'RECEIVED', changed_at = now() WHERE id = $1 AND state = ANY ($2::text[]) RETURNING id;

-- redeliver
-- The delivery $1 becomes due, from one of $2. It was made before, and all its attempts are before it.
UPDATE job
   SET state = 'READY', claim = NULL, claimed_by = NULL, due_at = now(), error = NULL, attempt = least(attempt, 1), lost = 0
 WHERE id = $1 AND state = ANY ($2::text[])
RETURNING id;

-- backlog
-- How many jobs of each kind stand in each state; what is done is not counted.
SELECT kind, state, count(*) AS jobs FROM job
 WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN', 'PARKED', 'HELD') GROUP BY kind, state;
