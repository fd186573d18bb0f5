-- Passports, rotation, revocation; what an admission is refused for.

-- A migration's candidate; NULL: there is none.
ALTER TABLE workspaces ADD COLUMN candidate_generation INTEGER;
ALTER TABLE workspaces ADD COLUMN revoked_at INTEGER;
-- The last register that was refused, and why.
ALTER TABLE workspaces ADD COLUMN refused_at INTEGER;
ALTER TABLE workspaces ADD COLUMN refused_why TEXT;
-- Rotations are counted. A credential satisfies those up to its serial when it is first used.
ALTER TABLE workspaces ADD COLUMN rotations_wanted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN rotations_done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credentials ADD COLUMN serial INTEGER NOT NULL DEFAULT 0;

-- Never deleted, as credentials are not.
CREATE TABLE passports (
    id           BLOB    NOT NULL PRIMARY KEY,
    workspace_id BLOB    NOT NULL,
    generation   INTEGER NOT NULL,
    hash         BLOB    NOT NULL UNIQUE,
    -- Where its instance is started.
    backend      TEXT,
    created_at   INTEGER NOT NULL,
    -- It opens nothing from then on.
    expires_at   INTEGER NOT NULL,
    -- First presented; then something that it minted was used; or ended with its generation.
    redeemed_at  INTEGER,
    spent_at     INTEGER,
    ended_at     INTEGER
) STRICT;
CREATE INDEX passports_open ON passports (workspace_id) WHERE spent_at IS NULL AND ended_at IS NULL;
