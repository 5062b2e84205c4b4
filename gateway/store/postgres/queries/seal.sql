-- What is sealed under a key-encryption key, whose name stands in octets 2 to 9.

-- message_others
-- Up to $3 messages after $1 with a key that $2 did not wrap.
SELECT id::text AS id, wrapped_key AS octets FROM message
 WHERE ($1::text IS NULL OR id > $1::uuid) AND wrapped_key IS NOT NULL AND substring(wrapped_key FROM 2 FOR 8) <> $2
 ORDER BY message.id LIMIT $3;

-- upload_others
-- The same for uploads.
SELECT id::text AS id, wrapped_key AS octets FROM upload
 WHERE ($1::text IS NULL OR id > $1::uuid) AND substring(wrapped_key FROM 2 FOR 8) <> $2
 ORDER BY upload.id LIMIT $3;

-- webhook_others
-- The same for the secrets of webhooks.
SELECT id, sealed_secret AS octets FROM webhook
 WHERE ($1::text IS NULL OR id > $1) AND substring(sealed_secret FROM 2 FOR 8) <> $2 ORDER BY id LIMIT $3;

-- webhook_previous_others
-- The same for the secrets they had before.
SELECT id, sealed_previous AS octets FROM webhook
 WHERE ($1::text IS NULL OR id > $1) AND substring(sealed_previous FROM 2 FOR 8) <> $2 ORDER BY id LIMIT $3;

-- key_others
-- The same for our own keys.
SELECT id, sealed AS octets FROM own_key
 WHERE ($1::text IS NULL OR id > $1) AND substring(sealed FROM 2 FOR 8) <> $2 ORDER BY id LIMIT $3;

-- message_anew
-- The messages $1 that have the keys $2 get the keys $3.
UPDATE message SET wrapped_key = new.octets
  FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (id, before, octets)
 WHERE message.id = new.id::uuid AND wrapped_key = new.before RETURNING 1;

-- upload_anew
-- The same for uploads.
UPDATE upload SET wrapped_key = new.octets
  FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (id, before, octets)
 WHERE upload.id = new.id::uuid AND wrapped_key = new.before RETURNING 1;

-- webhook_anew
-- The same for the secrets of webhooks.
UPDATE webhook SET sealed_secret = new.octets
  FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (id, before, octets)
 WHERE webhook.id = new.id AND sealed_secret = new.before RETURNING 1;

-- webhook_previous_anew
-- The same for the secrets they had before.
UPDATE webhook SET sealed_previous = new.octets
  FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (id, before, octets)
 WHERE webhook.id = new.id AND sealed_previous = new.before RETURNING 1;

-- key_anew
-- The same for our own keys.
UPDATE own_key SET sealed = new.octets
  FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (id, before, octets)
 WHERE own_key.id = new.id AND sealed = new.before RETURNING 1;

-- counts
-- How much each key-encryption key has sealed.
SELECT 'message' AS kind, substring(wrapped_key FROM 2 FOR 8) AS kek, count(*) AS count
  FROM message WHERE wrapped_key IS NOT NULL GROUP BY 2
UNION ALL
SELECT 'upload', substring(wrapped_key FROM 2 FOR 8), count(*) FROM upload GROUP BY 2
UNION ALL
SELECT 'webhook', substring(sealed_secret FROM 2 FOR 8), count(*) FROM webhook GROUP BY 2
UNION ALL
SELECT 'webhook-previous', substring(sealed_previous FROM 2 FOR 8), count(*)
  FROM webhook WHERE sealed_previous IS NOT NULL GROUP BY 2
UNION ALL
SELECT 'key', substring(sealed FROM 2 FOR 8), count(*) FROM own_key WHERE sealed IS NOT NULL GROUP BY 2;
