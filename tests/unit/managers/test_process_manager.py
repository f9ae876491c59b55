"""The managers' loop over a log and a Redis in memory: what is folded, sent, saved and restored."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from aggregates.decider import Blueprint
from processors import commands, process_manager
from processors.manager_states import Roster
from processors.managers.manager import Effect, Manager, Send
from processors.process_manager import TOPIC, ProcessManager
from processors.task_sender import TaskSender
from streams.codec import decode_command, decode_event
from streams.leases import Leases
from streams.log import LogUnavailable, SnapshotRow
from streams.logs.memory import MemoryLog
from streams.message import Command, Event
from streams.partition import commands_key
from tests.fake_bus import FakeBus
from tests.partitions import Owner


@dataclass
class Seen:
    """What a toy manager has seen, and when it next wants to say so."""

    positions: list[int] = field(default_factory=list)
    alarms: list[float] = field(default_factory=list)


ALARM_S = 100.0


def said(name: str, what: object) -> Send:
    return Send(Command(f"{name}:{what}", "Anything", "agent", "a", {}))


def toy(name: str, kind: str, version: int = 1, crashes: Container[int] = ()) -> Manager[Seen]:
    """It sends a command for each event of a kind, and one more after ALARM_S."""

    def react(state: Seen, event: Event, found: Blueprint | None, now: float) -> list[Effect]:
        state.positions.append(event.position)
        if event.position in crashes:
            raise RuntimeError("a bug")
        state.alarms.append(now + ALARM_S)
        return [said(name, event.position)]

    def due(state: Seen, now: float) -> list[Effect]:
        over = [at for at in state.alarms if at <= now]
        state.alarms = [at for at in state.alarms if at > now]
        return [said(name, "alarm") for _ in over]

    def dump(state: Seen, now: float) -> Any:
        return {"positions": state.positions, "alarms": [at - now for at in state.alarms]}

    def load(data: Any, found: Any, now: float) -> Seen:
        return Seen(list(data["positions"]), [now + left for left in data["alarms"]])

    return Manager(
        name=name,
        events=frozenset({kind}),
        initial=Seen,
        react=react,
        due=due,
        waiting=lambda state: bool(state.alarms),
        dump=dump,
        load=load,
        version=version,
    )


BIRTHS, ENDS = toy("births", "AgentRegistered"), toy("ends", "AgentDeregistered")


class World:
    """A log of one partition, a Redis, a clock, and one loop of managers after the other."""

    def __init__(self) -> None:
        self.log, self.bus, self.clock = MemoryLog(1), FakeBus(), 0.0
        self.loop: ProcessManager = None  # type: ignore[assignment]
        self.owner: Owner = None  # type: ignore[assignment]

    async def start(self, *managers: Manager[Any]) -> ProcessManager:
        """Take the lease, as after a restart, and open the partition."""
        leases = Leases(self.log, TOPIC, "me", clock=lambda: self.clock)
        [cursor] = await self.log.cursors(TOPIC)
        [leases.held[0]] = await self.log.take([cursor], "me")
        sender = TaskSender(self.log, self.bus, 1)  # type: ignore[arg-type]
        clock = lambda: self.clock  # noqa: E731
        self.loop = ProcessManager(Roster(managers), self.log, sender, leases, 1, clock)
        await self.loop.open(0)
        return self.loop

    async def happen(self, events: int) -> None:
        """So many agents register and deregister, in turns."""
        if self.owner is None:
            self.owner = await Owner(self.log).take()
        head = self.owner.part.cursor.position
        for number in range(head, head + events):
            name = f"agent-{number // 2}"
            born = commands.register_agent(name, name="n", roles=["r"])
            ended = commands.deregister_agent(name)
            await self.owner.say(ended if number % 2 else born)

    async def handle(self) -> None:
        """The loop gets what it has not seen, and its cursor is moved as at the next tick."""
        events = await self.unread()
        await self.loop.handle({0: events})
        await self.loop.move_cursors()

    async def unread(self) -> list[Event]:
        rows = await self.log.read(0, self.loop.positions[0], 100)
        return [decode_event(row.message) for row in rows]

    def sent(self) -> list[str]:
        """The ids of the commands that were sent since this was last asked."""
        key = commands_key(0)
        ids = [decode_command(raw).id for raw in self.bus.messages(key)]
        self.bus.lose(key)
        return ids

    async def saved(self) -> dict[str, SnapshotRow]:
        return await self.log.load(TOPIC, ["births/0", "ends/0"])

    def positions(self, place: int) -> list[int]:
        seen: list[int] = self.loop.parts[0].states[place].positions
        return seen


@pytest.fixture
async def world() -> Any:
    made = World()
    yield made
    made.loop.parts.clear()
    await made.loop.drain()


async def test_each_manager_gets_the_events_that_it_wants_and_one_cursor_moves(
    world: World,
) -> None:
    await world.start(BIRTHS, ENDS)
    await world.happen(4)
    await world.handle()
    assert world.sent() == ["births:1", "ends:2", "births:3", "ends:4"]
    assert (world.positions(0), world.positions(1)) == ([1, 3], [2, 4])
    [cursor] = await world.log.cursors(TOPIC)
    assert cursor.position == 4
    await world.handle()
    assert world.sent() == []


async def test_a_restart_folds_what_was_handled_without_its_effects(world: World) -> None:
    """F7."""
    await world.start(BIRTHS)
    await world.happen(4)
    await world.handle()
    world.sent()
    await world.happen(2)
    await world.start(BIRTHS)
    assert (world.positions(0), world.sent()) == ([1, 3], [])
    await world.handle()
    assert (world.positions(0), world.sent()) == ([1, 3, 5], ["births:5"])


async def test_what_a_killed_loop_sent_before_its_cursor_moved_is_sent_again(world: World) -> None:
    """F7: never lost; whoever gets it twice makes that harmless."""
    await world.start(BIRTHS)
    await world.happen(2)
    await world.loop.handle({0: await world.unread()})
    assert world.sent() == ["births:1"]
    await world.start(BIRTHS)
    await world.handle()
    assert world.sent() == ["births:1"]


async def test_a_new_manager_learns_the_past_and_acts_only_from_now_on(world: World) -> None:
    await world.start(BIRTHS)
    await world.happen(4)
    await world.handle()
    await world.loop.drain()
    world.sent()
    await world.start(BIRTHS, ENDS)
    assert world.positions(0) == [1, 3], "it goes on where its snapshot stands, once each"
    assert (world.positions(1), world.sent()) == ([2, 4], [])
    await world.happen(2)
    await world.handle()
    assert world.sent() == ["births:5", "ends:6"]


async def test_who_stops_saves_where_its_timers_stand(world: World) -> None:
    """R33: a timer goes on with the seconds that were left, later by the pause and never early."""
    await world.start(BIRTHS, ENDS)
    await world.happen(2)
    await world.handle()
    world.sent()
    world.clock = 70.0
    await world.loop.drain()
    assert {row.version for row in (await world.saved()).values()} == {2}
    world.clock = 1_000.0
    await world.start(BIRTHS, ENDS)
    assert world.loop.parts[0].due(1_029.9) == []
    assert world.loop.parts[0].due(1_030.0) == [said("births", "alarm"), said("ends", "alarm")]


async def test_timers_are_saved_now_and_then_while_there_are_any(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_manager, "TICK_S", 0.0)
    await world.start(BIRTHS)
    await world.happen(1)
    await world.handle()
    await turns()
    assert not await world.saved(), "it is too early"
    world.clock = process_manager.SNAPSHOT_S
    await turns()
    saved = (await world.saved())["births/0"]
    left = ALARM_S - process_manager.SNAPSHOT_S
    assert orjson.loads(saved.state)["state"] == {"positions": [1], "alarms": [left]}
    world.clock = ALARM_S
    await turns()
    assert world.sent() == ["births:1", "births:alarm"]
    before = await world.saved()
    world.clock = 10 * ALARM_S
    await turns()
    assert await world.saved() == before, "nothing waits any more"


async def test_nothing_is_saved_of_events_whose_effects_are_not_sent(world: World) -> None:
    """F7, F16: a snapshot passes them, and their effects would never come."""
    await world.start(BIRTHS)
    await world.happen(1)
    world.bus.away = True
    handling = asyncio.create_task(world.loop.handle({0: await world.unread()}))
    await turns()
    await world.loop.drain()
    assert (world.loop.positions[0], await world.saved()) == (1, {})
    world.bus.away = False
    await handling
    assert world.sent() == ["births:1"]
    await world.loop.drain()
    assert (await world.saved())["births/0"].version == 1


async def test_a_snapshot_that_cannot_be_used_is_folded_anew(world: World) -> None:
    """F47: one in which a byte was flipped, and one of another version."""
    await world.start(BIRTHS, ENDS)
    await world.happen(4)
    await world.handle()
    await world.loop.drain()
    world.sent()
    row = (await world.saved())["births/0"]
    damaged = row._replace(state=row.state.replace(b"[1,3]", b"[1,2]"))
    assert damaged != row
    await world.log.save(world.loop.leases.held[0], 4, [damaged])
    await world.start(BIRTHS, toy("ends", "AgentDeregistered", version=2))
    assert world.loop.fallbacks == 2
    assert (world.positions(0), world.positions(1), world.sent()) == ([1, 3], [2, 4], [])


async def test_a_log_that_ends_before_the_cursor_is_not_gone_on_with(world: World) -> None:
    """F28."""
    await world.start(BIRTHS)
    await world.happen(2)
    await world.handle()
    [cursor] = await world.log.cursors(TOPIC)
    ahead = world.log._held(TOPIC, 0, cursor.epoch)
    assert ahead is not None
    ahead.position = 7
    with pytest.raises(LogUnavailable, match="ends at 2"):
        await world.start(BIRTHS)


async def reopened(world: World) -> None:
    """The loop goes on as the feed has it do: what was closed is opened, and read anew."""
    for _ in range(10):
        if 0 not in world.loop.parts:
            await world.loop.open(0)
        await world.handle()
        if 0 in world.loop.parts:
            return


async def parking(world: World) -> tuple[ProcessManager, set[int]]:
    """A manager that cannot handle what happened at 4, to agent-1, has parked that agent."""
    crashes = {4}
    loop = await world.start(BIRTHS, toy("ends", "AgentDeregistered", crashes=crashes))
    await world.happen(4)
    await world.handle()
    assert (await world.log.cursors(TOPIC))[0].position == 0, "nothing of the batch counts"
    assert world.sent() == []
    await reopened(world)
    assert world.sent() == ["births:1", "ends:2", "births:3"]
    for made in (
        commands.register_agent("agent-1", name="n", roles=["r"]),
        commands.deregister_agent("agent-1"),
    ):
        await world.owner.say(made)
    await world.happen(2)
    await world.handle()
    assert world.sent() == ["births:5", "births:7", "ends:8"], "the others go on"
    return loop, crashes


async def want(world: World, wanted: str) -> None:
    """What a person has decided, and the loop looks."""
    [(name, key)] = world.log.parked_keys.items()
    world.log.parked_keys[name] = key._replace(wanted=wanted)
    await world.loop._look()


async def test_what_a_manager_cannot_handle_parks_that_subject_for_that_manager_only(
    world: World,
) -> None:
    """F33, R32, I15: nothing of the mistake stays in the state; the event is a dead letter."""
    loop, _ = await parking(world)
    assert (world.positions(0), world.positions(1)) == ([1, 3, 5, 7], [2, 8])
    [key] = world.log.parked_keys.values()
    assert key == ("ends", 0, "agent/agent-1", 4, None)
    [letter] = world.log.dead_letters.values()
    assert (letter.kind, letter.source, letter.entry) == ("event", "ends", "0-4")
    assert (letter.subject, "a bug" in letter.reason) == ("agent/agent-1", True)
    assert decode_event(letter.raw).position == 4
    await loop.drain()
    await world.start(BIRTHS, ENDS)
    assert world.positions(1) == [2, 8], "also after a restart, by code that could"


@pytest.mark.parametrize(("wanted", "then"), [("retry", [4, 6]), ("skip", [6])])
async def test_a_key_that_is_retried_is_read_on_in_order_with_its_effects(
    world: World, wanted: str, then: list[int]
) -> None:
    """R32, I13: and the snapshot has it in the same instant, so that it is not done twice."""
    _, crashes = await parking(world)
    if wanted == "retry":
        crashes.clear()
    await want(world, wanted)
    assert world.sent() == [f"ends:{position}" for position in then]
    assert world.positions(1) == [2, 8, *then]
    assert world.log.parked_keys == {}
    await world.start(BIRTHS, ENDS)
    assert (world.positions(1), world.sent()) == ([2, 8, *then], [])


async def test_a_key_that_is_retried_in_vain_stays_parked(world: World) -> None:
    """R32: its letter is open again, and the others have lost nothing."""
    await parking(world)
    await want(world, "retry")
    await reopened(world)
    assert world.sent() == []
    [key] = world.log.parked_keys.values()
    assert (key.position, key.wanted) == (4, None)
    assert (world.positions(0), world.positions(1)) == ([1, 3, 5, 7], [2, 8])


async def test_an_outage_while_a_key_is_read_on_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: it is done at the next look."""
    loop, crashes = await parking(world)
    crashes.clear()

    async def away(*_: Any) -> Any:
        raise LogUnavailable("away")

    for call in ("unpark", "history"):
        with monkeypatch.context() as patch:
            patch.setattr(world.log, call, away)
            await want(world, "retry")
        await reopened(world)
        assert world.positions(1) == [2, 8]
    world.sent()
    await loop._look()
    assert (world.positions(1), world.sent()) == ([2, 8, 4, 6], ["ends:4", "ends:6"])


