-- What stands beside the log: definitions that events refer to by digest, snapshots that shorten
-- recovery, and what could not be handled.

CREATE TABLE definitions (
    workflow_id text    NOT NULL,
    revision    integer NOT NULL,
    tenant      text    NOT NULL,
    digest      text    NOT NULL,
    archived    boolean NOT NULL DEFAULT false,
    body        json    NOT NULL,
    PRIMARY KEY (workflow_id, revision)
);

CREATE TABLE snapshots (
    consumer  text    NOT NULL,
    subject   text    NOT NULL,
    partition integer NOT NULL,
    version   bigint  NOT NULL,
    position  bigint  NOT NULL,
    state     json    NOT NULL,
    PRIMARY KEY (consumer, subject)
);

CREATE TABLE dead_letters (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text        NOT NULL,
    source         text        NOT NULL,
    entry          text        NOT NULL,
    reason         text        NOT NULL,
    raw            bytea       NOT NULL,
    time           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, source, entry)
);
