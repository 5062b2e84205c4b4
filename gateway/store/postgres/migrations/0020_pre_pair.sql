-- The nodes that share this database, and which one of them is active. Nothing but calm rests on it: unique keys and
-- claim tokens keep apart what two active nodes do.

CREATE TABLE node (
    name     text COLLATE "C" PRIMARY KEY,
    instance uuid NOT NULL,                -- of its data folder: the same name from another one is another node
    roles    text COLLATE "C" NOT NULL,    -- as it is configured
    trouble  text,                         -- why it could not work
    drained  boolean NOT NULL DEFAULT false,
    gone     boolean NOT NULL DEFAULT false,  -- it left in order
    seen_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE lease (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder     text COLLATE "C" NOT NULL,
    instance   uuid NOT NULL,
    timeline   bigint NOT NULL,            -- of the server: one that lost the last commits may repeat an epoch
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- What the commit of this very session waits for: its setting, and `alone` where no standby is asked to confirm.
CREATE FUNCTION durability() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT current_setting('synchronous_commit')
        || CASE WHEN current_setting('synchronous_standby_names') = '' THEN ' alone' ELSE '' END
$$;

-- The timeline this server writes on: one more after every promotion and every restore to a point in time.
CREATE FUNCTION timeline() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pg_is_in_recovery() THEN 0
                ELSE ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint END
$$;
