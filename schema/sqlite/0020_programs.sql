-- What the program of an instance is to do, where that is not as usual, and what its agent says that it does.
CREATE TABLE programs (
    workspace_id    BLOB    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    generation      INTEGER NOT NULL,
    -- `run` or `stand-by`; NULL: nobody said so yet.
    wanted          TEXT,
    -- With `run`: it should hold secrets that were fetched for this serial, or a later one.
    serial          INTEGER NOT NULL,
    reported        TEXT,
    reported_serial INTEGER,
    reported_at     INTEGER,
    -- The restarts that had been asked for when its secrets were fetched last.
    fetched_serial  INTEGER,
    PRIMARY KEY (workspace_id, generation)
) STRICT;
