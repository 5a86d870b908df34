-- What the managers of this database alone know. The keys that nodes get are derived from it, cluster by cluster.
CREATE TABLE secrets (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL -- 32 bytes, hex
);
