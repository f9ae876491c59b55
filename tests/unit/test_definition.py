"""A definition: both spellings mean the same, and whatever is wrong is said in one sentence."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import orjson
import pytest
import yaml

from aggregates import definition as language
from aggregates.definition import Definition, RetryPolicy, parse_definition, validate
from aggregates.definitions import rules
from aggregates.problem import Refused

PLAIN: dict[str, Any] = {
    "name": "report",
    "version": "2",
    "orchestration_pattern": "supervisor",
    "agents": {
        "writer": {"type": "llm", "capabilities": ["writing"], "max_concurrency": 4, "count": 2},
        "editor": {},
    },
    "tasks": [
        {
            "task_id": "draft",
            "agent_role": "writer",
            "input": {"topic": "bees"},
            "retry_policy": {"max_attempts": 5, "jitter": False, "non_retryable_errors": ["X"]},
            "duration": 2,
        },
        {
            "task_id": "edit",
            "agent_role": "editor",
            "depends_on": ["draft", "draft"],
            "parallel": False,
            "timeout_seconds": 12.5,
            "compensation_action": "undo:editor",
            "priority": 7,
            "metadata": {"colour": "red"},
        },
    ],
    "coordination": {"default_parallel": True, "max_parallel_tasks": 5},
    "metadata": {"owner": "me"},
}
SPECIFICATION = """
workflow:
  name: report
  version: "2"
  orchestration_pattern: supervisor
  agents:
    writer: {type: llm, capabilities: [writing], max_concurrency: 4, count: 2}
    editor:
  tasks:
    - {id: draft, agent: writer, payload: {topic: bees}, metadata: {duration: 2.0},
       retry_policy: {max_attempts: 5, jitter: false, non_retryable_errors: [X]}}
    - {id: edit, agent: editor, depends_on: [draft], parallel: false, timeout_seconds: 12.5,
       compensation_action: undo:editor, priority: 7, metadata: {colour: red}}
  coordination: {max_parallel_tasks: 5}
  metadata: {owner: me}
"""


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The plain document with one place set to a value."""
    document = deepcopy(PLAIN)
    node: Any = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to
    return document


def without(*path: Any) -> dict[str, Any]:
    document = changed(*path, to=None)
    node: Any = document
    for step in path[:-1]:
        node = node[step]
    del node[path[-1]]
    return document


