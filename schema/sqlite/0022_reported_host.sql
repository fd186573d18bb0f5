-- The machine that an instance is on, where its backend reports that and no whole address.
ALTER TABLE instances ADD COLUMN reported_host TEXT;
