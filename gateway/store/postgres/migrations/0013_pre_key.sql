-- Our own keys: material, states, choices. What is in use is a revision of a second topic, beside the agreements.

ALTER TABLE agreement_revision
    ADD COLUMN topic text COLLATE "C" NOT NULL DEFAULT 'agreements' CHECK (topic IN ('agreements', 'keys')),
    ADD COLUMN lead double precision NOT NULL DEFAULT 0,   -- seconds between the last acknowledgement and the effect
    ADD COLUMN effective_at timestamptz;
ALTER TABLE agreement_revision DROP CONSTRAINT agreement_revision_pkey, ADD PRIMARY KEY (topic, number);
DROP INDEX agreement_active;
DROP INDEX agreement_proposed;
CREATE UNIQUE INDEX agreement_active ON agreement_revision (topic) WHERE state = 'ACTIVE';
-- One proposal at a time, whatever its topic: agreements are tested with the keys in force, and keys with the agreements.
CREATE UNIQUE INDEX agreement_proposed ON agreement_revision (state) WHERE state = 'PROPOSED';
CREATE TRIGGER agreement_revision_topic BEFORE UPDATE ON agreement_revision FOR EACH ROW
WHEN ((OLD.topic, OLD.lead) IS DISTINCT FROM (NEW.topic, NEW.lead)
      OR OLD.effective_at IS NOT NULL AND OLD.effective_at IS DISTINCT FROM NEW.effective_at)
EXECUTE FUNCTION keep_revision();

ALTER TABLE acknowledgement ADD COLUMN topic text COLLATE "C" NOT NULL DEFAULT 'agreements';
ALTER TABLE acknowledgement DROP CONSTRAINT acknowledgement_pkey, ADD PRIMARY KEY (topic, revision, process);

ALTER TABLE process
    ADD COLUMN ring bigint NOT NULL DEFAULT 0,             -- the revision of the keys in force there
    ADD COLUMN ring_trouble text,                          -- why it is not the active one
    ADD COLUMN kek text COLLATE "C" NOT NULL DEFAULT '';   -- names the key-encryption key it seals with

-- A key is written once. What may change: the certificate comes, the private part is sealed anew or destroyed.
CREATE TABLE own_key (
    id          text COLLATE "C" PRIMARY KEY,
    party       text COLLATE "C",                -- NULL: for every party of ours
    algorithm   text NOT NULL,
    public      bytea NOT NULL,                  -- SubjectPublicKeyInfo
    sealed      bytea,                           -- the private key under the key-encryption key
    token       text,                            -- or the object of a PKCS#11 token
    certificate bytea,
    chain       bytea[] NOT NULL DEFAULT '{}',
    author      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (sealed IS NULL OR token IS NULL)
);
CREATE UNIQUE INDEX own_key_certificate ON own_key (sha256(certificate)) WHERE certificate IS NOT NULL;
CREATE UNIQUE INDEX own_key_requested ON own_key (sha256(public)) WHERE certificate IS NULL;

CREATE FUNCTION keep_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'key % is as it was written', OLD.id USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER own_key_kept BEFORE UPDATE ON own_key FOR EACH ROW
WHEN ((OLD.id, OLD.algorithm, OLD.public, OLD.author, OLD.created_at)
      IS DISTINCT FROM (NEW.id, NEW.algorithm, NEW.public, NEW.author, NEW.created_at)
      OR OLD.party IS DISTINCT FROM NEW.party
      OR OLD.certificate IS NOT NULL AND (OLD.certificate, OLD.chain) IS DISTINCT FROM (NEW.certificate, NEW.chain)
      OR OLD.sealed IS NULL AND NEW.sealed IS NOT NULL
      OR OLD.token IS DISTINCT FROM NEW.token AND NEW.token IS NOT NULL)
EXECUTE FUNCTION keep_key();

CREATE TABLE key_use (
    key   text COLLATE "C" NOT NULL REFERENCES own_key DEFERRABLE INITIALLY DEFERRED,
    use   text COLLATE "C" NOT NULL CHECK (use IN ('sign', 'decrypt', 'tls-server', 'tls-client')),
    state text COLLATE "C" NOT NULL DEFAULT 'PLANNED',
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, use)
);
CREATE TRIGGER key_use_state BEFORE UPDATE OF state ON key_use FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
    ('PLANNED',   'STAGED'),
    ('STAGED',    'ANNOUNCED'),
    ('STAGED',    'ACTIVE'),
    ('ANNOUNCED', 'ACTIVE'),
    ('ACTIVE',    'DRAINING'),
    ('DRAINING',  'ACTIVE'),
    ('ACTIVE',    'STAGED'),
    ('PLANNED',   'RETIRED'),
    ('STAGED',    'RETIRED'),
    ('ANNOUNCED', 'RETIRED'),
    ('DRAINING',  'RETIRED')))
EXECUTE FUNCTION refuse_state();
CREATE TRIGGER key_use_birth BEFORE INSERT ON key_use FOR EACH ROW WHEN (NEW.state <> 'PLANNED')
EXECUTE FUNCTION refuse_birth();

-- Partners that are signed for with another key than the active one; `party` is empty for all parties of ours.
CREATE TABLE key_choice (
    party   text COLLATE "C" NOT NULL,
    partner text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL REFERENCES own_key DEFERRABLE INITIALLY DEFERRED,
    why     text NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (party, partner, key)
);
