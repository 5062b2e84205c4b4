-- The ledger of migrations.

-- ledger_exists
-- Whether anything was ever applied to this schema.
SELECT to_regclass('migration') IS NOT NULL AS found;

-- applied
-- What was applied.
SELECT number, phase, checksum FROM migration;

-- lock
-- One node at a time migrates the schema $1; the lock ends with the connection.
SELECT pg_try_advisory_lock(hashtext('oots-as4-gateway migrate'), hashtext($1));

-- schema_exists
-- Whether the schema $1 is there.
SELECT to_regnamespace(quote_ident($1)) IS NOT NULL;

-- schema_statement
-- The statement that makes the schema $1.
SELECT format('CREATE SCHEMA %I', $1::text);

-- ledger
-- The table of what was applied.
CREATE TABLE IF NOT EXISTS migration (
    number     integer NOT NULL,
    phase      text NOT NULL,
    name       text NOT NULL,
    checksum   bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (number, phase)
);

-- patience
-- DDL that waits for a lock holds up everybody behind it: better to give up soon and try again.
SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '0', true);

-- note
-- Migration $1 $2 $3 with the checksum $4 is applied.
INSERT INTO migration (number, phase, name, checksum) VALUES ($1, $2, $3, $4);
