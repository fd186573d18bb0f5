-- Passports, rotation, revocation; what an admission is refused for.

-- A migration's candidate; NULL: there is none.
ALTER TABLE workspaces ADD COLUMN candidate_generation BIGINT;
ALTER TABLE workspaces ADD COLUMN revoked_at BIGINT;
-- The last register that was refused, and why.
ALTER TABLE workspaces ADD COLUMN refused_at BIGINT;
ALTER TABLE workspaces ADD COLUMN refused_why TEXT;
-- Rotations are counted. A credential satisfies those up to its serial when it is first used.
ALTER TABLE workspaces ADD COLUMN rotations_wanted BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN rotations_done BIGINT NOT NULL DEFAULT 0;
ALTER TABLE credentials ADD COLUMN serial BIGINT NOT NULL DEFAULT 0;

-- Never deleted, as credentials are not.
CREATE TABLE passports (
    id           UUID   NOT NULL PRIMARY KEY,
    workspace_id UUID   NOT NULL,
    generation   BIGINT NOT NULL,
    hash         BYTEA  NOT NULL UNIQUE,
    -- Where its instance is started.
    backend      TEXT,
    created_at   BIGINT NOT NULL,
    -- It opens nothing from then on.
    expires_at   BIGINT NOT NULL,
    -- First presented; then something that it minted was used; or ended with its generation.
    redeemed_at  BIGINT,
    spent_at     BIGINT,
    ended_at     BIGINT
);
CREATE INDEX passports_open ON passports (workspace_id) WHERE spent_at IS NULL AND ended_at IS NULL;
