-- Reading messages, and erasing their payloads.

-- message
-- Message $1 with its parts, as backend $2 (NULL: any) sees it within scope $3.
SELECT m.id, m.direction, m.state, m.tenant, m.partner, m.header, m.wrapped_key, m.pmode_id, m.pmode_revision,
       m.backend, m.client, m.created_at, m.changed_at, m.deadline, m.error_code, m.error_detail, m.receipt,
       m.receipt_at, m.envelope, m.signer, m.findings, m.advice, m.document, m.steps, m.trace,
       (SELECT max(number) FROM attempt WHERE attempt.message = m.id) AS attempts,
       (SELECT due_at FROM job WHERE job.message = m.id AND kind = 'send' AND state = 'READY') AS next_attempt_at,
       EXISTS (SELECT FROM job WHERE job.message = m.id AND (kind IN ('send', 'deliver') OR kind = 'hold')
                                 AND state = 'HELD') AS held,
       p.numbers, p.facts, p.inline, p.chunks
  FROM message m,
       LATERAL (SELECT array_agg(number) AS numbers, array_agg(facts::text) AS facts, array_agg(inline) AS inline,
                       array_agg(chunks) AS chunks
                  FROM (SELECT * FROM part WHERE part.message = m.id ORDER BY number) AS ordered) AS p
 WHERE m.id = $1 AND ($2::text IS NULL OR m.backend = $2) AND in_scope($3::text::jsonb, m);

-- find
-- Ids of messages with MessageId $1, or between $1 and $2 (a prefix), or with an id between $3 and $4;
-- of direction $5 unless that is NULL, as backend $6 sees them within scope $7. Exact matches first, then
-- the newest.
SELECT id FROM message
 WHERE ((message_id = $1) OR (message_id >= $1 AND message_id < $2) OR (id BETWEEN $3 AND $4))
   AND ($5::text IS NULL OR direction = $5)
   AND ($6::text IS NULL OR backend = $6) AND in_scope($7::text::jsonb, message)
 ORDER BY message_id = $1 DESC, created_at DESC
 LIMIT 20;

-- messages
-- A page of messages, newest first or with $16 oldest first, without envelope, receipt and content. Every filter
-- may be NULL; $8 and $9 are the last row of the page before; $17 and $18 who looks. What follows from a state is said
-- as well: there is an index for it, and none for the state. Planned for its values, so that one ORDER BY is left.
SELECT m.id, m.direction, m.state, m.tenant, m.partner, m.header, m.wrapped_key, m.pmode_id, m.pmode_revision,
       m.backend, m.client, m.created_at, m.changed_at, m.deadline, m.error_code, m.error_detail,
       m.receipt_at, m.findings, m.advice, m.document, m.steps, m.trace,
       (SELECT max(number) FROM attempt WHERE attempt.message = m.id) AS attempts,
       (SELECT due_at FROM job WHERE job.message = m.id AND kind = 'send' AND state = 'READY') AS next_attempt_at,
       EXISTS (SELECT FROM job WHERE job.message = m.id AND (kind IN ('send', 'deliver') OR kind = 'hold')
                                 AND state = 'HELD') AS held,
       p.numbers, p.facts, p.chunks
  FROM (SELECT * FROM message
         WHERE ($1::text IS NULL OR backend = $1)
           AND ($2::text IS NULL OR direction = $2)
           AND ($3::text IS NULL OR state = $3)
           AND ($3 IS DISTINCT FROM 'FAILED' OR error_code IS NOT NULL)
           AND (coalesce($3, '') NOT IN ('RECEIVED', 'SUBMITTED', 'WAITING_FOR_RETRY', 'READY_TO_PULL', 'WAITING_FOR_RECEIPT')
                OR wrapped_key IS NOT NULL)
           AND ($4::text IS NULL OR conversation_id = $4)
           AND ($5::text IS NULL OR message_id = $5)
           AND ($6::text IS NULL OR action = $6)
           AND ($7::text IS NULL OR partner = $7
                OR header->(CASE direction WHEN 'inbound' THEN 'from_party' ELSE 'to_party' END)->>'value' = $7)
           AND ($8::timestamptz IS NULL
                OR CASE WHEN $16 THEN (created_at, id) > ($8, $9::uuid) ELSE (created_at, id) < ($8, $9::uuid) END)
           AND ($11::text IS NULL OR service = $11)
           AND ($12::text IS NULL OR $12 = ANY (original_sender))
           AND ($13::text IS NULL OR $13 = ANY (final_recipient))
           AND ($14::timestamptz IS NULL OR created_at >= $14)
           AND ($15::timestamptz IS NULL OR created_at < $15)
           AND ($17::text IS NULL OR backend = $17) AND in_scope($18::text::jsonb, message)
         ORDER BY CASE WHEN $16::boolean THEN created_at END, CASE WHEN $16 THEN id END,
                  CASE WHEN NOT $16 THEN created_at END DESC, CASE WHEN NOT $16 THEN id END DESC
         LIMIT $10) AS m,
       LATERAL (SELECT array_agg(number) AS numbers, array_agg(facts::text) AS facts, array_agg(chunks) AS chunks
                  FROM (SELECT * FROM part WHERE part.message = m.id ORDER BY number) AS ordered) AS p
 ORDER BY CASE WHEN $16 THEN m.created_at END, CASE WHEN $16 THEN m.id END,
          CASE WHEN NOT $16 THEN m.created_at END DESC, CASE WHEN NOT $16 THEN m.id END DESC;

