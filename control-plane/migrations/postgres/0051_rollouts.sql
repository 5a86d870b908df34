-- How images come into clusters, as their schedulers last told. Times are seconds since 1970.
CREATE TABLE rollouts (
    cluster_id BIGINT NOT NULL,
    -- Digest of the manifest.
    manifest TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL,
    nodes_done BIGINT NOT NULL,
    nodes_wanted BIGINT NOT NULL,
    nodes_total BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    -- When the last node is expected to have it; 0: not known.
    eta_at BIGINT NOT NULL,
    -- JSON
    stragglers TEXT COLLATE "C" NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (cluster_id, manifest)
);
