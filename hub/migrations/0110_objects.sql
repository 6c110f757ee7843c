-- States take 0.5 to 2 KiB. In a table without rowids each of them lies, but for its first part, on an overflow page of its own
-- of 4 KiB; in one with rowids three share a page.
CREATE TABLE object_by_row (
    cluster TEXT NOT NULL,
    uid TEXT NOT NULL,
    baseline INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (cluster, uid)
) STRICT;
INSERT INTO object_by_row (cluster, uid, baseline, state) SELECT cluster, uid, baseline, state FROM object;
DROP TABLE object;
ALTER TABLE object_by_row RENAME TO object;
