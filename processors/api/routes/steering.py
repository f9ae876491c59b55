"""A hand on executions: start, pause, resume, cancel, signal, answer, retry, undo.

Each but the start and the undoing has two paths: of an execution, and of a workflow, whose newest
execution is meant. (Annotations are evaluated here, since the two differ by them.)
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from starlette.responses import Response

from processors import commands
from processors.api import shapes, shown
from processors.api.parameters import ExecutionId, WorkflowId
from processors.api.reading import Reading
from processors.api.requests import JsonRoute
from processors.api.routes.executions import newest
from processors.api.sending import IfMatch, Sending
from streams.message import Command

PLACES = {
    "/input": "/input_data",
    "/retry_policy": "/execution_options/retry_policy",
    "/timeout_seconds": "/execution_options/timeout",
    "/max_parallel_tasks": "/execution_options/resource_constraints/max_agents",
    "/max_cpu": "/execution_options/resource_constraints/max_cpu",
    "/max_memory": "/execution_options/resource_constraints/max_memory",
}
"""Where a body says what the engine calls otherwise."""

router = APIRouter(prefix="/api/v1", tags=["executions"], route_class=JsonRoute)


@router.post(
    "/workflows/{workflow_id}/execute", status_code=201, response_model=shown.ExecutionOutcome
)
async def execute(
    workflow_id: WorkflowId, sending: Sending, body: shapes.Execute | None = None
) -> Response:
    """Start an execution of a workflow."""
    said = body or shapes.Execute()
    options = said.execution_options or shapes.ExecutionOptions()
    most = options.resource_constraints or shapes.ResourceConstraints()
    policy = options.retry_policy
    root = sending.fresh_root("execution")
    command = commands.start_execution(
        workflow_id,
        revision=said.revision,
        input=said.input_data,
        timeout_seconds=options.timeout,
        max_parallel_tasks=most.max_agents,
        max_cpu=most.max_cpu,
        max_memory=most.max_memory,
        retry_policy=policy.model_dump(exclude_unset=True) if policy else None,
        execution_id=root,
    )
    return await sending.send(
        command,
        location=f"/api/v1/executions/{root}",
        created=True,
        about={"execution_id": root, "workflow_id": workflow_id},
        places=PLACES,
    )


@router.post("/executions/{execution_id}/undo", response_model=shown.ExecutionOutcome)
async def undo(
    execution_id: ExecutionId, body: shapes.Undo, sending: Sending, if_match: IfMatch = None
) -> Response:
    """Try again to undo a task whose undoing was parked."""
    command = commands.retry_compensation(execution_id, body.task, body.reason)
    return await sending.send(command, if_match=if_match, about={"execution_id": execution_id})


async def _by_id(execution_id: ExecutionId) -> str:
    return execution_id


async def _newest(workflow_id: WorkflowId, reading: Reading) -> str:
    return await newest(reading, workflow_id)


def _steer(path: str, kind: str, target: Callable[..., Awaitable[str]]) -> None:
    """The routes of one kind of path."""
    Target = Annotated[str, Depends(target)]  # noqa: N806 - a type
    Because = Annotated[shapes.Because | None, Body()]  # noqa: N806 - a type

    def add(name: str, handler: Callable[..., Awaitable[Response]], summary: str) -> None:
        router.post(
            f"{path}/{name}",
            response_model=shown.ExecutionOutcome,
            name=f"{name}_{kind}",
            summary=summary,
        )(handler)

    async def tell(sending: Any, command: Command, if_match: str | None) -> Response:
        about = {"execution_id": command.root}
        return await sending.send(command, if_match=if_match, about=about)  # type: ignore[no-any-return]

    async def pause(
        target: Target, sending: Sending, because: Because = None, if_match: IfMatch = None
    ) -> Response:
        """Schedule nothing new; what runs may finish, and nothing is lost."""
        said = commands.pause_execution(target, because.reason if because else "")
        return await tell(sending, said, if_match)

    async def resume(
        target: Target, sending: Sending, because: Because = None, if_match: IfMatch = None
    ) -> Response:
        """Go on after a pause."""
        said = commands.resume_execution(target, because.reason if because else "")
        return await tell(sending, said, if_match)

    async def cancel(
        target: Target, sending: Sending, because: Because = None, if_match: IfMatch = None
    ) -> Response:
        """End an execution; completed tasks that have a compensation are undone first."""
        said = commands.cancel_execution(target, because.reason if because else "")
        return await tell(sending, said, if_match)

    async def signal(
        target: Target, body: shapes.Signal, sending: Sending, if_match: IfMatch = None
    ) -> Response:
        """Say that something has happened; the tasks that wait for it may start."""
        said = commands.signal_execution(target, body.name, body.data)
        return await tell(sending, said, if_match)

    async def answer(
        target: Target, body: shapes.Answer, sending: Sending, if_match: IfMatch = None
    ) -> Response:
        """Answer a task that has asked for input."""
        said = commands.provide_input(target, body.task, body.input)
        return await tell(sending, said, if_match)

    async def retry(
        target: Target,
        sending: Sending,
        body: Annotated[shapes.Retry | None, Body()] = None,
        if_match: IfMatch = None,
    ) -> Response:
        """Go on with a failed execution where it failed, if need be with other inputs."""
        again = body or shapes.Retry()
        said = commands.retry_execution(
            target, task=again.task, inputs=again.inputs, reason=again.reason
        )
        return await tell(sending, said, if_match)

    add("pause", pause, "Pause")
    add("resume", resume, "Resume")
    add("cancel", cancel, "Cancel")
    add("signal", signal, "Signal")
    add("answer", answer, "Answer a task's question")
    add("retry", retry, "Retry")


_steer("/executions/{execution_id}", "execution", _by_id)
_steer("/workflows/{workflow_id}", "newest_execution", _newest)
