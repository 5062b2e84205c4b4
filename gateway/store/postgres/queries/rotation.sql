-- How partners take our certificates.

-- announced
-- Partner $1 was told of the certificate $2 by the means $3.
INSERT INTO certificate_ledger AS l (partner, certificate, announced_at, announced_by) VALUES ($1, $2, now(), $3)
    ON CONFLICT (partner, certificate) DO UPDATE SET announced_at = now(), announced_by = $3;

-- asked
-- Partner $1 was asked about the certificate $2: verdict $3, why $4, code $5, proof $6.
INSERT INTO certificate_ledger AS l (partner, certificate, asked_at, verdict, why, code, proof)
VALUES ($1, $2, now(), $3, $4, $5, $6)
    ON CONFLICT (partner, certificate)
    DO UPDATE SET asked_at = now(), verdict = $3, why = $4, code = $5, proof = $6;

-- used
-- Partner $1 took what the certificate $2 signed. No row: that was known.
INSERT INTO certificate_ledger AS l (partner, certificate, used_at) VALUES ($1, $2, now())
    ON CONFLICT (partner, certificate) DO UPDATE SET used_at = now() WHERE l.used_at IS NULL
RETURNING used_at;

-- encrypted
-- Partner $1 encrypted to the certificate $2. No row: that was known.
INSERT INTO certificate_ledger AS l (partner, certificate, encrypted_at) VALUES ($1, $2, now())
    ON CONFLICT (partner, certificate) DO UPDATE SET encrypted_at = now() WHERE l.encrypted_at IS NULL
RETURNING encrypted_at;

-- ledger
-- The rows of certificate $1, or all; of partner $2, or all.
SELECT partner, certificate, announced_at, announced_by, asked_at, verdict, why, code, proof, used_at,
       encrypted_at, returned_at
  FROM certificate_ledger
 WHERE ($1::bytea IS NULL OR certificate = $1) AND ($2::text IS NULL OR partner = $2) ORDER BY certificate, partner;

-- refusals
-- Those of the last $1 seconds, of partner $2 or of all.
SELECT partner, party, certificate, message, code, proof, at, outlived, settled
  FROM signature_refusal
 WHERE at > now() - make_interval(secs => $1) AND ($2::text IS NULL OR partner = $2) ORDER BY number;

-- returned
-- Partner $1 was moved away from the certificate $2 by a ring in force since $3. No row: that was known.
INSERT INTO certificate_ledger AS l (partner, certificate, returned_at) VALUES ($1, $2, now())
    ON CONFLICT (partner, certificate) DO UPDATE SET returned_at = now()
 WHERE l.returned_at IS NULL OR l.returned_at < $3
RETURNING returned_at;

-- tell_backends
-- Write the event $1 with the data $2 for every backend that has webhooks.
INSERT INTO event (type, message, backend, data)
SELECT $1, NULL, backend, $2::json FROM webhook WHERE NOT disabled GROUP BY backend;

-- refusing
-- Errors of the last $1 seconds with one of the proofs $2 that were not outlived, counted.
SELECT partner, min(party) AS party, certificate, count(*) AS count, min(at) AS since
  FROM signature_refusal
 WHERE NOT outlived AND at > now() - make_interval(secs => $1) AND proof = ANY ($2::text[])
 GROUP BY partner, certificate ORDER BY partner, certificate;

-- unsettled
-- Partners and certificates with messages that nothing was done for yet.
SELECT partner, min(party) AS party, certificate, count(*) AS count, min(at) AS since
  FROM signature_refusal WHERE NOT settled GROUP BY partner, certificate ORDER BY partner, certificate;

-- refused
-- Up to $3 messages that partner $1 refused with certificate $2, and that nothing was done for yet.
SELECT message FROM signature_refusal WHERE partner = $1 AND certificate = $2 AND NOT settled
 GROUP BY message ORDER BY min(number) LIMIT $3;

-- settle
-- Nothing is left to be done for message $1 and certificate $2. No row: that was so before.
UPDATE signature_refusal SET settled = true WHERE message = $1 AND certificate = $2 AND NOT settled RETURNING number;

-- prune
-- Forget what is older than $1 seconds.
DELETE FROM signature_refusal WHERE at < now() - make_interval(secs => $1) RETURNING number;
