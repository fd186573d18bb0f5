-- Whether a workspace ever had a credential or a passport is asked about every id that nobody knows.
CREATE INDEX credentials_workspace ON credentials (workspace_id);
CREATE INDEX passports_workspace ON passports (workspace_id);
DROP INDEX passports_open;
