-- Partners' certificates: next ones in use, strangers that wait for a decision, what issuers say.

-- note_next
-- Party $1 signs with its next certificate $2. The first time with an audit row ($3 to $6); a row then, else none.
WITH noted AS (
    INSERT INTO next_use (party, sha256) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING party
)
SELECT append_audit($3, $4, $5, $6) AS number FROM noted;

-- next_uses
-- Who signs with a next certificate, since when.
SELECT party, sha256, first_used FROM next_use ORDER BY first_used, party, sha256;

-- quarantine
-- Keep the certificate $2 ($3 to $8) of somebody who claims to be $1, within the bounds $9 and $10.
SELECT quarantine($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS outcome;

-- strangers
-- Certificates that were seen, of party $1, in state $2; NULL: whatever they are.
SELECT party, sha256, der, subject, issuer, valid_from, valid_until, seen, state, first_seen, last_seen, decided_at,
       decided_by, reason
  FROM stranger
 WHERE ($1::text IS NULL OR party = $1) AND ($2::text IS NULL OR state = $2)
 ORDER BY last_seen DESC, party, sha256;

-- decide
-- Certificate $2 claiming party $1 is $3 from now on, because of $4, with an audit row ($5 to $8). No row: nothing changed.
WITH decided AS (
    UPDATE stranger SET state = $3, decided_at = now(), decided_by = $6, reason = $4
     WHERE party = $1 AND sha256 = $2 AND state <> $3
    RETURNING party
)
SELECT append_audit($5, $6, $7, $8) AS number FROM decided;

-- prune_strangers
-- Forget what waits and was not seen for $1 seconds, and decisions that were not met for $2.
DELETE FROM stranger
 WHERE last_seen < now() - make_interval(secs => CASE state WHEN 'WAITING' THEN $1::float8 ELSE $2::float8 END)
RETURNING sha256;

-- revocation
-- What is known of certificate $1 from issuer $2.
SELECT certificate, issuer, subject, status, source, host, this_update, next_update, answered_at, revoked_at,
       revocation_reason, tried_at, failing_since, trouble
  FROM revocation WHERE certificate = $1 AND issuer = $2;

-- revocations
-- What is known of certificate $1, or of all.
SELECT certificate, issuer, subject, status, source, host, this_update, next_update, answered_at, revoked_at,
       revocation_reason, tried_at, failing_since, trouble
  FROM revocation WHERE $1::text IS NULL OR certificate = $1 ORDER BY tried_at DESC, certificate, issuer;

-- save_revocation
-- What is known now of certificate $1 from issuer $2. An answer that is older than the one there changes nothing.
INSERT INTO revocation AS known (certificate, issuer, subject, status, source, host, this_update, next_update,
                                 answered_at, revoked_at, revocation_reason, tried_at, failing_since, trouble)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (certificate, issuer) DO UPDATE
   SET subject = excluded.subject, status = excluded.status, source = excluded.source, host = excluded.host,
       this_update = excluded.this_update, next_update = excluded.next_update, answered_at = excluded.answered_at,
       revoked_at = excluded.revoked_at, revocation_reason = excluded.revocation_reason,
       tried_at = excluded.tried_at, failing_since = excluded.failing_since, trouble = excluded.trouble
 WHERE known.this_update IS NULL OR excluded.this_update >= known.this_update;

-- prune_revocations
-- Forget what nobody has asked about for $1 seconds.
DELETE FROM revocation WHERE tried_at < now() - make_interval(secs => $1::float8) RETURNING certificate;
