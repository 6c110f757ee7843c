-- Tokens of grants begin above this one: a store that was put back from a backup has forgotten grants, and their numbers
-- are not given out again.
ALTER TABLE hub ADD COLUMN token_floor INTEGER NOT NULL DEFAULT 0;
-- When this file was made as a backup of a store (milliseconds since 1970); 0 for a store that never was one.
ALTER TABLE hub ADD COLUMN copied INTEGER NOT NULL DEFAULT 0;
-- Only in a backup: files of the hub's authority.
CREATE TABLE copied_file (
    name TEXT PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

-- When a backup of the store was last made (milliseconds since 1970); 0 for never.
ALTER TABLE hub ADD COLUMN backed_up INTEGER NOT NULL DEFAULT 0;
-- When the backup was put back, until the first start after that has noted it in the audit; 0 otherwise.
ALTER TABLE hub ADD COLUMN put_back INTEGER NOT NULL DEFAULT 0;
