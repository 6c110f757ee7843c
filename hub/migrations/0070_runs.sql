-- The newest runs of backups that have ended, of all clusters. Times are milliseconds since 1970, `result` is
-- fleet.v1.BackupResult. Bounded: the oldest go.
CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ended INTEGER NOT NULL,
    began INTEGER,
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    result INTEGER NOT NULL,
    text TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    added INTEGER NOT NULL,
    -- Repository of the backup, for the scopes of people: its id, and the name of its ResticRepository.
    restic_id TEXT NOT NULL,
    repository TEXT NOT NULL
) STRICT;

CREATE INDEX run_by_time ON run (ended, id);
CREATE INDEX run_by_backup ON run (cluster, namespace, name, ended);

-- How the runs of a backup have ended, by day: one record of `store/runs.rs` for each of the last 31 days with a run.
-- `last` is when the newest of them ended: one that is reported again is not counted again.
CREATE TABLE run_day (
    cluster TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    last INTEGER NOT NULL,
    days BLOB NOT NULL,
    PRIMARY KEY (cluster, namespace, name)
) STRICT, WITHOUT ROWID;
