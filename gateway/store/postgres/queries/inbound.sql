-- Receiving.

-- receive
-- Store an inbound message with its parts, its delivery job and its event, or nothing at all.
-- No row: (tenant, partner, message_id) is known already. Of two copies that come at once the
-- second waits here for the first, and is stored if that one rolls back. The constraint is
-- named: any other violation is an error, never a duplicate. The test service has no
-- backend and so no delivery. $25 is the channel a pulled message came from: its receipt goes there.
WITH stored AS (
    INSERT INTO message (id, direction, state, tenant, partner, message_id, conversation_id, ref_to_message_id,
                         service, action, backend, pmode_id, pmode_revision, receipt_at, header, fingerprint,
                         references_digest, wrapped_key, envelope, signer, receipt, advice, steps, document,
                         request_id, original_sender, final_recipient)
    VALUES ($1, 'inbound', 'RECEIVED', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now(), $12, $13, $14, $15, $16, $17,
            $18, $19, $20, $26, $27, $29, $30)
        ON CONFLICT (tenant, partner, message_id) WHERE direction = 'inbound' DO NOTHING
 RETURNING id, backend
), kept AS (
    INSERT INTO part (message, number, facts, inline, chunks)
    SELECT stored.id, p.number, p.facts::json, p.inline, p.chunks
      FROM stored, unnest($21::int[], $22::text[], $23::bytea[], $24::int[]) AS p (number, facts, inline, chunks)
), queued AS (
    INSERT INTO job (kind, queue, message)
    SELECT 'deliver', backend, id FROM stored WHERE backend IS NOT NULL
     UNION ALL
    SELECT 'receipt', $25::text, id FROM stored WHERE $25::text IS NOT NULL
), told AS (
    INSERT INTO event (type, message, backend, data)
    SELECT 'message.received', id, backend, $28::json FROM stored
)
SELECT durability() AS durability FROM stored;

-- duplicate
-- What is stored under tenant $1, partner $2 and MessageId $3. If it has the fingerprint $4 this is
-- the same message again: then also the barrier, a row that is durable only if the
-- message before it in the log is.
WITH known AS (
    SELECT id, receipt, fingerprint = $4 AS same, references_digest = $5 AS same_references
      FROM message
     WHERE direction = 'inbound' AND tenant = $1 AND partner = $2 AND message_id = $3
), seen AS (
    INSERT INTO duplicate_seen (message) SELECT id FROM known WHERE same
)
SELECT id, receipt, same, same_references, durability() AS durability FROM known;
