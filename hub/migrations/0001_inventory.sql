CREATE TABLE hub (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL
) STRICT;

INSERT INTO hub (id, epoch) VALUES (1, 0);

CREATE TABLE cluster (
    name TEXT PRIMARY KEY,
    cluster_uid TEXT NOT NULL,
    version TEXT NOT NULL,
    kubernetes_version TEXT NOT NULL,
    last_heard INTEGER
) STRICT;

-- `state` is fleet.v1.ObjectState as it came over the wire.
CREATE TABLE object (
    cluster TEXT NOT NULL,
    uid TEXT NOT NULL,
    baseline INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (cluster, uid)
) STRICT, WITHOUT ROWID;
