"""What comes from outside: answers to what tasks ask, and signals that tasks wait for."""

from __future__ import annotations

import pytest

from aggregates.definitions.rules import INPUT_BYTES_MAX
from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CancelExecution,
    CheckExecution,
    PauseExecution,
    ProvideInput,
    ResumeExecution,
    SignalExecution,
)
from aggregates.execution_events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionResumed,
    InputProvided,
    InputRequested,
    PhaseEntered,
    SignalReceived,
    TaskCancelled,
    TaskCompleted,
    TaskStarted,
    TaskTakenOver,
)
from aggregates.execution_input import REQUESTS_UP_TO, SIGNALS_MAX
from aggregates.execution_state import WAITING
from aggregates.problem import Refused
from tests.executions import (
    ANN,
    BOB,
    CHAIN,
    NO_DELAY,
    ONE,
    ask,
    begin,
    done,
    fail,
    late,
    scheduled,
    start,
)
from tests.flows import flow
from tests.spec import NOW, after, given

# Input ------------------------------------------------------------------------------------------


def test_a_task_may_ask_and_goes_on_with_the_answer():
    """R11: human approval."""
    waiting = (
        after(start(ONE))
        .when(ask("a", prompt={"may I": "?"}))
        .then(TaskStarted("a", 1, ANN), InputRequested("a", 1, ANN, {"may I": "?"}))
    )
    assert waiting.state.task_status[0] == WAITING
    assert waiting.state.in_flight == 0
    answered = waiting.when(ProvideInput("a", "yes")).then(
        InputProvided("a", 1, "yes"), scheduled("a", 2)
    )
    answered.when(done("a", 2, BOB)).then_kinds(TaskStarted, TaskCompleted, ExecutionCompleted)


def test_asking_twice_and_answering_twice_changes_nothing():
    """F30, F35: the first answer counts."""
    waiting = after(start(ONE), ask("a"))
    waiting.when(ask("a")).then_nothing()
    waiting.when(begin("a")).then_nothing()
    answered = waiting.when(ProvideInput("a", 1)).so()
    answered.when(ProvideInput("a", 1)).then_nothing()
    answered.when(ProvideInput("a", "another")).then_nothing()
    answered.when(ask("a")).then_nothing()
    answered.when(ask("a", agent=BOB)).refused("LATE_ANSWER")


def test_whoever_asked_has_nothing_more_to_say_about_that_attempt():
    """F35, I7."""
    waiting = after(start(ONE), ask("a"))
    for answer in (done, fail):
        waiting.when(answer("a")).refused("LATE_ANSWER")
        waiting.when(answer("a", agent=BOB)).refused("NOT_YOURS")
        waiting.when(answer("a", 2)).refused("LATE_ANSWER")
    answered = waiting.when(ProvideInput("a")).so()
    answered.when(fail("a")).refused("LATE_ANSWER")
    after(start(ONE), fail("a")).when(ask("a")).refused("LATE_ANSWER")


def test_an_attempt_that_asked_is_not_one_of_the_policys():
    """I18: whoever waits for a person has failed at nothing."""
    found = flow(a=[], policy={**NO_DELAY, "max_attempts": 2})
    so_far = after(start(found))
    for attempt in range(1, 6):
        so_far = so_far.when(ask("a", attempt)).so().when(ProvideInput("a")).so()
    assert so_far.state.attempts[0] == 6
    failed = so_far.when(fail("a", 6))
    assert failed.events[-1] == scheduled("a", 7)
    assert failed.so().when(fail("a", 7)).so().state.status == "failed"


def test_no_back_off_stands_between_an_answer_and_the_task():
    found = flow(a=[], policy={"initial_backoff_seconds": 10, "jitter": False})
    asked = after(start(found), fail("a"), ask("a", 2))
    assert asked.when(ProvideInput("a")).events[-1] == scheduled("a", 3)
    again = asked.when(ProvideInput("a")).so().when(fail("a", 3)).events[-1]
    assert again == scheduled("a", 4, delay_ms=20_000)
    paused = asked.when(PauseExecution()).so().when(ProvideInput("a")).then(InputProvided("a", 2))
    paused.when(ResumeExecution()).then(ExecutionResumed(""), scheduled("a", 3))


def test_others_run_while_a_task_waits_for_its_answer():
    """R3: it holds no slot, not even one of its own."""
    found = flow(a={"parallel": False, "priority": 1}, b=[])
    waiting = (
        after(start(found), begin("a"))
        .when(ask("a"))
        .then(InputRequested("a", 1, ANN, "?"), scheduled("b"))
    )
    answered = waiting.when(ProvideInput("a")).then(InputProvided("a", 1))
    answered.when(done("b")).then(
        TaskStarted("b", 1, ANN), TaskCompleted("b", 1, ANN), scheduled("a", 2, priority=1)
    )


def test_another_agent_may_ask_after_it_has_taken_over():
    """F34."""
    after(start(ONE), begin("a")).when(ask("a", agent=BOB, delivery=2)).then(
        TaskTakenOver("a", 1, BOB, delivery=2, previous=ANN), InputRequested("a", 1, BOB, "?")
    )


