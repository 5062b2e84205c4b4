-- Partners' certificates beside the agreements: which next one is in use, and which unknown ones were seen.

-- A partner signs with the certificate that is pinned as its next one. Noted once.
CREATE TABLE next_use (
    party      text COLLATE "C" NOT NULL,
    sha256     text COLLATE "C" NOT NULL,
    first_used timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (party, sha256)
);

-- A certificate that is not pinned, of somebody who claims to be `party` and proved to have its key. It is
-- trusted by nobody; an operator decides. No content of any message is here.
CREATE TABLE stranger (
    party       text COLLATE "C" NOT NULL,
    sha256      text COLLATE "C" NOT NULL,
    der         bytea NOT NULL CHECK (octet_length(der) BETWEEN 1 AND 8192),
    subject     text NOT NULL,
    issuer      text NOT NULL,
    valid_from  timestamptz NOT NULL,
    valid_until timestamptz NOT NULL,
    seen        bigint NOT NULL DEFAULT 1,
    state       text COLLATE "C" NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'ACCEPTED', 'REJECTED')),
    first_seen  timestamptz NOT NULL DEFAULT now(),
    last_seen   timestamptz NOT NULL DEFAULT now(),
    decided_at  timestamptz,
    decided_by  text,
    reason      text,
    PRIMARY KEY (party, sha256),
    CHECK ((state = 'WAITING') = (decided_at IS NULL))
);

-- Keep a certificate: 'new', 'again', or 'full' where so many wait for the party, or are there in all. New ones
-- come one by one: the lock is what makes the bounds hold with many processes.
CREATE FUNCTION quarantine(
    claimed text, fingerprint text, octets bytea, its_subject text, its_issuer text, its_start timestamptz,
    its_end timestamptz, times bigint, most_waiting int, most int
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stranger SET seen = seen + times, last_seen = now() WHERE party = claimed AND sha256 = fingerprint;
    IF FOUND THEN
        RETURN 'again';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext(current_schema() || '.stranger'));
    IF (SELECT count(*) FROM stranger) >= most
        OR (SELECT count(*) FROM stranger WHERE party = claimed AND state = 'WAITING') >= most_waiting THEN
        RETURN 'full';
    END IF;
    INSERT INTO stranger (party, sha256, der, subject, issuer, valid_from, valid_until, seen)
    VALUES (claimed, fingerprint, octets, its_subject, its_issuer, its_start, its_end, times)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        UPDATE stranger SET seen = seen + times, last_seen = now() WHERE party = claimed AND sha256 = fingerprint;
        RETURN 'again';
    END IF;
    RETURN 'new';
END $$;
