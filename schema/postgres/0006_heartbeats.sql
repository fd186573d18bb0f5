-- Leases are renewed in place: room on each page keeps a renewal from touching any index.
ALTER TABLE instances SET (fillfactor = 50);
ALTER TABLE workspaces SET (fillfactor = 70);
