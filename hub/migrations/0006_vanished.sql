-- Policies that were missing from a whole inventory without a word that they were deleted: for a while they keep what they
-- kept, also over a restart of the hub. `since` is milliseconds since 1970, `state` fleet.v1.ObjectState.
CREATE TABLE vanished (
    cluster TEXT NOT NULL,
    uid TEXT NOT NULL,
    since INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (cluster, uid)
) STRICT, WITHOUT ROWID;
