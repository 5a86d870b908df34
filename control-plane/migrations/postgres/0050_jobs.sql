-- Work on many nodes: what was asked for, how far it is in each cluster (and which manager is at it), and on each node.
CREATE TABLE jobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What nodes know it by: unlike the id, never the same in another database.
    uid TEXT COLLATE "C" NOT NULL UNIQUE,
    kind TEXT COLLATE "C" NOT NULL,
    args TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    cancel BIGINT NOT NULL DEFAULT 0,
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL DEFAULT 0,
    ended_at BIGINT NOT NULL DEFAULT 0,
    error TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX jobs_by_state ON jobs (state);

CREATE TABLE job_parts (
    job_id BIGINT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    cluster_id BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    error TEXT COLLATE "C" NOT NULL DEFAULT '',
    -- JSON; empty: not known yet.
    target TEXT COLLATE "C" NOT NULL DEFAULT '',
    tasks TEXT COLLATE "C" NOT NULL DEFAULT '',
    -- The manager that is at it, until when it counts as alive, seconds since 1970.
    holder TEXT COLLATE "C" NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, cluster_id)
);
CREATE INDEX job_parts_by_state ON job_parts (state, lease_until);

CREATE TABLE job_nodes (
    job_id BIGINT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    cluster_id BIGINT NOT NULL,
    host_id TEXT COLLATE "C" NOT NULL,
    hostname TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    bytes_done BIGINT NOT NULL,
    bytes_total BIGINT NOT NULL,
    error TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (job_id, cluster_id, host_id)
);
