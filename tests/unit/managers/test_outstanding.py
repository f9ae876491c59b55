"""What was sent stays outstanding until it is answered, whatever is lost in between."""

from __future__ import annotations

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from processors.managers.manager import Send
from processors.managers.outstanding import RESEND_S, RESEND_S_MAX, Outstanding
from streams.message import Command
from tests.spec import rejection

ROOTS, NAMES = ["e1", "e2"], ["", "a", "b"]


def command(number: int, root: str = "e1") -> Command:
    return Command(f"c{number}", "Do", "execution", root, {"n": number}, "acme", "me", None, "0-7")


def test_a_command_is_sent_again_less_and_less_often_and_for_ever():
    """R33, F12."""
    waiting = Outstanding()
    assert waiting.send("a", command(1), 100.0) == Send(command(1))
    now, pause = 100.0, RESEND_S
    for _ in range(20):
        assert waiting.due(now + pause - 0.001) == []
        now += pause
        assert waiting.due(now) == [Send(command(1))]
        pause = min(2 * pause, RESEND_S_MAX)
    assert pause == RESEND_S_MAX


def test_an_answered_command_is_not_sent_again():
    waiting = Outstanding()
    waiting.send("a", command(1), 0.0)
    waiting.send("b", command(2), 0.0)
    waiting.answered("e1", "a")
    waiting.answered("e1", "never sent")
    waiting.answered("nobody", "a")
    assert waiting.due(1_000.0) == [Send(command(2))]
    waiting.ended("e1")
    assert not waiting
    assert waiting.due(10_000.0) == []
    assert waiting.timers == []


def test_a_newer_command_takes_the_place_of_the_older():
    waiting = Outstanding()
    waiting.send("a", command(1), 0.0)
    waiting.send("a", command(2), 1.0)
    assert waiting.due(RESEND_S) == []
    assert waiting.due(1.0 + RESEND_S) == [Send(command(2))]


def test_what_was_refused_is_not_sent_again():
    waiting = Outstanding()
    waiting.send("a", command(1), 0.0)
    assert waiting.refused(rejection("c9", "e1")) is None
    assert waiting.refused(rejection("c1", "e2")) is None
    assert waiting.refused(rejection("c1", "e1")) == "a"
    assert not waiting


def test_after_a_restart_everything_is_sent_at_once_under_the_same_ids():
    """F7: nobody knows whether it was."""
    waiting = Outstanding()
    waiting.send("a", command(1), 0.0)
    waiting.send("", command(2, "e2"), 0.0)
    again = Outstanding.load(orjson.loads(orjson.dumps(waiting.dump())), 50.0)
    assert again.due(50.0) == [Send(command(1)), Send(command(2, "e2"))]
    assert again.due(50.0 + RESEND_S) == []
    assert len(again.due(50.0 + 2 * RESEND_S)) == 2


class Model(RuleBasedStateMachine):
    """Beside a dictionary of what ought to be outstanding."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Outstanding()
        self.wanted: dict[tuple[str, str], str] = {}
        self.now = 0.0
        self.number = 0

    @rule(root=st.sampled_from(ROOTS), name=st.sampled_from(NAMES))
    def send(self, root: str, name: str) -> None:
        self.number += 1
        self.real.send(name, command(self.number, root), self.now)
        self.wanted[root, name] = f"c{self.number}"

    @rule(root=st.sampled_from(ROOTS), name=st.sampled_from(NAMES))
    def answer(self, root: str, name: str) -> None:
        self.real.answered(root, name)
        self.wanted.pop((root, name), None)

    @rule(root=st.sampled_from(ROOTS), number=st.integers(1, 9))
    def refuse(self, root: str, number: int) -> None:
        names = [n for (r, n), c in self.wanted.items() if (r, c) == (root, f"c{number}")]
        assert self.real.refused(rejection(f"c{number}", root)) == (names[0] if names else None)
        for name in names:
            del self.wanted[root, name]

    @rule(root=st.sampled_from(ROOTS))
    def end(self, root: str) -> None:
        self.real.ended(root)
        self.wanted = {key: c for key, c in self.wanted.items() if key[0] != root}

    @rule(seconds=st.floats(0.0, 2 * RESEND_S_MAX))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        sent = [effect.command.id for effect in self.real.due(self.now)]
        assert set(sent) <= set(self.wanted.values())
        assert len(sent) == len(set(sent)), "twice at once"

    @rule()
    def restart(self) -> None:
        self.real = Outstanding.load(orjson.loads(orjson.dumps(self.real.dump())), self.now)

    @rule()
    def all_is_repeated_in_the_end(self) -> None:
        self.now += RESEND_S_MAX
        sent = {effect.command.id for effect in self.real.due(self.now)}
        assert sent == set(self.wanted.values())

    @invariant()
    def the_same_is_outstanding(self) -> None:
        held = {(r, n): s.command.id for r, of in self.real.sent.items() for n, s in of.items()}
        assert held == self.wanted
        assert bool(self.real) == bool(self.wanted)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, deadline=None)
