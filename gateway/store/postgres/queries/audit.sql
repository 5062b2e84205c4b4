-- The audit chain.

-- append
-- Add a row to the chain: kind $1, actor $2, subject $3, detail $4. Its number.
SELECT append_audit($1, $2, $3, $4) AS number;

-- append_next
-- The same, if the last row is still number $5 with the hash $6. No row: it is not.
SELECT append_audit($1, $2, $3, $4) AS number
  FROM (SELECT FROM audit_head WHERE number = $5 AND hash = $6 FOR UPDATE) AS unchanged;

-- search
-- Up to $7 rows before number $6, newest first: of kind $1, or of a kind below it; actor $2, subject $3, from $4 until $5.
SELECT number, at, kind, actor, subject, detail FROM audit
 WHERE ($1::text IS NULL OR kind = $1 OR starts_with(kind, $1 || '.'))
   AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR subject = $3)
   AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)
   AND ($6::bigint IS NULL OR number < $6)
 ORDER BY number DESC LIMIT $7;

-- entries
-- Up to $2 rows after number $1.
SELECT number, at, kind, actor, subject, detail, hash FROM audit WHERE number > $1 ORDER BY number LIMIT $2;

-- head
-- Number and hash of the last row, as whoever appended it left them.
SELECT number, hash FROM audit_head;
