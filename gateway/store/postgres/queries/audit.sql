-- The audit chain.

-- append
-- Add a row to the chain: kind $1, actor $2, subject $3, detail $4. Its number.
SELECT append_audit($1, $2, $3, $4) AS number;

-- entries
-- Up to $2 rows after number $1.
SELECT number, at, kind, actor, subject, detail, hash FROM audit WHERE number > $1 ORDER BY number LIMIT $2;

-- head
-- Number and hash of the last row, as whoever appended it left them.
SELECT number, hash FROM audit_head;
