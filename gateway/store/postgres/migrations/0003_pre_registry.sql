-- Who may use the plugin API, and who is told about events.

CREATE TABLE client (
    id         text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL,
    backend    text COLLATE "C" NOT NULL,
    token_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked    boolean NOT NULL DEFAULT false
);

CREATE TABLE webhook (
    id            text COLLATE "C" PRIMARY KEY,
    backend       text COLLATE "C" NOT NULL,
    url           text NOT NULL,
    sealed_secret bytea NOT NULL,
    events        text[] COLLATE "C" NOT NULL,  -- empty: all
    disabled      boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_by_backend ON webhook (backend);

-- Every event goes to the webhooks of its backend, in the transaction that writes it, whoever writes it.
CREATE FUNCTION tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
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
      LEFT JOIN message ON message.id = NEW.message
     WHERE webhook.backend = NEW.backend
       AND NOT webhook.disabled
       AND (webhook.events = '{}' OR NEW.type = ANY (webhook.events));
    RETURN NULL;
END $$;

CREATE TRIGGER event_to_webhooks AFTER INSERT ON event FOR EACH ROW WHEN (NEW.backend IS NOT NULL)
EXECUTE FUNCTION tell_webhooks();