def refused(document: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        validate(document)
    assert len(str(caught.value)) < 1000
    orjson.dumps(caught.value.problem())
    return caught.value


def test_every_field_arrives() -> None:
    found = validate(PLAIN)
    draft, edit = found.tasks
    assert (found.name, found.version, found.orchestration_pattern) == ("report", "2", "supervisor")
    assert (found.agents["writer"].type, found.agents["writer"].count) == ("llm", 2)
    assert found.agents["writer"].capabilities == ("writing",)
    assert found.agents["writer"].max_concurrency == 4
    assert found.agents["editor"].max_concurrency is None
    assert found.max_parallel_tasks == 5
    assert draft.retry_policy == RetryPolicy(5, jitter=0.0, non_retryable_errors=("X",))
    assert draft.input == {"topic": "bees"}
    assert draft.metadata == {"duration": 2.0}
    assert draft.duration_seconds == 2.0
    assert (draft.timeout_seconds, draft.parallel, draft.priority) == (300.0, None, 0)
    assert edit.depends_on == ("draft",)
    assert (edit.timeout_seconds, edit.parallel, edit.priority) == (12.5, False, 7)
    assert edit.compensation_action == "undo:editor"
    assert edit.retry_policy == RetryPolicy()
    assert edit.metadata == {"colour": "red"}


def test_both_spellings_and_both_formats_mean_the_same() -> None:
    meant = validate(PLAIN)
    assert parse_definition(SPECIFICATION, "yaml") == meant
    assert parse_definition(json.dumps(yaml.safe_load(SPECIFICATION)), "json") == meant
    assert parse_definition(yaml.safe_dump(PLAIN).encode(), "yaml") == meant
    assert parse_definition(json.dumps(PLAIN), "json").digest == meant.digest


def test_little_is_enough() -> None:
    found = validate({"name": "x", "agents": {"a": None}, "tasks": [{"id": "t", "agent": "a"}]})
    assert (found.version, found.orchestration_pattern) == ("1", "graph")
    assert found.coordination.default_parallel
    assert found.max_parallel_tasks == 1000


def test_the_document_is_left_as_it_was() -> None:
    document = deepcopy(PLAIN)
    validate(document)
    assert document == PLAIN


def test_the_policy_at_the_top_is_for_tasks_without_one() -> None:
    found = validate(PLAIN | {"retry_policy": {"max_attempts": 1}})
    assert [task.retry_policy.max_attempts for task in found.tasks] == [5, 1]


def test_jitter_may_be_a_share_or_a_yes() -> None:
    for said, meant in ((True, 0.5), (False, 0.0), (0.25, 0.25), (1, 1.0)):
        found = validate(PLAIN | {"retry_policy": {"jitter": said}})
        assert found.tasks[1].retry_policy.jitter == meant
    error = refused(PLAIN | {"retry_policy": {"jitter": 1.5}})
    assert (error.code, error.pointer) == ("INVALID_VALUE", "/retry_policy/jitter")


def test_recorded_history_moves_into_metadata() -> None:
    found = validate(PLAIN | {"recorded": {"mistake_step": 3}})
    assert found.metadata == {"owner": "me", "recorded": {"mistake_step": 3}}


def test_the_plans_other_fields_are_kept() -> None:
    said = {"workflow_id": "w-1", "created_at": "2026-01-01T00:00:00Z", "updated_at": "later"}
    found = validate(PLAIN | said)
    assert {field: getattr(found, field) for field in said} == said
    assert Definition.from_bytes(found.to_bytes()) == found


def test_canonical_bytes_come_back_and_are_a_definition_themselves() -> None:
    found = validate(PLAIN | {"retry_policy": {"max_attempts": 1}})
    raw = found.to_bytes()
    for again in (Definition.from_bytes(raw), parse_definition(raw, "json")):
        assert again == found
        assert again.to_bytes() == raw
        assert again.digest == found.digest
        assert type(again.tasks[0].depends_on) is tuple


def test_defaults_said_or_left_out_are_the_same() -> None:
    said = changed("tasks", 1, "retry_policy", to={"max_attempts": 3, "backoff_multiplier": 2})
    assert validate(said).digest == validate(PLAIN).digest
    assert validate(changed("version", to="3")).digest != validate(PLAIN).digest


LONG = "x" * 1_000_000
TASK = ("tasks", 0)


@pytest.mark.parametrize(
    ("document", "code", "pointer"),
    [
        ([PLAIN], "INVALID_TYPE", ""),
        (None, "INVALID_TYPE", ""),
        (without("name"), "MISSING_FIELD", ""),
        (without("agents"), "MISSING_FIELD", ""),
        (without("tasks"), "MISSING_FIELD", ""),
        (without(*TASK, "task_id"), "MISSING_FIELD", "/tasks/0"),
        (without(*TASK, "agent_role"), "MISSING_FIELD", "/tasks/0"),
        (changed("tasks", to=[]), "EMPTY_WORKFLOW", "/tasks"),
        (changed("tasks", 0, to="draft"), "INVALID_TYPE", "/tasks/0"),
        (changed("version", to=1.0), "INVALID_TYPE", "/version"),
        (changed("name", to=""), "INVALID_ID", "/name"),
        (changed("orchestration_pattern", to=" x"), "INVALID_ID", "/orchestration_pattern"),
        (changed("agents", "a/b", to={}), "INVALID_ID", "/agents/a~1b"),
        (changed("agents", "{a}", to={}), "INVALID_ID", "/agents/{a}"),
        (
            changed("agents", "editor", "capabilities", to=["a", "b "]),
            "INVALID_ID",
            "/agents/editor/capabilities/1",
        ),
        (changed("agents", "editor", "max_concurrency", to=0), "INVALID_VALUE", None),
        (changed("agents", "editor", "cap", to=0), "UNKNOWN_FIELD", "/agents/editor/cap"),
        (changed(*TASK, "task_id", to=1), "INVALID_TYPE", "/tasks/0/task_id"),
        (changed(*TASK, "task_id", to="a\nb"), "INVALID_ID", "/tasks/0/task_id"),
        (changed(*TASK, "task_id", to="a\u2028b"), "INVALID_ID", "/tasks/0/task_id"),
        (changed(*TASK, "task_id", to="é" * 101), "INVALID_ID", "/tasks/0/task_id"),
        (changed(*TASK, "task_id", to="edit"), "DUPLICATE_TASK_ID", "/tasks/1/task_id"),
        (changed(*TASK, "id", to="draft"), "UNKNOWN_FIELD", "/tasks/0/id"),
        (changed(*TASK, "payload", to=1), "UNKNOWN_FIELD", "/tasks/0/payload"),
        (changed(*TASK, "agent_role", to="wirter"), "UNKNOWN_ROLE", "/tasks/0/agent_role"),
        (changed(*TASK, "depends_on", to="edit"), "INVALID_TYPE", "/tasks/0/depends_on"),
        (changed(*TASK, "depends_on", to=["edit", 1]), "INVALID_TYPE", "/tasks/0/depends_on/1"),
        (changed(*TASK, "depends_on", to=["edti"]), "UNKNOWN_DEPENDENCY", "/tasks/0/depends_on"),
        (changed(*TASK, "depends_on", to=["edit"]), "CYCLE", "/tasks/0/depends_on"),
        (changed(*TASK, "parallel", to=1), "INVALID_TYPE", "/tasks/0/parallel"),
        (changed(*TASK, "timeout_seconds", to="9"), "INVALID_TYPE", "/tasks/0/timeout_seconds"),
        (changed(*TASK, "timeout_seconds", to=0), "INVALID_VALUE", "/tasks/0/timeout_seconds"),
        (changed(*TASK, "timeout_seconds", to=1e12), "INVALID_VALUE", "/tasks/0/timeout_seconds"),
        (changed(*TASK, "timeout_seconds", to=True), "INVALID_VALUE", "/tasks/0/timeout_seconds"),
        (changed(*TASK, "duration", to=-1), "INVALID_VALUE", "/tasks/0/duration"),
        (
            changed("tasks", 1, "metadata", "duration", to="1 s"),
            "INVALID_VALUE",
            "/tasks/1/metadata/duration",
        ),
        (changed(*TASK, "priority", to=1001), "INVALID_VALUE", "/tasks/0/priority"),
        (changed(*TASK, "priority", to=1.5), "INVALID_VALUE", "/tasks/0/priority"),
        (changed(*TASK, "input", to=LONG + LONG), "TOO_LARGE", "/tasks/0/input"),
        (changed(*TASK, "metadata", to=[LONG] * 9), "TOO_LARGE", ""),
        (changed(*TASK, "metadata", to={"a": {"\0": 1}}), "INVALID_PAYLOAD", None),
        (changed(*TASK, LONG, to=1), "UNKNOWN_FIELD", None),
        (changed(*TASK, "compensation_action", to=LONG), "INVALID_VALUE", None),
        (changed(*TASK, "retry_policy", "max_attempts", to=0), "INVALID_VALUE", None),
        (changed(*TASK, "retry_policy", "max_attempts", to=21), "INVALID_VALUE", None),
        (changed(*TASK, "retry_policy", "max_attempts", to=1e9), "INVALID_VALUE", None),
        (changed(*TASK, "retry_policy", "max_attempts", to=True), "INVALID_VALUE", None),
        (changed(*TASK, "retry_policy", "attempts", to=3), "UNKNOWN_FIELD", None),
        (changed(*TASK, "retry_policy", "max_backoff_seconds", to=-1), "INVALID_VALUE", None),
        (changed("coordination", "max_parallel_tasks", to=0), "INVALID_VALUE", None),
        (changed("coordination", "parallel", to=True), "UNKNOWN_FIELD", "/coordination/parallel"),
        (changed("workflow", to={}), "UNKNOWN_FIELD", "/workflow"),
        (changed("taks", to=[]), "UNKNOWN_FIELD", "/taks"),
    ],
)
def test_what_is_wrong_has_a_code_and_a_place(
    document: Any, code: str, pointer: str | None
) -> None:
    error = refused(document)
    assert error.code == code
    if pointer is not None:
        assert error.pointer == pointer


@pytest.mark.parametrize("field", ["when", "for_each", "workflow"])
def test_what_comes_later_is_said_to_come_later(field: str) -> None:
    error = refused(changed(*TASK, field, to="x"))
    assert (error.code, error.pointer) == ("NOT_SUPPORTED", f"/tasks/0/{field}")
    assert field in error.detail
    alone = refused(PLAIN | {"tasks": [{"id": "sub", field: {"a": 1}}]})
    assert alone.code == "NOT_SUPPORTED"
    validate(changed(*TASK, field, to=None))


def test_sentences_name_the_cure() -> None:
    assert "did you mean `depends_on`?" in refused(changed(*TASK, "depend_on", to=[])).detail
    assert "under `metadata`" in refused(changed(*TASK, "colour", to="red")).detail
    assert "same as `task_id`" in refused(changed(*TASK, "id", to="draft")).detail
    assert '"writer"?' in refused(changed(*TASK, "agent_role", to="wirter")).detail
    assert '"edit"?' in refused(changed(*TASK, "depends_on", to=["edti"])).detail
    assert (
        "at least 1, not 0" in refused(changed("coordination", "max_parallel_tasks", to=0)).detail
    )
    assert refused(changed(*TASK, "task_id", to="edit")).facts == {"task_id": "edit"}


def test_places_are_named_in_the_documents_own_spelling() -> None:
    bare = {"name": "x", "agents": {"a": {}}, "tasks": [{"id": 1, "agent": "a"}]}
    assert refused({"workflow": bare}).pointer == "/workflow/tasks/0/id"
    role = bare | {"tasks": [{"id": "t", "agent": "b", "payload": "x"}]}
    assert refused(role).pointer == "/tasks/0/agent"


def test_numbers_of_things_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "TASKS_MAX", 1)
    error = refused(PLAIN)
    assert (error.code, error.pointer) == ("TOO_LARGE", "/tasks")
    monkeypatch.setattr(language, "TASKS_MAX", 2)
    monkeypatch.setattr(language, "ROLES_MAX", 1)
    assert refused(PLAIN).pointer == "/agents"
    monkeypatch.setattr(language, "ROLES_MAX", 2)
    monkeypatch.setattr(rules, "EDGES_MAX", 0)
    assert "dependencies" in refused(PLAIN).detail


def test_ids_are_kept_byte_for_byte() -> None:
    ids = ["é", "e\u0301", "задача", "任务🚀", "a\u200bb", "{tag}", "../x", "a b", "1"]
    tasks = [{"id": task_id, "agent": "writer"} for task_id in ids]
    found = Definition.from_bytes(validate(PLAIN | {"tasks": tasks}).to_bytes())
    assert [task.task_id for task in found.tasks] == ids