-- asked
-- Up to two messages that brought the request document $1, of direction $2, between tenant $3 and partner $4.
SELECT header FROM message WHERE request_id = $1 AND direction = $2 AND tenant = $3 AND partner = $4 LIMIT 2;

-- attempts
-- The attempts to send message $1, if backend $2 sees it within scope $3.
SELECT number, started_at, ended_at, node, signed, signer, outcome, error_code, error_detail, http_status, steps
  FROM attempt
 WHERE message = $1
   AND ($2::text IS NULL OR EXISTS (SELECT FROM message AS m
                                     WHERE m.id = attempt.message AND m.backend = $2 AND in_scope($3::text::jsonb, m)))
 ORDER BY number;

-- conversations
-- The conversations that backend $4 sees within scope $5, by their newest message before ($1, $2), at most $3: a message
-- is the newest of its conversation if there is no newer one.
SELECT m.conversation_id, m.id AS newest, m.created_at AS changed_at, counted.began_at, counted.messages
  FROM (SELECT * FROM message
         WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid))
           AND backend = $4 AND in_scope($5::text::jsonb, message)
           AND NOT EXISTS (SELECT FROM message AS newer
                            WHERE newer.conversation_id = message.conversation_id
                              AND (newer.created_at, newer.id) > (message.created_at, message.id)
                              AND newer.backend = $4 AND in_scope($5::text::jsonb, newer))
         ORDER BY created_at DESC, id DESC
         LIMIT $3) AS m,
       LATERAL (SELECT count(*) AS messages, min(created_at) AS began_at
                  FROM (SELECT own.created_at FROM message AS own
                         WHERE own.conversation_id = m.conversation_id AND own.backend = $4
                           AND in_scope($5::text::jsonb, own)
                         ORDER BY own.created_at DESC LIMIT 1000) AS last) AS counted
 ORDER BY m.created_at DESC, m.id DESC;

-- event_numbers
-- Numbers of the log after $1 (NULL: after what is ten minutes old), at most $2; and which transactions
-- have ended.
WITH start AS (
    SELECT coalesce($1, (SELECT number FROM event WHERE at < now() - interval '10 minutes'
                          ORDER BY number DESC LIMIT 1), 0) AS number
)
SELECT start.number AS after,
       ARRAY(SELECT event.number FROM event WHERE event.number > start.number ORDER BY event.number LIMIT $2) AS numbers,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
  FROM start;

-- told
-- The events after number $1 up to $2 of the types $3 (none: all), at most $4, as backend $5 sees them within scope $6.
SELECT event.number, event.id, event.at, event.type, event.message, m.message_id, m.conversation_id, event.data
  FROM event JOIN message AS m ON m.id = event.message
 WHERE event.number > $1 AND event.number <= $2
   AND (cardinality($3::text[]) = 0 OR event.type = ANY ($3))
   AND event.backend = $5 AND m.backend = $5 AND in_scope($6::text::jsonb, m)
 ORDER BY event.number LIMIT $4;

-- events_of_message
-- The events of message $1 after number $2, at most $3, as backend $4 sees them within scope $5.
SELECT number, at, type, message, data FROM event
 WHERE message = $1 AND number > $2
   AND ($4::text IS NULL OR EXISTS (SELECT FROM message AS m
                                     WHERE m.id = event.message AND m.backend = $4 AND in_scope($5::text::jsonb, m)))
 ORDER BY number LIMIT $3;

