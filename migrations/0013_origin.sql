-- From where things were commanded, where whoever relayed it said so; and looks at the newest of a
-- tenant's trail without its aggregates' names.

CREATE OR REPLACE VIEW audit_of_commands AS
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
       e.message -> 'data' AS data,
       e.message ->> 'origin' AS origin
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

CREATE OR REPLACE VIEW audit_of_all AS
SELECT time, tenant, actor, subject, aggregate, aggregate_id, type, version, partition, position,
       causation_id, correlation_id, data,
       type <> 'CommandRejected' AS allowed,
       origin
FROM audit_of_commands
UNION ALL
SELECT time, tenant, actor, subject, split_part(subject, '/', 1),
       substr(subject, strpos(subject, '/') + 1), action, NULL, NULL, NULL, NULL, NULL,
       json_build_object('via', via, 'payloads', payloads, 'detail', detail), allowed, origin
FROM audit_reads;
