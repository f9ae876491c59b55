"""Every statement of the command line, with a name and a sentence."""

ROLES = "SELECT DISTINCT json_object_keys(body->'agents') FROM definitions"
"""Every role that a workflow asks for."""

EVENTS_IN_ALL = "SELECT coalesce(sum(position), 0)::bigint FROM cursors WHERE consumer = 'commands'"
"""The log's length: positions have no gaps."""

_RUN = """
SELECT execution_id, workflow_id, workflow_name, status, split_part(current_phase, '/', 1), phases,
       tasks_total, tasks_completed, tasks_running, tasks_scheduled, tasks_failed, attempts_failed,
       started_at, completed_at, reason
FROM executions
"""

RUNS = f"{_RUN} WHERE execution_id = ANY($1::text[]) ORDER BY started_at, execution_id"
"""Some executions, in the order in which they started."""

NEWEST_RUNS = f"{_RUN} ORDER BY started_at DESC, execution_id DESC LIMIT $1"
"""The newest executions."""

PHASES = """
SELECT phase,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'running') AS running,
       count(*) FILTER (WHERE status IN ('scheduled', 'pending')) AS waiting,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status = 'cancelled') AS cancelled
FROM tasks WHERE execution_id = $1 GROUP BY phase ORDER BY phase
"""
"""How an execution's tasks stand, by phase; those that were never scheduled are not counted."""

OPEN_TASKS = """
SELECT task_id, agent_role, status, attempt, agent_id, error FROM tasks
WHERE execution_id = $1 AND status NOT IN ('completed', 'cancelled')
ORDER BY status = 'failed' DESC, status = 'running' DESC, priority DESC, task_id
"""
"""What failed, what is under way and what waits."""

TASK_STATES = "SELECT task_id, status, attempt, agent_id FROM tasks WHERE execution_id = $1"
"""Every task that was ever scheduled, as the read model has it."""

EVENTS_OF = """
SELECT x.execution_id, (e.message ->> 'version')::bigint
FROM executions AS x
JOIN events AS e ON e.partition = x.partition AND e.position = x.last_position
WHERE x.execution_id = ANY($1::text[])
"""
"""How many events executions have: the version of the last one counts them."""

SLOWEST_TASKS = """
SELECT task_id, agent_role, agent_id, completed_at - started_at AS took
FROM tasks WHERE execution_id = $1 AND status = 'completed'
ORDER BY took DESC, task_id LIMIT 3
"""
"""Where an execution's time went."""

COORDINATION = """
SELECT total_runtime, agents_allocated, tasks_completed,
       round(coordination_overhead::numeric, 3) AS coordination_overhead
FROM execution_performance WHERE execution_id = $1
"""
"""What its coordination cost."""
