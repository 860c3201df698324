-- What settled generations taught, kept beside them in the same transaction: a few rows, however many generations.

-- How long each kind takes lately.
CREATE TABLE paces (
    family           TEXT    NOT NULL,
    model            TEXT    NOT NULL,
    -- 0 where a model has no durations
    duration_seconds INTEGER NOT NULL CHECK (duration_seconds >= 0),
    -- outcomes ever learned from
    known            INTEGER NOT NULL CHECK (known > 0),
    -- the last times to outcome, oldest first: milliseconds, four bytes each, little-endian
    times            BLOB    NOT NULL CHECK (length(times) % 4 = 0),
    PRIMARY KEY (family, model, duration_seconds)
) STRICT, WITHOUT ROWID;

-- Whether the webhooks of a family arrive.
CREATE TABLE trusts (
    family TEXT    NOT NULL PRIMARY KEY,
    -- told in time; found by a read, no webhook ever came; found by a read, the webhook came behind it
    told   INTEGER NOT NULL CHECK (told >= 0),
    missed INTEGER NOT NULL CHECK (missed >= 0),
    late   INTEGER NOT NULL CHECK (late >= 0),
    -- of the last outcomes, oldest first, one byte each: 1 when a webhook came
    recent BLOB    NOT NULL,
    -- how long after the read the late ones came, as in paces.times
    lags   BLOB    NOT NULL CHECK (length(lags) % 4 = 0)
) STRICT, WITHOUT ROWID;

-- A generation is given up only after the provider was asked often enough since it counts as stuck: a clock that jumps ahead must not
-- decide. One for a read that brought nothing, four for the provider's word.
ALTER TABLE generations ADD COLUMN late_answers INTEGER NOT NULL DEFAULT 0 CHECK (late_answers >= 0);