async def test_old_code_stops_at_an_event_that_it_does_not_know(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F42: each manager that follows the aggregate passes over it until it is retried."""
    monkeypatch.setattr(process_manager, "KNOWN", process_manager.KNOWN - {"AgentDrained"})
    await world.start(BIRTHS, ENDS)
    await world.happen(3)
    await world.owner.say(commands.drain_agent("agent-1"), commands.deregister_agent("agent-1"))
    await world.happen(2)
    for _ in range(3):
        await reopened(world)
    assert {(k.consumer, k.subject, k.position) for k in world.log.parked_keys.values()} == {
        ("births", "agent/agent-1", 4),
        ("ends", "agent/agent-1", 4),
    }
    assert 5 not in world.positions(1)
    reasons = [letter.reason for letter in world.log.dead_letters.values()]
    assert all("UNKNOWN_EVENT" in reason for reason in reasons)
    monkeypatch.undo()
    for name, key in list(world.log.parked_keys.items()):
        world.log.parked_keys[name] = key._replace(wanted="retry")
    await world.loop._look()
    assert 5 in world.positions(1)
    assert world.log.parked_keys == {}


async def test_a_mistake_in_one_partitions_timers_has_it_opened_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_manager, "TICK_S", 0.0)
    await world.start(BIRTHS)
    world.loop.parts[0].states[0].alarms = ["no number"]
    await turns()
    assert world.loop.positions == {}


async def turns() -> None:
    """Let everybody who can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_cursor_that_could_not_be_moved_is_moved_when_the_log_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20, I15: also where nothing happens any more, or the lag would stay for ever."""
    await world.start(BIRTHS)
    await world.happen(2)

    async def away(*_: object) -> set[int]:
        raise LogUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(world.log, "advance", away)
        await world.handle()
    assert [cursor.position for cursor in await world.log.cursors(TOPIC)] == [0]
    await world.loop.move_cursors()
    assert [cursor.position for cursor in await world.log.cursors(TOPIC)] == [2]
