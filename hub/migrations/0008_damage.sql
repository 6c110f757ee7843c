-- Damage that a check has reported with its end, until a check of the same resource passes. The state of the resource
-- holds it as well, and arrives later. owner: uid of the resource.
CREATE TABLE damage (
    restic_id TEXT NOT NULL,
    cluster TEXT NOT NULL,
    owner TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (restic_id, cluster, owner)
) STRICT, WITHOUT ROWID;
