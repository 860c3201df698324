-- What recoup keeps. Times are milliseconds since 1970 in UTC, money is whole micro-dollars, ids are 16 bytes (UUIDv7).
--
-- Ordinary rowid tables with a unique index on the 16-byte id: a WITHOUT ROWID table keyed by a UUID loses a third of its
-- rate at ten million rows. The CHECKs hold the shape of the state machine: a half-written state cannot be stored.

CREATE TABLE generations (
    id               INTEGER PRIMARY KEY,
    uid              BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    provider_id      TEXT             CHECK (length(provider_id) BETWEEN 1 AND 128),
    family           TEXT    NOT NULL,
    status           TEXT    NOT NULL CHECK (status IN ('prepared', 'submitting', 'unconfirmed', 'rejected', 'pending',
                                                        'processing', 'completed', 'failed', 'lost')),
    attention        TEXT             CHECK (attention IN ('overdue', 'stuck', 'no_result', 'not_found', 'unconfirmed',
                                                           'conflict', 'lost')),
    model            TEXT,
    duration_seconds INTEGER          CHECK (duration_seconds > 0),
    prompt           TEXT,
    result_url       TEXT             CHECK (result_url <> ''),
    error_code       TEXT,
    error_text       TEXT,
    price_micros     INTEGER          CHECK (price_micros >= 0),
    source           TEXT             CHECK (source IN ('webhook', 'check')),
    verification     TEXT             CHECK (verification IN ('token', 'status', 'token+status')),
    recovered        INTEGER NOT NULL CHECK (recovered IN (0, 1)),
    via              TEXT    NOT NULL CHECK (via IN ('gateway', 'api', 'webhook')),
    created_at       INTEGER NOT NULL,
    submitted_at     INTEGER,
    expected_by      INTEGER,
    settled_at       INTEGER,
    check_at         INTEGER,
    turn_at          INTEGER,
    checks           INTEGER NOT NULL CHECK (checks >= 0),
    running_streak   INTEGER NOT NULL CHECK (running_streak >= 0),
    not_found_streak INTEGER NOT NULL CHECK (not_found_streak >= 0),
    not_found_at     INTEGER,
    error_streak     INTEGER NOT NULL CHECK (error_streak >= 0),
    deliveries       INTEGER NOT NULL CHECK (deliveries >= 0),
    webhook_at       INTEGER,
    claim            TEXT,
    refunded_at      INTEGER,
    outcomes         INTEGER NOT NULL CHECK (outcomes >= 0),
    events           INTEGER NOT NULL CHECK (events >= 0),
    metadata         TEXT    NOT NULL CHECK (json_valid(metadata)),

    -- final <=> settled_at
    CHECK ((status IN ('rejected', 'completed', 'failed', 'lost')) = (settled_at IS NOT NULL)),
    -- completed <=> there is a result
    CHECK ((status = 'completed') = (result_url IS NOT NULL)),
    -- a reason only where something failed or was refused
    CHECK (status IN ('failed', 'rejected') OR (error_code IS NULL AND error_text IS NULL)),
    -- an outcome <=> how it was learned
    CHECK ((status IN ('completed', 'failed')) = (source IS NOT NULL)),
    CHECK ((source IS NULL) = (verification IS NULL)),
    -- nothing open sleeps for ever
    CHECK (status IN ('prepared', 'rejected', 'completed', 'failed', 'lost')
           OR check_at IS NOT NULL OR turn_at IS NOT NULL),
    -- only what has an id can be asked about
    CHECK (check_at IS NULL OR provider_id IS NOT NULL),
    -- the provider's words need the provider's id
    CHECK (status NOT IN ('pending', 'processing', 'completed', 'failed') OR provider_id IS NOT NULL)
) STRICT;

