-- What several managers of one database tell each other: who they are, and which hosts are registered where.
-- A manager alone (SQLite) keeps this in memory.
CREATE TABLE managers (
    id      TEXT PRIMARY KEY, -- of one life of a process
    beat    BIGINT NOT NULL, -- grows while it lives
    version BIGINT NOT NULL, -- of the last change of its registrations
    beat_at BIGINT NOT NULL -- seconds since 1970
);
CREATE TABLE registrations (
    kind    BIGINT NOT NULL, -- 0: daemon, 1: scheduler
    id      TEXT NOT NULL, -- host id, or a scheduler's address
    manager TEXT NOT NULL, -- where it is registered
    version BIGINT NOT NULL, -- of that manager
    data    TEXT NOT NULL, -- JSON; empty: the registration ended
    PRIMARY KEY (kind, id)
);
CREATE INDEX registrations_of_manager ON registrations (manager, version);
