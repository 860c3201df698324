-- What the reads of a list say about when an entry came into it.

-- When the list was read last.
ALTER TABLE lists ADD COLUMN read_at INTEGER;

-- When the list was read last without the entry; null where it was not read before.
ALTER TABLE listed_ids ADD COLUMN absent_at INTEGER;
