"""Who gets the work: which agents are there, which of them is chosen, what waits and why."""
