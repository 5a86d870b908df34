-- Clusters, users and their bearer tokens. Times are seconds since 1970 (UTC).
-- Texts are compared byte by byte, as SQLite does, whatever language the database was made for.

-- The id of a deleted cluster is never given to another one, as daemons may be pinned to it.
CREATE TABLE clusters (
    id         BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       TEXT    COLLATE "C" NOT NULL UNIQUE,
    bio        TEXT    COLLATE "C" NOT NULL,
    is_default BOOLEAN NOT NULL,
    scopes     TEXT    COLLATE "C" NOT NULL, -- JSON: {cidrs, idc, location, hostnames}
    config     TEXT    COLLATE "C" NOT NULL, -- JSON object
    created_at BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL
);
CREATE UNIQUE INDEX clusters_one_default ON clusters (is_default) WHERE is_default;

CREATE TABLE users (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          TEXT   COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT   COLLATE "C" NOT NULL, -- argon2id, PHC string
    created_at    BIGINT NOT NULL
);

CREATE TABLE tokens (
    hash       TEXT   COLLATE "C" PRIMARY KEY, -- SHA-256 of the token, hex: the token itself is never stored
    user_id    BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX tokens_of_user ON tokens (user_id, expires_at);

CREATE TABLE schedulers (
    addr       TEXT   COLLATE "C" PRIMARY KEY, -- host:port of its gRPC service
    hostname   TEXT   COLLATE "C" NOT NULL,
    cluster_id BIGINT NOT NULL,
    version    TEXT   COLLATE "C" NOT NULL
);
