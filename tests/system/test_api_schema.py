"""The whole HTTP interface against its own description, with schemathesis: a real process of the
gateway, an engine behind it, all checks, and no 500 whatever comes in (R50).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from processors.settings import Addresses
from tests.servers import Endpoints, empty_redis, fresh_database
from tests.system.api import gateway
from tests.system.engine import agents, definition, engine, until

CONFIG = (Path(__file__).with_name("schemathesis.toml")).read_text()
ST = Path(sys.executable).with_name("st")
EXAMPLES = 3


@asynccontextmanager
async def interface(servers: Endpoints) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """The URL of a gateway whose engine has done something, and ids that exist."""
    async with (
        fresh_database(servers.database_url) as database,
        empty_redis(servers.redis_url) as redis_url,
    ):
        addresses = Addresses(database, redis_url)
        async with (
            engine(addresses) as on,
            agents(addresses, ["worker"]),
            gateway(addresses) as url,
            httpx.AsyncClient(base_url=f"{url}/api/v1") as http,
        ):
            made = (await http.post("/workflows", json=definition())).json()
            workflow = made["workflow_id"]
            started = await http.post(f"/workflows/{workflow}/execute", json={})
            await http.put("/agents/known", json={"name": "known", "roles": ["r"]})
            await on.client.bus.append({"commands": [b"no command"]})

            async def letters() -> Any:
                return (await http.get("/dead-letters")).json()["items"]

            [letter] = await until(letters, "the dead letter")
            yield (
                url,
                {
                    "workflow_id": workflow,
                    "execution_id": started.json()["execution_id"],
                    "agent_id": "known",
                    "letter": letter["dead_letter_id"],
                },
            )


async def check(url: str, ids: dict[str, str], place: Path, *options: str) -> None:
    """Run schemathesis; half of the time with ids that exist."""
    parts = [CONFIG, "[parameters]"]
    parts += [f'"path.{n}" = {{ dictionary = "{n}", probability = 0.5 }}' for n in ids]
    parts += [f'[dictionaries.{name}]\nvalues = ["{known}"]' for name, known in ids.items()]
    config = place / "schemathesis.toml"
    config.write_text("\n".join(parts))
    process = await asyncio.create_subprocess_exec(
        *(ST, "--config-file", config, "run", f"{url}/openapi.json", "--checks", "all"),
        *("--continue-on-failure", "--no-color", "--warnings", "off", *options),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def test_the_interface_is_what_its_document_says(servers, tmp_path):
    async with interface(servers) as (url, ids):
        few = ("--phases", "fuzzing", "--max-examples", str(EXAMPLES))
        await check(url, ids, tmp_path, *few, "--generation-deterministic")


@pytest.mark.slow
async def test_the_interface_is_what_its_document_says_in_every_corner(servers, tmp_path):
    async with interface(servers) as (url, ids):
        await check(url, ids, tmp_path, "--phases", "coverage,fuzzing", "--max-examples", "50")
