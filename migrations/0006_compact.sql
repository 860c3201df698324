-- The same facts in less room and with less work for each: words become numbers (the order of their enums in `domain/`, from 1 on),
-- canonical UUIDs of the provider 16 bytes, and what can be told from a generation itself is not written a second time.
-- Runs without foreign keys: the tables they point at are replaced.

CREATE TABLE generations_compact (
    id               INTEGER PRIMARY KEY,
    uid              BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    -- 16 bytes for a UUID in its canonical spelling, text for anything else
    provider_id      ANY              CHECK (length(provider_id) BETWEEN 1 AND 128),
    family           INTEGER NOT NULL CHECK (family > 0),
    -- prepared, submitting, unconfirmed, rejected, pending, processing, completed, failed, lost
    status           INTEGER NOT NULL CHECK (status BETWEEN 1 AND 9),
    -- overdue, stuck, no_result, not_found, unconfirmed, conflict, lost
    attention        INTEGER          CHECK (attention BETWEEN 1 AND 7),
    model            TEXT,
    duration_seconds INTEGER          CHECK (duration_seconds > 0),
    prompt           TEXT,
    result_url       TEXT             CHECK (result_url <> ''),
    error_code       TEXT,
    error_text       TEXT,
    price_micros     INTEGER          CHECK (price_micros >= 0),
    -- webhook, check
    source           INTEGER          CHECK (source BETWEEN 1 AND 2),
    -- token, status, token+status
    verification     INTEGER          CHECK (verification BETWEEN 1 AND 3),
    recovered        INTEGER NOT NULL CHECK (recovered BETWEEN 0 AND 1),
    -- gateway, api, webhook
    via              INTEGER NOT NULL CHECK (via BETWEEN 1 AND 3),
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
    late_answers     INTEGER NOT NULL CHECK (late_answers >= 0),
    late_at          INTEGER,
    deliveries       INTEGER NOT NULL CHECK (deliveries >= 0),
    webhook_at       INTEGER,
    claim            TEXT,
    refunded_at      INTEGER,
    outcomes         INTEGER NOT NULL CHECK (outcomes >= 0),
    events           INTEGER NOT NULL CHECK (events >= 0),
    -- NULL for none
    metadata         TEXT             CHECK (metadata IS NULL OR json_valid(metadata)),

    -- final <=> settled_at
    CHECK ((status >= 7 OR status = 4) = (settled_at IS NOT NULL)),
    -- completed <=> there is a result
    CHECK ((status = 7) = (result_url IS NOT NULL)),
    -- a reason only where something failed or was refused
    CHECK (status = 8 OR status = 4 OR (error_code IS NULL AND error_text IS NULL)),
    -- an outcome <=> how it was learned
    CHECK ((status = 7 OR status = 8) = (source IS NOT NULL)),
    CHECK ((source IS NULL) = (verification IS NULL)),
    -- nothing open sleeps for ever
    CHECK (status >= 7 OR status = 4 OR status = 1 OR check_at IS NOT NULL OR turn_at IS NOT NULL),
    -- only what has an id can be asked about
    CHECK (check_at IS NULL OR provider_id IS NOT NULL),
    -- the provider's words need the provider's id
    CHECK (status < 5 OR status = 9 OR provider_id IS NOT NULL)
) STRICT;

INSERT INTO generations_compact
SELECT id, uid,
       CASE WHEN provider_id GLOB '????????-????-????-????-????????????' AND unhex(provider_id, '-') IS NOT NULL
                 AND provider_id = lower(provider_id) AND length(unhex(provider_id, '-')) = 16
            THEN unhex(provider_id, '-') ELSE provider_id END,
       CASE family WHEN 'kling/o3-video' THEN 1 WHEN 'kling' THEN 2 WHEN 'kling/o1-video' THEN 3 WHEN 'kling/o1-photo' THEN 4 WHEN 'kling/o3-photo' THEN 5
                   WHEN 'veo' THEN 6 WHEN 'sora' THEN 7 WHEN 'gemini' THEN 8 WHEN 'seedance' THEN 9 WHEN 'chatgpt-images' THEN 10 END,
       CASE status WHEN 'prepared' THEN 1 WHEN 'submitting' THEN 2 WHEN 'unconfirmed' THEN 3 WHEN 'rejected' THEN 4
                   WHEN 'pending' THEN 5 WHEN 'processing' THEN 6 WHEN 'completed' THEN 7 WHEN 'failed' THEN 8 WHEN 'lost' THEN 9 END,
       CASE attention WHEN 'overdue' THEN 1 WHEN 'stuck' THEN 2 WHEN 'no_result' THEN 3 WHEN 'not_found' THEN 4
                      WHEN 'unconfirmed' THEN 5 WHEN 'conflict' THEN 6 WHEN 'lost' THEN 7 END,
       model, duration_seconds, prompt, result_url, error_code, error_text, price_micros,
       CASE source WHEN 'webhook' THEN 1 WHEN 'check' THEN 2 END,
       CASE verification WHEN 'token' THEN 1 WHEN 'status' THEN 2 WHEN 'token+status' THEN 3 END,
       recovered, CASE via WHEN 'gateway' THEN 1 WHEN 'api' THEN 2 WHEN 'webhook' THEN 3 END,
       created_at, submitted_at, expected_by, settled_at, check_at, turn_at, checks, running_streak, not_found_streak, not_found_at,
       error_streak, late_answers, late_at, deliveries, webhook_at, claim, refunded_at, outcomes, events, nullif(metadata, '{}')
