-- What retention has removed is not new when its webhook comes once more: of each generation the ids stay.
CREATE TABLE removed (
    uid         BLOB    PRIMARY KEY CHECK (length(uid) = 16),
    family      INTEGER NOT NULL,
    -- as in generations; one that was registered again may be here twice
    provider_id ANY
) STRICT, WITHOUT ROWID;

CREATE INDEX removed_provider_id ON removed (provider_id, family) WHERE provider_id IS NOT NULL;

CREATE TRIGGER removed_is_remembered AFTER DELETE ON generations BEGIN
    INSERT INTO removed VALUES (OLD.uid, OLD.family, OLD.provider_id) ON CONFLICT DO NOTHING;
END;
