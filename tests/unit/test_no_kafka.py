"""Kafka's client is installed because Faust needs its types; nothing of ours may touch it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "aggregates", "projections", "processors", "migrations")
KAFKA = {"aiokafka", "kafka", "confluent_kafka"}


def imported(source: str) -> set[str]:
    """The modules that a source file names in its imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_of_ours_imports_kafka(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        source = path.read_text()
        names = imported(source)
        assert not {name.split(".")[0] for name in names} & KAFKA, path
        assert not {n for n in names if n.startswith("faust.transport.drivers")}, path
        assert "kafka://" not in source, path
