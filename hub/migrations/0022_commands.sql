-- What people have made clusters do. Times are milliseconds since 1970; body is fleet.v1.CommandBody. `request` is the
-- person and the id that their client chose, and unique.
CREATE TABLE command (
    id TEXT PRIMARY KEY,
    cluster TEXT NOT NULL,
    body BLOB NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    who TEXT NOT NULL,
    request TEXT UNIQUE,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    state TEXT NOT NULL,
    text TEXT NOT NULL,
    object TEXT NOT NULL,
    changed INTEGER NOT NULL,
    ended INTEGER,
    cancelled_by TEXT NOT NULL,
    -- Repository of the resource, for the scopes of people: its id, and the name of its ResticRepository.
    restic_id TEXT NOT NULL,
    repository TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX command_by_time ON command (created, id);
CREATE INDEX command_open ON command (cluster) WHERE ended IS NULL;
