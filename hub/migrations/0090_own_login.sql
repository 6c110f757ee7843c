-- Login tokens that a person has made for itself, such as for a browser: the role of its certificate, and when its sessions
-- end at the latest; empty and NULL for those that an admin made.
ALTER TABLE invite ADD COLUMN role TEXT NOT NULL DEFAULT '';
ALTER TABLE invite ADD COLUMN until INTEGER;

-- Role that the session has besides what is bound to its name and groups.
ALTER TABLE person_session ADD COLUMN role TEXT NOT NULL DEFAULT '';
