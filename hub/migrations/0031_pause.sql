-- Maintenance of the whole fleet is paused: since when (milliseconds since 1970, 0 for not), by whom, and why.
ALTER TABLE hub ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hub ADD COLUMN paused_by TEXT NOT NULL DEFAULT '';
ALTER TABLE hub ADD COLUMN paused_because TEXT NOT NULL DEFAULT '';
