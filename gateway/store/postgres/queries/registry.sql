-- Clients of the plugin API, and webhooks.

-- add_client
-- A client with the id $1.
INSERT INTO client (id, name, backend, token_hash) VALUES ($1, $2, $3, $4);

-- client_by_token
-- The client whose token has the hash $1.
SELECT id, name, backend, created_at, revoked FROM client WHERE token_hash = $1;

-- clients
-- All clients.
SELECT id, name, backend, created_at, revoked FROM client ORDER BY created_at, id;

-- revoke_client
-- Client $1 may do nothing any more. No row: there is none, or it was revoked before.
UPDATE client SET revoked = true WHERE id = $1 AND NOT revoked RETURNING id;

-- add_webhook
-- A webhook with the id $1.
INSERT INTO webhook (id, backend, url, sealed_secret, events, disabled) VALUES ($1, $2, $3, $4, $5, $6);

-- webhooks
-- The webhooks of backend $1, or all.
SELECT id, backend, url, sealed_secret, events, disabled FROM webhook
 WHERE $1::text IS NULL OR backend = $1 ORDER BY created_at, id;

-- remove_webhook
-- Webhook $1 of backend $2 goes, and with it what it was still to be told.
WITH gone AS (
    DELETE FROM webhook WHERE id = $1 AND backend = $2 RETURNING id
), unsaid AS (
    DELETE FROM job USING gone WHERE job.kind = 'notify' AND job.queue = gone.id
)
SELECT id FROM gone;

-- disable_webhook
-- Webhook $1 is told nothing any more.
UPDATE webhook SET disabled = true WHERE id = $1;
