-- Somebody asked for every trace of it to be taken away: it is, as soon as nothing of it runs any more.
ALTER TABLE workspaces ADD COLUMN purge_wanted_at BIGINT;
