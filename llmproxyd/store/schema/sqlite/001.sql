-- What is kept once: the version of the schema, the salt of the key, what shows that the key is right.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- allow: JSON.  Times are seconds since the epoch.
CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    active INTEGER NOT NULL,
    allow TEXT NOT NULL,
    rpm INTEGER,
    tpm INTEGER,
    created REAL NOT NULL,
    updated REAL NOT NULL
);

-- The providers' keys, encrypted.
CREATE TABLE credentials (
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    upstream TEXT NOT NULL,
    nonce BLOB NOT NULL,
    ciphertext BLOB NOT NULL,
    PRIMARY KEY (project, upstream)
);

-- digest: SHA-256 of the token.  scopes: their names, by spaces.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE,
    shown TEXT NOT NULL,
    name TEXT NOT NULL,
    active INTEGER NOT NULL,
    expires_at REAL,
    max_requests INTEGER,
    rpm INTEGER,
    tpm INTEGER,
    scopes TEXT NOT NULL,
    created REAL NOT NULL,
    last_used REAL,
    requests INTEGER NOT NULL,
    tokens INTEGER NOT NULL
);

CREATE INDEX tokens_by_project ON tokens (project);

-- By day (UTC), and kept when the project and the token are gone.
CREATE TABLE usage (
    day TEXT NOT NULL,
    project TEXT NOT NULL,
    token TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost REAL NOT NULL,
    PRIMARY KEY (day, project, token, model)
);

-- The last changes of projects and tokens, in the order of their commits and without a gap.
CREATE TABLE changes (
    seq INTEGER NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL
);
