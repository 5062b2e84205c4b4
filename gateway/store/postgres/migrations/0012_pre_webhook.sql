-- Webhooks keep the secret they had for a while, and what they were told can be looked at: a `notify` job
-- stays when it is done, with its attempts, until it is pruned.

ALTER TABLE webhook ADD COLUMN sealed_previous bytea, ADD COLUMN previous_until timestamptz;

-- The newest attempts to tell a webhook; of other jobs none.
ALTER TABLE job ADD COLUMN attempts jsonb NOT NULL DEFAULT '[]';

-- Notifications are claimed by queue, too: a webhook that is down must not be in the way of another.
CREATE INDEX job_notify_due ON job (queue, due_at)
    WHERE kind = 'notify' AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN');
CREATE INDEX job_of_webhook ON job (queue, created_at, id) WHERE kind = 'notify';
