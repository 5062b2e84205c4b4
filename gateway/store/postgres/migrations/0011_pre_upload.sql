-- Content that a client brings before the submission that refers to it, in sealed pieces.

CREATE TABLE upload (
    id              uuid PRIMARY KEY,
    client          text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C",
    size            bigint NOT NULL,
    received        bigint NOT NULL DEFAULT 0,   -- from here on it is resumed
    generation      integer NOT NULL DEFAULT 0,  -- counts writers; only the last may write
    sha256          bytea,                       -- what the client promised of the whole
    wrapped_key     bytea NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    UNIQUE (client, idempotency_key),
    CHECK (received BETWEEN 0 AND size)
);
CREATE INDEX upload_expires ON upload (expires_at);

-- `generation` and `number` are the place a piece is sealed for: no place is ever used twice.
CREATE TABLE upload_chunk (
    upload     uuid NOT NULL REFERENCES upload ON DELETE CASCADE,
    position   bigint NOT NULL,
    generation integer NOT NULL,
    number     integer NOT NULL,
    content    bytea NOT NULL,
    PRIMARY KEY (upload, position)
);
ALTER TABLE upload_chunk ALTER COLUMN content SET STORAGE EXTERNAL;
