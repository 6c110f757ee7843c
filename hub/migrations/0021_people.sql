-- Who is bound to which rights, and where. `rights` is a role or verbs with commas between them, `scope` JSON of
-- access::scope::Scope.
CREATE TABLE role_binding (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'group')),
    name TEXT NOT NULL,
    rights TEXT NOT NULL,
    scope TEXT NOT NULL,
    created INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;

-- Login tokens that were not used yet: SHA-256 of the token. `groups` is a JSON list.
CREATE TABLE invite (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    groups TEXT NOT NULL,
    expires INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Sessions of people who have logged in: SHA-256 of the token that they send.
CREATE TABLE person_session (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    groups TEXT NOT NULL,
    how TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What an entry is about, for scopes, and its link in the chain: SHA-256 over the hash of the entry before and its content.
ALTER TABLE decision ADD COLUMN cluster TEXT NOT NULL DEFAULT '';
ALTER TABLE decision ADD COLUMN namespace TEXT NOT NULL DEFAULT '';
ALTER TABLE decision ADD COLUMN hash BLOB;

-- Ends of the chain: the newest entry, and the last one that was removed because of its age. Written with the entries.
CREATE TABLE audit_chain (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    head INTEGER NOT NULL,
    hash BLOB NOT NULL,
    anchor INTEGER NOT NULL,
    anchor_hash BLOB NOT NULL
) STRICT;

-- Clusters and namespaces whose snapshots a plan removes, JSON; NULL when that is not known.
ALTER TABLE plan ADD COLUMN goes TEXT;
