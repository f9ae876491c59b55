"""Process managers (sagas): events in, commands and tasks out; pure, like the aggregates."""
