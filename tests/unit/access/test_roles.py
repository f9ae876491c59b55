"""R60: the table of roles names every command and everything that can be read."""

from __future__ import annotations

import pytest

from aggregates import DECIDERS
from processors.access.admission import ANSWERS
from processors.access.principal import Forbidden, Principal, Role
from processors.access.roles import COMMANDS, READS, Read, check_read, forbidden, granted, may_read


def someone(*roles: Role) -> Principal:
    return Principal("acme", "ann", frozenset(roles), commands=granted(roles))


def test_every_command_has_its_row_and_every_row_its_command():
    """A command that nobody thought about would be given by nobody; this says so at once."""
    known = {d.name: {kind.__name__ for kind in d.commands} for d in DECIDERS}
    assert {name: set(rows) for name, rows in COMMANDS.items()} == known
    assert set(READS) == set(Read)


def test_the_engine_may_everything_and_nobody_is_named_as_it():
    everything = {(name, kind) for name, rows in COMMANDS.items() for kind in rows}
    assert granted([Role.ENGINE]) == everything
    assert all(Role.ENGINE not in givers for rows in COMMANDS.values() for givers in rows.values())
    assert all(may_read(someone(Role.ENGINE), kind) for kind in Read)


def test_what_agents_say_only_agents_say():
    answers = {kind for kind, givers in COMMANDS["execution"].items() if givers == (Role.AGENT,)}
    assert answers == ANSWERS
    assert not granted([Role.VIEWER, Role.OPERATOR, Role.DESIGNER, Role.ADMIN]) & {
        ("execution", kind) for kind in ANSWERS
    }


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (Role.VIEWER, [], ["StartExecution", "CreateWorkflow"]),
        (Role.OPERATOR, ["StartExecution", "CancelExecution"], ["CreateWorkflow", "TimeOutTask"]),
        (Role.DESIGNER, ["CreateWorkflow"], ["StartExecution", "RetryDeadLetter"]),
        (Role.ADMIN, ["CreateWorkflow", "StartExecution", "DrainAgent"], ["CompensateTask"]),
        (Role.AGENT, ["CompleteTask", "RegisterAgent"], ["StartExecution", "OpenCircuit"]),
    ],
)
def test_roles_give_what_they_are_there_for(role, may, may_not):
    given = {kind for _, kind in granted([role])}
    assert given.issuperset(may)
    assert given.isdisjoint(may_not)


def test_agents_read_next_to_nothing():
    agent = someone(Role.AGENT)
    assert [kind for kind in Read if may_read(agent, kind)] == [Read.AGENTS]
    check_read(agent, Read.AGENTS)
    with pytest.raises(Forbidden, match=r"^FORBIDDEN: ann \(agent\) may not read audit; admin may"):
        check_read(agent, Read.AUDIT)


def test_a_refusal_says_who_may():
    said = forbidden(someone(Role.VIEWER), "workflow", "CreateWorkflow").detail
    assert said == "ann (viewer) may not give CreateWorkflow; designer or admin may."
    said = forbidden(someone(Role.ADMIN), "execution", "TimeOutTask").detail
    assert said.endswith("only the engine does that.")
