-- What could not be handled, whatever it is: one table, with the bytes, the reason, and what a
-- person has decided. An id follows from where a letter came from, so that a repeat changes nothing.
-- The decisions are events of the aggregate `dead_letter`; the columns `status` and after follow
-- them.

ALTER TABLE dead_letters RENAME TO dead_letters_before;
CREATE TABLE dead_letters (
    dead_letter_id text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('command', 'event', 'task', 'hook')),
    tenant text,   -- where it is known
    subject text,  -- where it is known: kind/id
    source text NOT NULL, entry text NOT NULL, reason text NOT NULL,
    raw bytea NOT NULL, raw_bytes bigint NOT NULL,  -- more than are in `raw` where it was cut
    time timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'retried', 'discarded')),
    tries integer NOT NULL DEFAULT 0,
    decided_by text, decided_why text, decided_at timestamptz,
    due boolean NOT NULL DEFAULT false  -- decided, and not carried out yet
);
INSERT INTO dead_letters (dead_letter_id, kind, source, entry, reason, raw, raw_bytes, time)
SELECT left(encode(sha256(convert_to(concat_ws(E'\n', kind, source, entry), 'UTF8')), 'hex'), 32),
       kind, source, entry, reason, raw, octet_length(raw), time
FROM dead_letters_before;
DROP TABLE dead_letters_before;
CREATE INDEX dead_letters_by_time ON dead_letters (status, time, dead_letter_id);
CREATE INDEX dead_letters_due ON dead_letters (decided_at) WHERE due;

-- Aggregates that one reader of the log does not hear of any more: at `position` it could not handle
-- an event. Everything else goes on. `wanted` is what a person has decided and the reader has not
-- done yet.
CREATE TABLE parked_keys (
    consumer text NOT NULL, partition integer NOT NULL, subject text NOT NULL,
    position bigint NOT NULL,
    dead_letter_id text NOT NULL,
    wanted text CHECK (wanted IN ('retry', 'skip')),
    PRIMARY KEY (consumer, partition, subject)
);
CREATE INDEX parked_keys_by_letter ON parked_keys (dead_letter_id);
