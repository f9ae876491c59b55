"""The command line without an engine: help, usage, validation, JSON and exit codes."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from processors.cli.app import app
from processors.cli.files import FILE_BYTES_MAX

COMMANDS = (
    *("demo", "up", "migrate", "worker", "api", "submit", "validate", "status", "watch", "explain"),
    *("pause", "resume", "cancel", "signal", "answer", "retry"),
    *("events", "replay", "verify", "partitions", "publish", "bench"),
)
WORKFLOW: dict[str, Any] = {
    "name": "tides",
    "agents": {"reader": {}, "writer": {}},
    "tasks": [
        {"task_id": "read", "agent_role": "reader", "duration": 2.0},
        {"task_id": "write", "agent_role": "writer", "depends_on": ["read"], "duration": 3.0},
        {"task_id": "sign", "agent_role": "writer", "depends_on": ["read"]},
    ],
}
CYCLIC = {
    **WORKFLOW,
    "tasks": [{"task_id": "ouroboros", "agent_role": "reader", "depends_on": ["ouroboros"]}],
}
YAML = """
workflow:
  name: tides
  agents: {reader: {}}
  tasks:
    - {id: read, agent: reader}
"""


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENTCORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def file(tmp_path: Path, content: Any, name: str = "workflow.json") -> Path:
    path = tmp_path / name
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return path


# Help ---------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_the_exit_codes() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f" {command} " in result.stdout
    assert "Exit codes" in result.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "bench"])
def test_each_help_teaches_by_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert "Exit codes" in result.stdout


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    heavy = "{'faust', 'asyncpg', 'networkx', 'redis', 'pydantic', 'yaml', 'rich.live', 'asyncio'}"
    code = f"import sys, processors.cli.app; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in ([], ["asyncio"])


def test_a_command_that_does_not_exist_is_wrong_usage() -> None:
    assert call("explode").exit_code == 2


# validate -----------------------------------------------------------------------------------------


def test_validate_shows_the_plan(tmp_path: Path) -> None:
    result = call("validate", file(tmp_path, WORKFLOW))
    assert result.exit_code == 0
    assert "tides" in result.stdout
    assert "5.0 s over 2 tasks" in result.stdout
    assert "read → write" in result.stdout


def test_validate_as_json(tmp_path: Path) -> None:
    result = call("validate", file(tmp_path, WORKFLOW), "--json")
    plan = orjson.loads(result.stdout)
    assert result.exit_code == 0
    assert (plan["tasks"], plan["edges"], plan["phases"]) == (3, 2, 2)
    assert plan["critical_path"] == {"seconds": 5.0, "tasks": 2, "ids": ["read", "write"]}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_refusal_is_a_problem_on_stdout_and_exit_1(tmp_path: Path, options: list[str]) -> None:
    result = call("validate", file(tmp_path, CYCLIC), *options)
    problem = orjson.loads(result.stdout)
    assert result.exit_code == 1
    assert problem["code"] == "CYCLE"
    assert problem["cycle"] == ["ouroboros"]
    assert "ouroboros" in result.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("workflow.yaml", YAML),
        ("workflow.yml.gz", gzip.compress(YAML.encode(), mtime=0)),
        ("workflow.json.gz", gzip.compress(orjson.dumps(WORKFLOW), mtime=0)),
        ("without-suffix", orjson.dumps(WORKFLOW)),
        ("yaml-without-suffix", YAML),
    ],
)
def test_validate_reads_what_people_have(tmp_path: Path, name: str, content: Any) -> None:
    result = call("validate", file(tmp_path, content, name), "--json")
    assert result.exit_code == 0
    assert orjson.loads(result.stdout)["name"] == "tides"


def test_validate_reads_standard_input() -> None:
    result = call("validate", "-", "--json", stdin=orjson.dumps(WORKFLOW))
    assert result.exit_code == 0
    assert orjson.loads(result.stdout)["tasks"] == 3


def test_a_list_is_validated_one_by_one(tmp_path: Path) -> None:
    path = file(tmp_path, [WORKFLOW, CYCLIC, WORKFLOW])
    result = call("validate", path, "--json")
    assert result.exit_code == 1
    first, second, third = orjson.loads(result.stdout)
    assert first == third
    assert second["problem"]["pointer"].startswith("/1/tasks/0")
    assert call("validate", file(tmp_path, [WORKFLOW] * 2)).exit_code == 0


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b'{"name": ', "a.json", "INVALID_JSON"),
        (b"\xff\xfe{}", "a.json", "INVALID_JSON"),
        (b"[1", "a.json", "INVALID_JSON"),
        (b"[1]", "a.json", "INVALID_TYPE"),
        (b"name: [", "a.yaml", "INVALID_YAML"),
        (gzip.compress(orjson.dumps(WORKFLOW), mtime=0)[:-9], "a.json.gz", "INVALID_JSON"),
        (b"\x1f\x8bnonsense", "a.json.gz", "INVALID_JSON"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, name: str, code: str) -> None:
    result = call("validate", file(tmp_path, content, name))
    assert result.exit_code == 1
    assert orjson.loads(result.stdout)["code"] == code


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as bomb:
        for _ in range(FILE_BYTES_MAX // 1024**2 + 2):
            bomb.write(b" " * 1024**2)
    result = call("validate", file(tmp_path, packed.getvalue(), "bomb.json.gz"))
    assert result.exit_code == 1
    assert orjson.loads(result.stdout)["code"] == "TOO_LARGE"


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    result = call("validate", tmp_path / "nowhere.json")
    assert result.exit_code == 2
    assert "No such file" in result.stderr


# The other commands -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "execution", "PauseExecution"],
        ["publish", "execution/x", "PauseExecution", "--data", "{"],
        ["publish", "execution/x", "PauseExecution", "--data", "[]"],
        ["publish", "execution/x", "PauseExecution", "--data", "@/nowhere"],
        ["events", "--after", "3"],
        ["replay", "x", "--at", "yesterday"],
        ["replay", "x", "--at", "3", "--check"],
        ["worker", "--only", "magic"],
        ["verify", "--partition", "-1"],
        ["submit", "/nowhere.json"],
        ["submit"],
        ["demo", "/nowhere.json"],
        ["signal", "x", "approved", "--data", "{"],
        ["answer", "x", "t"],
        ["answer", "x", "t", "@/nowhere"],
        ["retry", "x", "--input", "1"],
        ["retry", "x", "--undo"],
        ["retry", "x", "--undo", "--task", "t", "--input", "1"],
        ["submit", "-", "--deadline", "0"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


ENGINE_NEEDED = [
    ["migrate"],
    ["status"],
    ["status", "0190"],
    ["events"],
    ["replay", "0190"],
    ["verify"],
    ["partitions"],
    ["publish", "execution/x", "PauseExecution"],
    ["pause", "x"],
    ["explain", "x"],
    ["retry", "x", "--task", "t", "--input", "1"],
]


@pytest.mark.parametrize("arguments", ENGINE_NEEDED)
def test_without_an_engine_the_exit_code_is_3(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 3
    assert "orchestrator up" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", ENGINE_NEEDED)
def test_servers_that_do_not_answer_are_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://engine:s3cret@127.0.0.1:1/x")
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@127.0.0.1:1")
    result = call(*arguments)
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "s3cret" not in result.output


def test_half_a_configuration_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://engine:s3cret@127.0.0.1:1/x")
    result = call("verify", "--json")
    assert result.exit_code == 2
    assert "REDIS_URL is missing" in orjson.loads(result.stdout)["detail"]


def test_a_refused_file_starts_no_demo(tmp_path: Path) -> None:
    result = call("demo", file(tmp_path, CYCLIC), "--json")
    assert result.exit_code == 1
    assert orjson.loads(result.stdout)["code"] == "CYCLE"
    assert not (tmp_path / "home").exists()
