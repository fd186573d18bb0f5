-- Where a workspace's configuration comes from, and which start has delivered it. Every choice takes the next
-- number; a start carries what was chosen until it was planned, and only a confirmed one has delivered it, so that
-- a start which fails loses no choice and a later one writes nothing over what an agent changed.
CREATE TABLE configurations (
    workspace_id BLOB    NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    -- template, org, generated or existing; and which of its kind.
    source       TEXT    NOT NULL,
    name         TEXT    NOT NULL DEFAULT '',
    -- Names that its environment must have, a JSON list.
    required_env TEXT    NOT NULL DEFAULT '[]',
    -- The newest choice; which of them was the last to name a source, and the last to ask for a fresh session.
    wanted       INTEGER NOT NULL DEFAULT 0,
    source_at    INTEGER NOT NULL DEFAULT 0,
    fresh_at     INTEGER NOT NULL DEFAULT 0,
    -- What the newest start carries, which generation it is, and what the last confirmed one delivered.
    carried      INTEGER NOT NULL DEFAULT 0,
    carried_by   INTEGER NOT NULL DEFAULT 0,
    delivered    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Agents that are to be told of their restart. A row is taken away by whoever tells it, or when it is too late.
CREATE TABLE briefings (
    workspace_id BLOB    NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    generation   INTEGER NOT NULL,
    restarted_at INTEGER NOT NULL,
    -- When the session before was last heard of; NULL: there was none.
    previous_end INTEGER
) STRICT;
