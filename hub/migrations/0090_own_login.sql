-- Login tokens that a person has made for itself, such as for a browser: by which certificate (JSON of
-- access::people::Maker, empty for those that an admin made and for makers with a session of their own), and when its
-- sessions end at the latest.
ALTER TABLE invite ADD COLUMN maker TEXT NOT NULL DEFAULT '';
ALTER TABLE invite ADD COLUMN until INTEGER;

-- The same of the session: it has the role of that certificate, and ends when that is revoked.
ALTER TABLE person_session ADD COLUMN maker TEXT NOT NULL DEFAULT '';
