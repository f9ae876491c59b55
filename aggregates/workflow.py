"""A workflow: a named definition in revisions 1, 2, 3 …; checked and planned when it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from aggregates.decider import Blueprint, Decider
from aggregates.definition import Definition, parse_definition, validate
from aggregates.plan import plan
from aggregates.problem import Refused
from aggregates.sealed import Document, Source
from streams.sealing.token import is_sealed, is_sealed_text


@dataclass(slots=True)
class CreateWorkflow:
    """Write the first revision: `definition` as an object, or `source` as text in a format."""

    definition: Document = None
    source: Source = None
    format: Literal["json", "yaml"] = "json"


@dataclass(slots=True)
class ReviseWorkflow:
    """Write a further revision; running executions stay on theirs."""

    definition: Document = None
    source: Source = None
    format: Literal["json", "yaml"] = "json"


@dataclass(slots=True)
class ArchiveWorkflow:
    """Start no more executions; the history stays."""

    reason: str = ""


# Events: names and fields are what is stored; change them only with an upcaster ------------------


@dataclass(slots=True)
class WorkflowCreated:
    name: str
    version: str
    revision: int
    digest: str
    pattern: str
    roles: list[str]
    tasks: int
    edges: int
    phases: int
    critical_path_seconds: float
    _definition: Definition | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class WorkflowRevised:
    name: str
    version: str
    revision: int
    digest: str
    pattern: str
    roles: list[str]
    tasks: int
    edges: int
    phases: int
    critical_path_seconds: float
    _definition: Definition | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class WorkflowArchived:
    reason: str


@dataclass(slots=True)
class Workflow:
    """The newest revision and its digest; revision 0 does not exist yet."""

    id: str
    revision: int = 0
    digest: str = ""
    archived: bool = False


def decide(state: Workflow, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    match command:
        case CreateWorkflow():
            definition = _definition(command)
            if state.revision == 0:
                return [_written(WorkflowCreated, definition, 1)]
            if state.revision == 1 and state.digest == definition.digest:
                return []
            raise Refused("WORKFLOW_EXISTS", f"The workflow {state.id} exists; revise it instead.")
        case ReviseWorkflow():
            _existing(state)
            if state.archived:
                raise Refused("WORKFLOW_ARCHIVED", f"The workflow {state.id} is archived.")
            definition = _definition(command)
            if state.digest == definition.digest:
                return []
            return [_written(WorkflowRevised, definition, state.revision + 1)]
        case ArchiveWorkflow():
            _existing(state)
            return [] if state.archived else [WorkflowArchived(command.reason)]
    raise Refused("UNKNOWN_COMMAND", f"A workflow cannot {type(command).__name__}.")


def _existing(state: Workflow) -> None:
    if state.revision == 0:
        raise Refused("UNKNOWN_WORKFLOW", f"There is no workflow {state.id}; create it first.")


def _definition(command: CreateWorkflow | ReviseWorkflow) -> Definition:
    if is_sealed(command.definition) or is_sealed_text(command.source or ""):
        raise Refused("KEY_UNAVAILABLE", "The definition is sealed, and nobody here can open it.")
    if command.source is not None:
        return parse_definition(command.source, command.format)
    if command.definition is not None:
        return validate(command.definition)
    raise Refused("MISSING_FIELD", "Give the workflow as `definition` or as `source`.", "")


def _written(kind: type[Any], definition: Definition, revision: int) -> Any:
    drawn = plan(definition)
    return kind(
        name=definition.name,
        version=definition.version,
        revision=revision,
        digest=definition.digest,
        pattern=definition.orchestration_pattern,
        roles=list(definition.agents),
        tasks=len(drawn.ids),
        edges=drawn.edges,
        phases=drawn.phases,
        critical_path_seconds=drawn.critical_path_seconds,
        _definition=definition,
    )


def evolve(state: Workflow, event: Any) -> Workflow:
    """The state after a fact; never fails, never judges."""
    match event:
        case WorkflowCreated() | WorkflowRevised():
            state.revision, state.digest = event.revision, event.digest
        case WorkflowArchived():
            state.archived = True
    return state


def dump(state: Workflow) -> dict[str, Any]:
    """The state as JSON-able data."""
    return {"revision": state.revision, "digest": state.digest, "archived": state.archived}


def load(root: str, data: Any, _: Blueprint | None) -> Workflow:
    """The state that `dump` described."""
    return Workflow(root, data["revision"], data["digest"], data["archived"])


WORKFLOW = Decider(
    name="workflow",
    commands=(CreateWorkflow, ReviseWorkflow, ArchiveWorkflow),
    events=(WorkflowCreated, WorkflowRevised, WorkflowArchived),
    initial=Workflow,
    decide=decide,
    evolve=evolve,
    dump=dump,
    load=load,
)
