"""What the parts of a definition must mean together: ids, roles, dependencies, sizes, no cycle."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NoReturn

import orjson

from aggregates.definitions.graph import cycle, generations, link
from aggregates.definitions.model import Definition, TaskDefinition
from aggregates.definitions.problems import place, shown
from aggregates.definitions.shape import SECONDS_MAX
from aggregates.problem import LIST_ITEMS_MAX, Refused

EDGES_MAX = 1_000_000  # naming a cycle among so many takes 2 s and 250 MB
INPUT_BYTES_MAX = 1024 * 1024  # an input travels in an event; Redis and Postgres see it whole
ID_BYTES_MAX = 200  # ids are index keys in Postgres, where 2,700 bytes break a btree
NAMED_MAX = 5  # of the tasks in a cycle; with the facts go more
GUESSES_AMONG_MAX = 500  # looking for a similar name is slow among more

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_IN_ROLES = re.compile("[{}/]")


def check(definition: Definition, document: object) -> None:
    """Refuse the first thing that is wrong; `document` is what was sent, for naming the place."""
    tasks = definition.tasks
    _check_names(definition, document)
    if not tasks:
        detail = "The workflow has no tasks; give it at least one."
        raise Refused("EMPTY_WORKFLOW", detail, place(document, ("tasks",)))
    index: dict[str, int] = {}
    for number, task in enumerate(tasks):
        if index.setdefault(task.task_id, number) != number:
            _duplicate(document, task, index[task.task_id], number)
        _check_task(definition, document, task, number)
    _check_dependencies(tasks, index, document)


def wrong_id(text: str, forbidden: re.Pattern[str] | None = None) -> str:
    """Why a text cannot be an id, with the cure; nothing where it can.

    Ids stand in log lines and in index keys; they are kept byte for byte, never normalised.
    """
    if not text or text != text.strip():
        return "is empty or begins or ends with a blank; write it without"
    if _CONTROL.search(text):
        return "has a control character or line break in it; leave that out"
    if len(text) * 4 > ID_BYTES_MAX and len(text.encode()) > ID_BYTES_MAX:
        return f"is longer than {ID_BYTES_MAX} bytes; shorten it"
    if forbidden and forbidden.search(text):
        return "has one of { } / in it, but becomes part of a stream's name; rename it"
    return ""


def _check_names(definition: Definition, document: object) -> None:
    for field in ("name", "version", "orchestration_pattern", "workflow_id"):
        text = getattr(definition, field)
        if text is not None and (wrong := wrong_id(text)):
            _bad_id(field, text, wrong, document, field)
    for role, need in definition.agents.items():
        if wrong := wrong_id(role, _IN_ROLES):
            _bad_id("role", role, wrong, document, "agents", role)
        for number, text in enumerate(need.capabilities):
            if wrong := wrong_id(text):
                _bad_id("capability", text, wrong, document, "agents", role, "capabilities", number)


def _bad_id(what: str, text: str, wrong: str, document: object, *path: object) -> NoReturn:
    raise Refused("INVALID_ID", f"The {what} {shown(text)} {wrong}.", place(document, path))


def _check_task(
    definition: Definition, document: object, task: TaskDefinition, number: int
) -> None:
    if wrong := wrong_id(task.task_id):
        _bad_id("task id", task.task_id, wrong, document, "tasks", number, "task_id")
    _check_role(definition, document, task, number, task.agent_role, "agent_role")
    if task.compensation_action is not None:
        _check_undoing(definition, document, task, number)
    if task.wait_for is not None and (wrong := wrong_id(task.wait_for)):
        _bad_id("signal", task.wait_for, wrong, document, "tasks", number, "wait_for")
    if isinstance(task.input, str | list | dict):
        size = len(orjson.dumps(task.input))
        if size > INPUT_BYTES_MAX:
            detail = f"The input of the task {shown(task.task_id)} has {size:,} bytes; at most "
            detail += f"{INPUT_BYTES_MAX:,} may be: store it elsewhere and send a reference."
            raise Refused("TOO_LARGE", detail, place(document, ("tasks", number, "input")))
    if task.metadata:
        seconds = task.metadata.get("duration", 0)
        if type(seconds) not in (int, float) or not 0 <= seconds <= SECONDS_MAX:
            detail = "`metadata.duration` must be a number of seconds from 0 to a year, "
            where = place(document, ("tasks", number, "metadata", "duration"))
            raise Refused("INVALID_VALUE", f"{detail}not {shown(seconds)}.", where)


def _check_undoing(
    definition: Definition, document: object, task: TaskDefinition, number: int
) -> None:
    """Somebody must be there who can undo the task, before there is anything to undo (R31)."""
    assert task.undoing is not None
    role, action = task.undoing
    _check_role(definition, document, task, number, role, "compensation_action")
    if wrong := wrong_id(action):
        path = ("tasks", number, "compensation_action")
        _bad_id("compensation action", action, wrong, document, *path)


def _check_role(
    definition: Definition,
    document: object,
    task: TaskDefinition,
    number: int,
    role: str,
    field: str,
) -> None:
    if role in definition.agents:
        return
    cure = _guess(role, list(definition.agents), "add it to `agents`")
    detail = f"The task {shown(task.task_id)} wants the role {shown(role)}, which `agents` does not"
    where = place(document, ("tasks", number, field))
    raise Refused("UNKNOWN_ROLE", f"{detail} have; {cure}.", where)


def _duplicate(document: object, task: TaskDefinition, first: int, second: int) -> NoReturn:
    detail = f"Two tasks have the id {shown(task.task_id)}, numbers {first} and {second} "
    where = place(document, ("tasks", second, "task_id"))
    raise Refused(
        "DUPLICATE_TASK_ID", f"{detail}(from 0); rename one.", where, task_id=task.task_id
    )


def _check_dependencies(
    tasks: tuple[TaskDefinition, ...], index: dict[str, int], document: object
) -> None:
    edges = sum(len(task.depends_on) for task in tasks)
    if edges > EDGES_MAX:
        detail = f"The tasks have {edges:,} dependencies; at most {EDGES_MAX:,} may be."
        raise Refused("TOO_LARGE", detail, place(document, ("tasks",)))
    for number, task in enumerate(tasks):
        for dependency in task.depends_on:
            if dependency not in index:
                _unknown_dependency(document, number, task, dependency, list(index))
    links = link(tasks, index)
    phases = generations(links)
    if sum(map(len, phases)) < len(tasks):
        left = set(range(len(tasks))).difference(*phases)
        _cyclic([tasks[task].task_id for task in cycle(links, left)], index, document)


def _unknown_dependency(
    document: object, number: int, task: TaskDefinition, dependency: str, ids: list[str]
) -> NoReturn:
    cure = _guess(dependency, ids, "add that task or remove the dependency")
    detail = f"The task {shown(task.task_id)} depends on {shown(dependency)}, which is not a task"
    where = place(document, ("tasks", number, "depends_on"))
    raise Refused("UNKNOWN_DEPENDENCY", f"{detail}; {cure}.", where, dependency=dependency)


def _cyclic(ids: list[str], index: dict[str, int], document: object) -> NoReturn:
    if len(ids) == 1:
        detail = f"The task {shown(ids[0])} waits for itself; remove that dependency."
    else:
        more = ["…"] if len(ids) > NAMED_MAX else []
        ring = " → ".join([*map(shown, ids[:NAMED_MAX]), *more, shown(ids[0])])
        detail = f"{len(ids)} tasks wait for each other in a circle: {ring} (each waits for the "
        detail += "one before it); remove one of these dependencies."
    where = place(document, ("tasks", index[ids[0]], "depends_on"))
    raise Refused("CYCLE", detail, where, cycle=ids[:LIST_ITEMS_MAX], cycle_length=len(ids))


def _guess(wrong: str, names: list[str], otherwise: str) -> str:
    close = get_close_matches(wrong, names, 1) if len(names) <= GUESSES_AMONG_MAX else []
    return f"did you mean {shown(close[0])}?" if close else otherwise
