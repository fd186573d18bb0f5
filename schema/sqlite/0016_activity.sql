-- What went through workspaces. Of one workspace it is numbered in the order of commits: whoever has read up to a
-- number has missed nothing before it.
CREATE TABLE activity (
    id              BLOB    NOT NULL PRIMARY KEY,
    workspace_id    BLOB    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    number          INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    activity_type   TEXT    NOT NULL,
    -- NULL: a user, or the platform.
    source_id       BLOB,
    target_id       BLOB,
    method          TEXT,
    summary         TEXT,
    request_body    TEXT,
    response_body   TEXT,
    tool_trace      TEXT,
    duration_ms     INTEGER,
    status          TEXT    NOT NULL,
    error_detail    TEXT,
    idempotency_key TEXT,
    UNIQUE (workspace_id, number)
) STRICT;
CREATE INDEX activity_of_type ON activity (workspace_id, activity_type, number);
CREATE INDEX activity_at ON activity (at);
CREATE UNIQUE INDEX activity_key ON activity (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- The last number of each workspace; locked by whoever takes the next one, until the commit.
CREATE TABLE activity_heads (
    workspace_id BLOB    NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    last         INTEGER NOT NULL
) STRICT;

-- Tokens of a day (UTC), as answers of agents say.
CREATE TABLE token_usage (
    workspace_id  BLOB    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    period_start  INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    calls         INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, period_start)
) STRICT;
