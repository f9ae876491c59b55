"""A workflow: written, revised, archived; what was said before changes nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given as whatever
from hypothesis import settings
from hypothesis import strategies as st

from aggregates.decider import fold
from aggregates.definition import Definition
from aggregates.problem import Refused
from aggregates.workflow import (
    WORKFLOW,
    ArchiveWorkflow,
    CreateWorkflow,
    ReviseWorkflow,
    Workflow,
    WorkflowArchived,
    WorkflowCreated,
    WorkflowRevised,
)
from tests.flows import ROLE, definition, document
from tests.spec import NOW, ROOT, after, given

FIRST = document({"a": [], "b": ["a"]})
SECOND = document({"a": [], "b": []}, name="second")


def test_a_workflow_is_written_with_what_its_plan_says():
    """R1, R5."""
    [event] = given().when(CreateWorkflow(FIRST)).events
    assert event == WorkflowCreated(
        name="flow",
        version="1",
        revision=1,
        digest=definition({"a": [], "b": ["a"]}).digest,
        pattern="graph",
        roles=[ROLE],
        tasks=2,
        edges=1,
        phases=2,
        critical_path_seconds=0.0,
    )
    assert event._definition == definition({"a": [], "b": ["a"]})


def test_what_is_stored_of_the_event_is_the_digest_and_not_the_definition():
    [event] = given().when(CreateWorkflow(FIRST)).events
    stored = orjson.loads(orjson.dumps(event))
    assert "_definition" not in stored
    again = WorkflowCreated(**stored)
    assert again == event
    assert again._definition is None


@pytest.mark.parametrize("command", [CreateWorkflow, ReviseWorkflow])
def test_text_means_the_same_as_an_object(command):
    """R1."""
    before = [] if command is CreateWorkflow else [CreateWorkflow(SECOND)]
    said = orjson.dumps(FIRST).decode()
    [from_object] = after(*before).when(command(FIRST)).events
    for text, form in ((said, "json"), (said, "yaml")):  # JSON is YAML
        assert after(*before).when(command(source=text, format=form)).events == [from_object]


def test_a_workflow_is_created_once():
    created = after(CreateWorkflow(FIRST))
    created.when(CreateWorkflow(FIRST)).then_nothing()
    created.when(CreateWorkflow(SECOND)).refused("WORKFLOW_EXISTS")
    after(CreateWorkflow(FIRST), ReviseWorkflow(SECOND)).when(CreateWorkflow(SECOND)).refused(
        "WORKFLOW_EXISTS"
    )


def test_revisions_count_up():
    """R7."""
    revised = after(CreateWorkflow(FIRST)).when(ReviseWorkflow(SECOND))
    [event] = revised.events
    assert (type(event), event.revision, event.name) == (WorkflowRevised, 2, "second")
    revised.so().when(ReviseWorkflow(SECOND)).then_nothing()
    back = revised.so().when(ReviseWorkflow(FIRST)).so()
    assert back.state.revision == 3


def test_an_archived_workflow_is_not_revised():
    archived = (
        after(CreateWorkflow(FIRST)).when(ArchiveWorkflow("old")).then(WorkflowArchived("old"))
    )
    archived.when(ArchiveWorkflow("again")).then_nothing()
    archived.when(ReviseWorkflow(SECOND)).refused("WORKFLOW_ARCHIVED")
    archived.when(CreateWorkflow(FIRST)).then_nothing()


@pytest.mark.parametrize("command", [ReviseWorkflow(FIRST), ArchiveWorkflow()])
def test_nothing_can_be_done_with_what_was_never_written(command):
    given().when(command).refused("UNKNOWN_WORKFLOW")


@pytest.mark.parametrize("command", [CreateWorkflow(), ReviseWorkflow()])
def test_a_workflow_comes_as_an_object_or_as_text(command):
    before = [] if isinstance(command, CreateWorkflow) else [CreateWorkflow(FIRST)]
    after(*before).when(command).refused("MISSING_FIELD", "")


def test_a_wrong_definition_is_refused_and_nothing_is_written():
    """R4."""
    given().when(CreateWorkflow(document({"a": ["a"]}))).refused("CYCLE")
    after(CreateWorkflow(FIRST)).when(ReviseWorkflow(document({}))).refused("EMPTY_WORKFLOW")


def test_a_command_of_another_kind_is_refused():
    with pytest.raises(Refused, match="UNKNOWN_COMMAND"):
        WORKFLOW.decide(Workflow(ROOT), object(), NOW)


COMMANDS = st.one_of(
    st.builds(CreateWorkflow, st.sampled_from([None, FIRST, SECOND, document({})])),
    st.builds(ReviseWorkflow, st.sampled_from([None, FIRST, SECOND, document({})])),
    st.builds(ArchiveWorkflow, st.sampled_from(["", "why"])),
)


@settings(max_examples=100, deadline=None)
@whatever(st.lists(COMMANDS, max_size=8))
def test_whatever_is_said_twice_counts_once(commands: list[Any]) -> None:
    """I4, I13: and the state is the fold of what is stored, at every point."""
    state, stored, revisions = Workflow(ROOT), [], []
    for command in commands:
        events = decided(state, command)
        if isinstance(events, dict):
            assert decided(state, command) == events
            continue
        stored += [(type(event), orjson.dumps(event)) for event in events]
        revisions += [e.revision for e in events if not isinstance(e, WorkflowArchived)]
        assert all(isinstance(e._definition, Definition) for e in events if hasattr(e, "revision"))
        state = fold(WORKFLOW, ROOT, events, state)
        assert decided(state, command) == []
        folded = fold(WORKFLOW, ROOT, [kind(**orjson.loads(raw)) for kind, raw in stored])
        assert state == folded == WORKFLOW.load(ROOT, WORKFLOW.dump(state), None)
    assert revisions == list(range(1, len(revisions) + 1))


def decided(state: Workflow, command: Any) -> Any:
    try:
        return WORKFLOW.decide(state, command, NOW)
    except Refused as refusal:
        return refusal.problem()
