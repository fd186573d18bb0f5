-- When a register was let in and failed all the same; a later one that succeeds clears it.
ALTER TABLE workspaces ADD COLUMN register_failed_at INTEGER;
