-- Equal purchases: the same prompt, family, model and length, made within ten minutes of each other.

-- What is equal has the same length and beginning, which leaves few to compare.
CREATE INDEX generations_equal ON generations
    (family, length(prompt), substr(prompt, 1, 32), coalesce(submitted_at, created_at)) WHERE prompt IS NOT NULL;

-- Those of which an equal one was on record. Whether both count as purchases is looked at when they are listed: one may be refused yet.
CREATE TABLE doubled (
    generation INTEGER PRIMARY KEY REFERENCES generations (id) ON DELETE CASCADE,
    -- as in generations
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX doubled_created_at ON doubled (created_at);

INSERT INTO doubled
SELECT g.id, g.created_at FROM generations g
WHERE g.prompt IS NOT NULL AND EXISTS (
    SELECT 1 FROM generations o INDEXED BY generations_equal
    WHERE o.family = g.family AND length(o.prompt) = length(g.prompt) AND substr(o.prompt, 1, 32) = substr(g.prompt, 1, 32)
      AND coalesce(o.submitted_at, o.created_at) BETWEEN coalesce(g.submitted_at, g.created_at) - 600000
                                                     AND coalesce(g.submitted_at, g.created_at) + 600000
      AND o.prompt = g.prompt AND o.model IS g.model AND o.duration_seconds IS g.duration_seconds AND o.id <> g.id);
