"""Tenants and their data keys: named, changed while work goes on, erased for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from processors.api import shapes, shown
from processors.api.answers import json
from processors.api.gateway import At
from processors.api.pages import Cursor, Limit, page, read
from processors.api.principal import Principal, Who
from processors.api.problems import Problem
from processors.api.reading import Reading
from processors.api.requests import JsonRoute
from processors.api.sending import Sender, Sending
from processors.commands import command
from processors.sealing import refused
from streams.codec import TENANT
from streams.sealing.sealer import Unopenable

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
WHERE ($1::text IS NULL OR coalesce(t.tenant, k.tenant) = $1)
  AND ($2::text IS NULL OR coalesce(t.tenant, k.tenant) > $2)
ORDER BY 1 LIMIT $3
"""
"""Every tenant that has a name or a key, and nothing of the keys themselves."""

TenantId = Annotated[str, Path(pattern=f"^{TENANT.pattern}$", description="The tenant's id.")]

router = APIRouter(prefix="/api/v1/tenants", tags=["tenants"], route_class=JsonRoute)


async def as_its_own(tenant: TenantId, who: Who) -> Principal:
    """Who asks, as one of this tenant; of others nobody hears."""
    if who.everywhere:
        return replace(who, tenant=tenant)
    if who.tenant != tenant:
        raise _unknown(tenant)
    return who


Own = Annotated[Principal, Depends(as_its_own)]


@router.get("", response_model=shown.Page[shown.Tenant])
async def list_tenants(
    gateway: At, reading: Reading, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """The tenants that may be seen, by id; a key has 2^32 seals, so change it long before."""
    [after] = read(cursor, ("tenants",), (str,)) or [None]
    only = None if reading.who.everywhere else reading.tenant
    async with gateway.bounded():
        rows = await gateway.unbound.fetch(LIST, only, after, limit + 1)
    items = [dict(row) for row in rows]
    last = [items[limit - 1]["tenant"]] if len(items) > limit else []
    return json(page(items, limit, ("tenants",), last))


@router.get("/{tenant}", response_model=shown.Tenant)
async def get_tenant(tenant: TenantId, own: Own, gateway: At, reading: Reading) -> Response:
    """One tenant and its key's version."""
    async with gateway.bounded():
        rows = await gateway.unbound.fetch(LIST, own.tenant, None, 1)
    if not rows:
        raise _unknown(tenant)
    return json(dict(rows[0]))


@router.put("/{tenant}", response_model=shown.TenantOutcome)
async def name_tenant(
    tenant: TenantId, body: shapes.Named, own: Own, gateway: At, sending: Sending
) -> Response:
    """Give a tenant a name and its first key; one that is used without has a key all the same."""
    answer = await _say(sending, own, "CreateTenant", {"name": body.name})
    if answer.status_code == 200 and gateway.client.keys is not None:
        await gateway.client.keys.hold([tenant])
    return answer


@router.post("/{tenant}/rotate", response_model=shown.TenantOutcome)
async def rotate_key(
    tenant: TenantId,
    own: Own,
    gateway: At,
    sending: Sending,
    body: shapes.Rotation,
) -> Response:
    """Seal with a new data key from now on; what older ones sealed stays readable.

    `key_version` is one more than the present one; the same again changes nothing.
    """
    version, keys = body.key_version, gateway.client.keys
    if keys is None:
        raise Problem("SEALING_OFF", "This gateway has no key-encryption key.")
    if own.may_give("tenant", "RotateTenantKey"):  # else the engine says so, and it is in the trail
        try:
            current = (await keys.sealer(tenant)).version
            if version > current + 1:
                detail = (
                    f"The key of {tenant} has the version {current}; the next is {current + 1}."
                )
                raise Problem("INVALID_VALUE", detail, "/key_version")
            if version == current + 1:
                await keys.store.create(tenant, version)
                keys.forget(tenant)
                await keys.sealer(tenant)
        except Unopenable as error:
            raise refused(error) from None
    said = {"version": version, "reason": body.reason}
    return await _say(sending, own, "RotateTenantKey", said, key_version=version)


@router.post("/{tenant}/erase", response_model=shown.TenantOutcome)
async def erase_tenant(
    tenant: TenantId, body: shapes.Decision, own: Own, gateway: At, sending: Sending
) -> Response:
    """Make a tenant's payloads unreadable, for ever; its log keeps its structure and its proof.

    Its keys go a moment later: `status` is `erased` then. Running processes forget them within
    30 s.
    """
    answer = await _say(sending, own, "EraseTenant", {"reason": body.reason})
    if answer.status_code == 200 and gateway.client.keys is not None:
        gateway.client.keys.forget(tenant)
    return answer


async def _say(
    sending: Sender, own: Principal, kind: str, data: dict[str, Any], **about: Any
) -> Response:
    sending.who = own
    said = command("tenant", own.tenant, kind, data)
    return await sending.send(said, about={"tenant": own.tenant, **about})


def _unknown(tenant: str) -> Problem:
    return Problem("UNKNOWN_TENANT", f"There is no tenant {tenant}.")
