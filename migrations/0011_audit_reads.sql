-- Who read what was sealed, and who was refused: a list that only grows, each row with a hash over
-- the one before and itself, so that a row that was changed or taken out is noticed.

CREATE TABLE audit_reads (
    number bigint PRIMARY KEY,  -- 1, 2, 3 …
    time timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant text NOT NULL, actor text NOT NULL,
    origin text NOT NULL,   -- from where: an address, or a host and its user
    action text NOT NULL,   -- PayloadsRead, KeyExported …
    subject text NOT NULL,  -- whose payloads: kind/id
    via text NOT NULL,      -- by which command or route
    payloads integer NOT NULL,
    allowed boolean NOT NULL,
    detail text NOT NULL DEFAULT '',
    hash bytea NOT NULL
);
CREATE INDEX audit_reads_by_tenant ON audit_reads (tenant, time);

CREATE FUNCTION chain_audit_read() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _last audit_reads;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('audit_reads', 0));
    SELECT * INTO _last FROM audit_reads ORDER BY number DESC LIMIT 1;
    NEW.number := coalesce(_last.number, 0) + 1;
    NEW.hash := sha256(coalesce(_last.hash, '\x') || convert_to(jsonb_build_array(
        NEW.number, (extract(epoch FROM NEW.time) * 1000000)::bigint, NEW.tenant, NEW.actor,
        NEW.origin, NEW.action, NEW.subject, NEW.via, NEW.payloads, NEW.allowed, NEW.detail
    )::text, 'UTF8'));
    RETURN NEW;
END $$;
CREATE TRIGGER audit_reads_chained BEFORE INSERT ON audit_reads
    FOR EACH ROW EXECUTE FUNCTION chain_audit_read();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The table % only grows.', TG_TABLE_NAME;
END $$;
CREATE TRIGGER audit_reads_only_grow BEFORE UPDATE OR DELETE ON audit_reads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The trail of commands, as before, and that of reads beside it.
ALTER VIEW audit RENAME TO audit_of_commands;
CREATE VIEW audit AS
SELECT time, tenant, actor, subject, aggregate, aggregate_id, type, version, partition, position,
       causation_id, correlation_id, data,
       type <> 'CommandRejected' AS allowed,
       NULL::text AS origin
FROM audit_of_commands
UNION ALL
SELECT time, tenant, actor, subject, split_part(subject, '/', 1),
       substr(subject, strpos(subject, '/') + 1), action, NULL, NULL, NULL, NULL, NULL,
       json_build_object('via', via, 'payloads', payloads, 'detail', detail), allowed, origin
FROM audit_reads;
