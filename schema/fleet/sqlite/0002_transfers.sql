-- Failures of a transfer that a person has seen, and went on all the same. Its states are now running, paused, stopped,
-- aborted and done; an item's also kept.
ALTER TABLE transfers ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0;
