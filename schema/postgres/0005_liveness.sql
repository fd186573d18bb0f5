-- Liveness: the fleet's brake and pace, doubts about instances, and what sweeps look at.

-- One row, read by every replica: where the brake stands, and how often agents are asked to report.
CREATE TABLE liveness (
    id               BIGINT NOT NULL PRIMARY KEY,
    -- free, engaged or easing.
    brake            TEXT    NOT NULL,
    brake_since      BIGINT NOT NULL DEFAULT 0,
    brake_until      BIGINT NOT NULL DEFAULT 0,
    -- The most that were silent at once while it was engaged.
    brake_peak       BIGINT NOT NULL DEFAULT 0,
    -- Replacements that began in the present minute, while it is not free.
    permits_window   BIGINT NOT NULL DEFAULT 0,
    permits_used     BIGINT NOT NULL DEFAULT 0,
    -- Seconds between heartbeats: what is told now, what was told before, and since when.
    pace             BIGINT NOT NULL DEFAULT 10,
    pace_before      BIGINT NOT NULL DEFAULT 10,
    pace_since       BIGINT NOT NULL DEFAULT 0,
    -- The last event that retention took away.
    events_forgotten BIGINT NOT NULL DEFAULT 0,
    version          BIGINT NOT NULL DEFAULT 0
);
INSERT INTO liveness (id, brake) VALUES (1, 'free');

-- When it was noted as silent. Heard of later, it is silent no more: nothing clears this.
ALTER TABLE instances ADD COLUMN silent_at BIGINT;
-- Guesses about it that were counted, and left to a later look.
ALTER TABLE instances ADD COLUMN guesses BIGINT NOT NULL DEFAULT 0;
-- The server that is about to end it stops itself: its end is no failure.
ALTER TABLE instances ADD COLUMN dismissed_at BIGINT;
CREATE INDEX instances_serving ON instances (backend)
    WHERE ended_at IS NULL AND phase = 'serving' AND backend IS NOT NULL;

-- Silent, while its backend cannot say whether it runs.
ALTER TABLE workspaces ADD COLUMN unsure_at BIGINT;
-- The brake holds up its replacement until then.
ALTER TABLE workspaces ADD COLUMN held_until BIGINT;
CREATE INDEX workspaces_held ON workspaces (held_until) WHERE held_until IS NOT NULL;

-- Credentials that lapse unless they are used.
CREATE INDEX credentials_lapsing ON credentials (lapses_at) WHERE state = 'pending' AND lapses_at IS NOT NULL;
