-- Times are microseconds since 1970 (UTC); the database has no clock of its own. JSON is text, kept as sent.

CREATE TABLE workspaces (
    id                   BLOB    NOT NULL PRIMARY KEY,
    name                 TEXT    NOT NULL,
    role                 TEXT,
    tier                 INTEGER NOT NULL,
    runtime              TEXT    NOT NULL,
    model                TEXT,
    template             TEXT,
    command              TEXT,
    -- Placement. NULL: no backend runs it (external).
    backend              TEXT,
    workspace_dir        TEXT,
    workspace_access     TEXT    NOT NULL,
    parent_id            BLOB    REFERENCES workspaces (id),
    budget_limit         INTEGER,
    monthly_spend        INTEGER NOT NULL DEFAULT 0,
    max_concurrent_tasks INTEGER NOT NULL DEFAULT 1,
    x                    REAL    NOT NULL DEFAULT 0,
    y                    REAL    NOT NULL DEFAULT 0,
    collapsed            INTEGER NOT NULL DEFAULT 0,
    -- Intent.
    intent               TEXT    NOT NULL,
    restarts_wanted      INTEGER NOT NULL DEFAULT 0,
    -- Observation.
    status               TEXT    NOT NULL,
    since                INTEGER NOT NULL,
    evidence             TEXT    NOT NULL,
    current_generation   INTEGER NOT NULL DEFAULT 0,
    newest_generation    INTEGER NOT NULL DEFAULT 0,
    restarts_loaded      INTEGER NOT NULL DEFAULT 0,
    last_error           TEXT,
    next_attempt_at      INTEGER,
    failures             INTEGER NOT NULL DEFAULT 0,
    failures_since       INTEGER NOT NULL DEFAULT 0,
    released_at          INTEGER,
    -- Identity.
    bootstrap            TEXT    NOT NULL,
    bootstrap_until      INTEGER,
    -- What its agent reports.
    url                  TEXT    NOT NULL DEFAULT '',
    agent_card           TEXT,
    delivery_mode        TEXT,
    last_heartbeat_at    INTEGER,
    last_outbound_at     INTEGER,
    last_error_rate      REAL    NOT NULL DEFAULT 0,
    last_sample_error    TEXT    NOT NULL DEFAULT '',
    active_tasks         INTEGER NOT NULL DEFAULT 0,
    uptime_seconds       INTEGER NOT NULL DEFAULT 0,
    current_task         TEXT    NOT NULL DEFAULT '',
    capabilities         TEXT    NOT NULL DEFAULT '{}',
    idle_timeout_seconds INTEGER,
    -- The reconciler's row lease: due at, and who has it until when.
    due_at               INTEGER NOT NULL,
    claimed_by           BLOB,
    claimed_until        INTEGER NOT NULL DEFAULT 0,
    version              INTEGER NOT NULL DEFAULT 0,
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL
) STRICT;
CREATE INDEX workspaces_due ON workspaces (due_at);
CREATE INDEX workspaces_parent ON workspaces (parent_id);

CREATE TABLE instances (
    id            BLOB    NOT NULL PRIMARY KEY,
    workspace_id  BLOB    NOT NULL REFERENCES workspaces (id),
    generation    INTEGER NOT NULL,
    -- The number it was started under, and its label at the backend. An agent that takes up the workspace
    -- without its credential opens the next generation; the label stays.
    born          INTEGER NOT NULL,
    backend       TEXT,
    phase         TEXT    NOT NULL,
    -- The backend's name for it; NULL until the backend confirmed it.
    handle        TEXT,
    url           TEXT    NOT NULL DEFAULT '',
    -- Whether the backend reported that address. A reported one is trusted.
    url_reported  INTEGER NOT NULL DEFAULT 0,
    features      TEXT    NOT NULL DEFAULT '',
    last_seen_at  INTEGER,
    started_at    INTEGER,
    registered_at INTEGER,
    ended_at      INTEGER,
    exit          TEXT,
    created_at    INTEGER NOT NULL,
    UNIQUE (workspace_id, generation)
) STRICT;
CREATE INDEX instances_alive ON instances (workspace_id) WHERE ended_at IS NULL;

-- Never deleted: the hashes of a purged workspace are its tombstone.
CREATE TABLE credentials (
    id               BLOB    NOT NULL PRIMARY KEY,
    workspace_id     BLOB    NOT NULL,
    kind             TEXT    NOT NULL,
    generation       INTEGER,
    state            TEXT    NOT NULL,
    hash             BLOB    NOT NULL UNIQUE,
    prefix           TEXT    NOT NULL,
    idempotency_hash BLOB,
    created_at       INTEGER NOT NULL,
    -- Never used by then, it lapses; NULL: only with its start.
    lapses_at        INTEGER,
    first_used_at    INTEGER,
    last_used_at     INTEGER,
    ended_at         INTEGER
) STRICT;
CREATE INDEX credentials_live ON credentials (workspace_id) WHERE ended_at IS NULL;
CREATE INDEX credentials_replay ON credentials (workspace_id, idempotency_hash) WHERE idempotency_hash IS NOT NULL;

-- One row: the last number given out. Taking the next one in the transaction that uses it makes the order
-- of numbers the order of commits, so a reader that saw n has seen everything before n.
CREATE TABLE sequence (
    id    INTEGER NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO sequence (id, value) VALUES (1, 0);

CREATE TABLE journal (
    seq          INTEGER NOT NULL PRIMARY KEY,
    at           INTEGER NOT NULL,
    workspace_id BLOB    NOT NULL,
    generation   INTEGER,
    kind         TEXT    NOT NULL,
    summary      TEXT    NOT NULL,
    evidence     TEXT    NOT NULL
) STRICT;
CREATE INDEX journal_workspace ON journal (workspace_id, seq);

CREATE TABLE events (
    seq          INTEGER NOT NULL PRIMARY KEY,
    id           BLOB    NOT NULL,
    at           INTEGER NOT NULL,
    event_type   TEXT    NOT NULL,
    workspace_id BLOB,
    payload      TEXT    NOT NULL
) STRICT;
CREATE INDEX events_workspace ON events (workspace_id, seq);
