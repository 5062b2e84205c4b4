-- Our own keys. States and choices change with a ring, under the lock of the `agreement_watch` row.

-- add
-- Key $1: party $2, algorithm $3, public $4, sealed $5, token $6, certificate $7, chain $8, author $9, for the uses $10.
WITH made AS (
    INSERT INTO own_key (id, party, algorithm, public, sealed, token, certificate, chain, author)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    RETURNING id
)
INSERT INTO key_use (key, use) SELECT made.id, wanted FROM made, unnest($10::text[]) AS wanted RETURNING key;

-- complete
-- The certificate $2 with the chain $3 of key $1, which has none.
UPDATE own_key SET certificate = $2, chain = $3 WHERE id = $1 AND certificate IS NULL RETURNING id;

-- there
-- The key with the certificate $1, or the one that waits for a certificate for the public key $2.
SELECT id FROM own_key
 WHERE ($1::bytea IS NOT NULL AND sha256(certificate) = sha256($1))
    OR (certificate IS NULL AND sha256(public) = sha256($2::bytea))
 LIMIT 1;

-- drop
-- Key $1 was never in a ring, and will not be.
UPDATE key_use SET state = 'RETIRED', since = now() WHERE key = $1 AND state = 'PLANNED' RETURNING use;

-- all
-- Every key with its states.
SELECT id, party, algorithm, public, sealed, token, certificate, chain, author, created_at,
       ARRAY(SELECT use FROM key_use WHERE key = own_key.id ORDER BY use) AS uses,
       ARRAY(SELECT state FROM key_use WHERE key = own_key.id ORDER BY use) AS states,
       ARRAY(SELECT since FROM key_use WHERE key = own_key.id ORDER BY use) AS since
  FROM own_key ORDER BY created_at, id;

-- move
-- Use $2 of key $1 goes from $3 to $4.
UPDATE key_use SET state = $4, since = now() WHERE key = $1 AND use = $2 AND state = $3 RETURNING key;

-- destroy
-- Private parts that nobody uses any more.
UPDATE own_key SET sealed = NULL, token = NULL
 WHERE (sealed IS NOT NULL OR token IS NOT NULL)
   AND NOT EXISTS (SELECT FROM key_use WHERE key = own_key.id AND state <> 'RETIRED');

-- chosen
-- The choices in force.
SELECT party, partner, key, why, since FROM key_choice ORDER BY party, partner, key;

-- unchoose
-- Party $1 to partner $2: not key $3 any more.
DELETE FROM key_choice WHERE party = $1 AND partner = $2 AND key = $3;

-- choose
-- Party $1 to partner $2: key $3, because of $4.
INSERT INTO key_choice (party, partner, key, why) VALUES ($1, $2, $3, $4)
    ON CONFLICT (party, partner, key) DO UPDATE SET why = $4;
