-- When a hub last worked on this store (milliseconds since 1970, by the wall clock), and until when nothing may be granted
-- because the store was restored from a copy. A copy that is put back is older than the life of a lease, also one of the
-- epoch in which the lost store was.
ALTER TABLE hub ADD COLUMN alive INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hub ADD COLUMN waits_until INTEGER NOT NULL DEFAULT 0;
