"""Following events as they are committed: one reader of the log a process, fanned out in memory."""
