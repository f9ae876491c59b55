-- The log: what has happened, in order, for ever. Everything else can be rebuilt from it.
-- `events` has one index, its key: a second one would cost a quarter of the append path, and the
-- single fenced writer of a partition already orders versions; see `histories` for one aggregate.

CREATE TABLE engine (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    partitions integer NOT NULL CHECK (partitions BETWEEN 1 AND 4096)
);

CREATE TABLE events (
    partition integer NOT NULL,
    position  bigint  NOT NULL,
    type      text    NOT NULL,
    subject   text    NOT NULL,
    message   json    NOT NULL,  -- json, not jsonb: the bytes stay as they were hashed
    PRIMARY KEY (partition, position)
);

CREATE TABLE commits (
    partition      integer     NOT NULL,
    number         bigint      NOT NULL,
    first_position bigint      NOT NULL,
    last_position  bigint      NOT NULL,
    epoch          bigint      NOT NULL,
    time           timestamptz NOT NULL,
    commands       json        NOT NULL,  -- [[command id, how many of the events are its], …]
    checksums      bytea       NOT NULL,  -- CRC-32 of each event: which one was changed
    hash           bytea       NOT NULL,  -- sha256 over the commit before and all of this one
    PRIMARY KEY (partition, number)
);

-- How far each consumer has come in each partition, and under which lease. A writer moves its row
-- and appends in one statement, so a row whose epoch was raised refuses every older writer.
CREATE TABLE cursors (
    consumer      text    NOT NULL,
    partition     integer NOT NULL,
    owner         text,
    epoch         bigint  NOT NULL DEFAULT 0,
    beat          bigint  NOT NULL DEFAULT 0,
    position      bigint  NOT NULL DEFAULT 0,
    commits       bigint  NOT NULL DEFAULT 0,
    hash          bytea   NOT NULL DEFAULT '\x',
    stream_offset text    NOT NULL DEFAULT '0-0',
    incarnation   text    NOT NULL DEFAULT '',
    snapshot      bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, partition)
) WITH (fillfactor = 50);  -- room for in-page updates: each commit rewrites one row
