-- Times are microseconds since 1970 (UTC); the database has no clock of its own. JSON is text, kept as sent.

CREATE TABLE workspaces (
    id                   UUID    NOT NULL PRIMARY KEY,
    name                 TEXT    NOT NULL,
    role                 TEXT,
    tier                 BIGINT  NOT NULL,
    runtime              TEXT    NOT NULL,
    model                TEXT,
    template             TEXT,
    command              TEXT,
    -- Placement. NULL: no backend runs it (external).
    backend              TEXT,
    workspace_dir        TEXT,
    workspace_access     TEXT    NOT NULL,
    parent_id            UUID    REFERENCES workspaces (id),
    budget_limit         BIGINT,
    monthly_spend        BIGINT  NOT NULL DEFAULT 0,
    max_concurrent_tasks BIGINT  NOT NULL DEFAULT 1,
    x                    DOUBLE PRECISION NOT NULL DEFAULT 0,
    y                    DOUBLE PRECISION NOT NULL DEFAULT 0,
    collapsed            BOOLEAN NOT NULL DEFAULT FALSE,
    -- Intent.
    intent               TEXT    NOT NULL,
    restarts_wanted      BIGINT  NOT NULL DEFAULT 0,
    -- Observation.
    status               TEXT    NOT NULL,
    since                BIGINT  NOT NULL,
    evidence             TEXT    NOT NULL,
    current_generation   BIGINT  NOT NULL DEFAULT 0,
    newest_generation    BIGINT  NOT NULL DEFAULT 0,
    restarts_loaded      BIGINT  NOT NULL DEFAULT 0,
    last_error           TEXT,
    next_attempt_at      BIGINT,
    failures             BIGINT  NOT NULL DEFAULT 0,
    failures_since       BIGINT  NOT NULL DEFAULT 0,
    released_at          BIGINT,
    -- Identity.
    bootstrap            TEXT    NOT NULL,
    bootstrap_until      BIGINT,
    -- What its agent reports.
    url                  TEXT    NOT NULL DEFAULT '',
    agent_card           TEXT,
    delivery_mode        TEXT,
    last_heartbeat_at    BIGINT,
    last_outbound_at     BIGINT,
    last_error_rate      DOUBLE PRECISION NOT NULL DEFAULT 0,
    last_sample_error    TEXT    NOT NULL DEFAULT '',
    active_tasks         BIGINT  NOT NULL DEFAULT 0,
    uptime_seconds       BIGINT  NOT NULL DEFAULT 0,
    current_task         TEXT    NOT NULL DEFAULT '',
    capabilities         TEXT    NOT NULL DEFAULT '{}',
    idle_timeout_seconds BIGINT,
    -- The reconciler's row lease: due at, and who has it until when.
    due_at               BIGINT  NOT NULL,
    claimed_by           UUID ,
    claimed_until        BIGINT  NOT NULL DEFAULT 0,
    version              BIGINT  NOT NULL DEFAULT 0,
    created_at           BIGINT  NOT NULL,
    updated_at           BIGINT  NOT NULL
);
CREATE INDEX workspaces_due ON workspaces (due_at);
CREATE INDEX workspaces_parent ON workspaces (parent_id);

CREATE TABLE instances (
    id            UUID    NOT NULL PRIMARY KEY,
    workspace_id  UUID    NOT NULL REFERENCES workspaces (id),
    generation    BIGINT  NOT NULL,
    -- The number it was started under, and its label at the backend. An agent that takes up the workspace
    -- without its credential opens the next generation; the label stays.
    born          BIGINT  NOT NULL,
    backend       TEXT,
    phase         TEXT    NOT NULL,
    -- The backend's name for it; NULL until the backend confirmed it.
    handle        TEXT,
    url           TEXT    NOT NULL DEFAULT '',
    -- Whether the backend reported that address. A reported one is trusted.
    url_reported  BOOLEAN NOT NULL DEFAULT FALSE,
    features      TEXT    NOT NULL DEFAULT '',
    last_seen_at  BIGINT,
    started_at    BIGINT,
    registered_at BIGINT,
    ended_at      BIGINT,
    exit          TEXT,
    created_at    BIGINT  NOT NULL,
    UNIQUE (workspace_id, generation)
);
CREATE INDEX instances_alive ON instances (workspace_id) WHERE ended_at IS NULL;

-- Never deleted: the hashes of a purged workspace are its tombstone.
CREATE TABLE credentials (
    id               UUID    NOT NULL PRIMARY KEY,
    workspace_id     UUID    NOT NULL,
    kind             TEXT    NOT NULL,
    generation       BIGINT,
    state            TEXT    NOT NULL,
    hash             BYTEA    NOT NULL UNIQUE,
    prefix           TEXT    NOT NULL,
    idempotency_hash BYTEA,
    created_at       BIGINT  NOT NULL,
    -- Never used by then, it lapses; NULL: only with its start.
    lapses_at        BIGINT,
    first_used_at    BIGINT,
    last_used_at     BIGINT,
    ended_at         BIGINT
);
CREATE INDEX credentials_live ON credentials (workspace_id) WHERE ended_at IS NULL;
CREATE INDEX credentials_replay ON credentials (workspace_id, idempotency_hash) WHERE idempotency_hash IS NOT NULL;

-- One row: the last number given out. Taking the next one in the transaction that uses it makes the order
-- of numbers the order of commits, so a reader that saw n has seen everything before n.
CREATE TABLE sequence (
    id    BIGINT  NOT NULL PRIMARY KEY,
    value BIGINT  NOT NULL
);
INSERT INTO sequence (id, value) VALUES (1, 0);

CREATE TABLE journal (
    seq          BIGINT  NOT NULL PRIMARY KEY,
    at           BIGINT  NOT NULL,
    workspace_id UUID    NOT NULL,
    generation   BIGINT,
    kind         TEXT    NOT NULL,
    summary      TEXT    NOT NULL,
    evidence     TEXT    NOT NULL
);
CREATE INDEX journal_workspace ON journal (workspace_id, seq);

CREATE TABLE events (
    seq          BIGINT  NOT NULL PRIMARY KEY,
    id           UUID    NOT NULL,
    at           BIGINT  NOT NULL,
    event_type   TEXT    NOT NULL,
    workspace_id UUID ,
    payload      TEXT    NOT NULL
);
CREATE INDEX events_workspace ON events (workspace_id, seq);
