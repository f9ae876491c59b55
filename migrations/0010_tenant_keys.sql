-- Tenants' data keys, wrapped by a key-encryption key that is not in this database. Erasing a tenant
-- takes its keys away for ever; what they sealed stays in the log, and nobody can read it.

CREATE TABLE tenant_keys (
    tenant text NOT NULL,
    version integer NOT NULL CHECK (version >= 0),  -- 0 is the mark of an erased tenant
    kek text NOT NULL,  -- the name of the key that wrapped it
    wrapped bytea,
    seals bigint NOT NULL DEFAULT 0,  -- how often it has sealed, about; 2^32 are its end
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    PRIMARY KEY (tenant, version),
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
);

-- Both functions lock the tenant first, so that no key is added while it is erased.
CREATE FUNCTION add_tenant_key(_tenant text, _version integer, _kek text, _wrapped bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenant_keys/' || _tenant, 0));
    IF EXISTS (SELECT FROM tenant_keys WHERE tenant = _tenant AND erased_at IS NOT NULL)
       OR _version <> (SELECT coalesce(max(version), 0) + 1
                       FROM tenant_keys WHERE tenant = _tenant) THEN
        RETURN false;
    END IF;
    INSERT INTO tenant_keys (tenant, version, kek, wrapped)
    VALUES (_tenant, _version, _kek, _wrapped);
    RETURN true;
END $$;

CREATE FUNCTION erase_tenant_keys(_tenant text, _time timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenant_keys/' || _tenant, 0));
    INSERT INTO tenant_keys (tenant, version, kek, erased_at) VALUES (_tenant, 0, '', _time)
    ON CONFLICT DO NOTHING;
    UPDATE tenant_keys SET wrapped = NULL, kek = '', erased_at = _time
    WHERE tenant = _tenant AND wrapped IS NOT NULL;
END $$;

-- The read model of the aggregate `tenant`; a tenant that nobody has created by name has keys and no
-- row here.
CREATE TABLE tenants (
    tenant text PRIMARY KEY, name text NOT NULL, status text NOT NULL,
    key_version integer NOT NULL,
    created_by text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    erased_by text, erased_why text, erased_at timestamptz
);