FROM generations;

-- Outcomes of those that have more than one; the only outcome of the others is in the generation.
CREATE TABLE outcomes_compact (
    id           INTEGER PRIMARY KEY,
    generation   INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    version      INTEGER NOT NULL CHECK (version > 0),
    at           INTEGER NOT NULL,
    status       INTEGER NOT NULL CHECK (status BETWEEN 7 AND 8),
    source       INTEGER NOT NULL CHECK (source BETWEEN 1 AND 2),
    verification INTEGER NOT NULL CHECK (verification BETWEEN 1 AND 3),
    result_url   TEXT,
    error_code   TEXT,
    error_text   TEXT,
    UNIQUE (generation, version)
) STRICT;

INSERT INTO outcomes_compact
SELECT o.id, generation, version, at, CASE o.status WHEN 'completed' THEN 7 WHEN 'failed' THEN 8 END,
       CASE o.source WHEN 'webhook' THEN 1 WHEN 'check' THEN 2 END,
       CASE o.verification WHEN 'token' THEN 1 WHEN 'status' THEN 2 WHEN 'token+status' THEN 3 END,
       o.result_url, o.error_code, o.error_text
FROM outcomes o JOIN generations g ON g.id = o.generation WHERE g.outcomes > 1;

CREATE TABLE deliveries_compact (
    id          INTEGER PRIMARY KEY,
    uid         BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    generation  INTEGER REFERENCES generations (id) ON DELETE CASCADE,
    family      INTEGER NOT NULL CHECK (family > 0),
    -- the reference its token named: one generation, or any
    standing    INTEGER NOT NULL CHECK (standing BETWEEN 0 AND 1),
    received_at INTEGER NOT NULL,
    -- accepted, duplicate, conflict, unreadable, mismatch, unknown_status
    disposition INTEGER NOT NULL CHECK (disposition BETWEEN 1 AND 6),
    reason      TEXT,
    body_bytes  INTEGER NOT NULL,
    body_sha256 BLOB    NOT NULL CHECK (length(body_sha256) = 32),
    replay_of   BLOB             CHECK (length(replay_of) = 16)
) STRICT;

-- Raw bodies, apart from their deliveries: what retention removes are whole pages, which new rows take up.
CREATE TABLE bodies (
    delivery INTEGER PRIMARY KEY REFERENCES deliveries (id) ON DELETE CASCADE,
    body     BLOB    NOT NULL
) STRICT;

INSERT INTO deliveries_compact
SELECT id, uid, generation, CASE family WHEN 'kling/o3-video' THEN 1 WHEN 'kling' THEN 2 WHEN 'kling/o1-video' THEN 3 WHEN 'kling/o1-photo' THEN 4 WHEN 'kling/o3-photo' THEN 5
                   WHEN 'veo' THEN 6 WHEN 'sora' THEN 7 WHEN 'gemini' THEN 8 WHEN 'seedance' THEN 9 WHEN 'chatgpt-images' THEN 10 END, standing, received_at,
       CASE disposition WHEN 'accepted' THEN 1 WHEN 'duplicate' THEN 2 WHEN 'conflict' THEN 3 WHEN 'unreadable' THEN 4
                        WHEN 'mismatch' THEN 5 WHEN 'unknown_status' THEN 6 END,
       reason, body_bytes, body_sha256, replay_of
