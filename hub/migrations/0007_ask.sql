-- The question that a grant answered, fleet.v1.LeaseAsk: a hub that starts in the middle of a run composes it again for
-- each renewal.
ALTER TABLE audit ADD COLUMN ask BLOB;