-- One generation per id of the provider; NULLs do not collide. The id comes first: it is looked up without the family.
CREATE UNIQUE INDEX generations_provider_id ON generations (provider_id, family) WHERE provider_id IS NOT NULL;
-- The due list: a restart loses nothing because it is an index, not memory.
CREATE INDEX generations_check_at ON generations (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX generations_turn_at ON generations (turn_at) WHERE turn_at IS NOT NULL;
-- Lists, newest first: SQLite appends the row id to each, so each serves its order.
CREATE INDEX generations_status ON generations (status);
CREATE INDEX generations_attention ON generations (attention) WHERE attention IS NOT NULL;
CREATE INDEX generations_error_code ON generations (error_code) WHERE error_code IS NOT NULL;

-- Every version of every outcome: more than one after a correction.
CREATE TABLE outcomes (
    id           INTEGER PRIMARY KEY,
    generation   INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    version      INTEGER NOT NULL CHECK (version > 0),
    at           INTEGER NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('completed', 'failed')),
    source       TEXT    NOT NULL CHECK (source IN ('webhook', 'check')),
    verification TEXT    NOT NULL CHECK (verification IN ('token', 'status', 'token+status')),
    result_url   TEXT,
    error_code   TEXT,
    error_text   TEXT,
    UNIQUE (generation, version)
) STRICT;

-- Every webhook that reached us authentic. Bodies are removed after a while, rows and hashes stay: they guard against replay.
CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY,
    uid         BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    generation  INTEGER REFERENCES generations (id) ON DELETE CASCADE,
    family      TEXT    NOT NULL,
    -- the reference its token named: one generation, or any
    standing    INTEGER NOT NULL CHECK (standing IN (0, 1)),
    received_at INTEGER NOT NULL,
    disposition TEXT    NOT NULL CHECK (disposition IN ('accepted', 'duplicate', 'conflict', 'unreadable', 'mismatch',
                                                        'unknown_status')),
    reason      TEXT,
    body        BLOB,
    body_bytes  INTEGER NOT NULL,
    body_sha256 BLOB    NOT NULL CHECK (length(body_sha256) = 32),
    replay_of   BLOB             CHECK (length(replay_of) = 16)
) STRICT;

CREATE INDEX deliveries_generation ON deliveries (generation) WHERE generation IS NOT NULL;
CREATE INDEX deliveries_disposition ON deliveries (disposition);
-- An unreadable body is kept once, however often it is sent.
CREATE UNIQUE INDEX deliveries_unreadable ON deliveries (family, coalesce(generation, 0), body_sha256)
    WHERE disposition = 'unreadable' AND replay_of IS NULL;
-- Bodies that can still be removed.
CREATE INDEX deliveries_with_body ON deliveries (received_at) WHERE body IS NOT NULL;

-- Every read of the status endpoint, written down before it is made: the last ones are the budget's memory.
CREATE TABLE checks (
    id          INTEGER PRIMARY KEY,
    uid         BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    generation  INTEGER REFERENCES generations (id) ON DELETE CASCADE,
    sent_at     INTEGER NOT NULL,
    answered_at INTEGER,
    answer      TEXT CHECK (answer IN ('known', 'not_found', 'paused', 'nothing')),
    http_status INTEGER,
    said        TEXT,
    body        BLOB,
    CHECK ((answered_at IS NULL) = (answer IS NULL))
) STRICT;

CREATE INDEX checks_generation ON checks (generation);

-- What the user's systems are told, written in the same transaction as the change it tells of.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    generation INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    sequence   INTEGER NOT NULL CHECK (sequence > 0),
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('generation.completed', 'generation.failed', 'generation.attention',
                                                'generation.updated', 'generation.corrected')),
    attention  TEXT,
    UNIQUE (generation, sequence)
) STRICT;

-- What people and programs did about a generation.
CREATE TABLE notes (
    id         INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    author     TEXT    NOT NULL,
    text       TEXT    NOT NULL
) STRICT;

CREATE INDEX notes_generation ON notes (generation);

-- One row, written to see whether the database takes writes.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;

-- Error codes that are not in the catalogue, as they came.
CREATE TABLE unknown_codes (
    code    TEXT    PRIMARY KEY,
    family  TEXT    NOT NULL,
    seen    INTEGER NOT NULL,
    last_at INTEGER NOT NULL
) STRICT;
