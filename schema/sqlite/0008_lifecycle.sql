-- Hibernation, what is said of a start from outside, and where the compute is said to be.

-- It hibernates after so many minutes without a turn; NULL: never.
ALTER TABLE workspaces ADD COLUMN hibernation_idle_minutes INTEGER;
-- When a turn last began or ended, exact to ten seconds.
ALTER TABLE workspaces ADD COLUMN last_turn_at INTEGER;
CREATE INDEX workspaces_idling ON workspaces (hibernation_idle_minutes) WHERE hibernation_idle_minutes IS NOT NULL;
-- The compute that an administrator named, and whose it is.
ALTER TABLE workspaces ADD COLUMN compute_instance TEXT;
ALTER TABLE workspaces ADD COLUMN compute_provider TEXT;

-- Somebody who watched it says that its start failed, and why: it is given up, whatever its backend says of it.
ALTER TABLE instances ADD COLUMN condemned TEXT;
