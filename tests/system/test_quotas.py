"""R60: quotas of a running engine, over HTTP and from a stream, and after a restart."""

from __future__ import annotations

import time

from processors import commands
from processors.settings import Addresses
from streams.bus import Bus
from streams.codec import encode_command
from streams.partition import commands_key, partition_of
from tests.access import SECRET
from tests.access import token as signed
from tests.system.api import api
from tests.system.engine import definition, engine, until

ASKED = {"auth": "token", "auth_key": SECRET.decode()}
QUOTAS = {"tenant_executions": 2, "tenant_agents": 1}


def by(tenant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {signed('admin', tenant=tenant, now=time.time())}"}


async def test_a_tenant_gets_its_quota_and_no_other_hears_of_it(
    database: str, redis_url: str, bus: Bus
):
    addresses = Addresses(database, redis_url)
    mine, theirs = by("acme"), by("other")
    async with api(addresses, **ASKED) as http:
        async with engine(addresses, **ASKED, **QUOTAS) as on:
            paths = []
            for who in (mine, theirs):
                made = await http.post("/api/v1/workflows", json=definition(), headers=who)
                paths.append(made.headers["Location"])
            runs = [await http.post(f"{paths[0]}/execute", headers=mine) for _ in range(2)]
            assert [one.status_code for one in runs] == [201, 201]
            key = mine | {"Idempotency-Key": "third"}
            over = await http.post(f"{paths[0]}/execute", headers=key)
            assert (over.status_code, over.json()["code"]) == (429, "OVER_QUOTA")
            assert over.headers["Retry-After"] == "1"
            other = await http.post(f"{paths[1]}/execute", headers=theirs)
            assert other.status_code == 201, "quotas are of each tenant"
            about = {"name": "a", "roles": ["worker"]}
            agents = [
                await http.put(f"/api/v1/agents/{name}", json=about, headers=mine)
                for name in ("a", "b", "a")
            ]
            assert [one.status_code for one in agents] == [200, 429, 200]
            trail = await on.pool.fetchval("SELECT count(*) FROM audit WHERE NOT allowed")
            assert (trail, on.processor.counters.over_quota) == (0, 2)

            async def shown():
                return await on.pool.fetchval("SELECT count(*) = 3 FROM executions")

            await until(shown, "the read model")
        async with engine(addresses, **ASKED, **QUOTAS) as on:
            again = await http.post(f"{paths[0]}/execute", headers=key)
            assert again.status_code == 429, "what ran before counts"
            await http.post(f"{runs[0].headers['Location']}/cancel", headers=mine)
            again = await http.post(f"{paths[0]}/execute", headers=key)
            assert again.status_code == 201, "and now, under the same key, there is room"
            lost = commands.start_execution(paths[0].rpartition("/")[2]).but(
                tenant="acme", token=mine["Authorization"].split()[1]
            )
            stream = commands_key(partition_of(lost.root, 16))
            await bus.append({stream: [encode_command(lost)]})

            async def letter():
                return await on.pool.fetchrow("SELECT reason, tenant FROM dead_letters")

            reason, tenant = await until(letter, "the dead letter")
            assert (reason.partition(":")[0], tenant) == ("OVER_QUOTA", "acme")