FROM deliveries;
INSERT INTO bodies SELECT id, body FROM deliveries WHERE body IS NOT NULL;

CREATE TABLE events_compact (
    id         INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    generation INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    sequence   INTEGER NOT NULL CHECK (sequence > 0),
    at         INTEGER NOT NULL,
    -- completed, failed, attention, updated, corrected
    kind       INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 5),
    attention  INTEGER          CHECK (attention BETWEEN 1 AND 7),
    -- whether a caller of the gateway wants to be told itself
    for_caller INTEGER NOT NULL CHECK (for_caller BETWEEN 0 AND 1),
    -- the generation as it was then; NULL while it still is so
    shown      TEXT             CHECK (shown IS NULL OR json_valid(shown)),
    UNIQUE (generation, sequence)
) STRICT;

INSERT INTO events_compact
SELECT id, uid, generation, sequence, at,
       CASE kind WHEN 'generation.completed' THEN 1 WHEN 'generation.failed' THEN 2 WHEN 'generation.attention' THEN 3
                 WHEN 'generation.updated' THEN 4 WHEN 'generation.corrected' THEN 5 END,
       CASE attention WHEN 'overdue' THEN 1 WHEN 'stuck' THEN 2 WHEN 'no_result' THEN 3 WHEN 'not_found' THEN 4
                      WHEN 'unconfirmed' THEN 5 WHEN 'conflict' THEN 6 WHEN 'lost' THEN 7 END,
       EXISTS (SELECT 1 FROM submissions s WHERE s.generation = events.generation AND s.callback_url IS NOT NULL), shown
FROM events;

CREATE TABLE dispatches_compact (
    id          INTEGER PRIMARY KEY,
    outlet      INTEGER NOT NULL REFERENCES outlets (id),
    event       INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    -- pending, delivered, dead
    state       INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),
    attempts    INTEGER NOT NULL CHECK (attempts >= 0),
    -- of a pending one: when it is tried next; while it is being tried, when it counts as interrupted
    next_at     INTEGER,
    last_at     INTEGER,
    http_status INTEGER,
    said        TEXT,
    UNIQUE (outlet, event),
    CHECK ((state = 1) = (next_at IS NOT NULL))
) STRICT;

INSERT INTO dispatches_compact
SELECT id, outlet, event, CASE state WHEN 'pending' THEN 1 WHEN 'delivered' THEN 2 WHEN 'dead' THEN 3 END, attempts, next_at, last_at,
       http_status, said
FROM dispatches;

ALTER TABLE outlets ADD COLUMN callers_only INTEGER NOT NULL DEFAULT 0 CHECK (callers_only BETWEEN 0 AND 1);
UPDATE outlets SET callers_only = 1 WHERE name = 'callers';

DROP TABLE dispatches;
DROP TABLE events;
DROP TABLE deliveries;
DROP TABLE outcomes;
DROP TABLE generations;
ALTER TABLE generations_compact RENAME TO generations;
ALTER TABLE outcomes_compact RENAME TO outcomes;
ALTER TABLE deliveries_compact RENAME TO deliveries;
ALTER TABLE events_compact RENAME TO events;
ALTER TABLE dispatches_compact RENAME TO dispatches;

