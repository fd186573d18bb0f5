-- The digest over its data, from when it was hibernated until it is started again.
ALTER TABLE workspaces ADD COLUMN data_digest TEXT;
