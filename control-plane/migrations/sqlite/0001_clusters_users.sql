-- Clusters, users and their bearer tokens. Times are seconds since 1970 (UTC).
-- Registrations of hosts are soft state of the manager process and not kept here, but for schedulers:
-- a restarted manager would otherwise tell every daemon that its cluster has none.

-- AUTOINCREMENT: the id of a deleted cluster is never given to another one, as daemons may be pinned to it.
CREATE TABLE clusters (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    bio        TEXT    NOT NULL,
    is_default BOOLEAN NOT NULL,
    scopes     TEXT    NOT NULL, -- JSON: {cidrs, idc, location, hostnames}
    config     TEXT    NOT NULL, -- JSON object
    created_at BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL
);
CREATE UNIQUE INDEX clusters_one_default ON clusters (is_default) WHERE is_default;

CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL, -- argon2id, PHC string
    created_at    BIGINT  NOT NULL
);

CREATE TABLE tokens (
    hash       TEXT   PRIMARY KEY, -- SHA-256 of the token, hex: the token itself is never stored
    user_id    BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX tokens_of_user ON tokens (user_id, expires_at);

CREATE TABLE schedulers (
    addr       TEXT   PRIMARY KEY, -- host:port of its gRPC service
    hostname   TEXT   NOT NULL,
    cluster_id BIGINT NOT NULL,
    version    TEXT   NOT NULL
);
