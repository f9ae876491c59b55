-- Who shares a consumer's partitions: a row for each live worker, whose beat goes on while it lives.
-- As with cursors, no time is stored: whoever looks judges by its own monotonic clock.

CREATE TABLE members (
    consumer text   NOT NULL,
    member   text   NOT NULL,
    beat     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, member)
);