def test_an_answer_that_nobody_waits_for_is_refused():
    for so_far in (
        after(start(ONE)),
        after(start(ONE), begin("a")),
        after(start(ONE), done("a")),
        after(start(ONE), ask("a"), CancelExecution()),
    ):
        so_far.when(ProvideInput("a")).refused("NOT_WAITING")
    after(start(ONE)).when(ProvideInput("z")).refused("UNKNOWN_TASK")


def test_a_question_ends_with_its_execution():
    """I8."""
    ended = (
        after(start(CHAIN), ask("a"))
        .when(CancelExecution("x"))
        .then(TaskCancelled("a", 1), ExecutionCancelled("x"))
    )
    ended.when(ask("a")).refused("LATE_ANSWER")


def test_an_answer_and_a_signal_travel_in_an_event_and_are_bounded():
    """F37."""
    large = "x" * INPUT_BYTES_MAX
    after(start(ONE), ask("a")).when(ProvideInput("a", large)).refused("TOO_LARGE", "/input")
    after(start(ONE)).when(SignalExecution("go", large)).refused("TOO_LARGE", "/data")


def test_a_task_that_asks_for_ever_may_ask_no_more():
    """R22, F37: the number of an attempt is bounded, and the policy keeps its share."""
    state = after(start(ONE)).state
    state.attempts[0] = REQUESTS_UP_TO
    assert EXECUTION.decide(state, ask("a", REQUESTS_UP_TO), NOW)
    state.attempts[0] = REQUESTS_UP_TO + 1
    with pytest.raises(Refused, match="TOO_MANY_ATTEMPTS"):
        EXECUTION.decide(state, ask("a", REQUESTS_UP_TO + 1), NOW)


# Signals ----------------------------------------------------------------------------------------

APPROVED = flow(a=[], b={"depends_on": ["a"], "wait_for": "approved"}, c={"wait_for": "go"})


def test_a_task_waits_for_its_signal_as_for_one_more_dependency():
    """R6."""
    waiting = after(start(APPROVED)).when(done("a")).then_kinds(TaskStarted, TaskCompleted)
    waiting.when(SignalExecution("approved", {"by": "eve"})).then(
        SignalReceived("approved", {"by": "eve"}), scheduled("b", phase=2)
    )


def test_a_signal_may_come_before_the_tasks_it_waits_with():
    early = (
        after(start(APPROVED)).when(SignalExecution("approved")).then(SignalReceived("approved"))
    )
    assert early.when(done("a")).events[-1] == scheduled("b", phase=2)


def test_several_tasks_may_wait_for_one_signal():
    found = flow(a={"wait_for": "go"}, b={"wait_for": "go", "priority": 1}, c={"depends_on": ["a"]})
    waiting = after(start(found))
    assert waiting.state.in_flight == 0
    waiting.when(SignalExecution("go")).then(
        SignalReceived("go"), scheduled("b", priority=1), scheduled("a")
    )


def test_the_first_signal_of_a_name_counts():
    """F30."""
    heard = after(start(APPROVED), SignalExecution("go", 1))
    heard.when(SignalExecution("go", 2)).then_nothing()
    heard.when(SignalExecution("approved")).then(SignalReceived("approved"))


def test_a_signal_that_nothing_waits_for_is_a_fact_all_the_same():
    after(start(ONE)).when(SignalExecution("lunch")).then(SignalReceived("lunch"))


def test_a_signal_in_a_pause_is_heard_and_followed_after_it():
    """R11."""
    paused = (
        after(start(APPROVED), PauseExecution())
        .when(SignalExecution("go"))
        .then(SignalReceived("go"))
    )
    paused.when(ResumeExecution()).then(ExecutionResumed(""), scheduled("c"))


def test_a_signal_makes_no_more_room_than_there_is():
    found = flow(a=[], b={"wait_for": "go"}, limit=1)
    heard = after(start(found)).when(SignalExecution("go")).then(SignalReceived("go"))
    assert heard.when(done("a")).events[-1] == scheduled("b")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201])
def test_a_signals_name_is_an_id(name):
    """F32."""
    after(start(ONE)).when(SignalExecution(name)).refused("INVALID_ID", "/name")


def test_signals_end_with_the_execution_and_their_names_are_bounded():
    after(start(ONE), done("a")).when(SignalExecution("go")).refused("EXECUTION_ENDED")
    names = [SignalReceived(f"s{n}") for n in range(SIGNALS_MAX)]
    full = given(*after(start(ONE)).happened, *names)
    full.when(SignalExecution("one more")).refused("TOO_MANY_SIGNALS")
    full.when(SignalExecution("s1")).then_nothing()
    assert after(start(ONE)).when(SignalExecution("s1")).events


def test_phases_are_those_of_the_graph_whatever_is_waited_for():
    done_all = after(
        start(APPROVED), SignalExecution("go"), done("c"), done("a"), SignalExecution("approved")
    )
    kinds = [type(event) for event in done_all.happened]
    assert kinds.count(PhaseEntered) == 2
    done_all.when(CheckExecution()).then_nothing()
    assert done_all.when(done("b")).so().state.status == "completed"


def test_a_role_may_be_missing_while_a_task_waits():
    """F38: the second attempt is bounded in its queue as the first one was."""
    answered = after(start(ONE), ask("a"), ProvideInput("a"))
    ended = answered.when(late("a", 2, "queue")).so()
    assert ended.state.status == "failed"
    assert ended.state.asked == set()
