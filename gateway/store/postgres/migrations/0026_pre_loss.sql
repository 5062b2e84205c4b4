-- Claims in a row that nobody gave back: work that ends the process that does it stands out, and is done alone and
-- in the end no more.

ALTER TABLE job ADD COLUMN lost integer NOT NULL DEFAULT 0;

CREATE INDEX job_suspect ON job (due_at) WHERE lost > 0 AND state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN');
