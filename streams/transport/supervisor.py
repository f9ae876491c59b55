"""What happens when an agent crashes: nothing is skipped.

Faust would begin the agent again with the *next* message. Here the crash is logged, the agent's
feed goes back to its durable positions, and a new agent with no state reads from there, after a
pause that grows. One that keeps crashing ends the process, for whatever supervises that.
"""

# mypy: disallow-subclassing-any=False
# (mode carries no types that mypy may follow)

from __future__ import annotations

from time import monotonic
from typing import Any

from mode.supervisors import OneForOneSupervisor

CRASHES_MAX = 10  # in a row; with the pauses below, about half a minute
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 5.0
STEADY_S = 60.0  # an agent that lasted so long has recovered: its crashes are counted afresh

ENDED = "the agent returned while its app runs: nobody would read its feed any more"


class Supervisor(OneForOneSupervisor):
    """Begins a crashed agent again, together with its feed."""

    mundane_level = "debug"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crashes = 0
        self._crashed_at = 0.0

    def service_operational(self, service: Any) -> bool:
        """Whether an agent is still at work; one that returned is not."""
        return not (service.crashed or service.actor_task.done())

    async def restart_service(self, service: Any) -> None:
        """Pause, begin a new agent, and read its topics again from their durable positions."""
        app = service.agent.app
        if app.should_stop:
            return
        reason = service.crash_reason or RuntimeError(ENDED)
        now = monotonic()
        self._crashes = self._crashes + 1 if now - self._crashed_at < STEADY_S else 1
        self._crashed_at = now
        topics = getattr(service.stream.channel, "topics", ())
        await app.consumer.drop(topics)
        if self._crashes > CRASHES_MAX:
            self.log.critical("%r crashed %s times in a row, giving up", service.agent, CRASHES_MAX)
            await app.crash(reason)
            return
        pause_s = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** (self._crashes - 1))
        self.log.error("%r begins again in %.1f s: %r", service.agent, pause_s, reason)
        await self.sleep(pause_s)
        if self.should_stop or app.should_stop:
            return
        # The crashed agent's iterator is still open (its frame lives in the traceback); left so, it
        # would be closed at some later time and stop the stream under the new agent.
        await service.stream.stop()
        service.stream.service_reset()
        # Not by mode's own restart: its rate limit would exit on two crashes within 10 ms.
        at = self._index[service]
        self.insert(at, await self.replacement(service, at))
        await self._services[at].maybe_start()
        app.consumer.rewind(topics)
