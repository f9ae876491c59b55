"""`orchestrator tenant`: tenants and their data keys."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from processors.cli import output
from processors.cli.exits import CODES, Code, Failed, NotFound, run

if TYPE_CHECKING:
    from processors.client import Client
    from streams.sealing.keyring import Keyring
    from streams.sealing.store import TableKeys

ERASED_S = 30.0  # until the keys are gone: the projector's doing, a moment after the event
POLL_S = 0.1

LIST = """
SELECT coalesce(t.tenant, k.tenant) AS tenant, coalesce(t.name, '') AS name,
       CASE WHEN k.erased THEN 'erased' ELSE coalesce(t.status, 'active') END AS status,
       k.version AS key_version, k.seals, k.since AS key_since,
       t.erased_by, t.erased_why, t.erased_at
FROM tenants AS t
FULL JOIN (SELECT tenant, max(version) FILTER (WHERE wrapped IS NOT NULL) AS version,
                  (array_agg(seals ORDER BY version DESC))[1] AS seals,
                  (array_agg(created_at ORDER BY version DESC))[1] AS since,
                  bool_or(erased_at IS NOT NULL) AS erased
           FROM tenant_keys GROUP BY tenant) AS k ON k.tenant = t.tenant
ORDER BY 1
"""
"""Every tenant that has a name or a key."""

KEYS_LEFT = "SELECT count(*) FROM tenant_keys WHERE tenant = $1 AND wrapped IS NOT NULL"
ERASED = "SELECT count(*) FROM tenant_keys WHERE tenant = $1 AND erased_at IS NOT NULL"
RUNNING = "SELECT count(*) FROM executions WHERE tenant = $1 AND status IN ('executing', 'paused')"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tenants: name them, change their data keys, export a key, erase what they have stored.",
)

Name = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]
Why = Annotated[str, typer.Option(help="Why; it is kept in the history.")]
By = Annotated[str | None, typer.Option(help="Who decides; you, where left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=CODES)
def list_(as_json: AsJson = False) -> None:
    """List tenants and their keys' versions; a key has 2^32 seals, so rotate it long before.

    Example:  orchestrator tenant list
    """

    async def read() -> list[dict[str, Any]]:
        from processors.cli.engine import reading

        async with reading() as log:
            return [dict(row) for row in await log.pool.fetch(LIST)]

    found = run(read, as_json=as_json)
    if as_json:
        output.as_json(found)
    elif found:
        columns = ("tenant", "name", "status", "key#", "seals#", "since", "erased by", "why", "at")
        output.rows(columns, [tuple(row.values()) for row in found])
    else:
        output.note("None.")


@app.command(epilog=CODES)
def create(
    tenant: Name,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Give a tenant a name and its first key. One that is used without has a key all the same.

    Example:  orchestrator tenant create acme --name "Acme Ltd"
    """

    async def work() -> dict[str, Any]:
        from processors.cli.engine import publishing

        async with publishing() as client:
            await _say(client, tenant, "CreateTenant", {"name": name}, by)
            if client.keys is not None:
                await client.keys.sealer(tenant)
        return {"tenant": tenant, "sealed": client.keys is not None}

    done = run(work, as_json=as_json)
    output.as_json(done) if as_json else typer.echo(f"Created: {tenant}.")


@app.command(epilog=CODES)
def rotate(tenant: Name, why: Why = "", by: By = None, as_json: AsJson = False) -> None:
    """Seal with a new data key from now on; what older versions sealed stays readable.

    Work goes on meanwhile: every process has the new key within seconds.

    Example:  orchestrator tenant rotate acme --why "every quarter"
    """

    async def work() -> dict[str, Any]:
        from processors.cli.engine import publishing

        async with publishing() as client:
            keys = _keys(client)
            version = (await keys.sealer(tenant)).version + 1
            await keys.store.create(tenant, version)
            keys.forget(tenant)
            fresh = (await keys.sealer(tenant)).version
            await _say(client, tenant, "RotateTenantKey", {"version": fresh, "reason": why}, by)
        return {"tenant": tenant, "key_version": fresh}

    done = run(work, as_json=as_json)
    if as_json:
        output.as_json(done)
    else:
        typer.echo(f"{tenant} seals with version {done['key_version']} of its key.")


