-- Work on many nodes: what was asked for, how far it is in each cluster (and which manager is at it), and on each node.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What nodes know it by: unlike the id, never the same in another database.
    uid TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    args TEXT NOT NULL,
    state TEXT NOT NULL,
    cancel BIGINT NOT NULL DEFAULT 0,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL DEFAULT 0,
    ended_at BIGINT NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX jobs_by_state ON jobs (state);

CREATE TABLE job_parts (
    job_id BIGINT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    cluster_id BIGINT NOT NULL,
    state TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    -- JSON; empty: not known yet.
    target TEXT NOT NULL DEFAULT '',
    tasks TEXT NOT NULL DEFAULT '',
    -- The manager that is at it, until when it counts as alive, seconds since 1970.
    holder TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, cluster_id)
);
CREATE INDEX job_parts_by_state ON job_parts (state, lease_until);

CREATE TABLE job_nodes (
    job_id BIGINT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    cluster_id BIGINT NOT NULL,
    host_id TEXT NOT NULL,
    hostname TEXT NOT NULL,
    state TEXT NOT NULL,
    bytes_done BIGINT NOT NULL,
    bytes_total BIGINT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (job_id, cluster_id, host_id)
);
