-- In which store each cluster's repository of a restic id lies, where this was found: one id may be in several stores. "store"
-- is the key of the store, "urls" the locations for which it was found.
CREATE TABLE place (
  restic_id TEXT NOT NULL,
  cluster TEXT NOT NULL,
  store TEXT NOT NULL,
  urls TEXT NOT NULL,
  PRIMARY KEY (restic_id, cluster)
);
