-- Partners that do not answer: after some failures in a row their messages wait, without an attempt, and one at a
-- time tries. Shared by all processes: what one learns, every one knows.

CREATE TABLE circuit (
    partner    text COLLATE "C" PRIMARY KEY,  -- as in `message.partner`, the queue of its send jobs
    failures   integer NOT NULL,              -- in a row
    since      timestamptz NOT NULL DEFAULT now(),
    shut_until timestamptz,                   -- then one may try; NULL: not shut
    probe      uuid                           -- the claim of who tries
) WITH (fillfactor = 50);

-- When the patience of the agreement ends: what waits for a partner that is shut fails then, as it would have.
ALTER TABLE job ADD COLUMN gives_up_at timestamptz;

-- Messages are claimed partner by partner: one that is away with a million waiting is not in the way of another.
CREATE INDEX job_send_by_queue ON job (queue, due_at)
    WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND kind = 'send';
