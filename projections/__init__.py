"""Read models: events in, rows out.

`PROJECTIONS` is the one list: a new read model is one new file and one line here.
"""

from projections.agents import AGENTS
from projections.dead_letters import DEAD_LETTERS
from projections.executions import EXECUTIONS
from projections.histories import HISTORIES
from projections.projection import Projection
from projections.tasks import TASKS
from projections.tenants import TENANTS
from projections.workflows import WORKFLOWS

PROJECTIONS: tuple[Projection, ...] = (
    *(WORKFLOWS, EXECUTIONS, TASKS, AGENTS),
    *(DEAD_LETTERS, HISTORIES, TENANTS),
)
