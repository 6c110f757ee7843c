-- The cluster of the certificate was forgotten after it was issued: nobody waits for it.
ALTER TABLE certificate ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
