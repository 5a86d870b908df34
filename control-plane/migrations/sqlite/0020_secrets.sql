-- What this manager alone knows. The keys that nodes get are derived from it, cluster by cluster.
CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL -- 32 bytes, hex
);
