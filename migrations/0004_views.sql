-- Views for people: who did what, when and why; and what an execution cost in coordination.

-- One aggregate's trail is a range of the log. What `histories` has not heard of yet follows from
-- the log itself, so that a projector which lags, or stands still, hides nothing. (OFFSET 0 has the
-- planner look only behind a cursor that lags; it would read all of the log, twice, without.)
CREATE VIEW audit AS
SELECT (e.message ->> 'time')::timestamptz AS time,
       e.message ->> 'tenant' AS tenant,
       e.message ->> 'actor' AS actor,
       e.subject,
       split_part(e.subject, '/', 1) AS aggregate,
       substr(e.subject, strpos(e.subject, '/') + 1) AS aggregate_id,
       e.type,
       (e.message ->> 'version')::bigint AS version,
       e.partition,
       e.position,
       e.message ->> 'causationid' AS causation_id,
       e.message ->> 'correlationid' AS correlation_id,
       e.message -> 'data' AS data
FROM (
    SELECT h.subject, e.type, e.partition, e.position, e.message
    FROM histories AS h
    JOIN events AS e
      ON e.partition = h.partition AND e.subject = h.subject
     AND e.position BETWEEN h.first_position AND h.last_position
    UNION ALL
    SELECT e.subject, e.type, e.partition, e.position, e.message
    FROM cursors AS head
    LEFT JOIN cursors AS heard
      ON heard.consumer = 'histories@1' AND heard.partition = head.partition
    CROSS JOIN LATERAL (
        SELECT * FROM events
        WHERE partition = head.partition
          AND position > coalesce(heard.position, 0) AND position <= head.position
        OFFSET 0
    ) AS e
    WHERE head.consumer = 'commands' AND head.position > coalesce(heard.position, 0)
) AS e;

-- R10: the share of the run time in which no task was running, which is what the engine adds; null
-- where no time has passed. Clocks may disagree: nothing counts from before the execution's start.
CREATE VIEW execution_performance AS
SELECT x.execution_id, x.tenant, x.workflow_id, x.status,
       run.total AS total_runtime,
       t.agents AS agents_allocated,
       x.tasks_completed,
       CASE WHEN run.total > interval '0'
            THEN greatest(0, 1 - t.busy_s / extract(epoch FROM run.total))
       END AS coordination_overhead
FROM executions AS x
CROSS JOIN LATERAL (SELECT coalesce(x.completed_at, x.updated_at) - x.started_at AS total) AS run
CROSS JOIN LATERAL (
    SELECT (SELECT count(DISTINCT agent_id) FROM tasks WHERE execution_id = x.execution_id)
               AS agents,
           coalesce(sum(extract(epoch FROM upper(busy.span) - lower(busy.span))), 0) AS busy_s
    FROM (SELECT unnest(range_agg(tstzrange(begun, greatest(begun,
                     coalesce(completed_at, x.updated_at))))) AS span
          FROM tasks, greatest(started_at, x.started_at) AS begun
          WHERE execution_id = x.execution_id AND started_at IS NOT NULL) AS busy
) AS t;
