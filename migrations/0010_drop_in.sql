-- A drop-in that is one: what the provider signed and sent beside its bodies, and its lists from our records.

-- The headers kept of a webhook, a JSON object; beside the body, so that retention removes both.
ALTER TABLE bodies ADD COLUMN headers TEXT CHECK (headers IS NULL OR json_valid(headers));

-- unchecked, verified; NULL for a webhook without a signature
ALTER TABLE deliveries ADD COLUMN signature INTEGER CHECK (signature BETWEEN 1 AND 2);

-- Where the provider's signature vouches for the outcome: alone, beside the token. `verification` is 1 then, as for a token.
ALTER TABLE generations ADD COLUMN signature INTEGER CHECK (signature BETWEEN 1 AND 2);
ALTER TABLE outcomes ADD COLUMN signature INTEGER CHECK (signature BETWEEN 1 AND 2);

-- A family's list as the provider has it: newest first, with an offset that steps over entries of the index and not over rows.
CREATE INDEX generations_family ON generations (family, created_at) WHERE provider_id IS NOT NULL;
