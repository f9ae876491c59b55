-- Row-level security: whoever is bound to a tenant sees its rows and no others, whatever he asks.
-- Roles belong to the server, not to this database, so they are made where that is allowed; without
-- them nothing changes, and `secure_tables` says false.

-- People and dashboards with SQL: which login sees which tenant.
CREATE TABLE sql_users (login text PRIMARY KEY, tenant text NOT NULL);

DO $$
DECLARE
    _role text;
BEGIN
    FOREACH _role IN ARRAY ARRAY['agentcore_worker', 'agentcore_api', 'agentcore_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = _role) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', _role);
                EXECUTE format('GRANT %I TO CURRENT_USER', _role);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;  -- another database's migration
            WHEN insufficient_privilege THEN
                RAISE WARNING 'The role % is missing, and this login may not create it.', _role;
        END;
    END LOOP;
END $$;

-- Whose rows the session may see: `*` for the engine and the owner, nobody's where it is not said.
-- The gateway says it for each read; a person's login says it, whatever the person sets.
CREATE FUNCTION agentcore_tenant() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT CASE
        WHEN current_setting('role') = 'agentcore_api'
            THEN coalesce(current_setting('agentcore.tenant', true), '')
        WHEN current_setting('role') = 'agentcore_worker' THEN '*'
        WHEN EXISTS (SELECT FROM sql_users WHERE login = session_user)
            THEN (SELECT tenant FROM sql_users WHERE login = session_user)
        WHEN (SELECT pg_has_role(session_user, relowner, 'MEMBER') FROM pg_class
              WHERE oid = 'events'::regclass) THEN '*'
        ELSE ''
    END
$$;

-- Enables it on every table that does not have it, and says who may see what of it; for whoever
-- adds tables: what is not named here only workers see. Returns whether the roles are there.
CREATE FUNCTION secure_tables() RETURNS boolean LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    _own CONSTANT text := $own$(SELECT agentcore_tenant()) IN ('*', %s)$own$;
    _of_tenants CONSTANT jsonb := jsonb_build_object(
        'workflows', 'tenant', 'executions', 'tenant', 'tasks', 'tenant', 'agents', 'tenant',
        'definitions', 'tenant', 'tenants', 'tenant', 'audit_reads', 'tenant',
        'dead_letters', 'coalesce(tenant, ''*'')',
        'events', 'message ->> ''tenant''',
        -- Where an aggregate's events lie is whose its first event is.
        'histories', '(SELECT e.message ->> ''tenant'' FROM events AS e'
            ' WHERE e.partition = histories.partition AND e.position = histories.first_position)'
    );
    _of_nobody CONSTANT text[] := ARRAY['engine', 'cursors'];  -- nothing of any tenant in them
    _only_grow CONSTANT text[] := ARRAY['events', 'commits', 'audit_reads'];
    _table record;
BEGIN
    IF (SELECT count(*) FROM pg_roles
        WHERE rolname IN ('agentcore_worker', 'agentcore_api', 'agentcore_reader')) < 3 THEN
        RETURN false;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO agentcore_worker, agentcore_api, agentcore_reader',
                   current_schema());
    FOR _table IN
        SELECT c.relname AS name FROM pg_class AS c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT c.relrowsecurity
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', _table.name);
        EXECUTE format('CREATE POLICY engine ON %I TO agentcore_worker USING (true)'
                       ' WITH CHECK (true)', _table.name);
        EXECUTE format('GRANT SELECT, INSERT ON %I TO agentcore_worker', _table.name);
        IF NOT _table.name = ANY(_only_grow) THEN
            EXECUTE format('GRANT UPDATE, DELETE ON %I TO agentcore_worker', _table.name);
        END IF;
        IF _of_tenants ? _table.name THEN
            EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO agentcore_api,'
                           ' agentcore_reader USING (%s)', _table.name,
                           format(_own, _of_tenants ->> _table.name));
            EXECUTE format('GRANT SELECT ON %I TO agentcore_api, agentcore_reader', _table.name);
        ELSIF _table.name = ANY(_of_nobody) THEN
            EXECUTE format('CREATE POLICY nobodys ON %I FOR SELECT TO agentcore_api USING (true)',
                           _table.name);
            EXECUTE format('GRANT SELECT ON %I TO agentcore_api', _table.name);
        END IF;
    END LOOP;
    GRANT SELECT ON audit, execution_performance TO agentcore_worker, agentcore_api,
        agentcore_reader;
    REVOKE ALL ON FUNCTION outcome_of(integer, text, bigint) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION outcome_of(integer, text, bigint) TO agentcore_worker, agentcore_api;
    RETURN true;
END $$;

-- The commit of a command, among a partition's newest: commits have all tenants' commands in them,
-- so nobody who is bound to a tenant reads the table.
CREATE FUNCTION outcome_of(_partition integer, _command text, _newest bigint)
RETURNS TABLE (first_position bigint, commands json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT c.first_position, c.commands FROM commits AS c
    WHERE c.partition = _partition AND strpos(c.commands::text, to_json(_command)::text) > 0
      AND c.number > (SELECT coalesce(max(number), 0) FROM commits WHERE partition = _partition)
                     - _newest
      AND (agentcore_tenant() = '*' OR starts_with(_command, agentcore_tenant() || ':'))
    ORDER BY c.number DESC LIMIT 1
$$;

-- Views are read with their owner's rights, so they ask for themselves.
ALTER VIEW audit RENAME TO audit_of_all;
CREATE VIEW audit WITH (security_barrier) AS
SELECT * FROM audit_of_all WHERE (SELECT agentcore_tenant()) IN ('*', tenant);
ALTER VIEW execution_performance RENAME TO performance_of_all;
CREATE VIEW execution_performance WITH (security_barrier) AS
SELECT * FROM performance_of_all WHERE (SELECT agentcore_tenant()) IN ('*', tenant);
