"""PostgreSQL may restart, crash or drop connections at any moment: work pauses and resumes. R14."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.system.outages import own_servers, under_load


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_postgres_goes_away_in_the_middle_of_the_work(how):
    """F20, F21, F22, I10: what was acknowledged is there after a crash as well."""
    async with own_servers() as servers, under_load(servers) as load:
        for _ in range(2):
            end = servers.postgres.stop if how == "restarted" else servers.postgres.kill
            await asyncio.to_thread(end)
            await asyncio.sleep(1.0)  # longer than any look of the loops
            with pytest.raises(OSError, match="Connect call failed"):  # void: it was never away
                await asyncpg.connect(servers.database_url)
            await asyncio.to_thread(servers.postgres.start)
            await load.progress()
        counts = await load.all_is_well(servers)
        assert counts["commits"] > 0


async def test_all_connections_are_terminated_again_and_again():
    """F20: in the middle of statements, and in between."""
    async with own_servers() as servers, under_load(servers) as load:
        admin = await asyncpg.connect(
            servers.database_url, server_settings={"application_name": "the test"}
        )
        dropped = 0
        for _ in range(20):
            dropped += await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'agentcore'"
            )
            await asyncio.sleep(0.15)
        await admin.close()
        assert dropped > 40, "void: there was nothing to drop"
        await load.progress()
        await load.all_is_well(servers)
