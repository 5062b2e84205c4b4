-- Findings with their rule, severity and place; the index of the leading document; and the key by which an
-- answer finds its request, and a request its twin.
--
-- `findings` stays for the release before; what is written now is `advice`. `document` has no personal data in it.

ALTER TABLE message ADD COLUMN advice json;      -- NULL: none
ALTER TABLE message ADD COLUMN document json;    -- NULL: not an exchange document, or no rules for it
ALTER TABLE message ADD COLUMN request_id text COLLATE "C";  -- of the request document this message brings

-- No time in it: two rows are enough to know, and the first two will do.
CREATE INDEX message_by_request ON message (request_id, direction, partner) WHERE request_id IS NOT NULL;
