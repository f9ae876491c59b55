"""Seeds that once found a mistake, each with what it was; they are run for ever."""

KEPT: dict[int, str] = {}