-- One generation per id of the provider; NULLs do not collide. The id comes first: it is looked up without the family.
CREATE UNIQUE INDEX generations_provider_id ON generations (provider_id, family) WHERE provider_id IS NOT NULL;
-- The due list: a restart loses nothing because it is an index, not memory.
CREATE INDEX generations_check_at ON generations (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX generations_turn_at ON generations (turn_at) WHERE turn_at IS NOT NULL;
-- Lists, newest first: SQLite appends the row id to each, so each serves its order. Completed ones are most: they are found without.
CREATE INDEX generations_created_at ON generations (created_at);
CREATE INDEX generations_status ON generations (status, created_at, attention) WHERE status <> 7;
CREATE INDEX generations_attention ON generations (attention, created_at) WHERE attention IS NOT NULL;
CREATE INDEX generations_error_code ON generations (error_code, created_at) WHERE error_code IS NOT NULL;
-- The edges of a money report that does not begin or end on the hour: what was bought at another time than it was first known.
CREATE INDEX generations_submitted_at ON generations (submitted_at) WHERE submitted_at <> created_at;
-- Open refund windows.
CREATE INDEX generations_failed_at ON generations (settled_at) WHERE status = 8 AND refunded_at IS NULL;

CREATE INDEX deliveries_generation ON deliveries (generation) WHERE generation IS NOT NULL;
-- Lists of all but the usual kind, which is found soon enough without an index.
CREATE INDEX deliveries_disposition ON deliveries (disposition) WHERE disposition <> 1;
-- An unreadable body is kept once, however often it is sent.
CREATE UNIQUE INDEX deliveries_unreadable ON deliveries (family, coalesce(generation, 0), body_sha256)
    WHERE disposition = 4 AND replay_of IS NULL;

CREATE INDEX events_kind ON events (kind) WHERE kind <> 1;
CREATE INDEX events_for_caller ON events (id) WHERE for_caller = 1;
CREATE INDEX dispatches_due ON dispatches (outlet, next_at) WHERE state = 1;
CREATE INDEX dispatches_event ON dispatches (event);
-- Of each state but the usual one: those to be listed by it.
CREATE INDEX dispatches_state ON dispatches (state, event) WHERE state <> 2;

-- Labels that generations are found by.
CREATE TABLE labels (
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    generation INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    PRIMARY KEY (key, value, created_at, generation)
) STRICT, WITHOUT ROWID;

CREATE INDEX labels_generation ON labels (generation);
INSERT INTO labels
SELECT key, value, created_at, generations.id FROM generations, json_each(generations.metadata) WHERE metadata IS NOT NULL;

-- The money report's sums are kept by the writer, once for a group of changes; only removal is left to a trigger. Whole days beside
-- the hours: a report over years adds up few rows.
DROP TABLE credit_totals;
CREATE TABLE credit_hours (
    hour        INTEGER NOT NULL, -- of the purchase, since 1970
    status      INTEGER NOT NULL,
    attention   INTEGER NOT NULL, -- 0 for none
    error_code  TEXT    NOT NULL, -- '' for none, as below
    model       TEXT    NOT NULL,
    recovered   INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,
    generations INTEGER NOT NULL,
    priced      INTEGER NOT NULL,
    micros      INTEGER NOT NULL,
    PRIMARY KEY (hour, status, attention, error_code, model, recovered, refunded)
) STRICT, WITHOUT ROWID;

CREATE TABLE credit_days (
    day         INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    attention   INTEGER NOT NULL,
    error_code  TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    recovered   INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,
    generations INTEGER NOT NULL,
    priced      INTEGER NOT NULL,
    micros      INTEGER NOT NULL,
    PRIMARY KEY (day, status, attention, error_code, model, recovered, refunded)
) STRICT, WITHOUT ROWID;

INSERT INTO credit_hours
SELECT coalesce(submitted_at, created_at) / 3600000, status, coalesce(attention, 0), coalesce(error_code, ''),
       coalesce(model, ''), recovered, refunded_at IS NOT NULL, count(*), count(price_micros), coalesce(sum(price_micros), 0)
FROM generations GROUP BY 1, 2, 3, 4, 5, 6, 7;
INSERT INTO credit_days
SELECT hour / 24, status, attention, error_code, model, recovered, refunded, sum(generations), sum(priced), sum(micros)
FROM credit_hours GROUP BY 1, 2, 3, 4, 5, 6, 7;

CREATE TRIGGER credits_delete AFTER DELETE ON generations BEGIN
    UPDATE credit_hours SET generations = generations - 1, priced = priced - (OLD.price_micros IS NOT NULL),
                            micros = micros - coalesce(OLD.price_micros, 0)
    WHERE hour = coalesce(OLD.submitted_at, OLD.created_at) / 3600000 AND status = OLD.status
      AND attention = coalesce(OLD.attention, 0) AND error_code = coalesce(OLD.error_code, '')
      AND model = coalesce(OLD.model, '') AND recovered = OLD.recovered AND refunded = (OLD.refunded_at IS NOT NULL);
    UPDATE credit_days SET generations = generations - 1, priced = priced - (OLD.price_micros IS NOT NULL),
                           micros = micros - coalesce(OLD.price_micros, 0)
    WHERE day = coalesce(OLD.submitted_at, OLD.created_at) / 3600000 / 24 AND status = OLD.status
      AND attention = coalesce(OLD.attention, 0) AND error_code = coalesce(OLD.error_code, '')
      AND model = coalesce(OLD.model, '') AND recovered = OLD.recovered AND refunded = (OLD.refunded_at IS NOT NULL);
END;
