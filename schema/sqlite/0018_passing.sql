-- Events that are not kept, on their way between servers. SQLite serves one server, which has nobody to pass them to:
-- the table is here so that both engines have the same ones.
CREATE TABLE passing (
    id   INTEGER NOT NULL PRIMARY KEY,
    at   INTEGER NOT NULL,
    line TEXT    NOT NULL
) STRICT;
CREATE INDEX passing_at ON passing (at);
