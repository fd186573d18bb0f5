-- What went through workspaces. Of one workspace it is numbered in the order of commits: whoever has read up to a
-- number has missed nothing before it.
CREATE TABLE activity (
    id              UUID    NOT NULL PRIMARY KEY,
    workspace_id    UUID    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    number          BIGINT NOT NULL,
    at              BIGINT NOT NULL,
    activity_type   TEXT    NOT NULL,
    -- NULL: a user, or the platform.
    source_id       UUID,
    target_id       UUID,
    method          TEXT,
    summary         TEXT,
    request_body    TEXT,
    response_body   TEXT,
    tool_trace      TEXT,
    duration_ms     BIGINT,
    status          TEXT    NOT NULL,
    error_detail    TEXT,
    idempotency_key TEXT,
    UNIQUE (workspace_id, number)
);
CREATE INDEX activity_of_type ON activity (workspace_id, activity_type, number);
CREATE INDEX activity_at ON activity (at);
CREATE UNIQUE INDEX activity_key ON activity (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- The last number of each workspace; locked by whoever takes the next one, until the commit.
CREATE TABLE activity_heads (
    workspace_id UUID    NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    last         BIGINT NOT NULL
);

-- Tokens of a day (UTC), as answers of agents say.
CREATE TABLE token_usage (
    workspace_id  UUID    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    period_start  BIGINT NOT NULL,
    input_tokens  BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    calls         BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, period_start)
);
