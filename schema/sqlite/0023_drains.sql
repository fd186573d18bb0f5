-- How long each source is kept after its cut-over, in microseconds. NULL: as the settings say.
-- A member can now also be 'moved': cut over, its source is not gone yet.
ALTER TABLE drains ADD COLUMN grace INTEGER;
