-- Messages that wait to be pulled, channels we pull from, and receipts that go by themselves.

-- note_request
-- Remember the PullRequest $2 of $1. No row: it was here before.
INSERT INTO pull_request (requester, message_id) VALUES ($1, $2)
    ON CONFLICT (requester, message_id) DO NOTHING
RETURNING number;

-- erase_requests
-- Forget up to $1 PullRequests of more than a day ago.
DELETE FROM pull_request
 WHERE number IN (SELECT number FROM pull_request WHERE at < now() - interval '1 day' ORDER BY number LIMIT $1);

-- claim_held
-- Take the oldest message that is ready on channel $1 for $3 seconds, in the name of $2.
WITH next AS (
    SELECT id FROM job
     WHERE kind = 'hold' AND state = 'READY' AND queue = $1
     ORDER BY created_at, id
     LIMIT 1
       FOR UPDATE SKIP LOCKED
)
UPDATE job
   SET state = 'CLAIMED', attempt = attempt + 1, due_at = now() + make_interval(secs => $3),
       claim = gen_random_uuid(), claimed_by = $2
  FROM next
 WHERE job.id = next.id
RETURNING job.id, kind, queue, message, claim, attempt, lost, now() AS at, created_at, due_at AS lease_until, with_left(data) AS data;

-- hand_out
-- Open an attempt under the claim $2 of job $1, for node $3 with the signed references $4 and the envelope $8, which
-- replaces that of an earlier attempt and was signed with the certificate $9: the message goes from one of $6 to WAITING_FOR_RECEIPT, overdue in $7
-- seconds. No row: the claim was lost.
WITH held AS (
    UPDATE job SET state = 'ATTEMPT_OPEN', attempt = 0, lost = 0, due_at = now() + make_interval(secs => $7)
     WHERE id = $1 AND claim = $2 AND kind = 'hold' AND state = ANY ($5::text[])
 RETURNING message
), changed AS (
    UPDATE message SET state = 'WAITING_FOR_RECEIPT', changed_at = now()
      FROM held WHERE message.id = held.message AND message.state = ANY ($6::text[])
 RETURNING message.id
), before AS (
    UPDATE attempt SET envelope = NULL
      FROM changed WHERE attempt.message = changed.id AND attempt.envelope IS NOT NULL AND $8::bytea IS NOT NULL
), begun AS (
    INSERT INTO attempt (message, number, node, signed, envelope, signer)
    SELECT id, 1 + coalesce((SELECT max(number) FROM attempt WHERE attempt.message = changed.id), 0), $3, $4, $8, $9
      FROM changed
 RETURNING number
)
SELECT number, CASE WHEN number IS NULL THEN abandon('message and job do not go together') END AS done
  FROM held LEFT JOIN begun ON true;

-- lapse
-- The time of a held message is over, under the claim $2 of job $1: the job goes from one of $4 to $3, due in
-- $5 seconds if that is READY; the message from one of $7 to $6, with the error $8 $9; an open attempt ends; the
-- events are $10. No row: the claim was lost.
WITH held AS (
    UPDATE job
       SET state = $3, claim = NULL, claimed_by = NULL, error = $9, attempt = 0, lost = 0,
           due_at = now() + make_interval(secs => $5)
     WHERE id = $1 AND claim = $2 AND kind = 'hold' AND state = ANY ($4::text[])
 RETURNING message
), ended AS (
    UPDATE attempt SET ended_at = now(), outcome = 'no-receipt', error_code = $8, error_detail = $9
      FROM held WHERE attempt.message = held.message AND attempt.ended_at IS NULL
), changed AS (
    UPDATE message SET state = $6, changed_at = now(), error_code = $8, error_detail = $9
      FROM held WHERE message.id = held.message AND message.state = ANY ($7::text[])
 RETURNING message.id, message.backend
), told AS (
    INSERT INTO event (type, message, backend, data)
    SELECT e.type, changed.id, changed.backend, e.data
      FROM changed, json_to_recordset($10) AS e (type text, data json)
)
SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN true
            ELSE abandon('message and job do not go together') END AS done
  FROM held;

-- hold_again
-- Job $1 becomes ready from one of $2, and its message is kept as long as at first.
UPDATE job
   SET state = 'READY', claim = NULL, claimed_by = NULL, error = NULL, attempt = 0, lost = 0,
       due_at = now() + make_interval(secs => (data->>'patience')::float8),
       data = json_build_object('patience', (data->>'patience')::float8,
                                'until', extract(epoch FROM now())::float8 + (data->>'patience')::float8)
 WHERE id = $1 AND state = ANY ($2::text[])
RETURNING id;

-- open_channels
-- See that each of the channels $1 has a pull job.
INSERT INTO job (kind, queue) SELECT DISTINCT 'pull', queue FROM unnest($1::text[]) AS wanted (queue)
    ON CONFLICT (queue) WHERE kind = 'pull' DO NOTHING;

-- rest
-- End a round of the pull job $1 under the claim $2, from one of $5; the next is due in $3 seconds. $4: what went
-- wrong; NULL, and the count begins anew. No row: the claim was lost.
UPDATE job
   SET state = 'READY', claim = NULL, claimed_by = NULL, due_at = now() + make_interval(secs => $3), error = $4,
       lost = 0, attempt = CASE WHEN $4::text IS NULL THEN 0 ELSE attempt END
 WHERE id = $1 AND claim = $2 AND kind = 'pull' AND state = ANY ($5::text[])
RETURNING id;

-- pull_now
-- Make the pull jobs that rest due, of the channels $1 (NULL: all).
UPDATE job SET due_at = now() WHERE kind = 'pull' AND state = 'READY' AND ($1::text[] IS NULL OR queue = ANY ($1))
RETURNING queue;

-- answer_again
-- The receipt of the pulled message $1 is to go to channel $2 once more; $3: the data of the job, $4: the states
-- it may begin from.
INSERT INTO job (kind, queue, message, data) VALUES ('receipt', $2, $1, $3)
    ON CONFLICT (message, kind) WHERE kind IN ('hold', 'receipt') DO UPDATE
   SET state = 'READY', queue = excluded.queue, data = excluded.data, due_at = now(), claim = NULL, claimed_by = NULL,
       attempt = 0, lost = 0, error = NULL
 WHERE job.state = ANY ($4::text[]);

-- finish_receipt
-- The receipt of job $1 is sent, under the claim $2, from one of $3. No row: the claim was lost.
UPDATE job SET state = 'DONE', claim = NULL, claimed_by = NULL
 WHERE id = $1 AND claim = $2 AND kind = 'receipt' AND state = ANY ($3::text[])
RETURNING id;
