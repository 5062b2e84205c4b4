-- The ledger of agreement updates. A row with a due time is a job of its own.

CREATE TABLE agreement_update (
    id                uuid PRIMARY KEY,
    direction         text COLLATE "C" NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    kind              text COLLATE "C" NOT NULL CHECK (kind IN ('update', 'termination')),
    state             text COLLATE "C" NOT NULL,
    partner           text COLLATE "C" NOT NULL,
    party             text COLLATE "C" NOT NULL,
    ours              text COLLATE "C" NOT NULL,      -- our party
    reference         text COLLATE "C" NOT NULL,      -- the id of the document
    document          bytea NOT NULL,
    message_id        text COLLATE "C" NOT NULL,
    conversation_id   text COLLATE "C" NOT NULL,
    current           text NOT NULL,
    updated           text,
    certificates      text[] COLLATE "C" NOT NULL,
    signer            text COLLATE "C",
    respond_by        timestamptz,
    activate_by       timestamptz,
    actor             text,
    code              text,
    detail            text,
    answer            bytea,
    answer_message_id text COLLATE "C",
    answered_at       timestamptz,
    receipted_at      timestamptz,
    late              boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    changed_at        timestamptz NOT NULL DEFAULT now(),
    due_at            timestamptz DEFAULT now(),
    claim             uuid,
    attempt           integer NOT NULL DEFAULT 0,
    UNIQUE (direction, partner, reference)
);
CREATE INDEX agreement_update_due ON agreement_update (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX agreement_update_newest ON agreement_update (created_at, id);

CREATE TRIGGER agreement_update_birth BEFORE INSERT ON agreement_update FOR EACH ROW
WHEN ((NEW.direction, NEW.state) NOT IN (('inbound', 'RECEIVED'), ('outbound', 'PREPARED')))
EXECUTE FUNCTION refuse_birth();
CREATE TRIGGER agreement_update_state BEFORE UPDATE OF state ON agreement_update FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.direction, OLD.state, NEW.state) NOT IN (
    ('inbound',  'RECEIVED',    'WAITING'),
    ('inbound',  'RECEIVED',    'APPROVED'),
    ('inbound',  'RECEIVED',    'REFUSED'),
    ('inbound',  'WAITING',     'APPROVED'),
    ('inbound',  'WAITING',     'REFUSED'),
    ('inbound',  'APPROVED',    'TAKEN'),
    ('inbound',  'APPROVED',    'REFUSED'),
    ('outbound', 'PREPARED',    'SENT'),
    ('outbound', 'PREPARED',    'UNDELIVERED'),
    ('outbound', 'SENT',        'ACCEPTED'),
    ('outbound', 'SENT',        'REJECTED'),
    ('outbound', 'SENT',        'TIMED_OUT'),
    ('outbound', 'SENT',        'UNDELIVERED'),
    ('outbound', 'TIMED_OUT',   'ACCEPTED'),
    ('outbound', 'TIMED_OUT',   'REJECTED'),
    ('outbound', 'UNDELIVERED', 'ACCEPTED'),
    ('outbound', 'UNDELIVERED', 'REJECTED')))
EXECUTE FUNCTION refuse_state();
