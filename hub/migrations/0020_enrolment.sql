-- Tokens with which clusters join. The token itself is not kept. public_key: SHA-256 of the key that has used it.
CREATE TABLE join_token (
    hash BLOB PRIMARY KEY,
    cluster TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    who TEXT NOT NULL,
    public_key BLOB,
    answer BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX join_token_by_expiry ON join_token (expires);

-- Certificates of spokes that have not expired. authority: SHA-256 of the key that signed.
CREATE TABLE certificate (
    serial TEXT PRIMARY KEY,
    cluster TEXT NOT NULL,
    issued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    authority BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX certificate_by_cluster ON certificate (cluster, issued);
CREATE INDEX certificate_by_expiry ON certificate (expires);

-- Clusters that may not connect. lifted: since when they may again. rejoin: certificates issued until then stay refused.
CREATE TABLE ban (
    cluster TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL,
    lifted INTEGER,
    rejoin INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
