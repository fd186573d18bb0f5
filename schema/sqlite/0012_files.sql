-- Files that were written ask for restarts, seldom: when the next is due, and when the last was asked for.
CREATE TABLE file_restarts (
    workspace_id BLOB NOT NULL PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    due_at       INTEGER,
    restarted_at INTEGER
) STRICT;
CREATE INDEX file_restarts_due ON file_restarts (due_at) WHERE due_at IS NOT NULL;
