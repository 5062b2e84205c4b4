-- The queue. `due_at` is when a job may be claimed: its time, or the end of the lease of
-- whoever holds it. A job whose claimer died is simply due again, on any node.

CREATE TABLE job (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('send', 'deliver', 'notify')),
    state      text COLLATE "C" NOT NULL DEFAULT 'READY',
    queue      text COLLATE "C" NOT NULL,  -- send: the partner; deliver: the backend; notify: the webhook
    message    uuid,
    due_at     timestamptz NOT NULL DEFAULT now(),
    claim      uuid,
    claimed_by text,
    attempt    integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    error      text,
    data       json NOT NULL DEFAULT '{}',
    CHECK (state NOT IN ('CLAIMED', 'ATTEMPT_OPEN') OR claim IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- Deliveries are claimed by queue: a consumer that is away with a million messages waiting must
-- not be in the way of another.
CREATE INDEX job_due ON job (kind, due_at)
    WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND kind IN ('send', 'notify');
CREATE INDEX job_due_by_queue ON job (queue, due_at)
    WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND kind = 'deliver';
CREATE INDEX job_parked ON job (kind) WHERE state = 'PARKED';
-- A message is sent by one job, delivered by one job, and told about by many.
CREATE UNIQUE INDEX job_of_message ON job (message, kind) WHERE kind IN ('send', 'deliver');
CREATE INDEX job_notify_of_message ON job (message) WHERE kind = 'notify';

CREATE TRIGGER job_state BEFORE UPDATE OF state ON job FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
    ('READY',        'CLAIMED'),
    ('READY',        'DONE'),
    ('CLAIMED',      'ATTEMPT_OPEN'),
    ('CLAIMED',      'READY'),
    ('CLAIMED',      'DONE'),
    ('CLAIMED',      'PARKED'),
    ('ATTEMPT_OPEN', 'CLAIMED'),
    ('ATTEMPT_OPEN', 'READY'),
    ('ATTEMPT_OPEN', 'DONE'),
    ('ATTEMPT_OPEN', 'PARKED'),
    ('PARKED',       'READY'),
    ('PARKED',       'DONE'),
    ('DONE',         'READY')))
EXECUTE FUNCTION refuse_state();

CREATE TRIGGER job_birth BEFORE INSERT ON job FOR EACH ROW WHEN (NEW.state <> 'READY')
EXECUTE FUNCTION refuse_birth();
