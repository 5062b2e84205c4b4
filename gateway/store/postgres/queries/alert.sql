-- What was told of certificates, and the alerts for the operator's hook.

-- now
-- The database's clock.
SELECT clock_timestamp() AS now;

-- tell
-- Of the certificates $1, about $2, at the thresholds $3 those that were not told yet, neither at this threshold nor
-- at a more urgent one. What was told more than a day from now was told under a wrong clock.
INSERT INTO expiry_told AS told (certificate, about, threshold)
SELECT due.certificate, due.about, due.threshold
  FROM unnest($1::text[], $2::text[], $3::int[]) AS due (certificate, about, threshold)
 WHERE NOT EXISTS (
     SELECT FROM expiry_told AS before
      WHERE before.certificate = due.certificate AND before.about = due.about AND before.threshold <= due.threshold
        AND before.told_at <= now() + interval '1 day')
 ORDER BY due.certificate, due.about, due.threshold  -- two nodes take the rows in one order
    ON CONFLICT (certificate, about, threshold)
    DO UPDATE SET told_at = now() WHERE told.told_at > now() + interval '1 day'
RETURNING certificate, about, threshold;

-- raise
-- An alert of type $1 with the data $2: an event, and a notice for every webhook that asks for the type by name and
-- whose client sees everything.
WITH said AS (
    INSERT INTO event (type, data) VALUES ($1, $2::text::json) RETURNING id, type, data
), alerted AS (
    INSERT INTO alert (id, type, data) SELECT id, type, data FROM said RETURNING id
), noticed AS (
    INSERT INTO job (kind, queue, data)
    SELECT 'notify', webhook.id, (said.data::jsonb || jsonb_build_object('id', said.id, 'type', said.type))::json
      FROM said, webhook LEFT JOIN client ON client.id = webhook.client
     WHERE NOT webhook.disabled AND said.type = ANY (webhook.events)
       AND (client.id IS NULL OR NOT client.revoked AND client.scope = '{}')
)
SELECT id FROM alerted;

-- claim
-- An alert that is due and not older than $2 seconds, for $1 seconds.
WITH due AS (
    SELECT id FROM alert
     WHERE state IN ('READY', 'CLAIMED') AND due_at <= now() AND at > now() - make_interval(secs => $2)
     ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE alert SET state = 'CLAIMED', claim = gen_random_uuid(), attempt = attempt + 1,
                 due_at = now() + make_interval(secs => $1)
  FROM due WHERE alert.id = due.id
RETURNING alert.id, at, type, data, claim, attempt;

-- finish
-- Alert $1, under the claim $2, goes to state $3, due in $4 seconds, with the error $5. No row: the claim was lost.
UPDATE alert SET state = $3, claim = NULL, due_at = now() + make_interval(secs => $4), error = $5
 WHERE id = $1 AND claim = $2 RETURNING id;

-- forget
-- Alerts older than $1 seconds go, and what was told of certificates longer ago than $2.
WITH gone AS (
    DELETE FROM alert WHERE at < now() - make_interval(secs => $1) RETURNING id
), told AS (
    DELETE FROM expiry_told WHERE told_at < now() - make_interval(secs => $2) RETURNING certificate
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM told) AS count;
