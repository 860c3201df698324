-- A purchase that is sent again is recognised, and not sent on.

-- What a purchase is recognised by: of the last day, older ones are pruned.
CREATE TABLE purchase_requests (
    generation  INTEGER PRIMARY KEY REFERENCES generations (id) ON DELETE CASCADE,
    -- API key and route
    scope       TEXT    NOT NULL,
    body_sha256 BLOB    NOT NULL CHECK (length(body_sha256) = 32),
    -- the caller's X-Request-ID: the same on all attempts of one call
    request_id  TEXT             CHECK (length(request_id) BETWEEN 1 AND 255),
    sent_at     INTEGER NOT NULL,
    -- when its caller left before it was answered
    left_at     INTEGER,
    -- when a repeat of it was told what became of it
    told_at     INTEGER
) STRICT;

CREATE INDEX purchase_requests_body ON purchase_requests (body_sha256, scope, sent_at);
CREATE INDEX purchase_requests_sent_at ON purchase_requests (sent_at);

-- The request's own short fields (seed, aspect ratio ...), as a JSON object: the request itself is not kept.
ALTER TABLE submissions ADD COLUMN options TEXT CHECK (options IS NULL OR json_valid(options));

-- What was learned of one generation from a list: such an answer is no read of its own.
ALTER TABLE checks ADD COLUMN listed INTEGER NOT NULL DEFAULT 0 CHECK (listed BETWEEN 0 AND 1);

-- The provider's lists that were read: since when, and which ids stood in them that were not on record.
CREATE TABLE lists (
    -- the family whose list it is
    family        INTEGER PRIMARY KEY,
    first_read_at INTEGER NOT NULL
) STRICT;

CREATE TABLE listed_ids (
    family        INTEGER NOT NULL,
    provider_id   TEXT    NOT NULL,
    first_seen_at INTEGER NOT NULL,
    PRIMARY KEY (family, provider_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX listed_ids_first_seen_at ON listed_ids (first_seen_at);

-- Generations of the provider that may be a purchase whose answer was lost, and cannot be told apart: a person decides.
CREATE TABLE candidates (
    generation  INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    provider_id TEXT    NOT NULL,
    seen_at     INTEGER NOT NULL,
    -- the list's own words
    entry       TEXT    NOT NULL CHECK (json_valid(entry)),
    PRIMARY KEY (generation, provider_id)
) STRICT, WITHOUT ROWID;
