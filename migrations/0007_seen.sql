-- What the operator's page shows without looking at the rows themselves, and who may look at it.

-- Outcomes by the hour they were learned in. A correction moves one from where it was counted; what retention removes stays counted.
CREATE TABLE outcome_hours (
    hour      INTEGER NOT NULL, -- since 1970
    family    INTEGER NOT NULL,
    model     TEXT    NOT NULL, -- '' for none
    -- rejected, completed, failed, lost
    status    INTEGER NOT NULL CHECK (status IN (4, 7, 8, 9)),
    -- 0 where nothing was learned, webhook, check
    source    INTEGER NOT NULL CHECK (source BETWEEN 0 AND 2),
    recovered INTEGER NOT NULL CHECK (recovered BETWEEN 0 AND 1),
    outcomes  INTEGER NOT NULL,
    -- of them by the time they were expected at
    in_time   INTEGER NOT NULL,
    -- from the purchase to the outcome, summed up
    took_ms   INTEGER NOT NULL,
    PRIMARY KEY (hour, family, model, status, source, recovered)
) STRICT, WITHOUT ROWID;

INSERT INTO outcome_hours
SELECT settled_at / 3600000, family, coalesce(model, ''), status, coalesce(source, 0), recovered, count(*),
       count(*) FILTER (WHERE settled_at <= expected_by), sum(max(0, settled_at - coalesce(submitted_at, created_at)))
FROM generations WHERE settled_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6;

-- Webhooks by the hour they came in, also those that were only counted.
CREATE TABLE webhook_hours (
    hour        INTEGER NOT NULL, -- since 1970
    family      INTEGER NOT NULL,
    disposition INTEGER NOT NULL CHECK (disposition BETWEEN 1 AND 6),
    webhooks    INTEGER NOT NULL,
    -- of them behind the read that had found the outcome, and how long behind it, summed up
    late        INTEGER NOT NULL,
    lag_ms      INTEGER NOT NULL,
    PRIMARY KEY (hour, family, disposition)
) STRICT, WITHOUT ROWID;

INSERT INTO webhook_hours
SELECT received_at / 3600000, family, disposition, count(*), 0, 0 FROM deliveries GROUP BY 1, 2, 3;

-- Who is logged in. Neither a cookie nor a key can be told from what stands here.
CREATE TABLE sessions (
    token_sha256 BLOB    PRIMARY KEY CHECK (length(token_sha256) = 32),
    -- HMAC of the API key's hash, keyed with the cookie: a session ends with its key
    key_mac      BLOB    NOT NULL CHECK (length(key_mac) = 32),
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_expires_at ON sessions (expires_at);
