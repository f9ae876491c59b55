"""The schema, one numbered file a step, forward only; applied by `orchestrator migrate`."""
