-- Random, made with the store: tells a restored store from a new one.
ALTER TABLE hub ADD COLUMN incarnation TEXT NOT NULL DEFAULT '';

-- Which cluster's word counts for which repository.
CREATE TABLE binding (
    restic_id TEXT NOT NULL,
    cluster TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('bound', 'pending', 'ended')),
    how TEXT NOT NULL,
    since INTEGER NOT NULL,
    proven INTEGER NOT NULL,
    PRIMARY KEY (restic_id, cluster)
) STRICT, WITHOUT ROWID;

-- Public half of the key that every cluster has which can open the repository. `rival`: who showed another one.
CREATE TABLE possession (
    restic_id TEXT PRIMARY KEY,
    public_key BLOB NOT NULL,
    cluster TEXT NOT NULL,
    since INTEGER NOT NULL,
    rival TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Clusters that took part in an applied run, and what the last one left, for the guard.
CREATE TABLE participant (
    restic_id TEXT NOT NULL,
    cluster TEXT NOT NULL,
    PRIMARY KEY (restic_id, cluster)
) STRICT, WITHOUT ROWID;

CREATE TABLE baseline (
    restic_id TEXT NOT NULL,
    key TEXT NOT NULL,
    remaining INTEGER NOT NULL,
    PRIMARY KEY (restic_id, key)
) STRICT, WITHOUT ROWID;

-- What people did; written together with its effect.
CREATE TABLE decision (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    restic_id TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL
) STRICT;

CREATE INDEX decision_by_time ON decision (at);

-- Plans of runs, apart from their rows: a list never reads them. JSON.
CREATE TABLE plan_document (
    restic_id TEXT NOT NULL,
    token INTEGER NOT NULL,
    made INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (restic_id, token)
) STRICT;

CREATE INDEX plan_document_by_time ON plan_document (made);

INSERT INTO plan_document (restic_id, token, made, document)
    SELECT restic_id, token, made, document FROM plan WHERE length(document) > 0
    ON CONFLICT DO NOTHING;

ALTER TABLE plan DROP COLUMN document;
ALTER TABLE plan ADD COLUMN decided INTEGER;
-- Token of the run that was granted under the approval; 0 for none.
ALTER TABLE plan ADD COLUMN granted INTEGER NOT NULL DEFAULT 0;

CREATE INDEX plan_by_time ON plan (made, id);
CREATE INDEX plan_by_cluster ON plan (cluster, state);
CREATE INDEX plan_by_repository ON plan (restic_id, state);

-- Clusters that the run was told of, a JSON list, and the plan that it made.
ALTER TABLE audit ADD COLUMN clusters TEXT NOT NULL DEFAULT '[]';
ALTER TABLE audit ADD COLUMN plan TEXT NOT NULL DEFAULT '';

-- A person has taken the lock back from its holder.
ALTER TABLE lock ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0;
