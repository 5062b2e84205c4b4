-- The audit: a chain in which every row's hash covers the hash before it. The row of `audit_head`
-- is locked by whoever appends, until his commit: numbers have no gaps and no forks.
-- `chain.py` has the same computation in Python; `verify_audit` holds the two together.

CREATE TABLE audit (
    number  bigint PRIMARY KEY,
    at      timestamptz NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    actor   text NOT NULL,
    subject text NOT NULL,
    detail  json NOT NULL,   -- json keeps the text as it was hashed
    hash    bytea NOT NULL
);

CREATE TABLE audit_head (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    number bigint NOT NULL,
    hash   bytea NOT NULL
) WITH (fillfactor = 10);
INSERT INTO audit_head (number, hash) VALUES (0, sha256('oots-as4-gateway audit'));

-- A text with its length before it: no two rows have the same canonical form.
CREATE FUNCTION netstring(content text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT convert_to(octet_length(convert_to(content, 'UTF8')) || ':' || content || ',', 'UTF8')
$$;

CREATE FUNCTION append_audit(kind text, actor text, subject text, detail json) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    head   audit_head%ROWTYPE;
    moment timestamptz;
BEGIN
    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    moment := clock_timestamp();
    head.number := head.number + 1;
    head.hash := sha256(
        head.hash || netstring(head.number::text)
        || netstring(to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        || netstring(kind) || netstring(actor) || netstring(subject) || netstring(detail::text));
    INSERT INTO audit VALUES (head.number, moment, kind, actor, subject, detail, head.hash);
    UPDATE audit_head SET number = head.number, hash = head.hash;
    RETURN head.number;
END $$;
