-- What the program of an instance is to do, where that is not as usual, and what its agent says that it does.
CREATE TABLE programs (
    workspace_id    UUID    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    generation      BIGINT  NOT NULL,
    -- `run` or `stand-by`; NULL: nobody said so yet.
    wanted          TEXT,
    -- With `run`: it should hold secrets that were fetched for this serial, or a later one.
    serial          BIGINT  NOT NULL,
    reported        TEXT,
    reported_serial BIGINT,
    reported_at     BIGINT,
    -- The restarts that had been asked for when its secrets were fetched last.
    fetched_serial  BIGINT,
    PRIMARY KEY (workspace_id, generation)
);
