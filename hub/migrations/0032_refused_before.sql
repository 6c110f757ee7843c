-- Certificates that were issued before this time stay refused (milliseconds since 1970; NULL for none). It only rises: a later
-- ban that is lifted without a condition does not make them good again.
ALTER TABLE ban ADD COLUMN refused_before INTEGER;
UPDATE ban SET refused_before = lifted WHERE rejoin = 1;