-- events
-- The feed after number $1, at most $2, as backend $3 sees it within scope $4. Numbers are taken before they are
-- committed, so a feed that follows them waits for transactions older than what it shows; an
-- hour back nothing is waited for (a restored database counts transactions anew).
SELECT number, at, type, message, data FROM event
 WHERE number > $1
   AND ($3::text IS NULL OR backend = $3 AND EXISTS (
           SELECT FROM message AS m WHERE m.id = event.message AND m.backend = $3 AND in_scope($4::text::jsonb, m)))
   AND (xid < pg_snapshot_xmin(pg_current_snapshot()) OR at < now() - interval '1 hour')
 ORDER BY number LIMIT $2;

-- put_chunk
-- Chunk $3 of part $2 of message $1.
INSERT INTO chunk (message, part, number, content) VALUES ($1, $2, $3, $4);

-- chunk
-- Chunk $3 of part $2 of message $1, if backend $4 sees it within scope $5.
SELECT content FROM chunk
 WHERE message = $1 AND part = $2 AND number = $3
   AND ($4::text IS NULL OR EXISTS (SELECT FROM message AS m
                                     WHERE m.id = chunk.message AND m.backend = $4 AND in_scope($5::text::jsonb, m)));

-- expired
-- Lock up to $3 messages whose payload is no longer to be kept: inbound ones delivered $1 seconds ago
-- (those of the test service: received), outbound ones settled $2 seconds ago. Those another process
-- is erasing are skipped, and those that are held. Not more of them than hold $4 chunks, but at least one.
WITH delivered AS (
    SELECT id, created_at FROM message
     WHERE direction = 'inbound' AND wrapped_key IS NOT NULL
       AND created_at < now() - make_interval(secs => $1) AND changed_at < now() - make_interval(secs => $1)
       AND (state = 'DELIVERED' OR state = 'RECEIVED' AND backend IS NULL)
       AND NOT EXISTS (SELECT FROM legal_hold WHERE legal_hold.message = message.id)
     ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
), settled AS (
    SELECT id, created_at FROM message
     WHERE direction = 'outbound' AND wrapped_key IS NOT NULL
       AND created_at < now() - make_interval(secs => $2) AND changed_at < now() - make_interval(secs => $2)
       AND state IN ('ACKNOWLEDGED', 'FAILED', 'CANCELLED')
       AND NOT EXISTS (SELECT FROM legal_hold WHERE legal_hold.message = message.id)
     ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
), old AS (
    SELECT * FROM delivered UNION ALL SELECT * FROM settled
), sized AS (
    SELECT old.*, sum((SELECT coalesce(sum(chunks), 0) FROM part WHERE part.message = old.id))
                      OVER (ORDER BY created_at, id) AS chunks,
           row_number() OVER (ORDER BY created_at, id) AS rank
      FROM old
)
SELECT id FROM sized WHERE rank <= $3 AND (chunks <= $4 OR rank = 1);

-- erase
-- Take the keys of the messages $1: what is left of their payloads cannot be opened any more.
UPDATE message
   SET wrapped_key = NULL, changed_at = now(), state = CASE state WHEN 'FAILED' THEN state ELSE 'PURGED' END
 WHERE id = ANY ($1::uuid[]);

-- erase_inline
-- Delete the inline content of the messages $1.
UPDATE part SET inline = NULL WHERE message = ANY ($1::uuid[]) AND inline IS NOT NULL;

-- erase_chunks
-- Delete the chunks of the messages $1.
DELETE FROM chunk WHERE message = ANY ($1::uuid[]);

-- erase_jobs
-- Delete the jobs of the messages $1 that nobody will do again.
DELETE FROM job WHERE message = ANY ($1::uuid[]) AND state IN ('DONE', 'PARKED');

-- erase_keys
-- Forget the idempotency keys of the messages $1. Their MessageIds stay known.
DELETE FROM idempotency WHERE message = ANY ($1::uuid[]);

-- erase_duplicates
-- Forget up to $1 duplicates of long ago; the barrier they were is behind us.
DELETE FROM duplicate_seen
 WHERE number IN (SELECT number FROM duplicate_seen WHERE at < now() - interval '30 days' ORDER BY number LIMIT $1);
