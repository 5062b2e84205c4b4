-- The trace a message belongs to (W3C traceparent), so that attempts days later are found with the submission.
ALTER TABLE message ADD COLUMN trace text COLLATE "C";

-- Messages that must not be erased although their time is over: somebody has asked for them.

CREATE TABLE legal_hold (
    message uuid PRIMARY KEY REFERENCES message,
    reason  text NOT NULL,
    actor   text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);
