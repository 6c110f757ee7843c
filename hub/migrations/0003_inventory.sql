-- Whether the objects of a cluster are the whole of one of its states, with their digest and number: written in one
-- transaction with the objects. What was stored before counts as not complete until its spoke has reported again.
ALTER TABLE cluster ADD COLUMN complete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cluster ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
ALTER TABLE cluster ADD COLUMN objects INTEGER NOT NULL DEFAULT 0;
-- Why two clusters are in conflict about the name; NULL if they are not.
ALTER TABLE cluster ADD COLUMN conflict TEXT;
-- uid of the cluster that an operator has accepted under the name; NULL if that was never needed.
ALTER TABLE cluster ADD COLUMN accepted TEXT;
