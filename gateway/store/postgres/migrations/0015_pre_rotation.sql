-- How partners take our certificates. A certificate is named by the SHA-256 of its DER form.

-- What each partner was told of a certificate, how it answered when it was asked, since when it uses it.
CREATE TABLE certificate_ledger (
    partner      text COLLATE "C" NOT NULL,
    certificate  bytea NOT NULL CHECK (octet_length(certificate) = 32),
    announced_at timestamptz,
    announced_by text COLLATE "C",               -- the means
    asked_at     timestamptz,
    verdict      text COLLATE "C" CHECK (verdict IN ('green', 'amber', 'unknown')),
    why          text,
    code         text COLLATE "C",
    proof        text COLLATE "C" CHECK (proof IN ('signature', 'tls', 'none')),
    used_at      timestamptz,                    -- the first receipt for what it signed
    encrypted_at timestamptz,                    -- the first message that was encrypted to it
    returned_at  timestamptz,                    -- given up for this partner, who refused it
    PRIMARY KEY (partner, certificate),
    CHECK (num_nulls(announced_at, announced_by) IN (0, 2)),
    CHECK (num_nulls(asked_at, verdict, why) IN (0, 3))
);

-- Errors that may mean: I do not trust the certificate that signed this. Written with the attempt they end,
-- outlived by the next receipt for the same signer: what is not outlived is what happened since the last success.
CREATE TABLE signature_refusal (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner     text COLLATE "C" NOT NULL,
    party       text COLLATE "C" NOT NULL,       -- the partner's id without its type
    certificate bytea NOT NULL CHECK (octet_length(certificate) = 32),
    message     uuid NOT NULL,
    code        text COLLATE "C" NOT NULL,
    proof       text COLLATE "C" NOT NULL CHECK (proof IN ('signature', 'tls', 'none')),
    at          timestamptz NOT NULL DEFAULT now(),
    outlived    boolean NOT NULL DEFAULT false,
    settled     boolean NOT NULL DEFAULT false   -- the message was taken, given up, or queued to be signed otherwise
);
-- Every receipt looks here, and finds nothing on nearly every day.
CREATE INDEX signature_refusal_standing ON signature_refusal (partner, certificate) WHERE NOT outlived;
CREATE INDEX signature_refusal_unsettled ON signature_refusal (partner, certificate, message) WHERE NOT settled;
CREATE INDEX signature_refusal_by_time ON signature_refusal (at);

-- Which certificate (its SHA-256) signed an attempt: evidence, and what a refusal is about.
ALTER TABLE attempt ADD COLUMN signer bytea;
