"""What requests carry: strict models, so that 1 is not "1" and unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from aggregates.agent import CAPACITY_MAX, COST_MAX, REGION_CHARS_MAX, ROLES_MAX
from aggregates.definitions.rules import ID_BYTES_MAX
from aggregates.definitions.shape import (
    CONCURRENCY_MAX,
    CPU_MAX,
    MEMORY_MAX,
    SECONDS_MAX,
    PolicyShape,
)
from aggregates.problem import DETAIL_CHARS_MAX
from aggregates.tenant import NAME_CHARS_MAX, VERSION_MAX

INPUTS_MAX = 1_000  # edited inputs in one retry

Reason = Annotated[str, Field(max_length=DETAIL_CHARS_MAX, description="Why; it is kept.")]
Name = Annotated[str, Field(min_length=1, max_length=ID_BYTES_MAX)]
Anything = Annotated[Any, Field(description="Any JSON value.")]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ResourceConstraints(_Shape):
    """What an execution may take at most."""

    max_agents: Annotated[
        int | None,
        Field(ge=1, le=CONCURRENCY_MAX, description="Agents that work for it at the same time."),
    ] = None
    max_cpu: Annotated[
        float | None,
        Field(gt=0, le=CPU_MAX, description="Processors, by what the roles say of their tasks."),
    ] = None
    max_memory: Annotated[
        float | None,
        Field(gt=0, le=MEMORY_MAX, description="MiB, by what the roles say of their tasks."),
    ] = None


class ExecutionOptions(_Shape):
    """How an execution runs."""

    timeout: Annotated[
        float | None, Field(gt=0, le=SECONDS_MAX, description="Seconds after which it fails.")
    ] = None
    retry_policy: Annotated[
        PolicyShape | None, Field(description="In place of the tasks' own policies.")
    ] = None
    resource_constraints: ResourceConstraints | None = None


class Execute(_Shape):
    """Starts an execution of a workflow."""

    input_data: Anything = None
    execution_options: ExecutionOptions | None = None
    revision: Annotated[int, Field(ge=0, le=2**31 - 1, description="0 is the newest.")] = 0


class Because(_Shape):
    """Why something is asked for."""

    reason: Reason = ""


class Signal(_Shape):
    """Something has happened outside."""

    name: Annotated[Name, Field(description="As `wait_for` names it.")]
    data: Anything = None


class Answer(_Shape):
    """The answer to a task that waits for input."""

    task: Name
    input: Anything = None


class Retry(_Shape):
    """Goes on with a failed execution, from `task` or from all that failed."""

    task: Name | None = None
    inputs: Annotated[
        dict[str, Any],
        Field(max_length=INPUTS_MAX, description="By task, in place of the definition's."),
    ] = {}
    reason: Reason = ""


class Undo(_Shape):
    """Has the undoing of a parked task tried again."""

    task: Name
    reason: Reason = ""


class Registration(_Shape):
    """What an agent is and can do."""

    name: Name
    roles: Annotated[list[Name], Field(min_length=1, max_length=ROLES_MAX)]
    capabilities: Annotated[list[Name], Field(max_length=ROLES_MAX)] = []
    capacity: Annotated[int, Field(ge=1, le=CAPACITY_MAX)] = 1
    card: Annotated[dict[str, Any] | None, Field(description="Its A2A agent card.")] = None
    cost: Annotated[float, Field(ge=0, le=COST_MAX)] = 0.0
    region: Annotated[str | None, Field(min_length=1, max_length=REGION_CHARS_MAX)] = None


class Named(_Shape):
    """What people call a tenant."""

    name: Annotated[str, Field(max_length=NAME_CHARS_MAX)] = ""


class Rotation(_Shape):
    """Which version of a tenant's key is to seal from now on."""

    key_version: Annotated[int, Field(ge=1, le=VERSION_MAX)]
    reason: Reason = ""


class Decision(_Shape):
    """Why something is done that a person has to decide."""

    reason: Annotated[Reason, Field(min_length=1, pattern=r"\S")]
