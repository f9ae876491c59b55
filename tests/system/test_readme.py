"""The README is true: its commands run, its files are accepted, its statements answer."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import asyncpg
import orjson
import pytest
import yaml

from aggregates.definition import parse_definition
from migrations.apply import migrate
from processors.settings import Addresses
from streams.bus import Bus
from streams.partition import COMMANDS_INBOX
from tests.system.api import gateway
from tests.system.engine import agents, engine, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMAND_S_MAX = 90.0


def blocks(kind: str) -> list[str]:
    """The README's code blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def lines(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in block.splitlines() if line.strip()]


async def test_the_tour_works_on_a_running_engine(database, redis_url):
    [tour] = blocks("sh tour")
    addresses = Addresses(database, redis_url)
    example = ROOT / "processors/examples/research_report.json"
    roles = parse_definition(example.read_bytes()).agents
    async with engine(addresses), agents(addresses, roles):
        for words in lines(tour):
            assert words[:3] == ["uv", "run", "orchestrator"]
            await asyncio.to_thread(orchestrator, words[3:], addresses)


async def test_the_tour_over_http_works_on_a_running_engine(database, redis_url):
    """As it stands, but for the port."""
    [tour] = blocks("sh http")
    addresses = Addresses(database, redis_url)
    assert "localhost:8002" in tour
    async with engine(addresses), gateway(addresses) as url:
        said = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-euo", "pipefail", "-c", tour.replace("http://localhost:8002", url)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
        )
    assert said.returncode == 0, said.stderr
    assert '"current_phase"' in said.stdout
    assert '"type":"ExecutionStarted"' in said.stdout
    assert said.stdout.count('"status":"accepted"') == 2


def orchestrator(arguments: list[str], addresses: Addresses) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "processors", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"} | addresses.environment(),
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def test_every_other_command_of_the_readme_exists():
    said = {
        words[words.index("orchestrator") + 1]
        for kind in ("sh", "sh tour")
        for block in blocks(kind)
        if "XADD" not in block
        for words in lines(block)
        if "orchestrator" in words
    }
    assert said >= {"demo", "up", "submit", "migrate", "worker"}
    for command in said:
        orchestrator([command, "--help"], Addresses("", ""))


def test_the_two_commands_of_a_fresh_machine_are_said_as_they_are_tested():
    assert "pip install uv && uv run orchestrator demo\n" in blocks("sh")[0]
    assert "pip install uv && uv run pytest\n" in blocks("sh")[-1]


def test_the_workflow_is_a_valid_definition():
    [workflow] = blocks("yaml")
    definition = parse_definition(workflow, "yaml")
    assert [task.task_id for task in definition.tasks] == ["background", "figures", "draft"]
    assert yaml.safe_load(workflow)["name"] == definition.name


def test_the_agent_compiles():
    [agent] = blocks("python")
    compile(agent, "README.md", "exec")


async def test_the_statements_answer(database):
    connection = await asyncpg.connect(database)
    try:
        for statement in blocks("sql")[0].strip().split(";\n"):
            await connection.fetch(statement)
    finally:
        await connection.close()


async def test_the_xadd_is_understood_as_it_stands(database, redis_url):
    [shown] = [block for block in blocks("sh") if "XADD" in block]
    words = shlex.split(shown)
    assert words[:5] == ["redis-cli", "XADD", COMMANDS_INBOX, "*", "message"]
    message = words[5].encode()
    assert orjson.loads(message)["type"] == "StartExecution"
    async with engine(Addresses(database, redis_url)):
        bus = Bus(redis_url)
        await bus.append({COMMANDS_INBOX: [message]})

        async def answer():
            return await bus.read({"replies:me": "0-0"}, 10, 100)

        [(_, reply)] = (await until(answer, "the outcome"))["replies:me"]
        await bus.close()
    outcome = orjson.loads(reply)
    assert (outcome["command"], outcome["status"]) == ("c-1", "rejected")
    assert outcome["problem"]["code"] == "UNKNOWN_WORKFLOW", "the README's workflow is '…'"


@pytest.mark.parametrize("variable", re.findall(r"`(AGENTCORE_[A-Z_]+)`", README))
def test_every_variable_is_one_of_the_settings(variable):
    from processors.settings import Settings

    assert variable.removeprefix("AGENTCORE_").lower() in Settings.model_fields


async def test_migrating_twice_changes_nothing(database):
    assert await migrate(database) == []
