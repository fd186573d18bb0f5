-- Where a workspace's configuration comes from, and which start has delivered it. Every choice takes the next
-- number; a start carries what was chosen until it was planned, and only a confirmed one has delivered it, so that
-- a start which fails loses no choice and a later one writes nothing over what an agent changed.
CREATE TABLE configurations (
    workspace_id UUID    NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    -- template, org, generated or existing; and which of its kind.
    source       TEXT    NOT NULL,
    name         TEXT    NOT NULL DEFAULT '',
    -- Names that its environment must have, a JSON list.
    required_env TEXT    NOT NULL DEFAULT '[]',
    -- The newest choice; which of them was the last to name a source, and the last to ask for a fresh session.
    wanted       BIGINT  NOT NULL DEFAULT 0,
    source_at    BIGINT  NOT NULL DEFAULT 0,
    fresh_at     BIGINT  NOT NULL DEFAULT 0,
    -- What the newest start carries, which generation it is, and what the last confirmed one delivered.
    carried      BIGINT  NOT NULL DEFAULT 0,
    carried_by   BIGINT  NOT NULL DEFAULT 0,
    delivered    BIGINT  NOT NULL DEFAULT 0
);

-- Agents that are to be told of their restart. A row is taken away by whoever tells it, or when it is too late.
CREATE TABLE briefings (
    workspace_id UUID    NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    generation   BIGINT  NOT NULL,
    restarted_at BIGINT  NOT NULL,
    -- When the session before was last heard of; NULL: there was none.
    previous_end BIGINT
);
