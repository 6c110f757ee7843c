-- Which cluster reported what is held under a name, whether that was all of it, and when it was last heard: another one may
-- have the name by now, and has reported nothing yet.
ALTER TABLE cluster ADD COLUMN reported_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE cluster ADD COLUMN reported_whole INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cluster ADD COLUMN reported_heard INTEGER;
UPDATE cluster SET reported_uid = cluster_uid, reported_whole = complete, reported_heard = last_heard;

-- Clusters whose name another one has now, with the states of their resources as they were reported last.
CREATE TABLE replaced (
    cluster TEXT NOT NULL,
    cluster_uid TEXT NOT NULL,
    replaced INTEGER NOT NULL,
    last_heard INTEGER,
    complete INTEGER NOT NULL,
    PRIMARY KEY (cluster, cluster_uid)
) STRICT;

CREATE TABLE replaced_object (
    cluster TEXT NOT NULL,
    cluster_uid TEXT NOT NULL,
    uid TEXT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (cluster, cluster_uid, uid)
) STRICT;
