-- Whether an agent can be relied on, and what it takes to choose between agents.

ALTER TABLE agents
    ADD COLUMN cost double precision NOT NULL DEFAULT 0,
    ADD COLUMN region text,
    ADD COLUMN circuit text NOT NULL DEFAULT 'closed',
    ADD COLUMN lost boolean NOT NULL DEFAULT false,
    ADD COLUMN reason text NOT NULL DEFAULT '';

-- Every worker reads these each second; they are few among many that simply work.
CREATE INDEX agents_kept_from_work ON agents (updated_at)
    WHERE status <> 'active' OR circuit <> 'closed' OR lost;
