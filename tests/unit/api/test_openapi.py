"""The description of the HTTP interface, and that the copy in the repository is the present one."""

from __future__ import annotations

import orjson
import pytest

from processors.api.app import make_app, methods_of
from processors.api.openapi import SNAPSHOT, WRITES, described, written
from processors.settings import Addresses, Settings


@pytest.fixture(scope="module")
def app():
    return make_app(Settings(), Addresses("", ""))


def test_the_copy_in_the_repository_is_the_present_one(app):
    renew = "orchestrator api --openapi > processors/api/openapi.json"
    assert SNAPSHOT.read_bytes() == written(app), f"look at the difference, then: {renew}"


def test_every_operation_answers_errors_with_problems_and_names_its_success(app):
    document = orjson.loads(written(app))
    assert document["info"]["version"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for path, method, operation in operations:
        responses = operation["responses"]
        assert responses["default"] == {"$ref": "#/components/responses/Problem"}
        assert responses.keys() & {"200", "201"}, (method, path)
        if method in WRITES and path != "/api/v1/validate":
            assert "202" in responses, (method, path)


def test_the_specifications_endpoints_have_their_exact_paths(app):
    paths = described(app)["paths"]
    assert {"get", "post"} <= paths["/api/v1/workflows"].keys()
    assert "post" in paths["/api/v1/workflows/{workflow_id}/execute"]
    assert "get" in paths["/api/v1/workflows/{workflow_id}/status"]
    assert "post" in paths["/api/v1/workflows/{workflow_id}/pause"]


def test_a_path_allows_what_all_its_routes_do():
    assert methods_of("/api/v1/workflows") == ["GET", "POST"]
    assert methods_of("/api/v1/agents/a-1") == ["DELETE", "GET", "PUT"]
    assert methods_of("/nowhere") == []
