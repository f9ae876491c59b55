-- Tasks that wait for input or were undone; executions that have a time of their own.
-- `tasks.compensation` is scheduled, compensated or parked once undoing it was begun; the task's
-- own status stays what it was.

ALTER TABLE executions
    ADD COLUMN timeout_seconds double precision,
    ADD COLUMN tasks_waiting integer NOT NULL DEFAULT 0,      -- for input, now
    ADD COLUMN tasks_compensated integer NOT NULL DEFAULT 0;

ALTER TABLE tasks
    ADD COLUMN compensation text,
    ADD COLUMN prompt json;  -- what a waiting task asks
