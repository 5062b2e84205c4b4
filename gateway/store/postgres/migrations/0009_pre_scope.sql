-- What a client may see: several credentials, a scope, and a wall of row-level security behind the
-- statements [threats L01]. `gateway/scope.py` has the same rule in Python.

ALTER TABLE client ADD COLUMN scope jsonb NOT NULL DEFAULT '{}';
ALTER TABLE client ALTER COLUMN token_hash DROP NOT NULL;

-- How a client shows who it is. `key` finds it: the hash of a token, a login name, the SHA-256 of a
-- certificate, or issuer and subject of a signed token. `verifier` is the hash of a password.
CREATE TABLE credential (
    id         text COLLATE "C" PRIMARY KEY,
    client     text COLLATE "C" NOT NULL REFERENCES client DEFERRABLE INITIALLY DEFERRED,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('token', 'password', 'certificate', 'subject')),
    key        text COLLATE "C" NOT NULL,
    verifier   text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked    boolean NOT NULL DEFAULT false,
    UNIQUE (kind, key),
    CHECK ((kind = 'password') = (verifier IS NOT NULL))
);
CREATE INDEX credential_of_client ON credential (client);
INSERT INTO credential (id, client, kind, key, created_at, revoked)
SELECT 'cr_' || substr(encode(sha256(token_hash), 'hex'), 1, 12), id, 'token', encode(token_hash, 'hex'), created_at, revoked
  FROM client WHERE token_hash IS NOT NULL;

-- For whom a message is: the value of the property and, with a type, also `type:value`.
ALTER TABLE message ADD COLUMN original_sender text[] COLLATE "C", ADD COLUMN final_recipient text[] COLLATE "C";

CREATE FUNCTION names_of(header json, property text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p->>'type' IS NULL OR p->>'type' = '' THEN ARRAY[p->>'value']
                ELSE ARRAY[p->>'value', (p->>'type') || ':' || (p->>'value')] END
      FROM json_array_elements(header->'properties') WITH ORDINALITY AS listed (p, place)
     WHERE p->>'name' = property ORDER BY place LIMIT 1
$$;
UPDATE message SET original_sender = names_of(header, 'originalSender'), final_recipient = names_of(header, 'finalRecipient');

CREATE FUNCTION in_scope(scope jsonb, m message) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT scope IS NULL OR scope = '{}' OR coalesce(
        (NOT scope ? 'partners'
            OR scope->'partners' ?| ARRAY[m.partner, m.header->(CASE m.direction WHEN 'inbound' THEN 'from_party' ELSE 'to_party' END)->>'value'])
        AND (NOT scope ? 'services' OR scope->'services' ? m.service)
        AND (NOT scope ? 'actions' OR scope->'actions' ? m.action)
        AND CASE m.direction WHEN 'outbound' THEN NOT scope ? 'original_senders' OR scope->'original_senders' ?| m.original_sender
                             ELSE NOT scope ? 'final_recipients' OR scope->'final_recipients' ?| m.final_recipient END,
        false)
$$;

-- A webhook is told only what the client that registered it may see.
ALTER TABLE webhook ADD COLUMN client text COLLATE "C";

CREATE OR REPLACE FUNCTION tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Most backends have none, and to look costs a third of an INSERT that finds nothing to insert.
    IF NOT EXISTS (SELECT FROM webhook WHERE backend = NEW.backend AND NOT disabled) THEN
        RETURN NULL;
    END IF;
    INSERT INTO job (kind, queue, message, data)
    SELECT 'notify', webhook.id, NEW.message,
           (NEW.data::jsonb || jsonb_build_object(
               'id', NEW.id, 'type', NEW.type,
               'message_id', message.message_id, 'conversation_id', message.conversation_id))::json
      FROM webhook
      LEFT JOIN client ON client.id = webhook.client
      LEFT JOIN message ON message.id = NEW.message
     WHERE webhook.backend = NEW.backend
       AND NOT webhook.disabled
       AND (webhook.events = '{}' OR NEW.type = ANY (webhook.events))
       AND (client.id IS NULL OR NOT client.revoked AND (message.id IS NULL OR in_scope(client.scope, message)));
    RETURN NULL;
END $$;

-- The wall. A look on behalf of a client takes the role `gateway_backend` for one transaction, and that
-- role sees the rows of `gateway.backend` within `gateway.scope`, whatever the statement says. Our own
-- work is done by the owner, whom the wall does not stop.
--
-- To be a member of a role does not mean to be allowed to take it: since PostgreSQL 16 that is a right of
-- its own, and who creates a role without being superuser gets the membership without it.
CREATE FUNCTION wall_stands() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(bool_or(has_table_privilege(oid, 'message', 'SELECT')
                            AND pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int < 160000
                                                      THEN 'MEMBER' ELSE 'SET' END)), false)
      FROM pg_roles WHERE rolname = 'gateway_backend'
$$;

CREATE FUNCTION raise_wall() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'gateway_backend') THEN
            CREATE ROLE gateway_backend NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- another database of this server, just now
              WHEN insufficient_privilege THEN RETURN false;
    END;
    BEGIN
        IF NOT wall_stands() THEN
            EXECUTE format('GRANT gateway_backend TO %I', current_user);
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN NULL;  -- the administrator grants it, or has done so
    END;
    IF EXISTS (SELECT FROM pg_policies WHERE schemaname = current_schema() AND policyname = 'of_backend' AND tablename = 'message') THEN
        RETURN wall_stands();
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO gateway_backend', current_schema());
    GRANT SELECT ON message, part, chunk, attempt, event, job TO gateway_backend;
    FOREACH name IN ARRAY ARRAY['message', 'part', 'chunk', 'attempt', 'event', 'job'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_gateway ON %I USING (current_user <> ''gateway_backend'')', name);
    END LOOP;
    CREATE POLICY of_backend ON message FOR SELECT TO gateway_backend
        USING (backend = current_setting('gateway.backend', true)
               AND in_scope(nullif(current_setting('gateway.scope', true), '')::jsonb, message));
    FOREACH name IN ARRAY ARRAY['part', 'chunk', 'attempt', 'event', 'job'] LOOP
        -- The policy of `message` holds inside this one.
        EXECUTE format('CREATE POLICY of_backend ON %I FOR SELECT TO gateway_backend
                        USING (EXISTS (SELECT FROM message WHERE message.id = %I.message))', name, name);
    END LOOP;
    RETURN wall_stands();
END $$;
SELECT raise_wall();
