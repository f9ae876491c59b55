"""Seeds that once found a mistake, each with what it was; they are run for ever."""

KEPT: dict[int, str] = {149: "the checker took a failure before a retry for the last word"}
