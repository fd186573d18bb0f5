-- Tokens of the organisation: administrators' work without the administrator's token.
CREATE TABLE org_tokens (
    id           BLOB    NOT NULL PRIMARY KEY,
    hash         BLOB    NOT NULL UNIQUE,
    prefix       TEXT    NOT NULL,
    name         TEXT,
    created_by   TEXT,
    -- The workspace at the root of what it is for; NULL: the whole organisation.
    org_id       BLOB    REFERENCES workspaces (id) ON DELETE SET NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE INDEX org_tokens_live ON org_tokens (created_at) WHERE revoked_at IS NULL;
CREATE INDEX org_tokens_org ON org_tokens (org_id) WHERE org_id IS NOT NULL;

-- One row: where the canvas was left.
CREATE TABLE canvas_viewport (
    id   INTEGER NOT NULL PRIMARY KEY,
    x    REAL    NOT NULL,
    y    REAL    NOT NULL,
    zoom REAL    NOT NULL
) STRICT;
INSERT INTO canvas_viewport (id, x, y, zoom) VALUES (1, 0, 0, 1);
