"""Who gets a task, which answers are remembered, and what simulated agents do."""

from __future__ import annotations

from processors.agents import Agent, Assignment
from processors.agents.agent import Pool
from processors.agents.outbox import MEMORY_ANSWERS_MAX, Memory

TASK = Assignment("e", "t", 1, "r", "default", {}, {}, 30.0, "commands:{7}")


def test_the_least_loaded_agent_goes_first_and_equals_take_turns() -> None:
    pool = Pool([Agent(name, ("r",), str, capacity=2) for name in ("a", "b", "c")])
    begun = []
    for _ in range(6):
        seat = pool.take()
        pool.begin(seat)
        pool.put(seat)
        begun.append(seat)

    assert [seat.agent.agent_id for seat in begun] == ["a", "b", "c", "a", "b", "c"]
    assert pool.free == 0
    pool.end(begun[1])
    assert pool.take() is begun[1]


def test_a_pool_stays_small_however_long_it_works() -> None:
    pool = Pool([Agent("a", ("r",), str, capacity=10)])
    for _ in range(10_000):
        seat = pool.take()
        pool.begin(seat)
        pool.put(seat)
        pool.end(seat)

    assert len(pool._heap) < 100


def test_the_oldest_answers_are_forgotten() -> None:
    memory = Memory()
    for number in range(MEMORY_ANSWERS_MAX + 1):
        memory.put(str(number), b"answer", 1)

    assert memory.get("0") is None
    assert memory.get(str(MEMORY_ANSWERS_MAX)) == (b"answer", 1)
