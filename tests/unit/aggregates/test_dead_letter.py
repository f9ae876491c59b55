"""Decisions on dead letters: who and why, once each, and none after a letter was given up (R32)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aggregates.dead_letter import (
    DEAD_LETTER,
    RETRIES_MAX,
    DeadLetter,
    DeadLetterDiscarded,
    DeadLetterRetried,
    DiscardDeadLetter,
    RetryDeadLetter,
)
from aggregates.decider import fold
from aggregates.problem import Refused
from processors.commands import command
from processors.vocabulary import Vocabulary
from tests.spec import NOW, ROOT, after, given

RETRIED = DeadLetterRetried("ann", "fixed", 1)
GIVEN_UP = DeadLetterDiscarded("bob", "a test")


def retry(attempt: int | None = None, reason: str = "fixed", by: str | None = "ann") -> Any:
    return RetryDeadLetter(reason, attempt, by)


def discard(reason: str = "a test", by: str | None = "bob") -> Any:
    return DiscardDeadLetter(reason, by)


def test_a_letter_is_tried_again_by_somebody_for_a_reason():
    after().when(retry()).then(RETRIED)
    after().when(retry(1)).then(RETRIED)


def test_two_who_saw_the_same_letter_try_it_again_once():
    given(RETRIED).when(retry(1, by="bob")).then_nothing()
    given(RETRIED).when(retry(2)).then(DeadLetterRetried("ann", "fixed", 2))
    given(RETRIED).when(retry()).then(DeadLetterRetried("ann", "fixed", 2))


def test_no_attempt_is_left_out():
    after().when(retry(2)).refused("INVALID_VALUE", "/attempt")
    after().when(retry(0)).refused("INVALID_VALUE", "/attempt")


def test_attempts_are_bounded():
    last = DeadLetterRetried("ann", "fixed", RETRIES_MAX)
    given(last).when(retry()).refused("INVALID_VALUE")
    given(last).when(discard()).then(GIVEN_UP)


def test_what_was_given_up_stays_so():
    after().when(discard()).then(GIVEN_UP).when(discard(by="ann")).then_nothing()
    given(GIVEN_UP).when(retry()).refused("DEAD_LETTER_DISCARDED")
    given(RETRIED).when(discard()).then(GIVEN_UP)


@pytest.mark.parametrize("by", [None, ""])
def test_nobody_decides_nothing(by):
    after().when(retry(by=by)).refused("MISSING_ACTOR")
    after().when(discard(by=by)).refused("MISSING_ACTOR")


def test_every_decision_has_a_reason():
    after().when(retry(reason=" ")).refused("MISSING_FIELD", "/reason")
    after().when(discard(reason="x" * 501)).refused("TOO_LARGE", "/reason")


def test_who_decides_is_who_the_envelope_says():
    """R60: nobody decides in another's name by writing it into the data."""
    said = command("dead_letter", "x", "RetryDeadLetter", {"reason": "fixed"})
    said.actor = "ann"
    assert Vocabulary().command(said) == RetryDeadLetter("fixed", None, "ann")
    said.data["_actor"] = "root"
    with pytest.raises(Refused, match="UNKNOWN_FIELD"):
        Vocabulary().command(said)


COMMANDS = st.one_of(
    st.builds(retry, st.none() | st.integers(-1, 4), st.sampled_from(["fixed", ""])),
    st.builds(discard, by=st.sampled_from(["ann", None])),
)


class Story(RuleBasedStateMachine):
    """I4, I13: whatever is said in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = DeadLetter(ROOT)
        self.stored: list[Any] = []

    @rule(command=COMMANDS)
    def say(self, command: Any) -> None:
        before = DEAD_LETTER.dump(self.state)
        try:
            events = DEAD_LETTER.decide(self.state, command, NOW)
        except Refused:
            assert DEAD_LETTER.dump(self.state) == before
            return
        assert len(events) <= 1
        for event in events:
            assert not before["discarded"], "nothing follows on being given up"
            assert event.by
            assert event.reason
            self.state = DEAD_LETTER.evolve(self.state, event)
            self.stored.append(type(event)(**orjson.loads(orjson.dumps(event))))
        if not (isinstance(command, RetryDeadLetter) and command.attempt is None):
            assert DEAD_LETTER.decide(self.state, command, NOW) == [], "said again"

    @invariant()
    def the_fold_is_the_state(self) -> None:
        restored = DEAD_LETTER.load(ROOT, orjson.loads(orjson.dumps(self.dumped())), None)
        assert self.state == fold(DEAD_LETTER, ROOT, self.stored) == restored
        retried = [event for event in self.stored if isinstance(event, DeadLetterRetried)]
        assert [event.attempt for event in retried] == list(range(1, len(retried) + 1))

    def dumped(self) -> Any:
        return DEAD_LETTER.dump(self.state)


Story.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestStory = Story.TestCase
