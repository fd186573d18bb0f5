-- Tokens of the organisation: administrators' work without the administrator's token.
CREATE TABLE org_tokens (
    id           UUID    NOT NULL PRIMARY KEY,
    hash         BYTEA   NOT NULL UNIQUE,
    prefix       TEXT    NOT NULL,
    name         TEXT,
    created_by   TEXT,
    -- The workspace at the root of what it is for; NULL: the whole organisation.
    org_id       UUID    REFERENCES workspaces (id) ON DELETE SET NULL,
    created_at   BIGINT  NOT NULL,
    last_used_at BIGINT,
    revoked_at   BIGINT
);
CREATE INDEX org_tokens_live ON org_tokens (created_at) WHERE revoked_at IS NULL;
CREATE INDEX org_tokens_org ON org_tokens (org_id) WHERE org_id IS NOT NULL;

-- One row: where the canvas was left.
CREATE TABLE canvas_viewport (
    id   BIGINT NOT NULL PRIMARY KEY,
    x    DOUBLE PRECISION NOT NULL,
    y    DOUBLE PRECISION NOT NULL,
    zoom DOUBLE PRECISION NOT NULL
);
INSERT INTO canvas_viewport (id, x, y, zoom) VALUES (1, 0, 0, 1);
