"""Pure decisions: commands in, events out. No I/O, no clock, no randomness.

`DECIDERS` is the one list: a new aggregate is one new file and one line here.
"""

from aggregates.agent import AGENT
from aggregates.dead_letter import DEAD_LETTER
from aggregates.decider import Decider
from aggregates.execution import EXECUTION
from aggregates.tenant import TENANT
from aggregates.workflow import WORKFLOW

DECIDERS: tuple[Decider, ...] = (WORKFLOW, EXECUTION, AGENT, DEAD_LETTER, TENANT)  # type: ignore[type-arg]
