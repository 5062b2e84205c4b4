-- Keeping messages back (job state HELD), delivering one once more, and the signed envelope of the
-- last attempt.

DROP TRIGGER job_state ON job;
CREATE TRIGGER job_state BEFORE UPDATE OF state ON job FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
    ('READY',        'CLAIMED'),
    ('READY',        'DONE'),
    ('READY',        'HELD'),
    ('CLAIMED',      'ATTEMPT_OPEN'),
    ('CLAIMED',      'READY'),
    ('CLAIMED',      'DONE'),
    ('CLAIMED',      'PARKED'),
    ('CLAIMED',      'HELD'),
    ('ATTEMPT_OPEN', 'CLAIMED'),
    ('ATTEMPT_OPEN', 'READY'),
    ('ATTEMPT_OPEN', 'DONE'),
    ('ATTEMPT_OPEN', 'PARKED'),
    ('ATTEMPT_OPEN', 'HELD'),
    ('PARKED',       'READY'),
    ('PARKED',       'DONE'),
    ('HELD',         'READY'),
    ('HELD',         'DONE'),
    ('DONE',         'READY')))
EXECUTE FUNCTION refuse_state();

DROP TRIGGER message_state ON message;
CREATE TRIGGER message_state BEFORE UPDATE OF state ON message FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.direction, OLD.state, NEW.state) NOT IN (
    ('inbound',  'RECEIVED',            'DELIVERED'),
    ('inbound',  'DELIVERED',           'RECEIVED'),
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

-- What was signed last. Earlier attempts signed the same header and parts, and theirs is dropped.
ALTER TABLE attempt ADD COLUMN envelope bytea;
ALTER TABLE attempt ALTER COLUMN envelope SET STORAGE EXTERNAL;
