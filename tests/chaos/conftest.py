"""The servers of the chaos tests: their own, since they are killed and emptied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.ground import Servers, servers


@pytest.fixture(scope="session")
def harmed() -> Iterator[Servers]:
    """PostgreSQL and Redis that anything may be done to."""
    with servers() as made:
        yield made
