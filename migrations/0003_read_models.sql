-- What people query: rows folded from the log by the projectors, one file in `projections` a table.

CREATE TABLE workflows (
    workflow_id text PRIMARY KEY,
    tenant text NOT NULL, name text NOT NULL, version text NOT NULL, revision integer NOT NULL,
    digest text NOT NULL, pattern text NOT NULL, roles text[] NOT NULL,
    tasks integer NOT NULL, edges integer NOT NULL, phases integer NOT NULL,
    critical_path_seconds double precision NOT NULL,
    status text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);

CREATE TABLE executions (
    execution_id text PRIMARY KEY,
    tenant text NOT NULL, workflow_id text NOT NULL, workflow_name text NOT NULL,
    revision integer NOT NULL, status text NOT NULL, current_phase text NOT NULL,
    phases integer NOT NULL, tasks_total integer NOT NULL,
    tasks_scheduled integer NOT NULL DEFAULT 0,  -- waiting for an agent now
    tasks_running integer NOT NULL DEFAULT 0,
    tasks_completed integer NOT NULL DEFAULT 0, tasks_failed integer NOT NULL DEFAULT 0,
    tasks_cancelled integer NOT NULL DEFAULT 0, attempts_failed integer NOT NULL DEFAULT 0,
    input json, output json, reason text,
    started_at timestamptz NOT NULL, completed_at timestamptz, updated_at timestamptz NOT NULL,
    partition integer NOT NULL, first_position bigint NOT NULL, last_position bigint NOT NULL
) WITH (fillfactor = 60);  -- every batch rewrites the rows of what runs, seldom an indexed column
CREATE INDEX executions_by_workflow ON executions (workflow_id, started_at);
CREATE INDEX executions_by_tenant ON executions (tenant, started_at);
CREATE INDEX executions_by_start ON executions (started_at);
-- Most have completed, so these are few: what runs, waits, or has failed.
CREATE INDEX executions_not_completed ON executions (tenant, status, started_at)
    WHERE status <> 'completed';

-- A task has a row from the moment it is scheduled; until then it is in its definition only.
CREATE TABLE tasks (
    execution_id text NOT NULL, task_id text NOT NULL,
    tenant text NOT NULL, agent_role text NOT NULL, status text NOT NULL,
    attempt integer NOT NULL, agent_id text, phase integer NOT NULL, priority integer NOT NULL,
    scheduled_at timestamptz NOT NULL, started_at timestamptz, completed_at timestamptz,
    error text, output json,
    PRIMARY KEY (execution_id, task_id)
) WITH (fillfactor = 50);  -- neighbours change in the same batch: with 70, every third one in place

CREATE TABLE agents (
    agent_id text PRIMARY KEY,
    tenant text NOT NULL, name text NOT NULL, roles text[] NOT NULL, capabilities text[] NOT NULL,
    capacity integer NOT NULL, status text NOT NULL,
    registered_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);

-- Where each aggregate's events lie: its history is a range of the log, so that the log needs no
-- second index.
CREATE TABLE histories (
    subject text PRIMARY KEY,
    partition integer NOT NULL, first_position bigint NOT NULL, last_position bigint NOT NULL
) WITH (fillfactor = 60);
