-- Telling the user's own systems.

-- The generation as it was when the event arose: what is sent does not change between two attempts. NULL in rows of before.
ALTER TABLE events ADD COLUMN shown TEXT CHECK (json_valid(shown));
CREATE INDEX events_kind ON events (kind);

-- Where events are sent. Each outlet walks the events in their order at its own pace: a dead one costs the others nothing, and
-- settling an outcome writes nothing for it.
CREATE TABLE outlets (
    id          INTEGER PRIMARY KEY,
    -- the endpoint's address, or a word of ours
    name        TEXT    NOT NULL UNIQUE,
    -- the last event that was looked at
    position    INTEGER NOT NULL,
    disabled_at INTEGER,
    reason      TEXT,
    CHECK ((disabled_at IS NULL) = (reason IS NULL))
) STRICT;

-- One event on its way to one outlet.
CREATE TABLE dispatches (
    id          INTEGER PRIMARY KEY,
    outlet      INTEGER NOT NULL REFERENCES outlets (id),
    event       INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    state       TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts    INTEGER NOT NULL CHECK (attempts >= 0),
    -- of a pending one: when it is tried next; while it is being tried, when it counts as interrupted
    next_at     INTEGER,
    last_at     INTEGER,
    http_status INTEGER,
    said        TEXT,
    UNIQUE (outlet, event),
    CHECK ((state = 'pending') = (next_at IS NOT NULL))
) STRICT;

CREATE INDEX dispatches_due ON dispatches (outlet, next_at) WHERE state = 'pending';
CREATE INDEX dispatches_event ON dispatches (event);
CREATE INDEX dispatches_dead ON dispatches (event) WHERE state = 'dead';
