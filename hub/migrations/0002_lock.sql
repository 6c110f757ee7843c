-- One row per physical repository that was ever locked. Written before a grant is told; the token never falls.
CREATE TABLE lock (
    restic_id TEXT PRIMARY KEY,
    token INTEGER NOT NULL,
    cluster TEXT,
    operation TEXT,
    subject TEXT,
    delayed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every grant, and what became of it. `policies` and `covered` are JSON lists, `outcome` is fleet.v1.RetentionOutcome.
CREATE TABLE audit (
    restic_id TEXT NOT NULL,
    token INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    operation TEXT NOT NULL,
    subject TEXT NOT NULL,
    granted INTEGER NOT NULL,
    ended INTEGER,
    policies TEXT NOT NULL,
    covered TEXT NOT NULL,
    outcome BLOB,
    PRIMARY KEY (restic_id, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_by_time ON audit (granted);

-- Plans that wait for a person, and what was decided.
CREATE TABLE plan (
    id TEXT PRIMARY KEY,
    restic_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    state TEXT NOT NULL,
    made INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    policy TEXT NOT NULL,
    subject TEXT NOT NULL,
    token INTEGER NOT NULL,
    outcome BLOB NOT NULL,
    document BLOB NOT NULL,
    decided_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
