-- What people may do, their personal access tokens, and what they did. Truths are 0 or 1.

ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'viewer';
ALTER TABLE users ADD COLUMN cluster_ids TEXT NOT NULL DEFAULT '[]'; -- JSON list; empty: every cluster
ALTER TABLE users ADD COLUMN disabled BIGINT NOT NULL DEFAULT 0;
-- Who vouches for them: 'local', which is us by password_hash, or 'oidc', by subject; then password_hash is empty.
ALTER TABLE users ADD COLUMN source TEXT NOT NULL DEFAULT 'local';
ALTER TABLE users ADD COLUMN subject TEXT; -- provider, line feed, the provider's name for them
CREATE UNIQUE INDEX users_by_subject ON users (subject);
-- Until now there was nobody but root.
UPDATE users SET role = 'admin';

-- 'bearer' or 'cookie': what is given as one is not taken as the other.
ALTER TABLE tokens ADD COLUMN kind TEXT NOT NULL DEFAULT 'bearer';

CREATE TABLE access_tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id      BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL UNIQUE, -- SHA-256 of the token, hex: the token itself is never stored
    scopes       TEXT NOT NULL, -- JSON list of permissions; empty: none
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL DEFAULT 0 -- to the minute; 0: never
);
CREATE INDEX access_tokens_of_user ON access_tokens (user_id);

CREATE TABLE audit (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        BIGINT NOT NULL,
    user_name TEXT NOT NULL, -- as it was then; empty: nobody signed in
    action    TEXT NOT NULL,
    object    TEXT NOT NULL,
    detail    TEXT NOT NULL, -- JSON object without secrets
    remote    TEXT NOT NULL,
    outcome   BIGINT NOT NULL  -- HTTP status; 0: begun, and the manager ended before the answer
);
CREATE INDEX audit_by_time ON audit (at);
