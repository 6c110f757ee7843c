-- SHA-256 of the keys of the authorities that a person's CLI trusts the hub by, 32 bytes each.
ALTER TABLE person_session ADD COLUMN trusts BLOB NOT NULL DEFAULT x'';

-- Certificates of people that are refused: one by its serial, or all of a name whose validity begins before a time.
CREATE TABLE revoked_certificate (
    name TEXT NOT NULL,
    serial TEXT NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    PRIMARY KEY (name, serial)
) STRICT;
