-- Workspaces on their way from one backend to another. Phases are written down before they are taken; secrets are not
-- here, nor is the passport of a candidate.
CREATE TABLE migrations (
    id                BLOB    NOT NULL PRIMARY KEY,
    workspace_id      BLOB    NOT NULL,
    source_backend    TEXT    NOT NULL,
    target_backend    TEXT    NOT NULL,
    source_generation INTEGER NOT NULL,
    -- The number that the source's backend knows it by.
    source_born       INTEGER NOT NULL,
    -- NULL: not prepared yet.
    target_generation INTEGER,
    stage             TEXT    NOT NULL,
    -- The last phase that was entered of those that lead to the target.
    reached           TEXT    NOT NULL,
    since             INTEGER NOT NULL,
    deadline          INTEGER NOT NULL,
    -- 'go', 'pause' or 'abort'.
    wish              TEXT    NOT NULL,
    grace             INTEGER NOT NULL,
    reason            TEXT,
    cause             TEXT,
    asked_at          INTEGER NOT NULL,
    ended_at          INTEGER,
    failures          INTEGER NOT NULL DEFAULT 0,
    last_error        TEXT,
    next_attempt_at   INTEGER,
    waits_for         TEXT,
    -- The source is being stopped; it ended; it is destroyed, its data too.
    stopping          INTEGER NOT NULL DEFAULT 0,
    source_ended      INTEGER NOT NULL DEFAULT 0,
    source_gone       INTEGER NOT NULL DEFAULT 0,
    target_gone       INTEGER NOT NULL DEFAULT 0,
    copied            INTEGER NOT NULL DEFAULT 0,
    complete          INTEGER NOT NULL DEFAULT 0,
    restored          INTEGER NOT NULL DEFAULT 0,
    bytes_total       INTEGER,
    bytes_done        INTEGER NOT NULL DEFAULT 0,
    digest            TEXT,
    held_at           INTEGER,
    released_at       INTEGER,
    url_before        TEXT    NOT NULL DEFAULT '',
    url_after         TEXT,
    -- For which serial its target completed a turn; or why it did not.
    probed_serial     INTEGER,
    probe_failed      TEXT,
    drain_id          BLOB,
    -- The reconciler's row lease.
    due_at            INTEGER NOT NULL,
    claimed_by        BLOB,
    claimed_until     INTEGER NOT NULL DEFAULT 0
) STRICT;
-- One of a workspace at a time.
CREATE UNIQUE INDEX migrations_open ON migrations (workspace_id) WHERE ended_at IS NULL;
CREATE INDEX migrations_due ON migrations (due_at) WHERE ended_at IS NULL;
CREATE INDEX migrations_of ON migrations (workspace_id, asked_at);
CREATE INDEX migrations_asked ON migrations (asked_at);

CREATE TABLE migration_phases (
    migration_id BLOB    NOT NULL REFERENCES migrations (id),
    number       INTEGER NOT NULL,
    phase        TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (migration_id, number)
) STRICT;

CREATE TABLE drains (
    id             BLOB    NOT NULL PRIMARY KEY,
    source_backend TEXT    NOT NULL,
    target_backend TEXT    NOT NULL,
    concurrency    INTEGER NOT NULL,
    stop_after     INTEGER NOT NULL,
    -- Failures that a person has seen, and went on all the same.
    forgiven       INTEGER NOT NULL DEFAULT 0,
    -- 'running', 'paused', 'stopped', 'aborted' or 'done'.
    state          TEXT    NOT NULL,
    cause          TEXT,
    asked_at       INTEGER NOT NULL,
    ended_at       INTEGER,
    due_at         INTEGER NOT NULL,
    claimed_by     BLOB,
    claimed_until  INTEGER NOT NULL DEFAULT 0
) STRICT;
-- One of a backend at a time.
CREATE UNIQUE INDEX drains_open ON drains (source_backend) WHERE ended_at IS NULL;
CREATE INDEX drains_due ON drains (due_at) WHERE ended_at IS NULL;

CREATE TABLE drain_members (
    drain_id     BLOB    NOT NULL REFERENCES drains (id),
    workspace_id BLOB    NOT NULL,
    number       INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    -- 'waiting', 'open', 'migrated', 'failed' (rolled back) or 'kept' (could not be begun).
    state        TEXT    NOT NULL,
    migration_id BLOB,
    cause        TEXT,
    PRIMARY KEY (drain_id, workspace_id)
) STRICT;

ALTER TABLE workspaces ADD COLUMN abandoned_generation INTEGER;
