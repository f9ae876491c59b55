"""Process managers (sagas): events in, commands and tasks out; pure, like the aggregates.

`MANAGERS` is the one list: a new process manager is one new file and one line here.
"""

from typing import Any

from processors.managers.compensation import COMPENSATION
from processors.managers.deadlines import DEADLINES
from processors.managers.dispatch import DISPATCH
from processors.managers.health import HEALTH
from processors.managers.manager import Manager

MANAGERS: tuple[Manager[Any], ...] = (DISPATCH, DEADLINES, COMPENSATION, HEALTH)
