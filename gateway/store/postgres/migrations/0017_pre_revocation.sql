-- What issuers say of certificates: one row for each certificate and issuer, the last answer that counted.
-- Shared by all processes of all nodes, so that one of them asks and the others know.

CREATE TABLE revocation (
    certificate       text COLLATE "C" NOT NULL,     -- SHA-256 of its DER, as that of its issuer
    issuer            text COLLATE "C" NOT NULL,
    subject           text NOT NULL,
    status            text COLLATE "C" NOT NULL CHECK (status IN ('none', 'good', 'revoked', 'unknown')),
    source            text COLLATE "C" CHECK (source IN ('ocsp', 'crl')),
    host              text,
    this_update       timestamptz,
    next_update       timestamptz,
    answered_at       timestamptz,
    revoked_at        timestamptz,
    revocation_reason text,
    tried_at          timestamptz NOT NULL,
    failing_since     timestamptz,
    trouble           text,
    PRIMARY KEY (certificate, issuer),
    CHECK ((status = 'none') = (answered_at IS NULL))
);
CREATE INDEX revocation_tried ON revocation (tried_at);
