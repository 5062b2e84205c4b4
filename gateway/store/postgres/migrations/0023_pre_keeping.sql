-- Messages that must not be erased although their time is over: somebody has asked for them.

CREATE TABLE legal_hold (
    message uuid PRIMARY KEY REFERENCES message,
    reason  text NOT NULL,
    actor   text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);
