-- What is kept once: the version of the schema, the salt of the key, what shows that the key is right.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- allow: JSON.  Times are seconds since the epoch.
CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    active BOOLEAN NOT NULL,
    allow TEXT NOT NULL,
    rpm BIGINT,
    tpm BIGINT,
    created DOUBLE PRECISION NOT NULL,
    updated DOUBLE PRECISION NOT NULL
);

-- The providers' keys, encrypted.
CREATE TABLE credentials (
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    upstream TEXT NOT NULL,
    nonce BYTEA NOT NULL,
    ciphertext BYTEA NOT NULL,
    PRIMARY KEY (project, upstream)
);

-- digest: SHA-256 of the token.  scopes: their names, by spaces.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    digest BYTEA NOT NULL UNIQUE,
    shown TEXT NOT NULL,
    name TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    expires_at DOUBLE PRECISION,
    max_requests BIGINT,
    rpm BIGINT,
    tpm BIGINT,
    scopes TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    last_used DOUBLE PRECISION,
    requests BIGINT NOT NULL,
    tokens BIGINT NOT NULL
);

CREATE INDEX tokens_by_project ON tokens (project);

-- By day (UTC), and kept when the project and the token are gone.
CREATE TABLE usage (
    day TEXT NOT NULL,
    project TEXT NOT NULL,
    token TEXT NOT NULL,
    model TEXT NOT NULL,
    requests BIGINT NOT NULL,
    input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    cost DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (day, project, token, model)
);

-- The last changes of projects and tokens, in the order of their commits and without a gap.
CREATE TABLE changes (
    seq BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL
);
