-- Uploads. Every statement names the client: nobody else has any.

-- lock_client
-- One upload of client $1 is begun at a time, so that what it may have is counted right.
SELECT id FROM client WHERE id = $1 FOR UPDATE;

-- known
-- The upload that client $1 began with the key $2.
SELECT id, client, size, received, sha256, wrapped_key, created_at, expires_at FROM upload
 WHERE client = $1 AND idempotency_key = $2 AND expires_at > now();

-- forget_over
-- Drop the uploads of client $1 whose time is over: they count for nothing, and their keys are free.
DELETE FROM upload WHERE client = $1 AND expires_at <= now();

-- add
-- Begin upload $1 of client $2 with the key $3, unless it has $8 already, or more than $9 octets with this one.
INSERT INTO upload (id, client, idempotency_key, size, sha256, wrapped_key, expires_at)
SELECT $1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7)
  FROM (SELECT count(*) AS uploads, coalesce(sum(size), 0) AS octets FROM upload WHERE client = $2) AS own
 WHERE own.uploads < $8 AND own.octets + $4::bigint <= $9::bigint
RETURNING id, client, size, received, sha256, wrapped_key, created_at, expires_at;

-- upload
-- Upload $1 of client $2.
SELECT id, client, size, received, sha256, wrapped_key, created_at, expires_at FROM upload
 WHERE id = $1 AND client = $2 AND expires_at > now();

-- begin_write
-- Upload $1 of client $2 is written from octet $3 on by whoever asks last. No row: there is none, or it has less.
UPDATE upload SET generation = generation + 1, received = $3
 WHERE id = $1 AND client = $2 AND received >= $3 AND expires_at > now()
RETURNING generation;

-- drop_beyond
-- Drop what upload $1 has from octet $2 on.
DELETE FROM upload_chunk WHERE upload = $1 AND position >= $2;

-- write
-- The piece $7 of upload $1 of client $2, from octet $3 on, in the place $4 $5; received is $6 unless that is NULL; kept
-- for $8 seconds. No row: another writer has it.
WITH held AS (
    UPDATE upload SET received = coalesce($6::bigint, received), expires_at = now() + make_interval(secs => $8)
     WHERE id = $1 AND client = $2 AND generation = $4
 RETURNING id
)
INSERT INTO upload_chunk (upload, position, generation, number, content)
SELECT id, $3, $4, $5, $7 FROM held
RETURNING upload;

-- end_write
-- What writer $3 wrote to upload $1 of client $2 stands: $4 octets, kept for $5 seconds. No row: another has it.
UPDATE upload SET received = $4, expires_at = now() + make_interval(secs => $5)
 WHERE id = $1 AND client = $2 AND generation = $3
RETURNING id;

-- chunk
-- The piece of upload $1 of client $2 that begins at octet $3 or after.
SELECT position, upload_chunk.generation, number, content
  FROM upload_chunk JOIN upload ON upload.id = upload_chunk.upload
 WHERE upload = $1 AND client = $2 AND position >= $3 AND position < received AND expires_at > now()
 ORDER BY position LIMIT 1;

-- drop
-- Drop upload $1 of client $2.
DELETE FROM upload WHERE id = $1 AND client = $2 RETURNING id;

-- erase_over
-- Drop up to $1 uploads whose time is over.
DELETE FROM upload WHERE id IN (
    SELECT id FROM upload WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING id;
