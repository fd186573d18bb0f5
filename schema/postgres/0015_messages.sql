-- The ledger: every message to a workspace, from the moment that it is answered for until it is over.
CREATE TABLE messages (
    id              UUID NOT NULL PRIMARY KEY,
    workspace_id    UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    -- The workspace that sent it; NULL: a user, or the platform.
    caller_id       UUID,
    -- direct: its caller waits on the connection. queue, delegation, platform: somebody was told that it is accepted.
    origin          TEXT NOT NULL,
    method          TEXT,
    -- By what a repeated message is recognised, and SHA-256 of what was said under that name.
    key             TEXT,
    digest          BYTEA NOT NULL,
    priority        BIGINT NOT NULL DEFAULT 50,
    body            TEXT NOT NULL,
    headers         TEXT NOT NULL DEFAULT '{}',
    state           TEXT NOT NULL,
    -- Leases so far; those that failed and were no busy agent's.
    attempt         BIGINT NOT NULL DEFAULT 0,
    failures        BIGINT NOT NULL DEFAULT 0,
    -- Whose the lease is, and until when.
    generation      BIGINT NOT NULL DEFAULT 0,
    holder          UUID,
    leased_until    BIGINT,
    -- An attempt may have run without an answer; an operator wants it run all the same.
    maybe_run       BOOLEAN NOT NULL DEFAULT FALSE,
    again           BOOLEAN NOT NULL DEFAULT FALSE,
    accepted_at     BIGINT NOT NULL,
    due_at          BIGINT NOT NULL,
    expires_at      BIGINT,
    delivered_at    BIGINT,
    started_at      BIGINT,
    processed_at    BIGINT,
    acknowledged_at BIGINT,
    ended_at        BIGINT,
    -- What its agent answered; of a long answer only the end is kept.
    response_status BIGINT,
    response_type   TEXT,
    response        TEXT,
    response_cut    BOOLEAN NOT NULL DEFAULT FALSE,
    -- agent: Ligand's agent said so. answer: the answer alone.
    evidence        TEXT,
    last_error      TEXT,
    delegation_id   TEXT
);
CREATE UNIQUE INDEX messages_key ON messages (workspace_id, key) WHERE key IS NOT NULL;
CREATE INDEX messages_queue ON messages (workspace_id, priority DESC, accepted_at, id) WHERE state = 'accepted';
CREATE INDEX messages_leased ON messages (workspace_id, leased_until) WHERE state = 'delivering';
CREATE INDEX messages_over ON messages (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX messages_recent ON messages (workspace_id, accepted_at);

-- Nothing is delivered to these workspaces until then, unless they are released before.
CREATE TABLE message_holds (
    workspace_id UUID NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    reason       TEXT NOT NULL,
    until        BIGINT NOT NULL
);
