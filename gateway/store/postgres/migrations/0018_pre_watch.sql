-- What was told of certificates that come to their end: once for all nodes, whoever looks and however often it
-- starts. A row from the future was written under a clock that was wrong, and does not count.

CREATE TABLE expiry_told (
    certificate text COLLATE "C" NOT NULL,  -- SHA-256 in hexadecimal; of a revocation list what its reader calls it
    about       text COLLATE "C" NOT NULL CHECK (about IN ('expiry', 'successor')),
    threshold   integer NOT NULL,           -- days before the end
    told_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (certificate, about, threshold)
);

-- What the operator's hook is told. `due_at` is when it may be claimed, as in `job`.
CREATE TABLE alert (
    id      uuid PRIMARY KEY,               -- that of its event
    at      timestamptz NOT NULL DEFAULT now(),
    type    text COLLATE "C" NOT NULL,
    data    json NOT NULL,
    state   text COLLATE "C" NOT NULL DEFAULT 'READY' CHECK (state IN ('READY', 'CLAIMED', 'DONE', 'PARKED')),
    due_at  timestamptz NOT NULL DEFAULT now(),
    claim   uuid,
    attempt integer NOT NULL DEFAULT 0,
    error   text,
    CHECK ((state = 'CLAIMED') = (claim IS NOT NULL))
);
CREATE INDEX alert_due ON alert (due_at) WHERE state IN ('READY', 'CLAIMED');

-- What somebody has done with a message is in the audit, in the commit of its event. At the end of the
-- transaction: the head of the audit is the last thing that anybody locks.
CREATE FUNCTION audit_of_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM append_audit(NEW.type, coalesce(NEW.data->>'by', '-'), message.message_id,
                         json_build_object('direction', direction, 'partner', partner))
       FROM message WHERE message.id = NEW.message;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER event_to_audit AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.type IN ('message.cancelled', 'message.resent', 'message.held', 'message.released', 'message.redelivered'))
EXECUTE FUNCTION audit_of_event();
