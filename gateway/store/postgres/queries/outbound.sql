-- Submitting and sending.

-- submit
-- Store a submission with its parts, its job and its event, or nothing. It begins in state $23 with a job of
-- kind $24 in queue $25: to be sent now, or held for $26 seconds. Its agreement has patience for $33 seconds. No row: the MessageId or the
-- idempotency key is taken. When the key is new but the MessageId is not, the statement undoes
-- itself, so that no key points to nothing.
WITH keyed AS (
    INSERT INTO idempotency (client, key, message, fingerprint)
    SELECT $13, $14, $1, $17 WHERE $14::text IS NOT NULL
        ON CONFLICT (client, key) DO NOTHING
 RETURNING message
), stored AS (
    INSERT INTO message (id, direction, state, tenant, partner, message_id, conversation_id, ref_to_message_id,
                         service, action, backend, pmode_id, pmode_revision, client, deadline, header, fingerprint,
                         wrapped_key, steps, advice, document, request_id, original_sender, final_recipient, trace)
    SELECT $1, 'outbound', $23, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13, $12, $16, $17, $15, $18, $27,
            $28, $29, $31, $32, $34
     WHERE $14::text IS NULL OR EXISTS (SELECT FROM keyed)
        ON CONFLICT (tenant, message_id) WHERE direction = 'outbound' DO NOTHING
 RETURNING id, backend
), kept AS (
    INSERT INTO part (message, number, facts, inline, chunks)
    SELECT stored.id, p.number, p.facts::json, p.inline, p.chunks
      FROM stored, unnest($19::int[], $20::text[], $21::bytea[], $22::int[]) AS p (number, facts, inline, chunks)
), queued AS (
    INSERT INTO job (kind, queue, message, gives_up_at, due_at, data)
    SELECT $24, $25, id, now() + make_interval(secs => $33::float8), now() + make_interval(secs => coalesce($26::float8, 0)),
           CASE WHEN $26::float8 IS NULL THEN '{}'
                ELSE json_build_object('patience', $26::float8, 'until', extract(epoch FROM now())::float8 + $26::float8)
           END
      FROM stored
), told AS (
    INSERT INTO event (type, message, backend, data) SELECT 'message.accepted', id, backend, $30::json FROM stored
)
SELECT CASE WHEN EXISTS (SELECT FROM stored) THEN durability()
            WHEN EXISTS (SELECT FROM keyed) THEN abandon('the MessageId is taken')::text
       END AS durability;

-- replay
-- What was submitted before: under the key $2 of client $1, else under MessageId $4 of tenant $3. It is
-- the same submission if its fingerprint is $5 and it is of backend $6. Then also the barrier, and
-- the key is bound to it.
WITH known AS (
    SELECT message.id, message.message_id, conversation_id, state, 0 AS rank,
           idempotency.fingerprint = $5 AND backend = $6 AS same
      FROM idempotency JOIN message ON message.id = idempotency.message
     WHERE idempotency.client = $1 AND idempotency.key = $2
    UNION ALL
    SELECT id, message_id, conversation_id, state, 1, fingerprint = $5 AND backend = $6
      FROM message
     WHERE direction = 'outbound' AND tenant = $3 AND message_id = $4
     ORDER BY rank LIMIT 1
), bound AS (
    INSERT INTO idempotency (client, key, message, fingerprint)
    SELECT $1, $2, id, $5 FROM known WHERE same AND $2 IS NOT NULL
        ON CONFLICT (client, key) DO NOTHING
), seen AS (
    INSERT INTO duplicate_seen (message) SELECT id FROM known WHERE same
)
SELECT id, message_id, conversation_id, state, same, durability() AS durability FROM known;

-- begin_attempt
-- Open an attempt under the claim $2 of job $1, for node $3 with the signed references $4 and the envelope $6, which
-- replaces that of an earlier attempt, and was signed with the certificate $7. An attempt left open by a worker that died is closed as lost. No row:
-- the claim was lost.
WITH held AS (
    UPDATE job SET state = 'ATTEMPT_OPEN'
     WHERE id = $1 AND claim = $2 AND kind = 'send' AND state = ANY ($5::text[])
 RETURNING message
), before AS (
    UPDATE attempt
       SET ended_at = coalesce(ended_at, now()), outcome = CASE WHEN ended_at IS NULL THEN 'lost' ELSE outcome END,
           envelope = CASE WHEN $6::bytea IS NULL THEN envelope END
      FROM held WHERE attempt.message = held.message
                  AND (attempt.ended_at IS NULL OR attempt.envelope IS NOT NULL AND $6::bytea IS NOT NULL)
)
INSERT INTO attempt (message, number, node, signed, envelope, signer)
SELECT held.message, 1 + coalesce((SELECT max(number) FROM attempt WHERE attempt.message = held.message), 0),
       $3, $4, $6, $7
  FROM held
