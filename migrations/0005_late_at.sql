-- Answers count towards giving up only when they lie far enough apart; see `late_answers`.
ALTER TABLE generations ADD COLUMN late_at INTEGER;
