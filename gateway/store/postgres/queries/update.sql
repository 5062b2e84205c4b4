-- The ledger of agreement updates.

-- add
-- Note a request, due at once; no row where its key is there already.
INSERT INTO agreement_update (id, direction, kind, state, partner, party, ours, reference, document, message_id,
                              conversation_id, current, updated, certificates, signer, respond_by, activate_by, actor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
    ON CONFLICT (direction, partner, reference) DO NOTHING
RETURNING *;

-- one
-- The request $1.
SELECT * FROM agreement_update WHERE id = $1;

-- of
-- The request of direction $1 with partner $2 whose document has the id $3.
SELECT * FROM agreement_update WHERE direction = $1 AND partner = $2 AND reference = $3;

-- newest
-- Up to $4 requests of direction $1 with partner $2 in one of the states $3, newest first; NULL: whatever they are.
SELECT * FROM agreement_update
 WHERE ($1::text IS NULL OR direction = $1) AND ($2::text IS NULL OR partner = $2)
   AND ($3::text[] IS NULL OR state = ANY ($3))
 ORDER BY created_at DESC, id DESC
 LIMIT $4;

-- claim
-- Take up to $1 that are due, for $2 seconds. Whose claimer died is due again.
WITH due AS (
    SELECT id FROM agreement_update WHERE due_at <= now() ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE agreement_update AS u
   SET claim = gen_random_uuid(), due_at = now() + make_interval(secs => $2), attempt = attempt + 1
  FROM due
 WHERE u.id = due.id
RETURNING u.*;

-- change
-- Change $1, which is in one of the states $2 and, where there is a claim $3, under it. `due_in` $5 NULL: nothing is due.
UPDATE agreement_update
   SET state = $4, changed_at = now(), claim = NULL,
       attempt = CASE WHEN state = $4 THEN attempt ELSE 0 END,
       due_at = now() + make_interval(secs => $5),
       code = coalesce($6, code), detail = coalesce($7, detail), actor = coalesce($8, actor),
       answer = coalesce($9, answer), answer_message_id = coalesce($10, answer_message_id),
       answered_at = CASE WHEN $11 THEN coalesce(answered_at, now()) ELSE answered_at END,
       receipted_at = CASE WHEN $12 THEN coalesce(receipted_at, now()) ELSE receipted_at END,
       late = late OR $13, message_id = coalesce($14, message_id)
 WHERE id = $1 AND state = ANY ($2::text[]) AND ($3::uuid IS NULL OR claim = $3)
RETURNING *;