@app.command(epilog=CODES)
def erase(
    tenant: Name,
    why: Why = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it: nothing brings it back.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Make all payloads of a tenant unreadable, for ever, by taking its keys away.

    The log keeps its structure: `verify` passes, executions are listed. Running processes forget
    the keys within 30 seconds. What you exported with `tenant key`, and backups that still hold the
    wrapped keys, are yours to destroy.

    Example:  orchestrator tenant erase acme --why "the contract has ended" --yes
    """
    if not why.strip():
        raise typer.BadParameter("say why: --why")
    if not yes:
        raise typer.BadParameter("nothing brings it back: --yes")

    async def work() -> dict[str, Any]:
        from processors.cli.engine import publishing

        async with publishing() as client:
            await _say(client, tenant, "EraseTenant", {"reason": why}, by)
            deadline = time.monotonic() + ERASED_S
            while not await client.pool.fetchval(ERASED, tenant) or await client.pool.fetchval(
                KEYS_LEFT, tenant
            ):
                if time.monotonic() > deadline:
                    detail = "It is decided, and the keys go when a worker builds read models."
                    raise Failed(detail, Code.TIMED_OUT)
                await asyncio.sleep(POLL_S)
            running = await client.pool.fetchval(RUNNING, tenant)
            cleaned = await _vacuumed(client)
        return {"tenant": tenant, "erased": True, "running": running, "vacuumed": cleaned}

    done = run(work, as_json=as_json)
    if as_json:
        output.as_json(done)
        return
    typer.echo(f"Erased: {tenant}. Its payloads cannot be read any more.")
    if done["running"]:
        output.note(f"{done['running']:,} of its executions run on, and fail at their next task.")
    if not done["vacuumed"]:
        output.note("Let the owner of the table VACUUM tenant_keys: old rows are still on disk.")


@app.command(epilog=CODES)
def key(tenant: Name) -> None:
    """Print a tenant's data keys, for agent hosts that have no database; keep it secret.

    A host gets it as ORCHESTRATOR_TENANT_KEYS, and can read and write that tenant's payloads only.
    After a rotation export it again. Each export is in the audit trail.

    Example:  ORCHESTRATOR_TENANT_KEYS=$(orchestrator tenant key acme) python agents.py
    """

    async def work() -> str:
        from processors.cli.engine import publishing, reader
        from streams.sealing.store import export

        async with publishing() as client:
            keys = _keys(client)
            found = (await keys.store.load([tenant])).get(tenant)
            if not found:
                raise NotFound(f"There are no keys of the tenant {tenant}.")
            await reader(client.log, "tenant key").exported(tenant)
            return export(tenant, found)

    typer.echo(run(work))


async def _say(
    client: Client, tenant: str, kind: str, data: dict[str, Any], by: str | None
) -> None:
    from processors.commands import command
    from processors.reading import this_user

    said = command("tenant", tenant, kind, data)
    said.tenant, said.actor = tenant, by or this_user()
    await client.call(said)


def _keys(client: Client) -> Keyring:
    if client.keys is None:
        raise Failed(OFF, Code.USAGE)
    return client.keys


async def _vacuumed(client: Client) -> bool:
    """Whether the old rows are off the table's pages: who owns it may do that."""
    from asyncpg import PostgresError

    try:
        await client.pool.execute("VACUUM tenant_keys")
    except PostgresError:
        return False
    return True


OFF = (
    "Sealing is off here: set ORCHESTRATOR_KEK or ORCHESTRATOR_KEK_FILE to the engine's"
    " key-encryption key."
)

keys = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Key-encryption keys: which wrap tenants' data keys, and are in no database.",
)


@keys.command("rotate-kek", epilog=CODES)
def rotate_kek(
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Leave the old keys in the file, to unwrap backups.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap every tenant's data keys with a new key-encryption key; payloads stay as they are.

    With a key file, the new key is made and written here, and running processes read it by
    themselves. With ORCHESTRATOR_KEK, first give every process "new,old", then run this, then take
    the old one away.

    Example:  orchestrator keys rotate-kek
    """

    async def work() -> dict[str, Any]:
        from processors.cli.engine import publishing
        from processors.keys import kek_file
        from processors.settings import read_settings
        from streams.sealing.kms import new_key, read_file, write_file

        path = kek_file(read_settings())
        async with publishing() as client:
            store: Any = _keys(client).store
            table: TableKeys = store
            if path is not None:
                write_file(path, [new_key(), *read_file(path)])
            done = await table.rewrap()
            current = await table.kms.current()
            if path is not None and not keep_old:
                write_file(path, read_file(path)[:1])
        return {"rewrapped": done, "kek": current, "file": str(path) if path else None}

    done = run(work, as_json=as_json)
    if as_json:
        output.as_json(done)
    else:
        typer.echo(f"Rewrapped {done['rewrapped']:,} data keys with {done['kek']}.")
