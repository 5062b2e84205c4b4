-- Revisions of the agreements, the processes that serve them, and what each process says of a new one.

CREATE TABLE agreement_revision (
    number      bigint PRIMARY KEY,              -- 1, 2, 3 … without gaps
    state       text COLLATE "C" NOT NULL,
    base        bigint NOT NULL,                 -- what was active when it was planned; 0: nothing
    content     bytea NOT NULL,                  -- the bundle in its canonical form
    sha256      bytea NOT NULL CHECK (sha256 = sha256(content)),
    author      text NOT NULL,
    reason      text NOT NULL,
    restores    bigint,                          -- a rollback: the revision whose content this is
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,                     -- a proposal that is not settled then is refused
    settled_at  timestamptz,
    refusal     text
);
CREATE UNIQUE INDEX agreement_active ON agreement_revision (state) WHERE state = 'ACTIVE';
CREATE UNIQUE INDEX agreement_proposed ON agreement_revision (state) WHERE state = 'PROPOSED';
CREATE INDEX agreement_by_content ON agreement_revision (sha256);

-- The second wall behind the statements: what a revision says never changes, and it goes one way only.
CREATE FUNCTION keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'revision % is as it was written', OLD.number USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER agreement_revision_kept BEFORE UPDATE ON agreement_revision FOR EACH ROW
WHEN ((OLD.number, OLD.base, OLD.sha256, OLD.author, OLD.reason, OLD.created_at)
      IS DISTINCT FROM (NEW.number, NEW.base, NEW.sha256, NEW.author, NEW.reason, NEW.created_at)
      OR OLD.content <> NEW.content OR OLD.restores IS DISTINCT FROM NEW.restores)
EXECUTE FUNCTION keep_revision();
CREATE TRIGGER agreement_revision_state BEFORE UPDATE OF state ON agreement_revision FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
    ('PROPOSED', 'ACTIVE'),
    ('PROPOSED', 'REFUSED'),
    ('ACTIVE',   'SUPERSEDED')))
EXECUTE FUNCTION refuse_state();
CREATE TRIGGER agreement_revision_birth BEFORE INSERT ON agreement_revision FOR EACH ROW
WHEN (NEW.state NOT IN ('PROPOSED', 'ACTIVE'))
EXECUTE FUNCTION refuse_birth();

-- One row, locked by whoever changes a revision. `watched_since`: since when somebody has looked without
-- a gap. After an outage nobody has beaten for a while, and nobody is dead for that reason.
CREATE TABLE agreement_watch (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    watched_at    timestamptz NOT NULL DEFAULT now(),
    watched_since timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);

-- The processes that serve agreements. Whoever has not beaten for a while is dead and asked nothing.
CREATE TABLE process (
    id         uuid PRIMARY KEY,
    node       text COLLATE "C" NOT NULL,
    place      text COLLATE "C" NOT NULL,        -- the worker's place on its node
    revision   bigint NOT NULL,                  -- in force there
    trouble    text,                             -- why it is not the active one
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE acknowledgement (
    revision bigint NOT NULL,
    process  uuid NOT NULL,
    node     text COLLATE "C" NOT NULL,
    place    text COLLATE "C" NOT NULL,
    ok       boolean NOT NULL,
    why      text,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision, process)
);
