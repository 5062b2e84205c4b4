-- Webhooks, and the notices they are sent.

-- add_webhook
-- A webhook with the id $1.
INSERT INTO webhook (id, backend, url, sealed_secret, events, disabled, client, sealed_previous, previous_until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- webhooks
-- The webhooks of backend $1 and of client $2; NULL: whatever they are.
SELECT id, backend, url, sealed_secret, events, disabled, client, sealed_previous, previous_until FROM webhook
 WHERE ($1::text IS NULL OR backend = $1) AND ($2::text IS NULL OR client = $2) ORDER BY created_at, id;

-- webhook
-- Webhook $1, unless its client was revoked.
SELECT webhook.id, webhook.backend, url, sealed_secret, events, disabled, client, sealed_previous, previous_until
  FROM webhook LEFT JOIN client AS owner ON owner.id = webhook.client
 WHERE webhook.id = $1 AND NOT coalesce(owner.revoked, false);

-- change_webhook
-- Webhook $1 of client $2 has the URL $3, the events $4 and is disabled as $5 says; NULL: as before.
UPDATE webhook SET url = coalesce($3, url), events = coalesce($4::text[], events), disabled = coalesce($5, disabled)
 WHERE id = $1 AND client = $2
RETURNING id, backend, url, sealed_secret, events, disabled, client, sealed_previous, previous_until;

-- rotate_webhook
-- Webhook $1 of client $2 signs with the secret $3 instead of $6, and for $4 seconds at least with those in $5.
UPDATE webhook
   SET sealed_secret = $3, sealed_previous = $5,
       previous_until = CASE WHEN $4 <= 0 THEN now()
                             ELSE greatest(previous_until, now() + make_interval(secs => $4)) END
 WHERE id = $1 AND client = $2 AND sealed_secret = $6
RETURNING id, backend, url, sealed_secret, events, disabled, client, sealed_previous, previous_until;

-- remove_webhook
-- Webhook $1 of client $2 goes, and with it what it was told and was still to be told.
WITH gone AS (
    DELETE FROM webhook WHERE id = $1 AND client = $2 RETURNING id
), unsaid AS (
    DELETE FROM job USING gone WHERE job.kind = 'notify' AND job.queue = gone.id
)
SELECT id FROM gone;

-- disable_webhook
-- Webhook $1 is told nothing any more.
UPDATE webhook SET disabled = true WHERE id = $1;

-- test_webhook
-- A notice with the data $3 for webhook $1 of client $2.
INSERT INTO job (kind, queue, data) SELECT 'notify', id, $3::text::json FROM webhook WHERE id = $1 AND client = $2
RETURNING id;

-- finish_notify
-- Attempt $4 of the notice $1 ended, under the claim $2, from one of $5: it goes to state $3, due in $6 seconds,
-- with the error $7. The newest $8 attempts are kept. No row: the claim was lost.
UPDATE job
   SET state = $3, claim = NULL, claimed_by = NULL, error = $7, lost = 0,
       due_at = CASE WHEN $3 = 'READY' THEN now() + make_interval(secs => $6) ELSE due_at END,
       attempts = jsonb_path_query_array(attempts, '$[$from to last]',
                                         jsonb_build_object('from', greatest(0, jsonb_array_length(attempts) - $8 + 1)))
                  || ($4::text::jsonb || jsonb_build_object('at', now()))
 WHERE id = $1 AND claim = $2 AND kind = 'notify' AND state = ANY ($5::text[])
RETURNING id;

-- notices
-- Up to $6 notices of webhook $1 of client $2 in one of the states $3, newest first, after ($4, $5).
SELECT job.id, job.queue, job.state, job.message, job.created_at, job.due_at, job.data, job.attempts
  FROM job
  JOIN webhook ON webhook.id = job.queue AND webhook.client = $2
  LEFT JOIN client ON client.id = webhook.client
  LEFT JOIN message AS m ON m.id = job.message
 WHERE job.kind = 'notify' AND job.queue = $1 AND job.state = ANY ($3::text[])
   AND ($4::timestamptz IS NULL OR (job.created_at, job.id) < ($4, $5::uuid))
   AND (m.id IS NULL OR in_scope(client.scope, m))
 ORDER BY job.created_at DESC, job.id DESC
 LIMIT $6;

-- notice
-- The notice $1 of webhook $2 of client $3.
SELECT job.id, job.queue, job.state, job.message, job.created_at, job.due_at, job.data, job.attempts
  FROM job
  JOIN webhook ON webhook.id = job.queue AND webhook.client = $3
  LEFT JOIN client ON client.id = webhook.client
  LEFT JOIN message AS m ON m.id = job.message
 WHERE job.id = $1 AND job.kind = 'notify' AND job.queue = $2
   AND (m.id IS NULL OR in_scope(client.scope, m));

-- notify_again
-- The notice $1 of webhook $2 of client $3 is due at once, unless somebody is at it.
UPDATE job SET state = 'READY', claim = NULL, claimed_by = NULL, due_at = now(), attempt = 0, lost = 0, error = NULL
  FROM webhook
 WHERE job.id = $1 AND job.kind = 'notify' AND job.queue = $2 AND webhook.id = job.queue AND webhook.client = $3
   AND (job.state = ANY ($4::text[]) OR job.due_at <= now())
   AND (job.message IS NULL OR EXISTS (SELECT FROM message AS m LEFT JOIN client ON client.id = $3
                                        WHERE m.id = job.message AND in_scope(client.scope, m)))
RETURNING job.id;

-- prune_notices
-- Up to $4 notices go that were delivered longer than $1 seconds ago or parked longer than $2, or are not among
-- the newest $3 (parked: ten times as many) of their webhook.
DELETE FROM job
 WHERE state IN ('DONE', 'PARKED') AND id IN (
    SELECT id FROM (
        SELECT id, state, created_at, row_number() OVER (PARTITION BY queue, state ORDER BY created_at DESC, id DESC) AS place
          FROM job WHERE kind = 'notify' AND state IN ('DONE', 'PARKED')) AS told
     WHERE CASE state WHEN 'DONE' THEN created_at < now() - make_interval(secs => $1) OR place > $3
                      ELSE created_at < now() - make_interval(secs => $2) OR place > $3::bigint * 10 END
     LIMIT $4)
RETURNING id;

-- drop_orphans
-- Notices that were written while their webhook was being removed go.
DELETE FROM job WHERE kind = 'notify' AND NOT EXISTS (SELECT FROM webhook WHERE webhook.id = job.queue) RETURNING id;
