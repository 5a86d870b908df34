-- What the nodes of each cluster moved: in steps of 10 s, rolled up to 300 s as it grows old. Bytes.
CREATE TABLE bandwidth (
    step               BIGINT  NOT NULL, -- seconds: 10 or 300
    at                 BIGINT  NOT NULL, -- where the step begins, seconds since 1970
    cluster_id         BIGINT  NOT NULL, -- kept when the cluster is deleted: it is history
    host               TEXT COLLATE "C" NOT NULL, -- host id
    upload_sent        BIGINT  NOT NULL,
    upload_received    BIGINT  NOT NULL,
    download_sent      BIGINT  NOT NULL,
    download_received  BIGINT  NOT NULL,
    origin_sent        BIGINT  NOT NULL,
    origin_received    BIGINT  NOT NULL,
    control_sent       BIGINT  NOT NULL,
    control_received   BIGINT  NOT NULL,
    others_sent        BIGINT  NOT NULL,
    others_received    BIGINT  NOT NULL,
    delivered_local    BIGINT  NOT NULL,
    delivered_peer_same_zone  BIGINT NOT NULL,
    delivered_peer_cross_zone BIGINT NOT NULL,
    delivered_seed     BIGINT  NOT NULL,
    delivered_origin   BIGINT  NOT NULL,
    PRIMARY KEY (step, at, cluster_id, host)
);
