"""From what is wrong to an answer: statuses, places, and nothing of the inside (R50)."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import orjson
import pytest
import structlog

from aggregates.problem import Refused
from processors.api.front import Front, traced
from processors.api.metrics import ApiMetrics
from processors.api.problems import STATUSES, Problem, of_document, of_http
from processors.api.requests import acceptable, media_type
from processors.api.sending import expected, masked, outcome_path, placed
from processors.commands import archive_workflow

ROOT = Path(__file__).parents[3]


def test_every_code_that_decisions_refuse_with_is_either_in_the_table_or_of_what_was_sent():
    """A new one is decided on here: what is not in the table is a 422."""
    said = {
        code
        for folder in ("aggregates", "streams", "processors")
        for path in (ROOT / folder).rglob("*.py")
        for code in re.findall(r'(?:Refused|Malformed)\(\s*"([A-Z_]+)"', path.read_text())
    }
    of_what_was_sent = {
        *(
            "CONFLICT",
            "CYCLE",
            "DUPLICATE_TASK_ID",
            "EMPTY_WORKFLOW",
            "INVALID_ID",
            "INVALID_PAYLOAD",
            "INVALID_TYPE",
        ),
        *("INVALID_VALUE", "MISSING_ACTOR", "MISSING_FIELD", "NOT_SUPPORTED", "UNACCEPTABLE"),
        *("UNKNOWN_COMMAND", "UNKNOWN_DEPENDENCY", "UNKNOWN_FIELD", "UNKNOWN_ROLE"),
    }
    undecided = said - of_what_was_sent - STATUSES.keys() - {"FOREIGN_TENANT"}
    assert not undecided, "give each a status in processors/api/problems.py, or list it here"


@pytest.mark.parametrize(
    ("code", "status"),
    [("UNKNOWN_WORKFLOW", 404), ("VERSION_CONFLICT", 412), ("CYCLE", 422), ("NEVER_SEEN", 422)],
)
def test_a_refusal_of_the_engine_keeps_its_document_and_gets_a_status(code, status):
    document = Refused(code, "Because.", "/tasks/0", version=3).problem()
    answer = of_document(document)
    assert answer.status_code == status
    assert answer.media_type == "application/problem+json"
    assert orjson.loads(bytes(answer.body)) == {"status": status} | document


def test_a_problem_keeps_its_headers():
    answer = of_http(Problem("BUSY", "Too much.", headers={"Retry-After": "1"}))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")


def test_what_belongs_to_others_is_refused_as_what_does_not_exist():
    command = archive_workflow("w-1")
    theirs = Refused("FOREIGN_TENANT", "workflow/w-1 is not of the tenant mine.").problem()
    none = Refused("UNKNOWN_WORKFLOW", "There is no workflow w-1.").problem()
    assert masked(command, theirs) == none
    assert masked(command, none) is none


def test_a_pointer_leads_into_what_was_sent():
    places = {"/input": "/input_data", "/retry_policy": "/execution_options/retry_policy"}

    def lead(pointer: str) -> str:
        return str(placed({"pointer": pointer}, places)["pointer"])

    assert lead("/input") == "/input_data"
    assert lead("/retry_policy/jitter") == "/execution_options/retry_policy/jitter"
    assert lead("/inputs") == "/inputs"
    assert placed({"code": "X"}, places) == {"code": "X"}


@pytest.mark.parametrize(
    ("accept", "fine"),
    [
        *((None, True), ("", True), ("*/*", True), ("application/json; q=0.5", True)),
        *(("text/html, application/*;q=0.1", True), ("text/html", False)),
        *(("application/json;q=0", False), ("application/problem+json", True)),
    ],
)
def test_json_is_among_what_a_client_takes_or_not(accept, fine):
    assert acceptable(accept) is fine


def test_types_versions_and_paths():
    assert media_type(" Application/JSON ; charset=utf-8") == "application/json"
    assert media_type(None) == ""
    assert (expected('"12"'), expected(None), expected('W/"1"')) == (12, None, None)
    assert outcome_path("a#b", "k%1") == "/api/v1/outcomes/a%23b/k%251"


def test_a_trace_goes_on_and_a_broken_one_begins_anew():
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert traced(parent)[:36] == parent[:36]
    assert traced(parent)[-2:] == "01"
    foreign = parent.replace("4bf9", "4BF9")
    for broken in (None, "", "00-x", foreign, f"00-{'0' * 32}-{'1' * 16}-01"):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", traced(broken))


async def test_a_crash_is_told_by_its_id_only_and_logged_whole(monkeypatch):
    # One of its own: a test before may have run the command line, which sets loggers up for good.
    logged = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(None, processors=[logged], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr("processors.api.front.logger", logger)

    async def crashing(scope, receive, send):
        raise RuntimeError("the password is swordfish")

    front = Front(crashing, ApiMetrics())
    transport = httpx.ASGITransport(front)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        answer = await http.get("/x", headers={"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "r-1" in answer.json()["detail"]
    assert "swordfish" not in answer.text
    assert [line["event"] for line in logged.entries] == ["request_crashed", "request"]