RETURNING number;

-- finish_attempt
-- End attempt $3 under the claim $2 of job $1: job, attempt, message and events $12 in one commit. The
-- job goes from one of $4 to $5, due in $6 seconds if that is READY; the message from one of $7 to
-- $8. No row: the claim was lost. A message that is not in such a state undoes all of it. With the proof $16 the
-- error may be a refusal of the attempt's certificate; a receipt outlives those that were. $17: the partner answered
-- (true), did not (false), or was not asked (NULL). After $18 failures in a row it is shut for $19 seconds, and twice as
-- long after every further one, up to $20; what had begun before it was shut does not count. `circuit` is what became of it.
WITH held AS (
    UPDATE job
       SET state = $5, claim = NULL, claimed_by = NULL, error = $10, attempt = 0, lost = 0,
           due_at = now() + make_interval(secs => $6)
     WHERE id = $1 AND claim = $2 AND kind = 'send' AND state = ANY ($4::text[])
 RETURNING message, queue
), failed AS (
    INSERT INTO circuit AS c (partner, failures) SELECT queue, 1 FROM held WHERE NOT $17::boolean
        ON CONFLICT (partner) DO UPDATE
       SET failures = c.failures + 1, probe = NULL,
           shut_until = CASE WHEN c.failures + 1 >= $18 THEN now() + make_interval(secs => (0.75 + random() / 2)
                                  * least($19::float8 * 2 ^ least(c.failures + 1 - $18, 20), $20::float8)) END
     WHERE c.shut_until IS NULL OR c.probe = $2
 RETURNING failures >= $18 AS shut
), healed AS (
    DELETE FROM circuit USING held WHERE circuit.partner = held.queue AND $17::boolean RETURNING failures >= $18 AS was_shut
), ended AS (
    UPDATE attempt
       SET ended_at = now(), outcome = $11, error_code = $9, error_detail = $10, http_status = $13, steps = $15
      FROM held WHERE attempt.message = held.message AND attempt.number = $3
 RETURNING attempt.message, attempt.signer
), changed AS (
    UPDATE message
       SET state = $8, changed_at = now(), error_code = $9, error_detail = $10, receipt = coalesce($14, receipt),
           receipt_at = CASE WHEN $14::bytea IS NULL THEN receipt_at ELSE now() END
      FROM ended WHERE message.id = ended.message AND message.state = ANY ($7::text[])
 RETURNING message.id, message.backend, message.partner, message.header, ended.signer
), refused AS (
    INSERT INTO signature_refusal (partner, party, certificate, message, code, proof)
    SELECT partner, header->'to_party'->>'value', signer, id, $9, $16
      FROM changed WHERE $16::text IS NOT NULL AND signer IS NOT NULL
), outlived AS (
    UPDATE signature_refusal AS r SET outlived = true
      FROM changed
     WHERE $8 = 'ACKNOWLEDGED' AND r.partner = changed.partner AND r.certificate = changed.signer AND NOT r.outlived
), told AS (
    INSERT INTO event (type, message, backend, data)
    SELECT e.type, changed.id, changed.backend, e.data
      FROM changed, json_to_recordset($12) AS e (type text, data json)
)
SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN true
            ELSE abandon('message and job do not go together') END AS done,
       CASE WHEN (SELECT shut FROM failed) THEN 'shut' WHEN (SELECT was_shut FROM healed) THEN 'open' END AS circuit
  FROM held;

-- try_partner
-- What waits for the partner of message $1 is tried again at once, should it be shut.
UPDATE circuit SET shut_until = now() FROM message
 WHERE message.id = $1 AND circuit.partner = message.partner AND shut_until > now();

