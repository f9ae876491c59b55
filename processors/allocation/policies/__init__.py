"""How one of several agents is chosen; pure.

`POLICIES` is the one list: a new policy is one new file and one line here.
"""

from processors.allocation.candidate import Choose
from processors.allocation.policies import (
    capability_score,
    least_loaded,
    lowest_cost,
    pull,
    round_robin,
)

POLICIES: dict[str, Choose] = {
    "pull": pull.choose,
    "least_loaded": least_loaded.choose,
    "round_robin": round_robin.choose,
    "capability_score": capability_score.choose,
    "lowest_cost": lowest_cost.choose,
}
