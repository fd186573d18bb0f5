-- Times are microseconds since 1970 (UTC); the database has no clock of its own. JSON is text.
-- Whatever is sealed is a nonce, a ciphertext and a tag; its version says how.

CREATE TABLE tenants (
    org_id              TEXT    NOT NULL PRIMARY KEY,
    slug                TEXT    NOT NULL UNIQUE,
    name                TEXT    NOT NULL,
    owner_user_id       TEXT    NOT NULL,
    platform_url        TEXT    NOT NULL,
    -- pending, running, failed
    status              TEXT    NOT NULL,
    boot_event          TEXT,
    -- The administrator's token of its platform: sealed, and by its hash.
    admin_token         BYTEA   NOT NULL,
    admin_token_version BIGINT  NOT NULL,
    admin_token_hash    BYTEA   NOT NULL UNIQUE,
    -- The hash of what it provisions with. NULL: the fleet's own secret.
    secret_hash         BYTEA,
    -- What its platform is told at its start: a JSON object, sealed.
    config              BYTEA   NOT NULL,
    config_version      BIGINT  NOT NULL,
    -- Names of its backends by provider: a JSON object.
    backends            TEXT    NOT NULL,
    created_at          BIGINT  NOT NULL,
    -- Deleted; gone once its instances have ended.
    removed_at          BIGINT
);

CREATE TABLE members (
    org_id  TEXT NOT NULL REFERENCES tenants (org_id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    PRIMARY KEY (org_id, user_id)
);

CREATE TABLE sessions (
    hash       BYTEA  NOT NULL PRIMARY KEY,
    user_id    TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE workspaces (
    workspace_id UUID    NOT NULL PRIMARY KEY,
    org_id       TEXT    NOT NULL REFERENCES tenants (org_id),
    -- The newest that was asked for.
    generation   BIGINT  NOT NULL,
    provider     TEXT    NOT NULL,
    -- Its data was to be taken away, and it was not provisioned since.
    pruned       BOOLEAN NOT NULL,
    -- Until then its data is being taken away, and nothing is started.
    erasing_until BIGINT  NOT NULL DEFAULT 0,
    version      BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX workspaces_of ON workspaces (org_id);

CREATE TABLE instances (
    instance_id      TEXT    NOT NULL PRIMARY KEY,
    org_id           TEXT    NOT NULL REFERENCES tenants (org_id),
    workspace_id     UUID    NOT NULL REFERENCES workspaces (workspace_id),
    generation       BIGINT  NOT NULL,
    -- The fleet counts its generations, and replaces it.
    counted          BOOLEAN NOT NULL,
    provider         TEXT    NOT NULL,
    runtime          TEXT    NOT NULL,
    -- By which the same wish is recognised, without telling what is in it.
    wish             BYTEA   NOT NULL,
    -- Everything that it is started with, sealed. NULL once nobody needs it.
    spec             BYTEA,
    spec_version     BIGINT  NOT NULL,
    -- Intent: run, stop, end.
    intent           TEXT    NOT NULL,
    -- Observation: pending, running, stopped, gone, unknown.
    state            TEXT    NOT NULL,
    since            BIGINT  NOT NULL,
    evidence         TEXT    NOT NULL,
    exit             TEXT,
    handle           TEXT    NOT NULL,
    address          TEXT,
    last_error       TEXT,
    failures         BIGINT  NOT NULL,
    failures_since   BIGINT  NOT NULL,
    recreations      BIGINT  NOT NULL,
    recreations_since BIGINT NOT NULL,
    -- Until then it may register; NULL once that is past.
    booting_until    BIGINT,
    confirmed_at     BIGINT,
    ended_at         BIGINT,
    due_at           BIGINT  NOT NULL,
    lease_until      BIGINT  NOT NULL,
    lease_holder     BYTEA,
    -- Raised with every change of intent.
    version          BIGINT  NOT NULL,
    created_at       BIGINT  NOT NULL,
    UNIQUE (workspace_id, generation)
);
CREATE INDEX instances_due ON instances (due_at) WHERE ended_at IS NULL;
CREATE INDEX instances_open ON instances (org_id, workspace_id) WHERE ended_at IS NULL;

-- What a platform is to be told, until it was.
CREATE TABLE notices (
    id           UUID   NOT NULL PRIMARY KEY,
    org_id       TEXT   NOT NULL REFERENCES tenants (org_id) ON DELETE CASCADE,
    workspace_id UUID   NOT NULL,
    provider     TEXT   NOT NULL,
    error        TEXT   NOT NULL,
    attempts     BIGINT NOT NULL,
    last_error   TEXT,
    due_at       BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE INDEX notices_due ON notices (due_at);

-- Workspaces on their way from provider to provider.
CREATE TABLE transfers (
    id            UUID   NOT NULL PRIMARY KEY,
    source        TEXT   NOT NULL,
    target        TEXT   NOT NULL,
    concurrency   BIGINT NOT NULL,
    stop_after    BIGINT NOT NULL,
    -- running, stopped, done
    state         TEXT   NOT NULL,
    started_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    due_at        BIGINT NOT NULL
);

CREATE TABLE transfer_items (
    transfer_id  UUID   NOT NULL REFERENCES transfers (id) ON DELETE CASCADE,
    workspace_id UUID   NOT NULL,
    org_id       TEXT   NOT NULL,
    -- waiting, asked, migrated, failed
    state        TEXT   NOT NULL,
    migration_id TEXT,
    phase        TEXT,
    cause        TEXT,
    attempts     BIGINT NOT NULL,
    PRIMARY KEY (transfer_id, workspace_id)
);

CREATE TABLE journal (
    id           UUID   NOT NULL PRIMARY KEY,
    at           BIGINT NOT NULL,
    org_id       TEXT,
    workspace_id UUID,
    instance_id  TEXT,
    kind         TEXT   NOT NULL,
    what         TEXT   NOT NULL
);
CREATE INDEX journal_at ON journal (at);
CREATE INDEX journal_of ON journal (workspace_id, at);
