"""The servers of the chaos tests: their own, since they are killed and emptied; and their mark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.ground import Servers, servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them carry the mark `chaos`, but the long form, which has its own."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("chaos_long") is None:
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="session")
def harmed() -> Iterator[Servers]:
    """PostgreSQL and Redis that anything may be done to."""
    with servers() as made:
        yield made
