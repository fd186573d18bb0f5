-- Tasks that workspaces give to each other. While its message is open that tells where a task stands; the rest is
-- written here by the transaction that ends the message.
CREATE TABLE delegations (
    id              BLOB    NOT NULL PRIMARY KEY,
    -- Who gave it.
    workspace_id    BLOB    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    -- Told to callers; made by them where they carry it themselves.
    delegation_id   TEXT    NOT NULL,
    target_id       BLOB    NOT NULL,
    task            TEXT    NOT NULL,
    -- Until it fails.
    idempotency_key TEXT,
    status          TEXT    NOT NULL,
    -- The message that carries it; NULL: its caller does.
    message_id      BLOB,
    -- Its lines in the activity of its caller.
    activity_id     BLOB,
    result_id       BLOB,
    error           TEXT,
    response        TEXT,
    created_at      INTEGER NOT NULL,
    processed_at    INTEGER,
    ended_at        INTEGER,
    acknowledged_at INTEGER,
    UNIQUE (workspace_id, delegation_id)
) STRICT;
CREATE UNIQUE INDEX delegations_key ON delegations (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX delegations_newest ON delegations (workspace_id, created_at, id);
CREATE INDEX delegations_over ON delegations (ended_at) WHERE ended_at IS NOT NULL;
