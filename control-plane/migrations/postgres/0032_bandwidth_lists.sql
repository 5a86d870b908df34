-- Sums of a cluster lie beside its hosts' rows, as those of a host without a name: what is asked most often is a few
-- rows then. Also in steps of 1 s, for the last minutes.
INSERT INTO bandwidth SELECT step, at, cluster_id, '', SUM(upload_sent), SUM(upload_received), SUM(download_sent),
    SUM(download_received), SUM(origin_sent), SUM(origin_received), SUM(control_sent), SUM(control_received),
    SUM(others_sent), SUM(others_received), SUM(delivered_local), SUM(delivered_peer_same_zone),
    SUM(delivered_peer_cross_zone), SUM(delivered_seed), SUM(delivered_origin)
FROM bandwidth GROUP BY step, at, cluster_id;
CREATE INDEX bandwidth_of_clusters ON bandwidth (step, at, cluster_id) WHERE host = '';

-- What moved from zone to zone, and the busiest hosts and tasks, in steps of 300 s.
CREATE TABLE bandwidth_lists (
    at           BIGINT NOT NULL, -- where the step begins, seconds since 1970
    cluster_id   BIGINT NOT NULL,
    kind         BIGINT NOT NULL, -- 0: zones, 1: host, 2: task
    name         TEXT COLLATE "C" NOT NULL, -- zone the bytes left, host id, task
    other        TEXT COLLATE "C" NOT NULL, -- zone the bytes went to; else empty
    bytes        BIGINT NOT NULL,
    origin_bytes BIGINT NOT NULL, -- of these from the origin
    PRIMARY KEY (at, cluster_id, kind, name, other)
);

-- Tasks as their clusters' schedulers told of them last.
CREATE TABLE tasks (
    cluster_id   BIGINT NOT NULL,
    task         TEXT COLLATE "C" NOT NULL,
    bytes        BIGINT NOT NULL, -- size; 0: not known
    pieces       BIGINT NOT NULL,
    holders      BIGINT NOT NULL,
    downloading  BIGINT NOT NULL,
    moved_bytes  BIGINT NOT NULL, -- since it is known
    origin_bytes BIGINT NOT NULL,
    last_seen    BIGINT NOT NULL, -- seconds since 1970
    hosts        TEXT COLLATE "C" NOT NULL, -- JSON: [{host_id, complete, pieces}]
    PRIMARY KEY (cluster_id, task)
);
CREATE INDEX tasks_last_seen ON tasks (last_seen);
