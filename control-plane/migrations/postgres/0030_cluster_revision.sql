-- Counts the edits of a cluster: an edit that was made of an older revision is noticed.
ALTER TABLE clusters ADD COLUMN revision BIGINT NOT NULL DEFAULT 1;
