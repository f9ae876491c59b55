"""Every statement of the Postgres log, with a name and a sentence."""

PARTITIONS = "SELECT partitions FROM engine"
"""How many partitions the database was created with."""

MAKE_CURSORS = """
INSERT INTO cursors (consumer, partition)
SELECT $1, p FROM engine, generate_series(0, engine.partitions - 1) AS p
ON CONFLICT DO NOTHING
"""
"""A consumer's cursors, one a partition."""

CURSOR_COLUMNS = (
    "consumer, partition, owner, epoch, beat, position, commits, hash,"
    " stream_offset, incarnation, snapshot"
)

CURSORS = f"SELECT {CURSOR_COLUMNS} FROM cursors WHERE consumer = $1 ORDER BY partition"
"""A consumer's cursors, in order."""

# Whatever changes several cursors locks them in the order of their partitions: a beat, a take-over
# and a commit that met in different orders would wait for each other until one is thrown out.

TAKE = """
WITH seen AS (
    SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[])
        AS s(consumer, partition, epoch, beat)
), locked AS MATERIALIZED (
    SELECT c.consumer, c.partition FROM cursors AS c JOIN seen USING (consumer, partition)
    WHERE c.epoch = seen.epoch AND c.beat = seen.beat
    ORDER BY c.partition FOR UPDATE OF c
)
UPDATE cursors AS c SET owner = $1, epoch = c.epoch + 1, beat = 0
FROM seen JOIN locked USING (consumer, partition)
WHERE c.consumer = seen.consumer AND c.partition = seen.partition
  AND c.epoch = seen.epoch AND c.beat = seen.beat
RETURNING c.consumer, c.partition, c.owner, c.epoch, c.beat, c.position, c.commits, c.hash,
          c.stream_offset, c.incarnation, c.snapshot
"""
"""Compare-and-set: whoever saw the lease unmoved for long enough raises its epoch."""

_HELD = """
WITH held AS (
    SELECT * FROM unnest($2::int[], $3::bigint[]) AS h(partition, epoch)
), locked AS MATERIALIZED (
    SELECT c.partition FROM cursors AS c JOIN held USING (partition)
    WHERE c.consumer = $1 AND c.epoch = held.epoch AND c.owner IS NOT NULL
    ORDER BY c.partition FOR UPDATE OF c
)
"""

BEAT = (
    _HELD
    + """
UPDATE cursors AS c SET beat = c.beat + 1 FROM held JOIN locked USING (partition)
WHERE c.consumer = $1 AND c.partition = held.partition AND c.epoch = held.epoch
  AND c.owner IS NOT NULL
RETURNING c.partition
"""
)
"""Show that the owner lives."""

RELEASE = (
    _HELD
    + """
UPDATE cursors AS c SET owner = NULL FROM held JOIN locked USING (partition)
WHERE c.consumer = $1 AND c.partition = held.partition AND c.epoch = held.epoch
"""
)
"""Hand partitions back."""

FREE = "SELECT EXISTS (SELECT FROM cursors WHERE consumer = $1 AND owner IS NULL)"
"""Whether there is something to take."""

MEET = """
WITH me AS (
    INSERT INTO members AS m (consumer, member, beat) VALUES ($1, $2, 1)
    ON CONFLICT (consumer, member) DO UPDATE SET beat = m.beat + 1
    RETURNING member, beat
)
SELECT member, beat FROM me
UNION ALL
SELECT member, beat FROM members WHERE consumer = $1 AND member <> $2
"""
"""Show that a member lives, and see who else does."""

DISMISS = """
DELETE FROM members AS m USING unnest($2::text[], $3::bigint[]) AS seen(member, beat)
WHERE m.consumer = $1 AND m.member = seen.member AND m.beat = seen.beat
"""
"""Remove members that have not beaten since they were seen."""

LEAVE = (
    _HELD
    + """
, released AS (
    UPDATE cursors AS c SET owner = NULL FROM held JOIN locked USING (partition)
    WHERE c.consumer = $1 AND c.partition = held.partition AND c.epoch = held.epoch
)
DELETE FROM members WHERE consumer = $1 AND member = $4
"""
)
"""Go: no member any more, and owner of nothing."""

