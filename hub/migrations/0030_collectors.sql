-- Which cluster collects the figures of a repository. The epoch rises with each appointment.
CREATE TABLE collector (
    restic_id TEXT PRIMARY KEY,
    cluster TEXT NOT NULL,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was collected last: fleet.v1.CollectorReport, and when (milliseconds since 1970).
CREATE TABLE collected (
    restic_id TEXT PRIMARY KEY,
    cluster TEXT NOT NULL,
    at INTEGER NOT NULL,
    report BLOB NOT NULL
) STRICT;

-- The last figures of each hour (step 3600) and of each day (86400). `bucket` is the beginning of the step, `at` when they
-- were collected (both milliseconds since 1970), `sources` a JSON list of [cluster, host, snapshots].
CREATE TABLE point (
    restic_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    at INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    uncompressed INTEGER NOT NULL,
    snapshots INTEGER NOT NULL,
    files INTEGER,
    sources TEXT NOT NULL,
    PRIMARY KEY (restic_id, step, bucket)
) STRICT, WITHOUT ROWID;

CREATE INDEX point_by_time ON point (step, bucket);
