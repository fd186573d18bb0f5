-- Workspaces on their way from one backend to another. Phases are written down before they are taken; secrets are not
-- here, nor is the passport of a candidate.
CREATE TABLE migrations (
    id                UUID    NOT NULL PRIMARY KEY,
    workspace_id      UUID    NOT NULL,
    source_backend    TEXT    NOT NULL,
    target_backend    TEXT    NOT NULL,
    source_generation BIGINT  NOT NULL,
    -- The number that the source's backend knows it by.
    source_born       BIGINT  NOT NULL,
    -- NULL: not prepared yet.
    target_generation BIGINT,
    stage             TEXT    NOT NULL,
    -- The last phase that was entered of those that lead to the target.
    reached           TEXT    NOT NULL,
    since             BIGINT  NOT NULL,
    deadline          BIGINT  NOT NULL,
    -- 'go', 'pause' or 'abort'.
    wish              TEXT    NOT NULL,
    grace             BIGINT  NOT NULL,
    reason            TEXT,
    cause             TEXT,
    asked_at          BIGINT  NOT NULL,
    ended_at          BIGINT,
    failures          BIGINT  NOT NULL DEFAULT 0,
    last_error        TEXT,
    next_attempt_at   BIGINT,
    waits_for         TEXT,
    -- The source is being stopped; it ended; it is destroyed, its data too.
    stopping          BOOLEAN NOT NULL DEFAULT FALSE,
    source_ended      BOOLEAN NOT NULL DEFAULT FALSE,
    source_gone       BOOLEAN NOT NULL DEFAULT FALSE,
    target_gone       BOOLEAN NOT NULL DEFAULT FALSE,
    copied            BOOLEAN NOT NULL DEFAULT FALSE,
    complete          BOOLEAN NOT NULL DEFAULT FALSE,
    restored          BOOLEAN NOT NULL DEFAULT FALSE,
    bytes_total       BIGINT,
    bytes_done        BIGINT  NOT NULL DEFAULT 0,
    digest            TEXT,
    held_at           BIGINT,
    released_at       BIGINT,
    url_before        TEXT    NOT NULL DEFAULT '',
    url_after         TEXT,
    -- For which serial its target completed a turn; or why it did not.
    probed_serial     BIGINT,
    probe_failed      TEXT,
    drain_id          UUID,
    -- The reconciler's row lease.
    due_at            BIGINT  NOT NULL,
    claimed_by        UUID,
    claimed_until     BIGINT  NOT NULL DEFAULT 0
);
-- One of a workspace at a time.
CREATE UNIQUE INDEX migrations_open ON migrations (workspace_id) WHERE ended_at IS NULL;
CREATE INDEX migrations_due ON migrations (due_at) WHERE ended_at IS NULL;
CREATE INDEX migrations_of ON migrations (workspace_id, asked_at);
CREATE INDEX migrations_asked ON migrations (asked_at);

CREATE TABLE migration_phases (
    migration_id UUID    NOT NULL REFERENCES migrations (id),
    number       BIGINT  NOT NULL,
    phase        TEXT    NOT NULL,
    at           BIGINT  NOT NULL,
    PRIMARY KEY (migration_id, number)
);

CREATE TABLE drains (
    id             UUID    NOT NULL PRIMARY KEY,
    source_backend TEXT    NOT NULL,
    target_backend TEXT    NOT NULL,
    concurrency    BIGINT  NOT NULL,
    stop_after     BIGINT  NOT NULL,
    -- Failures that a person has seen, and went on all the same.
    forgiven       BIGINT  NOT NULL DEFAULT 0,
    -- 'running', 'paused', 'stopped', 'aborted' or 'done'.
    state          TEXT    NOT NULL,
    cause          TEXT,
    asked_at       BIGINT  NOT NULL,
    ended_at       BIGINT,
    due_at         BIGINT  NOT NULL,
    claimed_by     UUID,
    claimed_until  BIGINT  NOT NULL DEFAULT 0
);
-- One of a backend at a time.
CREATE UNIQUE INDEX drains_open ON drains (source_backend) WHERE ended_at IS NULL;
CREATE INDEX drains_due ON drains (due_at) WHERE ended_at IS NULL;

CREATE TABLE drain_members (
    drain_id     UUID    NOT NULL REFERENCES drains (id),
    workspace_id UUID    NOT NULL,
    number       BIGINT  NOT NULL,
    name         TEXT    NOT NULL,
    -- 'waiting', 'open', 'migrated', 'failed' (rolled back) or 'kept' (could not be begun).
    state        TEXT    NOT NULL,
    migration_id UUID,
    cause        TEXT,
    PRIMARY KEY (drain_id, workspace_id)
);

ALTER TABLE workspaces ADD COLUMN abandoned_generation BIGINT;