ADVANCE = """
WITH moved AS (
    SELECT * FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS m(partition, epoch, position)
), locked AS MATERIALIZED (
    SELECT c.partition FROM cursors AS c JOIN moved USING (partition)
    JOIN cursors AS head ON head.consumer = 'commands' AND head.partition = c.partition
    WHERE c.consumer = $1 AND c.epoch = moved.epoch AND c.owner IS NOT NULL
      AND moved.position <= head.position
    ORDER BY c.partition FOR UPDATE OF c
)
UPDATE cursors AS c SET position = moved.position, beat = c.beat + 1
FROM moved JOIN locked USING (partition)
WHERE c.consumer = $1 AND c.partition = moved.partition AND c.epoch = moved.epoch
  AND c.owner IS NOT NULL
RETURNING c.partition
"""
"""Move a reader's cursors; never ahead of the log, which may have lost its end."""

_COMMIT = """
WITH given AS (
    SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                         $6::bytea[], $7::text[], $8::text[], $9::text[], $11::bytea[])
        AS g(partition, epoch, head, last, number, hash, stream_offset, incarnation, commands,
             checksums)
), locked AS MATERIALIZED (
    SELECT c.partition FROM cursors AS c JOIN given USING (partition)
    WHERE c.consumer = 'commands' AND c.epoch = given.epoch AND c.position = given.head
      AND c.owner IS NOT NULL
    ORDER BY c.partition FOR UPDATE OF c
), held AS (
    UPDATE cursors AS c
    SET position = g.last, commits = g.number, hash = g.hash, beat = c.beat + 1,
        stream_offset = g.stream_offset, incarnation = g.incarnation
    FROM given AS g JOIN locked USING (partition)
    WHERE c.consumer = 'commands' AND c.partition = g.partition
      AND c.epoch = g.epoch AND c.position = g.head AND c.owner IS NOT NULL
    RETURNING c.partition
), committed AS (
    INSERT INTO commits (partition, number, first_position, last_position, epoch, time, commands,
                         checksums, hash)
    SELECT g.partition, g.number, g.head + 1, g.last, g.epoch, $10, g.commands::json, g.checksums,
           g.hash
    FROM given AS g JOIN held USING (partition)
), appended AS (
    INSERT INTO events (partition, position, type, subject, message)
    SELECT e.partition, e.position, e.type, e.subject, e.message::json
    FROM unnest($12::text::int[], $13::text::bigint[], $14::text[], $15::text[], $16::text[])
        AS e(partition, position, type, subject, message)
    JOIN held USING (partition)
)
"""

APPEND = _COMMIT + "SELECT partition FROM held"
"""The whole commit in one statement: fence, head, cursor, commit rows and events."""

APPEND_BESIDE = (
    _COMMIT
    + """, defined AS (
    INSERT INTO definitions (workflow_id, revision, tenant, digest, archived, body)
    SELECT d.workflow_id, d.revision, d.tenant, d.digest, d.archived, d.body::json
    FROM unnest($17::int[], $18::text[], $19::int[], $20::text[], $21::text[], $22::bool[],
                $23::text[])
        AS d(partition, workflow_id, revision, tenant, digest, archived, body)
    JOIN held USING (partition)
    ON CONFLICT DO NOTHING
), archived AS (
    UPDATE definitions AS d SET archived = true
    FROM unnest($24::int[], $25::text[]) AS a(partition, workflow_id) JOIN held USING (partition)
    WHERE d.workflow_id = a.workflow_id
)
SELECT partition FROM held
"""
)
"""The same, with the bodies that the events name by digest, and the workflows that start no more.

A statement does not see its own rows: what is written and archived at once comes archived.
"""

READ = """
SELECT position, type, subject, message FROM events
WHERE partition = $1 AND position > $2 ORDER BY position LIMIT $3
"""
"""History in order."""

