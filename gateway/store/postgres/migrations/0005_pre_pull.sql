-- Pull: messages that wait to be fetched (hold), channels that we fetch from (pull), and receipts that go
-- in a request of their own (receipt).

-- Every row that is there passed a narrower check: it need not be read again.
ALTER TABLE job DROP CONSTRAINT job_kind_check;
ALTER TABLE job ADD CONSTRAINT job_kind_check
    CHECK (kind IN ('send', 'deliver', 'notify', 'hold', 'pull', 'receipt')) NOT VALID;

-- A `hold` job is READY while its message may be pulled; `due_at` is then when it is given up, and, once it was
-- handed out, when its receipt is overdue. `queue` is the channel.
CREATE INDEX job_held ON job (queue, created_at, id) WHERE kind = 'hold' AND state = 'READY';
CREATE INDEX job_due_pull ON job (kind, due_at)
    WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND kind IN ('hold', 'pull', 'receipt');
CREATE UNIQUE INDEX job_of_pulled ON job (message, kind) WHERE kind IN ('hold', 'receipt');
-- One job for each channel we pull from: who holds it pulls, and nobody else.
CREATE UNIQUE INDEX job_of_channel ON job (queue) WHERE kind = 'pull';

-- The data of a job, and in that of a held message how many seconds it will still be kept: by the clock of
-- the database, which no jump of a node's clock disturbs.
CREATE FUNCTION with_left(data json) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN data->>'until' IS NULL THEN data
                ELSE (data::jsonb || jsonb_build_object(
                    'left', (data->>'until')::float8 - extract(epoch FROM now())::float8))::json
           END
$$;

-- PullRequests seen, so that one that is sent again takes no message from its channel. Old ones are refused by
-- their Timestamp, so these may be forgotten after a day.
CREATE TABLE pull_request (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    requester  text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    UNIQUE (requester, message_id)
);

DROP TRIGGER message_state ON message;
CREATE TRIGGER message_state BEFORE UPDATE OF state ON message FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.direction, OLD.state, NEW.state) NOT IN (
    ('inbound',  'RECEIVED',            'DELIVERED'),
    ('inbound',  'DELIVERED',           'PURGED'),
    ('outbound', 'SUBMITTED',           'ACKNOWLEDGED'),
    ('outbound', 'SUBMITTED',           'WAITING_FOR_RETRY'),
    ('outbound', 'SUBMITTED',           'FAILED'),
    ('outbound', 'SUBMITTED',           'CANCELLED'),
    ('outbound', 'WAITING_FOR_RETRY',   'ACKNOWLEDGED'),
    ('outbound', 'WAITING_FOR_RETRY',   'FAILED'),
    ('outbound', 'WAITING_FOR_RETRY',   'CANCELLED'),
    ('outbound', 'FAILED',              'ACKNOWLEDGED'),
    ('outbound', 'FAILED',              'WAITING_FOR_RETRY'),
    ('outbound', 'ACKNOWLEDGED',        'PURGED'),
    ('outbound', 'CANCELLED',           'PURGED'),
    ('outbound', 'READY_TO_PULL',       'WAITING_FOR_RECEIPT'),
    ('outbound', 'READY_TO_PULL',       'ACKNOWLEDGED'),
    ('outbound', 'READY_TO_PULL',       'FAILED'),
    ('outbound', 'READY_TO_PULL',       'CANCELLED'),
    ('outbound', 'WAITING_FOR_RECEIPT', 'READY_TO_PULL'),
    ('outbound', 'WAITING_FOR_RECEIPT', 'ACKNOWLEDGED'),
    ('outbound', 'WAITING_FOR_RECEIPT', 'FAILED'),
    ('outbound', 'FAILED',              'READY_TO_PULL'))
    -- A message of the test service is never delivered.
    AND NOT (OLD.backend IS NULL AND (OLD.direction, OLD.state, NEW.state) = ('inbound', 'RECEIVED', 'PURGED')))
EXECUTE FUNCTION refuse_state();

DROP TRIGGER message_birth ON message;
CREATE TRIGGER message_birth BEFORE INSERT ON message FOR EACH ROW
WHEN ((NEW.direction, NEW.state) NOT IN (
    ('inbound', 'RECEIVED'), ('outbound', 'SUBMITTED'), ('outbound', 'READY_TO_PULL')))
EXECUTE FUNCTION refuse_birth();
