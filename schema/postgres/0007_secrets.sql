-- Secrets, and what instances proved of those that they were given.

CREATE TABLE workspace_secrets (
    id                 UUID    NOT NULL PRIMARY KEY,
    workspace_id       UUID    NOT NULL REFERENCES workspaces (id),
    key                TEXT    NOT NULL,
    encrypted_value    BYTEA    NOT NULL,
    -- 1: nonce, ciphertext, tag. 0: as it is.
    encryption_version BIGINT NOT NULL DEFAULT 0,
    -- Which key it is encrypted with; NULL: none, or written by somebody who did not say.
    key_name           TEXT,
    created_at         BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL,
    UNIQUE (workspace_id, key)
);

CREATE TABLE global_secrets (
    id                 UUID    NOT NULL PRIMARY KEY,
    key                TEXT    NOT NULL UNIQUE,
    encrypted_value    BYTEA    NOT NULL,
    encryption_version BIGINT NOT NULL DEFAULT 0,
    key_name           TEXT,
    created_at         BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL
);

-- One row, locked by whoever writes a global secret and by whoever loads them for a start: a workspace that is
-- created meanwhile misses nothing.
CREATE TABLE global_secrets_lock (
    id      BIGINT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL DEFAULT 0
);
INSERT INTO global_secrets_lock (id) VALUES (1);

-- complete, or incomplete; NULL: nothing was asked for.
ALTER TABLE instances ADD COLUMN receipt TEXT;