HISTORY = """
SELECT position, type, subject, message FROM events
WHERE partition = $1 AND subject = $2 AND position > greatest($3, (
    SELECT first_position - 1 FROM histories WHERE subject = $2 AND partition = $1
))
ORDER BY position LIMIT $4
"""
"""The history of one aggregate. What a read model says of its begin spares reading what is before;
`greatest` passes over NULL, where it says nothing yet."""

COMMITS = """
SELECT partition, number, first_position, last_position, epoch, time, commands, checksums,
       hash
FROM commits WHERE partition = $1 AND number > $2 ORDER BY number LIMIT $3
"""
"""Commits in order."""

RECENT = """
SELECT partition, number, first_position, last_position, epoch, time, commands, checksums,
       hash
FROM (SELECT *, sum(json_array_length(commands)) OVER (ORDER BY number DESC) AS covered
      FROM (SELECT * FROM commits WHERE partition = $1 ORDER BY number DESC LIMIT $2) AS newest
     ) AS c
WHERE covered - json_array_length(commands) < $2
ORDER BY number
"""
"""The newest commits that cover so many commands."""

DEFINITIONS = """
SELECT d.workflow_id, d.revision, d.tenant, d.digest, d.archived,
       convert_to(CASE WHEN $3 THEN d.body::text ELSE '' END, 'UTF8') AS body
FROM (SELECT DISTINCT w, r FROM unnest($1::text[], $2::int[]) AS x(w, r)) AS wanted
JOIN definitions AS d ON d.workflow_id = wanted.w AND d.revision = CASE WHEN wanted.r > 0
    THEN wanted.r ELSE (SELECT max(revision) FROM definitions WHERE workflow_id = wanted.w) END
"""
"""Revisions by number, 0 being the newest."""

SAVE = """
WITH held AS (
    UPDATE cursors SET snapshot = $4
    WHERE consumer = $1 AND partition = $2 AND epoch = $3 AND owner IS NOT NULL
    RETURNING partition
), saved AS (
    INSERT INTO snapshots (consumer, subject, partition, version, position, state)
    SELECT $1, s.subject, $2, s.version, $4, s.state::json
    FROM unnest($5::text[], $6::bigint[], $7::text[]) AS s(subject, version, state), held
    ON CONFLICT (consumer, subject) DO UPDATE
    SET version = excluded.version, position = excluded.position, state = excluded.state
)
SELECT count(*) FROM held
"""
"""Keep states, under the lease."""

UNPARK = SAVE.replace(
    "SELECT count(*) FROM held",
    """, unparked AS (
    DELETE FROM parked_keys USING held
    WHERE consumer = $8 AND parked_keys.partition = $2 AND subject = $9
)
SELECT count(*) FROM held""",
)
"""Keep states, and follow a parked key again."""

PARKED = """
SELECT consumer, partition, subject, position, wanted FROM parked_keys
WHERE consumer = ANY($1::text[]) AND partition = $2
"""
"""What readers have parked in a partition."""

PARK = """
WITH letter AS (
    INSERT INTO dead_letters (dead_letter_id, kind, source, entry, reason, raw, raw_bytes, tenant,
        subject)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[],
                         $7::bigint[], $8::text[], $9::text[])
    ON CONFLICT (dead_letter_id) DO UPDATE
    SET status = 'open', reason = excluded.reason, time = now(), due = false
    RETURNING dead_letter_id
)
INSERT INTO parked_keys (consumer, partition, subject, position, dead_letter_id)
SELECT $10::text, $11::int, $12::text, $13::bigint, dead_letter_id FROM letter
ON CONFLICT (consumer, partition, subject) DO UPDATE
SET position = excluded.position, dead_letter_id = excluded.dead_letter_id, wanted = NULL
"""
"""Park a key with its dead letter; one that was retried and fails again is open again."""

LOAD = """
SELECT subject, version, state FROM snapshots WHERE consumer = $1 AND subject = ANY($2::text[])
"""
"""Saved states."""

BURY = """
INSERT INTO dead_letters (dead_letter_id, kind, source, entry, reason, raw, raw_bytes, tenant,
    subject)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[],
                     $7::bigint[], $8::text[], $9::text[])
ON CONFLICT DO NOTHING
"""
"""Keep what could not be handled."""
