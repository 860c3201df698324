-- Purchases that pass through us, keys that make them happen once, and the money report.

-- What was sent to the provider and what came back. The request itself is not kept (67 MB of images): its hash and length are.
CREATE TABLE submissions (
    generation     INTEGER PRIMARY KEY REFERENCES generations (id) ON DELETE CASCADE,
    sent_at        INTEGER NOT NULL,
    request_bytes  INTEGER NOT NULL CHECK (request_bytes >= 0),
    request_sha256 BLOB    NOT NULL CHECK (length(request_sha256) = 32),
    -- where the caller itself wants to be told
    callback_url   TEXT             CHECK (callback_url <> ''),
    answered_at    INTEGER,
    result         TEXT             CHECK (result IN ('accepted', 'refused', 'not_sent', 'unclear')),
    http_status    INTEGER,
    content_type   TEXT,
    retry_after    TEXT,
    error_code     TEXT,
    said           TEXT,
    body           BLOB,
    CHECK ((answered_at IS NULL) = (result IS NULL)),
    -- only an answer that came has a status
    CHECK (http_status IS NULL OR result IN ('accepted', 'refused', 'unclear')),
    CHECK (result NOT IN ('accepted', 'refused') OR http_status IS NOT NULL)
) STRICT;

-- Those nobody has an answer of: few, and none after a start.
CREATE INDEX submissions_unanswered ON submissions (generation) WHERE answered_at IS NULL;

-- The same key and body twice is one request. Rows of the gateway take their answer from submissions.
CREATE TABLE idempotency_keys (
    id          INTEGER PRIMARY KEY,
    -- API key and route
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body_sha256 BLOB    NOT NULL CHECK (length(body_sha256) = 32),
    created_at  INTEGER NOT NULL,
    generation  INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    status      INTEGER,
    body        BLOB,
    CHECK ((status IS NULL) = (body IS NULL)),
    UNIQUE (scope, key)
) STRICT;

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_generation ON idempotency_keys (generation);

-- The money report adds up hours instead of generations, so it is as fast with ten million of them. Triggers keep the sums in
-- the transaction that changes a generation; what depends on the present time (an open refund window) is looked up beside them.
CREATE TABLE credit_totals (
    hour        INTEGER NOT NULL, -- of the purchase, since 1970
    status      TEXT    NOT NULL,
    attention   TEXT    NOT NULL, -- '' for none, as below
    error_code  TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    recovered   INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,
    generations INTEGER NOT NULL,
    priced      INTEGER NOT NULL,
    micros      INTEGER NOT NULL,
    PRIMARY KEY (hour, status, attention, error_code, model, recovered, refunded)
) STRICT, WITHOUT ROWID;

-- The edges of a report that does not begin or end on the hour.
CREATE INDEX generations_began_at ON generations (coalesce(submitted_at, created_at));
-- Open refund windows.
CREATE INDEX generations_failed_at ON generations (settled_at) WHERE status = 'failed' AND refunded_at IS NULL;

INSERT INTO credit_totals
SELECT coalesce(submitted_at, created_at) / 3600000, status, coalesce(attention, ''), coalesce(error_code, ''),
       coalesce(model, ''), recovered, refunded_at IS NOT NULL, count(*), count(price_micros), coalesce(sum(price_micros), 0)
FROM generations GROUP BY 1, 2, 3, 4, 5, 6, 7;

CREATE TRIGGER credit_totals_insert AFTER INSERT ON generations BEGIN
    INSERT INTO credit_totals VALUES (
        coalesce(NEW.submitted_at, NEW.created_at) / 3600000, NEW.status, coalesce(NEW.attention, ''),
        coalesce(NEW.error_code, ''), coalesce(NEW.model, ''), NEW.recovered, NEW.refunded_at IS NOT NULL,
        1, NEW.price_micros IS NOT NULL, coalesce(NEW.price_micros, 0))
    ON CONFLICT DO UPDATE SET generations = generations + 1, priced = priced + excluded.priced, micros = micros + excluded.micros;
END;

CREATE TRIGGER credit_totals_update AFTER UPDATE ON generations
WHEN (OLD.status, OLD.attention, OLD.error_code, OLD.model, OLD.recovered, OLD.refunded_at IS NULL, OLD.price_micros,
      coalesce(OLD.submitted_at, OLD.created_at) / 3600000)
  IS NOT (NEW.status, NEW.attention, NEW.error_code, NEW.model, NEW.recovered, NEW.refunded_at IS NULL, NEW.price_micros,
      coalesce(NEW.submitted_at, NEW.created_at) / 3600000) BEGIN
    UPDATE credit_totals SET generations = generations - 1, priced = priced - (OLD.price_micros IS NOT NULL),
                             micros = micros - coalesce(OLD.price_micros, 0)
    WHERE hour = coalesce(OLD.submitted_at, OLD.created_at) / 3600000 AND status = OLD.status
      AND attention = coalesce(OLD.attention, '') AND error_code = coalesce(OLD.error_code, '')
      AND model = coalesce(OLD.model, '') AND recovered = OLD.recovered AND refunded = (OLD.refunded_at IS NOT NULL);
    INSERT INTO credit_totals VALUES (
        coalesce(NEW.submitted_at, NEW.created_at) / 3600000, NEW.status, coalesce(NEW.attention, ''),
        coalesce(NEW.error_code, ''), coalesce(NEW.model, ''), NEW.recovered, NEW.refunded_at IS NOT NULL,
        1, NEW.price_micros IS NOT NULL, coalesce(NEW.price_micros, 0))
    ON CONFLICT DO UPDATE SET generations = generations + 1, priced = priced + excluded.priced, micros = micros + excluded.micros;
END;

CREATE TRIGGER credit_totals_delete AFTER DELETE ON generations BEGIN
    UPDATE credit_totals SET generations = generations - 1, priced = priced - (OLD.price_micros IS NOT NULL),
                             micros = micros - coalesce(OLD.price_micros, 0)
    WHERE hour = coalesce(OLD.submitted_at, OLD.created_at) / 3600000 AND status = OLD.status
      AND attention = coalesce(OLD.attention, '') AND error_code = coalesce(OLD.error_code, '')
      AND model = coalesce(OLD.model, '') AND recovered = OLD.recovered AND refunded = (OLD.refunded_at IS NOT NULL);
END;
