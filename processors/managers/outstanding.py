"""Commands that were sent and not answered yet: sent again, under the same id, until they are.

Redis may lose a command at any moment, and only the log says what arrived. So a command stays here
until the event that answers it is seen; a receiver answers a repeat with its first outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from msgspec import structs

from processors.managers.manager import Effect, Send
from streams.message import Command, Event

RESEND_S = 5.0
RESEND_S_MAX = 60.0  # where Redis is away for long, a little each time, and for ever


@dataclass(slots=True)
class Sent:
    """A command, and how often it was sent again."""

    command: Command
    repeats: int = 0


@dataclass(slots=True)
class Outstanding:
    """What was sent, by aggregate and by a name that the manager gives to what it is about.

    At most one command stands under a name: a newer one takes the place of the older.
    """

    sent: dict[str, dict[str, Sent]] = field(default_factory=dict)
    timers: list[tuple[float, str, str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.sent)

    def send(self, name: str, command: Command, now: float) -> Send:
        """Send a command, and keep it until it is answered."""
        self.sent.setdefault(command.root, {})[name] = Sent(command)
        heappush(self.timers, (now + RESEND_S, command.root, name, command.id))
        return Send(command)

    def answered(self, root: str, name: str) -> None:
        """What was sent under this name has had its effect, or is not needed any more."""
        of_root = self.sent.get(root)
        if of_root is not None and of_root.pop(name, None) is not None and not of_root:
            del self.sent[root]

    def ended(self, root: str) -> None:
        """Nothing is wanted of this aggregate any more."""
        self.sent.pop(root, None)

    def refused(self, event: Event) -> str | None:
        """The name of the command that a CommandRejected is about, which is not sent again.

        None where it is about somebody else's.
        """
        of_root = self.sent.get(event.root, {})
        for name, sent in of_root.items():
            if sent.command.id == event.data.get("command_id"):
                self.answered(event.root, name)
                return name
        return None

    def due(self, now: float) -> list[Effect]:
        """What is to be sent again."""
        effects: list[Effect] = []
        while self.timers and self.timers[0][0] <= now:
            _, root, name, command_id = heappop(self.timers)
            sent = self.sent.get(root, {}).get(name)
            if sent is None or sent.command.id != command_id:
                continue
            sent.repeats += 1
            effects.append(Send(sent.command))
            heappush(self.timers, (now + _pause_s(sent.repeats), root, name, command_id))
        return effects

    def dump(self) -> Any:
        """What is outstanding as JSON-able data; after a restart everything is due at once."""
        return [
            [name, structs.asdict(sent.command)]
            for of_root in self.sent.values()
            for name, sent in of_root.items()
        ]

    @classmethod
    def load(cls, data: Any, now: float) -> Outstanding:
        """What `dump` described."""
        made = cls()
        for name, fields in data:
            command = Command(**fields)
            made.sent.setdefault(command.root, {})[name] = Sent(command)
            heappush(made.timers, (now, command.root, name, command.id))
        return made


def _pause_s(repeats: int) -> float:
    return min(RESEND_S * 2.0 ** min(repeats, 10), RESEND_S_MAX)