-- lock_send_job
-- The job that sends or holds message $1, locked. Job before message: the order in which every statement locks.
SELECT id, kind, state, claim, state IN ('CLAIMED', 'ATTEMPT_OPEN') AND due_at > now() AS busy
  FROM job WHERE message = $1 AND kind IN ('send', 'hold') FOR UPDATE;

-- lock_message
-- Message $1, locked.
SELECT state, backend, partner, message_id, error_code, wrapped_key IS NOT NULL AS has_payload
  FROM message WHERE id = $1 AND direction = 'outbound' FOR UPDATE;

-- settle_message
-- Message $1 goes from one of $2 to $3, with the receipt $4 or the error $5 $6.
UPDATE message
   SET state = $3, changed_at = now(), receipt = coalesce($4, receipt), error_code = $5, error_detail = $6,
       receipt_at = CASE WHEN $4::bytea IS NULL THEN receipt_at ELSE now() END
 WHERE id = $1 AND state = ANY ($2::text[])
RETURNING id;

-- settle_job
-- Job $1 goes from one of $2 to $3, due now and held by nobody.
UPDATE job SET state = $3, claim = NULL, claimed_by = NULL, due_at = now(), attempt = 0, lost = 0
 WHERE id = $1 AND state = ANY ($2::text[])
RETURNING id;

-- refused_late
-- The error $2 about message $1, signed by the partner, came outside an attempt: it is about the last one's certificate.
INSERT INTO signature_refusal (partner, party, certificate, message, code, proof)
SELECT m.partner, m.header->'to_party'->>'value', a.signer, m.id, $2, 'signature'
  FROM message m JOIN attempt a ON a.message = m.id
 WHERE m.id = $1 AND a.signer IS NOT NULL ORDER BY a.number DESC LIMIT 1;

-- outlived_late
-- The receipt for message $1 came outside an attempt: its partner takes the last attempt's certificate.
UPDATE signature_refusal AS r SET outlived = true
  FROM message m
 WHERE m.id = $1 AND r.partner = m.partner AND NOT r.outlived
   AND r.certificate = (SELECT signer FROM attempt a WHERE a.message = m.id ORDER BY number DESC LIMIT 1);

-- lock_work
-- The one job that sends, holds or delivers message $1, locked; and the message's state and backend.
SELECT job.id, job.kind, job.state, message.state AS message_state, message.backend,
       message.wrapped_key IS NOT NULL AS has_payload,
       job.state IN ('CLAIMED', 'ATTEMPT_OPEN') AND job.due_at > now() AS busy
  FROM job JOIN message ON message.id = job.message
 WHERE job.message = $1 AND (job.kind IN ('send', 'deliver') OR job.kind = 'hold')
   FOR UPDATE OF job;

-- suspend
-- Job $1 goes from one of $2 to HELD: nobody can claim it. When it would have been due it remembers.
UPDATE job SET state = 'HELD', claim = NULL, claimed_by = NULL WHERE id = $1 AND state = ANY ($2::text[]) RETURNING id;

-- resume
-- Job $1 goes from one of $2 to READY, due when it would have been.
UPDATE job SET state = 'READY', lost = 0 WHERE id = $1 AND state = ANY ($2::text[]) RETURNING id;

-- close_attempts
-- Attempts of message $1 that are open end with the outcome $2.
UPDATE attempt SET ended_at = now(), outcome = $2 WHERE message = $1 AND ended_at IS NULL;

-- sent_envelope
-- What the last attempt to send message $1 signed, if backend $2 sees the message within scope $3.
SELECT envelope FROM attempt
 WHERE message = $1 AND envelope IS NOT NULL
   AND ($2::text IS NULL OR EXISTS (SELECT FROM message AS m
                                     WHERE m.id = attempt.message AND m.backend = $2 AND in_scope($3::text::jsonb, m)))
 ORDER BY number DESC LIMIT 1;

-- tell_of
-- Write the events $2 of message $1.
INSERT INTO event (type, message, backend, data)
SELECT e.type, message.id, message.backend, e.data
  FROM message, json_to_recordset($2) AS e (type text, data json) WHERE message.id = $1;

-- tell
-- Write the events $3 of message $1 and backend $2.
INSERT INTO event (type, message, backend, data)
SELECT e.type, $1, $2, e.data FROM json_to_recordset($3) AS e (type text, data json);
