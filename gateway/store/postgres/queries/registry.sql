-- Clients of the plugin API.

-- add_client
-- A client with the id $1 and the credentials $5 (ids), $6, $7, $8, $9.
WITH made AS (
    INSERT INTO client (id, name, backend, scope) VALUES ($1, $2, $3, $4::text::jsonb) RETURNING id
), shown AS (
    INSERT INTO credential (id, client, kind, key, verifier, expires_at)
    SELECT c.id, made.id, c.kind, c.key, c.verifier, c.expires_at
      FROM made, unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[])
              AS c (id, kind, key, verifier, expires_at)
)
SELECT id FROM made;

-- client_by
-- The client that shows the credential of kind $1 with the key $2, if both are in force.
SELECT client.id, name, backend, scope::text, client.created_at, client.revoked,
       c.id AS credential, c.verifier, c.created_at AS issued_at, c.expires_at
  FROM credential AS c JOIN client ON client.id = c.client
 WHERE c.kind = $1 AND c.key = $2
   AND NOT c.revoked AND NOT client.revoked AND (c.expires_at IS NULL OR c.expires_at > now());

-- clients
-- All clients.
SELECT id, name, backend, scope::text, created_at, revoked FROM client ORDER BY created_at, id;

-- set_scope
-- Client $1 is bounded by the scope $2 from now on. No row: there is none.
UPDATE client SET scope = $2::text::jsonb WHERE id = $1 RETURNING id;

-- add_credential
-- A credential with the id $1 for client $2.
INSERT INTO credential (id, client, kind, key, verifier, expires_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id;

-- credentials
-- The credentials of client $1, or all.
SELECT id, client, kind, key, verifier, created_at, expires_at, revoked FROM credential
 WHERE $1::text IS NULL OR client = $1 ORDER BY created_at, id;

-- revoke_credential
-- Credential $1 is worth nothing any more. No row: there is none, or it was revoked before.
UPDATE credential SET revoked = true WHERE id = $1 AND NOT revoked RETURNING id;

-- revoke_client
-- Client $1 may do nothing any more. No row: there is none, or it was revoked before.
UPDATE client SET revoked = true WHERE id = $1 AND NOT revoked RETURNING id;
