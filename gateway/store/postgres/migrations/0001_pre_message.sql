-- Messages, their parts and chunks, attempts, events, and what decides duplicates.
--
-- Every key is COLLATE "C": compared byte by byte, as ebMS wants its ids compared; quick; and
-- no upgrade of the operating system's collations can spoil an index.
-- Header, steps and references are `json`, not `jsonb`: they are written once and read whole.

CREATE TABLE message (
    id                uuid PRIMARY KEY,
    direction         text COLLATE "C" NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    state             text COLLATE "C" NOT NULL,
    tenant            text COLLATE "C" NOT NULL,   -- our party
    partner           text COLLATE "C" NOT NULL,   -- the other one
    message_id        text COLLATE "C" NOT NULL,
    conversation_id   text COLLATE "C" NOT NULL,
    ref_to_message_id text COLLATE "C",
    service           text COLLATE "C" NOT NULL,
    action            text COLLATE "C" NOT NULL,
    backend           text COLLATE "C",            -- NULL: the test service, delivered to nobody
    client            text COLLATE "C",
    pmode_id          text COLLATE "C" NOT NULL,
    pmode_revision    bigint NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    changed_at        timestamptz NOT NULL DEFAULT now(),
    deadline          timestamptz,
    receipt_at        timestamptz,
    error_code        text COLLATE "C",
    error_detail      text,
    header            json NOT NULL,               -- the UserMessage
    fingerprint       bytea NOT NULL,
    references_digest bytea,                       -- inbound: of the signed references
    wrapped_key       bytea,                       -- NULL once the payloads are erased
    envelope          bytea,
    signer            bytea,
    receipt           bytea,
    findings          text[] NOT NULL DEFAULT '{}',
    steps             json NOT NULL DEFAULT '[]',
    CHECK (direction = 'outbound' OR num_nulls(references_digest, envelope, signer, receipt) = 0),
    CHECK (state <> 'FAILED' OR error_code IS NOT NULL)
) WITH (fillfactor = 80);  -- room for the one or two changes of state on the same page

-- What is signed is base64 and digests: compressing it costs more than it saves.
ALTER TABLE message ALTER COLUMN envelope SET STORAGE EXTERNAL;
ALTER TABLE message ALTER COLUMN receipt SET STORAGE EXTERNAL;
ALTER TABLE message ALTER COLUMN signer SET STORAGE EXTERNAL;

-- The keys that decide what is a duplicate. Named by ON CONFLICT; no other violation is one.
CREATE UNIQUE INDEX message_received_once ON message (tenant, partner, message_id) WHERE direction = 'inbound';
CREATE UNIQUE INDEX message_submitted_once ON message (tenant, message_id) WHERE direction = 'outbound';
CREATE INDEX message_by_message_id ON message (message_id);
CREATE INDEX message_by_conversation ON message (conversation_id);
CREATE INDEX message_by_time ON message (created_at, id);
-- No index names `state`: a change of state then stays on its page and writes no index at all.
-- What is open still has its key, and what failed has an error, and those change rarely.
CREATE INDEX message_with_payload ON message (direction, created_at, id) WHERE wrapped_key IS NOT NULL;
CREATE INDEX message_with_error ON message (created_at, id) WHERE error_code IS NOT NULL;

-- The second wall behind the statements: no change of state but those of states.py, whoever asks.
CREATE FUNCTION refuse_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a % may not go from % to %', TG_TABLE_NAME, OLD.state, NEW.state USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER message_state BEFORE UPDATE OF state ON message FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.direction, OLD.state, NEW.state) NOT IN (
    ('inbound',  'RECEIVED',          'DELIVERED'),
    ('inbound',  'DELIVERED',         'PURGED'),
    ('outbound', 'SUBMITTED',         'ACKNOWLEDGED'),
    ('outbound', 'SUBMITTED',         'WAITING_FOR_RETRY'),
    ('outbound', 'SUBMITTED',         'FAILED'),
    ('outbound', 'SUBMITTED',         'CANCELLED'),
    ('outbound', 'WAITING_FOR_RETRY', 'ACKNOWLEDGED'),
    ('outbound', 'WAITING_FOR_RETRY', 'FAILED'),
    ('outbound', 'WAITING_FOR_RETRY', 'CANCELLED'),
    ('outbound', 'FAILED',            'ACKNOWLEDGED'),
    ('outbound', 'FAILED',            'WAITING_FOR_RETRY'),
    ('outbound', 'ACKNOWLEDGED',      'PURGED'),
    ('outbound', 'CANCELLED',         'PURGED'))
    -- A message of the test service is never delivered.
    AND NOT (OLD.backend IS NULL AND (OLD.direction, OLD.state, NEW.state) = ('inbound', 'RECEIVED', 'PURGED')))
EXECUTE FUNCTION refuse_state();

CREATE FUNCTION refuse_birth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a % may not begin as %', TG_TABLE_NAME, NEW.state USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER message_birth BEFORE INSERT ON message FOR EACH ROW
WHEN ((NEW.direction, NEW.state) NOT IN (('inbound', 'RECEIVED'), ('outbound', 'SUBMITTED')))
EXECUTE FUNCTION refuse_birth();

-- A payload: its facts, and its sealed content when that is small. No foreign key here, nor on
-- attempt and job: their rows are made by the statement that makes or finds the message, no
-- statement deletes a message, and each key check costs a tenth of a receive.
CREATE TABLE part (
    message uuid NOT NULL,
    number  integer NOT NULL,
    facts   json NOT NULL,        -- info, cid, mime_type, size, sha256, compressed, wire_size, wire_digest
    inline  bytea,
    chunks  integer NOT NULL,
    PRIMARY KEY (message, number)
);
ALTER TABLE part ALTER COLUMN inline SET STORAGE EXTERNAL;

-- Sealed pieces of a large payload. Written before their message, in the same transaction.
CREATE TABLE chunk (
    message uuid NOT NULL REFERENCES message DEFERRABLE INITIALLY DEFERRED,
    part    integer NOT NULL,
    number  integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (message, part, number)
);
ALTER TABLE chunk ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE TABLE attempt (
    message      uuid NOT NULL,
    number       integer NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    node         text NOT NULL,
    signed       json NOT NULL,   -- the references of the signature
    outcome      text,
    error_code   text COLLATE "C",
    error_detail text,
    http_status  integer,
    steps        json NOT NULL DEFAULT '[]',
    PRIMARY KEY (message, number)
) WITH (fillfactor = 80);

-- What happened, for people, feeds and webhooks. `xid` lets a feed wait for writers that
-- took a number before others but commit after them.
CREATE TABLE event (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id      uuid NOT NULL DEFAULT gen_random_uuid(),  -- for the outside: a restored backup counts numbers anew
    at      timestamptz NOT NULL DEFAULT now(),
    xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    type    text COLLATE "C" NOT NULL,
    message uuid,
    backend text COLLATE "C",
    data    json NOT NULL
);
CREATE INDEX event_by_message ON event (message) WHERE message IS NOT NULL;

-- The barrier: a duplicate is answered only after this row is durable. WAL is ordered, so the
-- message it came for is durable then, too.
CREATE TABLE duplicate_seen (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    message uuid NOT NULL
);

CREATE TABLE idempotency (
    client      text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    message     uuid NOT NULL,
    fingerprint bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, key)
);
CREATE INDEX idempotency_by_message ON idempotency (message);

-- For statements that must write all or nothing and find in the end that they cannot.
CREATE FUNCTION abandon(reason text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', reason USING ERRCODE = 'transaction_rollback';
END $$;
